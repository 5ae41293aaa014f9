"""What rows at matched cost say, in plain sentences that follow from them alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from adaptive_sleep.experiments.compare_rows import signed, spread
from adaptive_sleep.experiments.matching import Spent, as_roomy, check_matched
from adaptive_sleep.experiments.reproduce import interval
from adaptive_sleep.streams.errors import InputError


def read_matched(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say of each policy at each target how it stands to every baseline there, and which of them
    may not be compared."""
    said = []
    for ours in (row for row in rows if row["kind"] == "matched"):
        theirs: dict[str, list[Mapping[str, Any]]] = {}
        for row in rows:
            if row["kind"] == "baseline" and row["target"] == ours["target"]:
                name = row["name"].replace("-below", "").replace("-above", "")
                theirs.setdefault(name, []).append(row)
        said += [_against(ours, name, several) for name, several in theirs.items()]
    return said


def _against(ours: Mapping[str, Any], name: str, theirs: Sequence[Mapping[str, Any]]) -> str:
    dearer = max(theirs, key=lambda row: float(row["flops_per_event"]))
    try:
        how = check_matched(_spent(ours), [_spent(row) for row in theirs])
    except InputError as error:
        return f"{ours['name']} and {name} are not compared: {error}."
    own, other = ours["seeds_values"], dearer["seeds_values"]
    differences = [own[seed]["score"] - other[seed]["score"] for seed in own]
    ends = interval(differences)
    room = "" if as_roomy(_spent(ours), _spent(dearer)) else ", which keeps more bytes"
    return (
        f"{ours['name']}: score {signed(float(np.mean(differences)))} to {dearer['name']}, {how}"
        f"{spread(ends)}{room}."
    )


def _spent(row: Mapping[str, Any]) -> Spent:
    return Spent(row["name"], row["flops_per_event"], row["resident_bytes"])
