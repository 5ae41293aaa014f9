"""What rows at matched cost say, in plain sentences that follow from them alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from adaptive_sleep.experiments.compare_rows import signed, spread
from adaptive_sleep.experiments.matching import Spent, as_roomy, check_matched
from adaptive_sleep.experiments.reproduce import interval
from adaptive_sleep.streams.errors import InputError

SIDES = ("-below", "-above", "-most")  # of a target, in the name of a baseline's row


def read_matched(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say of each target what scores most there, of policies and of baselines, then of each policy
    how it stands to every baseline, and which of them may not be compared."""
    targets = dict.fromkeys(row["target"] for row in rows if row["kind"] == "matched")
    said = [sentence for target in targets for sentence in _order(rows, target)]
    for ours in (row for row in rows if row["kind"] == "matched"):
        theirs: dict[str, list[Mapping[str, Any]]] = {}
        for row in rows:
            if row["kind"] == "baseline" and row["target"] == ours["target"]:
                theirs.setdefault(_plain(row["name"]), []).append(row)
        said += [_against(ours, name, several) for name, several in theirs.items()]
    return said


def _order(rows: Sequence[Mapping[str, Any]], target: float) -> list[str]:
    """The best policy and the best baseline of a target, whatever each costs."""
    here = [row for row in rows if row.get("target") == target]
    theirs = [row for row in here if row["kind"] == "baseline"]
    if not theirs:
        return []
    ours = max((row for row in here if row["kind"] == "matched"), key=_score)
    other = max(theirs, key=_score)
    (first, second), gap = (
        sorted((ours, other), key=_score, reverse=True),
        _differences(ours, other),
    )
    return [
        f"At {target:g} times the plain hybrid: {first['name']} scores {_score(first):.4f}, "
        f"{second['name']} {_score(second):.4f}; policy less baseline "
        f"{signed(float(np.mean(gap)))}{spread(interval(gap))}."
    ]


def _score(row: Mapping[str, Any]) -> float:
    return float(row["score"])


def _plain(name: str) -> str:
    for side in SIDES:
        name = name.replace(side, "")
    return name


def _against(ours: Mapping[str, Any], name: str, theirs: Sequence[Mapping[str, Any]]) -> str:
    dearer = max(theirs, key=lambda row: float(row["flops_per_event"]))
    try:
        how = check_matched(_spent(ours), [_spent(row) for row in theirs])
    except InputError as error:
        told = _at_other_cost(ours, max(theirs, key=_score))
        return told or f"{ours['name']} and {name} are not compared: {error}."
    return f"{_difference(ours, dearer)}, {how}{_told(ours, dearer)}."


def _at_other_cost(ours: Mapping[str, Any], best: Mapping[str, Any]) -> str:
    """What costs that are not matched allow to say: that the cheaper of two scores more, or that a
    baseline can cost no more than it does; else nothing. `best`: of the baseline's rows."""
    more = best["flops_per_event"] / ours["flops_per_event"] - 1.0
    ahead = best["score"] - ours["score"]
    cost = f"costs {abs(more):.0%} {'more' if more > 0 else 'less'}"
    if "-most" in best["name"] and more < 0:
        return f"{_difference(ours, best)}, which {cost} and can cost no more{_told(ours, best)}."
    if more * ahead < 0:
        return f"{_difference(ours, best)}, which {cost}{_told(ours, best)}: the cheaper is ahead."
    return ""


def _difference(ours: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    mean = float(np.mean(_differences(ours, other)))
    return f"{ours['name']}: score {signed(mean)} to {other['name']}"


def _differences(ours: Mapping[str, Any], other: Mapping[str, Any]) -> list[float]:
    own, their = ours["seeds_values"], other["seeds_values"]
    return [own[seed]["score"] - their[seed]["score"] for seed in own]


def _told(ours: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """The interval of a difference, and whether what it is to keeps more bytes."""
    room = "" if as_roomy(_spent(ours), _spent(other)) else ", which keeps more bytes"
    return f"{spread(interval(_differences(ours, other)))}{room}"


def _spent(row: Mapping[str, Any]) -> Spent:
    return Spent(row["name"], row["flops_per_event"], row["resident_bytes"])
