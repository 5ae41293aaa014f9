"""Average precision: against a slow definition, with ties, and what chance gives."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from adaptive_sleep.experiments.probes.precision import (
    average_precision,
    p_value,
    rotated_precisions,
    shuffled_precisions,
)
from adaptive_sleep.streams.errors import InputError


def slow(scores: np.ndarray, labels: np.ndarray) -> float:
    """Step down through the distinct thresholds, counting anew at each."""
    area, before = 0.0, 0.0
    for level in sorted(set(scores.tolist()), reverse=True):
        taken = [bool(label) for score, label in zip(scores, labels, strict=True) if score >= level]
        recall = sum(taken) / int(labels.sum())
        area += (recall - before) * sum(taken) / len(taken)
        before = recall
    return area


@pytest.mark.parametrize("distinct", [1, 2, 5, 1000])
def test_it_is_the_slow_definition_also_with_ties(distinct: int) -> None:
    random = np.random.default_rng(distinct)
    for _ in range(30):
        size = int(random.integers(1, 40))
        scores = random.integers(distinct, size=size) / 7.0 - 1.0
        labels = random.random(size) < 0.3
        labels[int(random.integers(size))] = True
        assert average_precision(scores, labels) == pytest.approx(slow(scores, labels), abs=1e-12)


def test_known_values() -> None:
    labels = np.array([True, False, True, False])
    assert average_precision(np.array([4.0, 2.0, 3.0, 1.0]), labels) == 1.0
    assert average_precision(np.array([4.0, 3.0, 2.0, 1.0]), labels) == pytest.approx(
        (1 + 2 / 3) / 2
    )
    assert average_precision(np.zeros(4), labels) == 0.5  # the base rate


def test_the_order_of_equal_scores_changes_nothing() -> None:
    scores = np.array([1.0, 1.0, 1.0, 0.0])
    found = {
        average_precision(scores, np.array([*three, True]))
        for three in itertools.permutations([True, False, False])
    }
    assert len(found) == 1


def test_shuffles_are_those_of_the_definition() -> None:
    scores, labels = np.array([3.0, 2.0, 2.0, 1.0, 0.0]), np.array([1, 0, 1, 0, 0]) == 1
    possible = {
        round(slow(scores, np.array(order)), 12)
        for order in itertools.permutations(labels.tolist())
    }
    found = shuffled_precisions(scores, labels, 500)
    assert {round(float(value), 12) for value in found} == possible
    assert np.array_equal(found, shuffled_precisions(scores, labels, 500))


def test_rotations_move_the_scores_along() -> None:
    random = np.random.default_rng(3)
    scores, labels = random.integers(4, size=9) / 1.0, random.random(9) < 0.4
    expected = [slow(np.roll(scores, move), labels) for move in range(1, 9)]
    assert rotated_precisions(scores, labels) == pytest.approx(expected)


def test_runs_hit_by_chance_more_often_than_a_shuffle_says() -> None:
    """Two long runs that overlap in part: rare among shuffles, common among rotations."""
    scores, labels = np.zeros(100), np.zeros(100, dtype=np.bool_)
    scores[:30], labels[15:45] = 1.0, True
    found = average_precision(scores, labels)
    assert p_value(found, shuffled_precisions(scores, labels, 2000)) < 0.02
    assert p_value(found, rotated_precisions(scores, labels)) > 0.2


def test_p_counts_what_was_found() -> None:
    assert p_value(0.5, np.array([0.1, 0.2, 0.5])) == 0.5
    assert p_value(0.9, np.array([0.1, 0.2, 0.5])) == 0.25


@pytest.mark.parametrize(
    ("scores", "labels", "words"),
    [
        ([1.0, 2.0], [False, False], "none is set"),
        ([1.0, float("nan")], [True, False], "finite"),
        ([1.0], [True, False], "one for each"),
    ],
)
def test_what_cannot_be_ranked_is_refused(
    scores: list[float], labels: list[bool], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        average_precision(np.array(scores), np.array(labels))
