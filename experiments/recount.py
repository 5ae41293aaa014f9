"""What kept comparisons cost by today's formulas: `python -m adaptive_sleep.experiments.recount
NAME...` counts the FLOPs of their rows once more and writes them where they are kept.

Scores, training and what was chosen stand as they were found; a row costs what its windows cost,
which needs no trained model. For where a formula of the ledger, or what a pass computes, is put
right after a comparison has run.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from adaptive_sleep.experiments.baselines.registry import find_baseline
from adaptive_sleep.experiments.baselines.setup import AWAKE, Setup
from adaptive_sleep.experiments.compare_baselines import few_streams, uneven
from adaptive_sleep.experiments.compare_bench import ledger_of
from adaptive_sleep.experiments.compare_models import training_recipe
from adaptive_sleep.experiments.compare_rows import read_rows
from adaptive_sleep.experiments.compare_streams import Source, source
from adaptive_sleep.experiments.comparing import Comparison
from adaptive_sleep.experiments.console import guarded
from adaptive_sleep.experiments.matched_reading import plain_name, read_matched
from adaptive_sleep.experiments.matched_table import COMPUTE
from adaptive_sleep.experiments.matching import untaught
from adaptive_sleep.experiments.reproduce import commit, interval
from adaptive_sleep.streams.errors import InputError, nearest
from adaptive_sleep.streams.manifest import write_atomically


@dataclass(frozen=True)
class Count:
    """FLOPs per event: of wake passes, and all together."""

    wake: float
    flops: float


class Counter:
    """Counts setups on some streams of a comparison, each once."""

    def __init__(self, comparison: Comparison, where: Source) -> None:
        self._comparison, self._where = comparison, where
        self._known = dict[str, Count]()
        self._training = training_recipe(comparison.models.recipe)

    def asleep(self) -> Count:
        """The model that sleeps, at one pass."""
        return self._count("", Setup(self._training))

    def baseline(self, name: str, knob: int) -> Count | None:
        """A baseline, by the name of its row; None where it is the model that sleeps."""
        plain, *_ = plain_name(name).replace(COMPUTE, "").partition("@")
        setup = find_baseline(plain).setup(self._training, knob)
        if setup.recipe == self._training:
            return None
        return self._count(f"{plain}({knob})", setup)

    def _count(self, name: str, setup: Setup) -> Count:
        if name not in self._known:
            assert setup.policy == AWAKE  # nothing sleeps: only lengths matter
            where, plan = self._where, self._comparison
            with untaught(
                setup, where.recording, start=where.start, stop=where.stop, gap_seconds=plan.gap,
                seed=plan.seed,
            ) as run:  # fmt: skip
                ledger = ledger_of(run)
            self._known[name] = Count(ledger.wake / ledger.events, ledger.flops / ledger.events)
        return self._known[name]


def _counters(
    comparison: Comparison, folder: Path, seeds: Sequence[str], *, quick: bool
) -> dict[str, Counter]:
    """A counter for each training seed: one for all on a few streams, or, where samples differ in
    their windows, one on the streams that the model of the seed was tested on."""
    if not uneven(comparison):
        counter = Counter(comparison, few_streams(comparison, folder, quick=quick))
        return dict.fromkeys(seeds, counter)
    return {
        seed: Counter(
            comparison,
            source(comparison, folder / f"seed-{seed}", "test", int(seed), quick=quick),
        )
        for seed in seeds
    }


def recount(kept: Mapping[str, Any], at: str) -> dict[str, Any]:
    """What `compare` wrote, with the FLOPs of its rows counted once more, by the code of the commit
    `at`, and what it says of them.

    Rows of the model that sleeps change by what one pass over each window changes by; what their
    sleep passes cost stands. What is charged to a policy for its signals changes as these do. The
    hull of fixed passes is left as it was found. Raises InputError for a comparison without a
    recipe of models.
    """
    told: dict[str, Any] = json.loads(json.dumps(kept))
    comparison = msgspec.convert(told["recipe"], Comparison)
    if not comparison.models.recipe:
        raise InputError("[models] recipe: missing; only models of a recipe are counted again")
    (once,) = (row for row in told["rows"] if row["name"] == "fixed-1")
    before = {seed: own["flops_per_event"] for seed, own in once["seeds_values"].items()}
    tables = [told["rows"], *told["changes"].values()]
    with tempfile.TemporaryDirectory() as folder:
        counters = _counters(comparison, Path(folder), list(before), quick=told["quick"])
        for row in (row for table in tables for row in table):
            knob = row.get("knob")
            for seed, own in row["seeds_values"].items():
                asleep = counters[seed].asleep()
                count = None if knob is None else counters[seed].baseline(row["name"], int(knob))
                change = asleep.flops - before[seed]
                _put(row["kind"], own, count, change, asleep if comparison.task else None)
            _average(row)
    rows = told["rows"]
    told["reading"] = [
        *read_rows(rows, told["max_passes"], comparison.within),
        *read_matched(rows),
        *(f"No row {name}: {reason}." for name, reason in told.get("left_out", {}).items()),
    ]
    return {**told, "recounted_at_commit": at}


def _put(
    kind: str, own: dict[str, Any], count: Count | None, change: float, asked: Count | None
) -> None:
    """Set the costs of one seed's row."""
    if count is not None:
        own["flops_per_event"], own["wake_flops_per_event"] = count.flops, count.wake
        return
    own["flops_per_event"] += change
    if "wake_flops_per_event" in own and asked is not None:
        own["wake_flops_per_event"] = asked.wake
    if kind == "policy" and asked is None:  # of a series only signals can have changed
        own["sleep_flops_per_event"] += change
        own["sleep_share"] = own["sleep_flops_per_event"] / own["fixed_sleep"]


def _average(row: dict[str, Any]) -> None:
    """Means over seeds of what was set."""
    values = row["seeds_values"].values()
    for name in ("flops_per_event", "wake_flops_per_event", "sleep_flops_per_event", "sleep_share"):
        if row.get(name) is not None:
            row[name] = float(np.mean([own[name] for own in values]))
    if row.get("sleep_share") is not None:
        row["sleep_share_interval"] = interval([own["sleep_share"] for own in values])


def main(names: Iterable[str]) -> None:
    """Count the kept comparisons of these names once more. Raises InputError for what is none."""
    at = commit()  # before anything here is rewritten
    for name in names:
        file = Path(str(resources.files("adaptive_sleep.experiments") / "results" / f"{name}.json"))
        if not file.is_file():
            known = [path.stem for path in file.parent.glob("*.json")]
            raise InputError(
                f"recount {name!r}: nothing of that name is kept{nearest(name, known)}"
            )
        text = file.read_text(encoding="utf-8")
        kept, indent = json.loads(text), 1 if text.count("\n") > 1 else None
        found = recount(kept, at)
        write_atomically(file, (json.dumps(found, indent=indent) + "\n").encode())
        for old, new in zip(kept["rows"], found["rows"], strict=True):
            costs = (f"{row['flops_per_event']:,.0f}" for row in (old, new))
            print(f"{name} {old['name']}: {' -> '.join(costs)}")


if __name__ == "__main__":
    sys.exit(guarded(partial(main, sys.argv[1:])))
