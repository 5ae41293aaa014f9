"""Predictors that count, and what their guesses come to: held to slow ones, and to known cases."""

from __future__ import annotations

import math

import numpy as np
import pytest

from adaptive_sleep.experiments.probes.counts import (
    Parts,
    chosen,
    count,
    counters,
    repeat_last,
)
from adaptive_sleep.experiments.probes.guesses import among_five

PARTS = Parts(30, 40, 60)


@pytest.fixture
def tokens() -> np.ndarray:
    return np.random.default_rng(0).integers(7, size=60)


@pytest.mark.parametrize("online", [False, True])
@pytest.mark.parametrize("order", [0, 1])
def test_counting_is_the_formula(tokens: np.ndarray, order: int, online: bool) -> None:
    found = count(tokens, 7, 0.3, PARTS, order=order, online=online)
    for place, row in enumerate(range(PARTS.test, PARTS.end)):
        past = tokens[: row if online else PARTS.train].tolist()
        pairs = [(tuple(past[i - order : i]), past[i]) for i in range(order, len(past))]
        context = tuple(tokens[row - order : row].tolist())
        followed = [token for before, token in pairs if before == context]
        share = (followed.count(tokens[row]) + 0.3) / (len(followed) + 0.3 * 7)
        assert found.logprob[place] == pytest.approx(math.log(share))


@pytest.mark.parametrize("name", counters())
def test_no_guess_looks_ahead(tokens: np.ndarray, name: str) -> None:
    predict, values = counters()[name]
    changed = tokens.copy()
    changed[50:] = (changed[50:] + 3) % 7
    before, after = (predict(given, 7, values[3], PARTS) for given in (tokens, changed))
    assert np.array_equal(before.logprob[:10], after.logprob[:10])
    assert np.array_equal(before.five[:10], after.five[:10])


@pytest.mark.parametrize("name", counters())
def test_what_is_chosen_is_chosen_before_the_test(tokens: np.ndarray, name: str) -> None:
    predict, values = counters()[name]
    changed = tokens.copy()
    changed[PARTS.test :] = 0
    best, guesses = chosen(predict, values, tokens, 7, PARTS)
    assert chosen(predict, values, changed, 7, PARTS)[0] == best
    assert guesses.bits() == predict(tokens, 7, best, PARTS).bits()
    held = Parts(30, 30, 40)
    bits = [predict(tokens, 7, value, held).bits() for value in values]
    assert predict(tokens, 7, best, held).bits() == min(bits)


def test_repeat_last_is_right_about_a_constant_and_its_five_are_the_latest() -> None:
    constant = np.full(60, 2)
    assert repeat_last(constant, 7, 0.95, PARTS).bits() == pytest.approx(-math.log2(0.95))
    cycle = np.arange(60) % 7
    assert repeat_last(cycle, 7, 0.5, PARTS).five.sum() == 0  # each comes back after six others
    assert repeat_last(np.arange(60) % 5, 7, 0.5, PARTS).five.min() == 1
    assert repeat_last(cycle, 7, 0.5, PARTS).bits() == pytest.approx(math.log2(12))


def test_an_order_that_says_all_is_found_by_the_bigram() -> None:
    cycle = np.arange(60) % 7
    assert count(cycle, 7, 0.001, PARTS, order=1, online=False).bits() < 0.01
    assert count(cycle, 7, 0.001, PARTS, order=0, online=False).bits() > 2.5


def test_equal_scores_share_the_places_that_are_left() -> None:
    scores = np.array([9.0, 8.0, 7.0, 1.0, 1.0, 1.0, 1.0, 0.0])
    assert [among_five(scores, token) for token in (0, 2)] == [1.0, 1.0]
    assert among_five(scores, 4) == 0.5  # two places for four
    assert among_five(scores, 7) == 0.0
    assert sum(among_five(scores, token) for token in range(8)) == 5.0
