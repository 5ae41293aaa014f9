"""Seeds of a probe: jobs that are kept as they end, and means over seeds with their intervals.

Each job is one file of JSON, so that a killed probe goes on with the jobs that lack.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from adaptive_sleep.experiments.jobs import Given, one_thread, side_by_side
from adaptive_sleep.experiments.reproduce import Report, interval
from adaptive_sleep.streams.manifest import write_file

SEEDS = 5
Key = tuple[str, int]  # what is probed, and the trained seed
Job = Callable[..., dict[str, Any]]


def kept_jobs(
    do: Job,
    work: Mapping[Key, Given],
    told: Mapping[Key, Mapping[str, Any]],
    out: Path,
    *,
    jobs: int | None = None,
    on_progress: Report | None = None,
) -> dict[Key, dict[str, Any]]:
    """Do every job on one thread, `jobs` of them side by side (None: one for each core), and keep
    each in `out`/NAME-seed-S.json; a job that is there already, and was told the same, is taken up.

    `do` is a function of a module that returns JSON; `told` says what decides its result.
    """
    out.mkdir(parents=True, exist_ok=True)
    given = {
        key: (
            do,
            str(out / f"{key[0]}-seed-{key[1]}.json"),
            json.loads(json.dumps(told[key])),
            each,
        )
        for key, each in work.items()
    }
    found: dict[Key, dict[str, Any]] = {}
    for key, done in side_by_side(_kept, given, jobs):
        found[key] = done
        if on_progress is not None:
            on_progress(len(found), len(work), f"{key[0]}, seed {key[1]}")
    return {key: found[key] for key in work}


def _kept(do: Job, file: str, told: Mapping[str, Any], given: Given) -> dict[str, Any]:
    path = Path(file)
    if path.is_file():
        before: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if before.get("told") == told:
            return before
    with one_thread():
        found = {**do(*given), "told": told}
    write_file(path, (json.dumps(found, indent=1) + "\n").encode())
    return found


def over_seeds(values: Sequence[float]) -> dict[str, Any]:
    """The `mean` of one figure a seed, its 95 % t-`interval` (None for one seed), and `by_seed`."""
    each = [float(value) for value in values]
    return {"mean": float(np.mean(each)), "interval": interval(each), "by_seed": each}


def shown(found: Mapping[str, Any] | None, digits: int = 3, sign: str = "") -> str:
    """A figure over seeds for a table: the mean, and half the interval where there is one."""
    if found is None:
        return ""
    ends = found["interval"]
    width = f" ±{ends[1] - found['mean']:.{digits}f}" if ends else ""
    return f"{found['mean']:{sign}.{digits}f}{width}"
