"""The statistics of a comparison, against figures worked out by hand and against scipy."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from adaptive_sleep.experiments.compare_rows import (
    Point,
    SeedRow,
    make_rows,
    mixture,
    read_rows,
    rising_hull,
)

POINTS = st.lists(
    st.tuples(st.integers(0, 20).map(float), st.integers(-10, 10).map(float)),
    min_size=1,
    max_size=8,
)


def best(points: list[Point], cost: float) -> float:
    """The best score of any one point, or mixture of two, that costs at most `cost`: slowly."""
    single = [y for x, y in points if x <= cost]
    pairs = [
        a[1] + (b[1] - a[1]) * (cost - a[0]) / (b[0] - a[0])
        for a, b in itertools.permutations(points, 2)
        if a[0] <= cost <= b[0] and a[0] < b[0]
    ]
    return max(single + pairs)


@settings(max_examples=200)
@given(POINTS, st.floats(0, 25))
def test_the_hull_is_the_best_mixture_for_a_cost(points: list[Point], cost: float) -> None:
    cost = max(cost, min(x for x, _ in points))
    assert mixture(points, points, cost) == pytest.approx(best(points, cost), abs=1e-9)


@settings(max_examples=100)
@given(POINTS)
def test_the_hull_rises_and_bends_down(points: list[Point]) -> None:
    hull = [points[i] for i in rising_hull(points)]
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in itertools.pairwise(hull)]
    assert all(slope > 0 for slope in slopes)
    assert slopes == sorted(slopes, reverse=True)


def test_validation_chooses_the_mixture_and_the_test_scores_it() -> None:
    validation = [(0.0, 0.2), (10.0, 0.3), (20.0, 0.9), (30.0, 0.8)]
    test = [(0.0, 0.1), (10.0, 0.7), (22.0, 0.6), (30.0, 1.0)]
    assert rising_hull(validation) == [0, 2]
    # half of fixed 1, half of fixed 3, though on the test fixed 2 alone is better
    assert mixture(validation, test, 11.0) == pytest.approx(0.35)
    assert mixture(validation, test, 30.0) == 0.6  # the dearest on validation lost there
    assert mixture(validation, test, -1.0) == 0.1


ROW = SeedRow(
    kind="policy",
    policy="rule(at=1.0)",
    written="rule(at={at})",
    online=True,
    score=0.9,
    mean_passes=2.0,
    sleep_flops_per_event=40.0,
    flops_per_event=100.0,
    resident_bytes=64,
    regret=0.01,
    fixed_score=0.91,
    fixed_sleep=100.0,
    hull_score=0.8,
    shuffled_score=0.7,
)


def test_intervals_are_of_paired_differences_over_seeds() -> None:
    scores, fixed = [0.90, 0.80, 0.97], [0.91, 0.82, 0.97]
    by_seed = {
        seed: {"rule": replace(ROW, score=score, fixed_score=other)}
        for seed, score, other in zip((4, 0, 7), scores, fixed, strict=True)
    }
    (row,) = make_rows(by_seed, 4)
    assert row["score"] == pytest.approx(0.89)
    # by hand: differences -0.01, -0.02, 0; mean -0.01, deviation 0.01, t(2) = 4.302653
    half = 4.302653 * 0.01 / np.sqrt(3)
    assert row["difference_to_fixed4"] == pytest.approx(-0.01)
    assert row["difference_interval"] == pytest.approx([-0.01 - half, -0.01 + half], rel=1e-5)
    for key, values in (
        ("score_interval", scores),
        ("difference_to_shuffled_interval", np.array(scores) - 0.7),
        ("difference_to_hull_interval", np.array(scores) - 0.8),
    ):
        ends = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
        assert row[key] == pytest.approx(ends)
    assert row["sleep_share"] == pytest.approx(0.4)
    assert list(row["seeds_values"]) == ["0", "4", "7"]
    assert row["seeds_values"]["4"]["difference_to_fixed4"] == pytest.approx(-0.01)
    assert row["policy"] == "rule(at=1.0)"


def test_one_seed_has_no_interval_and_says_so() -> None:
    rows = make_rows({0: {"rule": ROW}}, 4)
    assert rows[0]["difference_to_fixed4"] == pytest.approx(-0.01)
    for key in ("score_interval", "difference_interval", "difference_to_hull_interval"):
        assert rows[0][key] is None
    said = read_rows(rows, 4, 0.01)
    assert "40% of its sleep FLOPs" in said[0]
    assert "One trained seed" in said[-1]


def test_what_one_seed_lacks_is_missing_and_what_differs_is_as_written() -> None:
    other = replace(ROW, policy="rule(at=2.0)", hull_score=None)
    (row,) = make_rows({0: {"rule": ROW}, 1: {"rule": other}}, 3)
    assert row["difference_to_hull"] is None
    assert row["difference_to_hull_interval"] is None
    assert row["policy"] == "rule(at={at})"
    assert row["seeds_values"]["1"]["policy"] == "rule(at=2.0)"
    assert "difference_to_fixed3" in row


def test_the_reading_claims_only_what_the_intervals_show() -> None:
    better = {s: {"rule": replace(ROW, score=0.905 + s / 1000)} for s in range(5)}
    (sentence,) = read_rows(make_rows(better, 4), 4, 0.01)
    assert "within 0.01 of it" in sentence
    assert "not shown" not in sentence
    noisy = {s: {"rule": replace(ROW, score=0.9 - 0.1 * (s % 2), hull_score=0.9)} for s in range(5)}
    (sentence,) = read_rows(make_rows(noisy, 4), 4, 0.01)
    assert "not shown to be within 0.01" in sentence
    assert sentence.count("not shown to be better") == 1


def test_fewer_than_five_seeds_claim_nothing() -> None:
    few = {s: {"rule": replace(ROW, score=0.905 + s / 1000)} for s in range(4)}
    sentence, last = read_rows(make_rows(few, 4), 4, 0.01)
    assert not any(word in sentence for word in ("better", "within", "shown"))
    assert last == "4 trained seeds: fewer than 5, so nothing is claimed."
