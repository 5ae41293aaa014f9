"""What probes share: results that are taken up, and means over seeds. Nothing is measured here."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from adaptive_sleep.experiments.reproduce import interval
from adaptive_sleep.streams.manifest import write_file

Table = Mapping[str, Mapping[str, float]]  # values by row and column


def kept_or_done(
    kept: Path, told: Mapping[str, Any], do: Callable[[], Mapping[str, Any]]
) -> dict[str, Any]:
    """What is in the file `kept` if it was `told` the same, else what `do` finds, which is kept.

    `told` says all that the result follows from, as JSON has it.
    """
    if kept.is_file():
        before: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
        if {name: before.get(name) for name in told} == dict(told):
            return before
    found = {**told, **do()}
    kept.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(found, indent=1) + "\n"
    write_file(kept, text.encode())
    again: dict[str, Any] = json.loads(text)  # as it is when it is taken up
    return again


def over_seeds(tables: Sequence[Table]) -> dict[str, Any]:
    """Means of tables over seeds, cell by cell: `mean`, `interval` (95 % t-intervals, None for one
    seed) and `by_seed`, each by row and column."""
    cells = {
        row: {column: [table[row][column] for table in tables] for column in columns}
        for row, columns in tables[0].items()
    }
    return {
        "mean": {r: {c: float(np.mean(v)) for c, v in cols.items()} for r, cols in cells.items()},
        "interval": {r: {c: interval(v) for c, v in cols.items()} for r, cols in cells.items()},
        "by_seed": cells,
    }


def difference(one: Table, other: Table) -> dict[str, dict[str, float]]:
    """`one` less `other`, cell by cell."""
    return {r: {c: v - other[r][c] for c, v in cols.items()} for r, cols in one.items()}


def shown(value: float, ends: Sequence[float] | None, digits: int = 3) -> str:
    """A mean and half its interval, if there is one."""
    half = f" ±{ends[1] - value:.{digits}f}" if ends is not None else ""
    return f"{value:.{digits}f}{half}"
