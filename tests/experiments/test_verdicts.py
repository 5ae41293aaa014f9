"""The table of what to buy follows from the rows of kept comparisons alone."""

from __future__ import annotations

from typing import Any

import pytest

from adaptive_sleep.experiments import verdicts
from adaptive_sleep.streams.errors import InputError


def row(name: str, kind: str, scores: list[float], **more: Any) -> dict[str, Any]:
    values = {
        str(seed): {"score": score, "validation_score": score} for seed, score in enumerate(scores)
    }
    return {
        "name": f"{name}@1.5", "kind": kind, "online": True, "target": 1.5, "knob": None,
        "score": sum(scores) / len(scores), "flops_per_event": 150.0, "resident_bytes": 100,
        "seeds_values": values,
    } | more  # fmt: skip


def shown(monkeypatch: pytest.MonkeyPatch, *rows: dict[str, Any], within: float = 0.01) -> Any:
    """The lines of the table, without its head."""
    plain = {"name": "fixed-1", "kind": "fixed", "flops_per_event": 100.0}
    recipe = {"within": within, "targets": [1.5]}
    found = {"comparison": "c", "recipe": recipe, "rows": [plain, *rows]}
    monkeypatch.setattr(verdicts, "from_results", lambda name: found)
    return verdicts.verdict_table(["c"]).splitlines()[2:]


SPREAD = [0.8, 0.82, 0.84, 0.86, 0.88]


def test_the_best_of_each_stand_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(
        monkeypatch,
        row("mine", "matched", SPREAD),
        row("other", "matched", [s - 0.1 for s in SPREAD]),
        row("loops-below", "baseline", [s - 0.2 for s in SPREAD], knob=1, flops_per_event=120.0),
        row("loops-above", "baseline", [0.7, 0.71, 0.76, 0.75, 0.78], knob=2),
        row("loops-above-compute", "baseline", SPREAD[::-1], knob=2),
    )
    assert lines == [
        "| c | 1.5x | `mine`: 0.840 for 1.50x | loops-above 2: 0.740 for 1.50x "
        "| **+0.100 ±0.015** |",
        "| c | 1.5x | `mine`: 0.840 for 1.50x | loops-above-compute 2: 0.840 for 1.50x "
        "| +0.000 ±0.079 |",
    ]


def test_what_is_behind_is_bold_too_and_fine_scores_have_a_digit_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours = row("mine", "matched", [-s for s in SPREAD])
    theirs = row("wider", "baseline", [-s + 0.01 for s in SPREAD], knob=9)
    theirs["seeds_values"]["0"]["score"] += 0.0001
    (line,) = shown(monkeypatch, ours, theirs, within=0.0002)
    assert "`mine`: -0.8400 for" in line
    assert line.endswith("| **-0.0100 ±0.0001** |")


@pytest.mark.parametrize(
    ("ahead", "cost", "bold"),
    [
        (0.1, 140.0, False),  # what is behind costs less
        (0.1, 160.0, True),
        (-0.1, 160.0, False),  # what is ahead costs more
        (-0.1, 140.0, True),
        (0.1, 147.5, True),  # within 2 %
    ],
)
def test_only_what_may_be_compared_is_bold(
    ahead: float, cost: float, bold: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = row("wider", "baseline", [s - ahead for s in SPREAD], knob=9, flops_per_event=cost)
    (line,) = shown(monkeypatch, row("mine", "matched", SPREAD), theirs)
    assert ("**" in line) is bold


@pytest.mark.parametrize(("score", "told"), [(0.9, "| -0.060 ±"), (0.7, "| **+0.140 ±")])
def test_the_dearer_side_of_a_bracket_is_there_to_be_beaten(
    score: float, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = row("loops-below", "baseline", [0.1] * 5, knob=1, flops_per_event=100.0)
    above = row("loops-above", "baseline", [score] * 5, knob=2, flops_per_event=200.0)
    (line,) = shown(monkeypatch, row("mine", "matched", SPREAD), below, above)
    assert f"loops-above 2: {score:.3f} for 2.00x {told}" in line


def test_the_dearer_side_wins_nothing_by_a_cheaper_side_that_is_matched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    below = row("loops-below", "baseline", [0.1] * 5, knob=1, flops_per_event=149.0)
    above = row("loops-above", "baseline", [0.9] * 5, knob=2, flops_per_event=200.0)
    (line,) = shown(monkeypatch, row("mine", "matched", SPREAD), below, above)
    assert line.endswith("loops-above 2: 0.900 for 2.00x | -0.060 ±0.039 |")


@pytest.mark.parametrize(("seeds", "gap"), [(1, "+0.100"), (4, "+0.100 ±0.000")])
def test_fewer_than_five_seeds_claim_nothing(
    seeds: int, gap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = [0.5] * seeds, [0.4] * seeds
    lines = shown(
        monkeypatch, row("mine", "matched", ours), row("wider", "baseline", theirs, knob=9)
    )
    assert lines[0].endswith(f"| {gap} |")


def test_a_target_without_a_policy_or_without_baselines_has_no_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert shown(monkeypatch, row("wider", "baseline", SPREAD, knob=9)) == []
    assert shown(monkeypatch, row("mine", "matched", SPREAD)) == []


def test_what_is_not_at_matched_cost_is_refused() -> None:
    with pytest.raises(InputError, match=r"'mixed_chain': holds no rows.*'matched_chain'"):
        verdicts.verdict_table(["mixed_chain"])


def test_all_that_is_kept_is_named() -> None:
    names = verdicts.kept()
    assert names == sorted(names)
    assert {"matched_chain", "matched_hops", "matched_recording"} <= set(names)
