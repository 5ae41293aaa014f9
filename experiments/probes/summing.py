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
    done = do()
    if clash := sorted(set(told) & set(done)):
        raise ValueError(f"{kept}: told and found are both named {', '.join(clash)}")
    found = {**told, **done}
    kept.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(found, indent=1) + "\n"
    write_file(kept, text.encode())
    again: dict[str, Any] = json.loads(text)  # as it is when it is taken up
    return again


def over_seeds(values: Sequence[float]) -> dict[str, Any]:
    """The `mean` of one figure a seed, its 95 % t-`interval` (None for one seed), and `by_seed`."""
    each = [float(value) for value in values]
    return {"mean": float(np.mean(each)), "interval": interval(each), "by_seed": each}


def tables_over_seeds(tables: Sequence[Table]) -> dict[str, Any]:
    """`over_seeds` of tables, cell by cell: `mean`, `interval` and `by_seed`, each by row and
    column."""
    cells = {
        row: {column: over_seeds([table[row][column] for table in tables]) for column in columns}
        for row, columns in tables[0].items()
    }
    return {
        what: {r: {c: cell[what] for c, cell in cols.items()} for r, cols in cells.items()}
        for what in ("mean", "interval", "by_seed")
    }


def difference(one: Table, other: Table) -> dict[str, dict[str, float]]:
    """`one` less `other`, cell by cell."""
    return {r: {c: v - other[r][c] for c, v in cols.items()} for r, cols in one.items()}


def shown(value: float, ends: Sequence[float] | None, digits: int = 3, sign: str = "") -> str:
    """A mean and half its interval, if there is one."""
    half = f" ±{ends[1] - value:.{digits}f}" if ends is not None else ""
    return f"{value:{sign}.{digits}f}{half}"


def figure(found: Mapping[str, Any] | None, sign: str = "") -> str:
    """What `over_seeds` gave, for a table; "" for nothing."""
    return "" if found is None else shown(found["mean"], found["interval"], sign=sign)
