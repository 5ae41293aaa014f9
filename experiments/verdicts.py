"""What to buy with some times the plain hybrid's compute, by all kept comparisons: one line each.

`python -m adaptive_sleep.experiments.verdicts` prints the table that README shows.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from typing import Any

import numpy as np

from adaptive_sleep.experiments.compare import from_results
from adaptive_sleep.experiments.compare_rows import CLAIM_SEEDS, half
from adaptive_sleep.experiments.console import guarded
from adaptive_sleep.experiments.matched_reading import chosen, comparable, deployable, differences
from adaptive_sleep.experiments.matched_table import COMPUTE
from adaptive_sleep.experiments.reproduce import interval
from adaptive_sleep.streams.errors import InputError, nearest

Row = Mapping[str, Any]
HEAD = ("comparison", "at", "sleep", "best of all else", "sleep is ahead by")
FINE = 0.001  # comparisons that tell less than this apart show a digit more


def kept() -> list[str]:
    """The names of all kept comparisons at matched cost."""
    folder = resources.files("adaptive_sleep.experiments") / "results"
    names = (file.name for file in folder.iterdir())
    return sorted(n.removesuffix(".json") for n in names if n.startswith("matched_"))


def verdict_table(names: Sequence[str]) -> str:
    """A line for every target of every comparison, and one more where baselines were trained with
    as much compute: the policy that did best on validation, the baseline that does best on the
    test (of all, whichever side of the target it is on), each with its knob, score and FLOPs per
    event in units of the plain hybrid's, and their difference over seeds with its 95 % t-interval,
    bold where that leaves out zero and the two may be compared: they cost the same within 2 %, or
    the one that is ahead costs less. Raises InputError for a name of which nothing is kept at
    matched cost."""
    lines = [HEAD, ("---",) * len(HEAD)]
    for name in names:
        found = from_results(name)
        if not found["recipe"].get("targets"):
            raise InputError(f"{name!r}: holds no rows at matched cost{nearest(name, kept())}")
        lines += list(_lines(found))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _lines(found: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    plain = next(row for row in found["rows"] if row["name"] == "fixed-1")["flops_per_event"]
    digits = 4 if found["recipe"]["within"] < FINE else 3

    def shown(row: Row) -> str:
        name, knob = row["name"].rpartition("@")[0], row["knob"]
        named = f"{name} {knob:g}" if row["kind"] == "baseline" else f"`{name}`"
        return f"{named}: {row['score']:.{digits}f} for {row['flops_per_event'] / plain:.2f}x"

    for target in dict.fromkeys(row["target"] for row in found["rows"] if row.get("target")):
        here = [row for row in found["rows"] if row.get("target") == target]
        if not any(deployable(row) for row in here):
            continue
        ours = chosen(here)
        for compute in (False, True):
            theirs = [
                row for row in here
                if row["kind"] == "baseline" and (COMPUTE in row["name"]) is compute
            ]  # fmt: skip
            if theirs:
                best = max(theirs, key=lambda row: float(row["score"]))
                fair = comparable(ours, best)
                gap = _ahead(differences(ours, best), digits, fair=fair)
                yield found["comparison"], f"{target:g}x", shown(ours), shown(best), gap


def _ahead(gaps: Sequence[float], digits: int, *, fair: bool) -> str:
    ends, mean = interval(gaps), float(np.mean(gaps))
    if ends is None:
        return f"{mean:+.{digits}f}"
    told = f"{mean:+.{digits}f} ±{half(ends) or 0.0:.{digits}f}"
    return f"**{told}**" if fair and ends[0] * ends[1] > 0 and len(gaps) >= CLAIM_SEEDS else told


def main() -> None:
    """Print the table of the comparisons that are named, or of all."""
    sys.stdout.write(verdict_table(sys.argv[1:] or kept()) + "\n")


if __name__ == "__main__":
    sys.exit(guarded(main))
