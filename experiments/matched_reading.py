"""What rows at matched cost say, in plain sentences that follow from them alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from adaptive_sleep.experiments.compare_rows import (
    CLAIM_SEEDS,
    half,
    signed,
    smallest_effect,
    spread,
)
from adaptive_sleep.experiments.matched_table import BY_COST, COMPUTE, MOST, SIDES
from adaptive_sleep.experiments.matching import NEAR, Spent, as_roomy, check_matched
from adaptive_sleep.experiments.reproduce import interval
from adaptive_sleep.streams.errors import InputError

Row = Mapping[str, Any]  # as make_rows gives it


def read_matched(rows: Sequence[Row]) -> list[str]:
    """Say of each target what scores most there, of policies and of baselines, also of policies
    whose setting was found by its cost alone; then of each policy how it stands to every baseline,
    and which of them may not be compared."""
    targets = dict.fromkeys(row["target"] for row in rows if row["kind"] == "matched")
    said: list[str] = []
    for part in (_best, _by_cost, _as_much_compute):
        said += [sentence for target in targets for sentence in part(rows, target)]
    for ours in (row for row in rows if row["kind"] == "matched" and not found_by_cost(row)):
        theirs: dict[str, list[Row]] = {}
        for row in rows:
            if row["kind"] == "baseline" and row["target"] == ours["target"]:
                theirs.setdefault(plain_name(row["name"]), []).append(row)
        said += [_against(ours, name, several) for name, several in theirs.items()]
    return said


def beside_policy(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows, those at matched cost with their place beside the policy that did best on
    validation at their target: `difference_to_policy`, a row's score less the policy's, and its
    interval over seeds (None for the policy itself), and whether it is as `roomy`, which the second
    table is of: no more than 1.1 times the policy's resident bytes. None where no policy is.

    Each has the `smallest_effect` that its seeds could have seen, by the interval of that
    difference, of other rows of that to fixed(max_passes); None where there is none."""
    told: list[dict[str, Any]] = []
    for row in rows:
        found = {**row, "smallest_effect": _seen_by(row, row.get("difference_interval"))}
        if row.get("target") is not None:
            here = [one for one in rows if one.get("target") == row["target"]]
            ours = chosen(here) if any(deployable(one) for one in here) else None
            gaps = None if ours is None or ours is row else differences(row, ours)
            found["difference_to_policy"] = gaps and float(np.mean(gaps))
            beside = interval(gaps) if gaps else None
            found["difference_to_policy_interval"] = beside
            found["smallest_effect"] = _seen_by(row, beside)
            found["roomy"] = None if ours is None else as_roomy(_spent(ours), _spent(row))
        told.append(found)
    return told


def _seen_by(row: Row, ends: Sequence[float] | None) -> float | None:
    return smallest_effect(ends, len(row["seeds_values"]))


def _best(rows: Sequence[Row], target: float) -> list[str]:
    """Of a target the policy that did best on validation, and the baseline that does best on the
    test, which favours the baselines; with what each costs."""
    here = [row for row in rows if row.get("target") == target]
    theirs = [row for row in here if row["kind"] == "baseline"]
    if not theirs:
        return []
    if not any(deployable(row) for row in here):
        return [f"At {target:g} times the plain hybrid no policy is that could be deployed."]
    ours = chosen(here)
    other = max(theirs, key=_score)
    shown = (
        f"{row['name']} {_score(row):.4f} for {_cost(row):,.0f} FLOPs an event"
        for row in (ours, other)
    )
    said = [
        f"At {target:g} times the plain hybrid, the policy that was best on validation and the "
        "baseline that is best on the test: "
        f"{', '.join(shown)}; difference {_gap(ours, other)}{_seen(ours, other)}."
    ]
    if not any(own.get("by_reach") for row in here for own in row["seeds_values"].values()):
        return said  # a recording, or kept by an earlier version
    if all(row.get("largest_window") is None for row in here):
        return said  # no baseline there holds a window that questions could lie beyond
    if any(row.get(f"score_{part}") is None for row in here for part in ("within", "beyond")):
        return [
            *said,
            "Within and beyond the largest window there nothing is told apart: questions do not "
            "lie on both sides of it for every model.",
        ]
    return said + [_part(here, part) for part in ("within", "beyond")]


def _by_cost(rows: Sequence[Row], target: float) -> list[str]:
    """Where settings of policies were found by their cost alone, the one of them that did best on
    validation, and the baseline that does best on the test."""
    here = [row for row in rows if row.get("target") == target]
    theirs = [row for row in here if row["kind"] == "baseline"]
    ours = [row for row in here if _told_of(row) and row.get("tuning_trials") == 1]
    if not theirs or not any(found_by_cost(row) for row in ours):
        return []
    mine, other = max(ours, key=_on_validation), max(theirs, key=_score)
    return [
        f"At {target:g} times, with settings found by their cost alone, as the knobs of baselines "
        f"are: {mine['name']} {_score(mine):.4f} for {_cost(mine):,.0f} FLOPs an event; difference "
        f"to {other['name']} {_gap(mine, other)}."
    ]


def _part(rows: Sequence[Row], part: str) -> str:
    """Within or beyond the largest window of a target the same policy, and the baseline that does
    best there."""
    key, theirs = f"score_{part}", [row for row in rows if row["kind"] == "baseline"]
    ours, other = chosen(rows), max(theirs, key=lambda row: float(row[key]))
    shown = (f"{row['name']} {row[key]:.4f}" for row in (ours, other))
    return (
        f"Of questions {part} the largest window there ({ours['largest_window']:g} events): "
        f"{', '.join(shown)}; difference {_gap(ours, other, key)}."
    )


def _as_much_compute(rows: Sequence[Row], target: float) -> list[str]:
    """How near the training of a target's rows came to the compute that it was to take."""
    here = [row for row in rows if row.get("target") == target]
    slept = next(row["seeds_values"] for row in here if row["kind"] == "matched")
    shares = [
        own["training_flops"] / slept[seed]["training_flops"]
        for row in here
        if COMPUTE in row["name"]
        for seed, own in row["seeds_values"].items()
    ]
    if not shares:
        return []
    return [
        f"At {target:g} times, rows that end in {COMPUTE} took {min(shares):.1%} to "
        f"{max(shares):.1%} of the training FLOPs of the model that sleeps, by seed; "
        f"{np.mean(shares):.1%} on average."
    ]


def deployable(row: Row) -> bool:
    """Whether a row is of a policy at matched cost that could be deployed, whose setting was chosen
    on validation (one that an earlier version wrote may not say how it did there)."""
    return _told_of(row) and not found_by_cost(row)


def found_by_cost(row: Row) -> bool:
    """Whether a row is of a policy whose setting was found by its cost, as the knobs of baselines
    are, whatever it scored."""
    return str(row["name"]).partition("@")[0].endswith(BY_COST)


def _told_of(row: Row) -> bool:
    values = row["seeds_values"].values()
    known = all(own.get("validation_score") is not None for own in values)
    return row["kind"] == "matched" and row["online"] and known


def chosen(rows: Sequence[Row]) -> Row:
    """The policy at matched cost that did best on validation."""
    return max((row for row in rows if deployable(row)), key=_on_validation)


def _on_validation(row: Row) -> float:
    return float(np.mean([own["validation_score"] for own in row["seeds_values"].values()]))


def _against(ours: Row, name: str, theirs: Sequence[Row]) -> str:
    best = max(theirs, key=_score)
    try:
        how = check_matched(_spent(ours), [_spent(row) for row in theirs])
    except InputError as error:
        told = _at_other_cost(ours, best)
        return told or f"{ours['name']} and {name} are not compared: {error}."
    if how == "matched":
        if _score(best) > _score(ours) and _cost(best) < (1.0 - NEAR) * _cost(ours):
            return _at_other_cost(ours, best)
        near = min(theirs, key=lambda row: abs(_cost(row) - _cost(ours)))
        return _sentence(ours, near, "matched")
    dearer = max(theirs, key=_cost)
    if best is not dearer and _score(best) > _score(ours):
        return _at_other_cost(ours, best)
    return _sentence(ours, dearer, "bracketed")


def comparable(ours: Row, other: Row) -> bool:
    """Whether a policy and a row of a baseline may be compared: they are matched; or the one of
    them that scores more costs less."""
    more, ahead = _cost(other) - _cost(ours), _score(other) - _score(ours)
    if more * ahead < 0:
        return True
    try:  # the dearer side of a bracket is what is to be beaten, and wins nothing by being dearer
        return check_matched(_spent(ours), [_spent(other)]) == "matched"
    except InputError:
        return False


def _at_other_cost(ours: Row, best: Row) -> str:
    """What costs that are not matched allow to say: that the cheaper of two scores more, or where a
    baseline stands that cannot cost as much; else nothing. `best`: of the baseline's rows."""
    more = _cost(best) / _cost(ours) - 1.0
    ahead = _score(best) - _score(ours)
    cost = f"which costs {abs(more):.0%} {'more' if more > 0 else 'less'}"
    if MOST in best["name"] and more < 0:
        return _sentence(ours, best, f"{cost} at its dearest knob")
    if more * ahead >= 0:
        return ""
    ends = interval(differences(ours, best))
    if ends is None or len(ours["seeds_values"]) < CLAIM_SEEDS:
        return _sentence(ours, best, cost)
    shown = ends[0] * ends[1] > 0
    verdict = "the cheaper is ahead" if shown else "the cheaper is not shown to be ahead"
    return _sentence(ours, best, f"{cost}: {verdict}")


def _sentence(ours: Row, other: Row, how: str) -> str:
    room = "" if as_roomy(_spent(ours), _spent(other)) else f"; {other['name']} keeps more bytes"
    return f"{ours['name']}: score {_gap(ours, other)} to {other['name']}, {how}{room}."


def _gap(ours: Row, other: Row, key: str = "score") -> str:
    """The mean difference of two rows over seeds, and its interval."""
    gaps = differences(ours, other, key)
    return f"{signed(float(np.mean(gaps)))}{spread(interval(gaps))}"


def _seen(ours: Row, other: Row) -> str:
    """The smallest difference of two rows that their seeds could have told from none."""
    least = half(interval(differences(ours, other)))
    return "" if least is None else f", where less than {least:.4f} cannot be told from none"


def differences(ours: Row, other: Row, key: str = "score") -> list[float]:
    """By how much a row scores more than another, seed by seed."""
    own, their = ours["seeds_values"], other["seeds_values"]
    return [own[seed][key] - their[seed][key] for seed in own]


def plain_name(name: str) -> str:
    """The name of a baseline's row without the side of its target that it lies on."""
    for side in SIDES:
        name = name.replace(side, "")
    return name


def _score(row: Row) -> float:
    return float(row["score"])


def _cost(row: Row) -> float:
    return float(row["flops_per_event"])


def _spent(row: Row) -> Spent:
    return Spent(row["name"], row["flops_per_event"], row["resident_bytes"])
