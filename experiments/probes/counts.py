"""Predictors of a log that only count: unigram and bigram with add-alpha, and repeat-last.

Frozen counts are those of the training rows, as slow weights are; online ones go on counting, as
fast weights may. What each has to choose (alpha; the share of repeats) is chosen on validation
rows, by bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from adaptive_sleep.experiments.probes.guesses import Guesses, IntArray, among_five, joined

ALPHAS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
SHARES = tuple(step / 20 for step in range(1, 20))
Predict = Callable[[IntArray, int, float, "Parts"], Guesses]


@dataclass(frozen=True)
class Parts:
    """Rows of a log of one stream: training ends at `train`, the test begins at `test`."""

    train: int
    test: int
    end: int


def counters() -> dict[str, tuple[Predict, tuple[float, ...]]]:
    """The predictors by name, each with the values that it may choose from."""
    return {
        "unigram": (_counting(0, online=False), ALPHAS),
        "unigram, online": (_counting(0, online=True), ALPHAS),
        "bigram": (_counting(1, online=False), ALPHAS),
        "bigram, online": (_counting(1, online=True), ALPHAS),
        "repeat-last": (repeat_last, SHARES),
    }


def chosen(
    predict: Predict, values: tuple[float, ...], tokens: IntArray, vocabulary: int, parts: Parts
) -> tuple[float, Guesses]:
    """The value with the fewest bits on validation rows, and its guesses at the test rows."""
    held = Parts(parts.train, parts.train, parts.test)
    bits = {value: predict(tokens, vocabulary, value, held).bits() for value in values}
    best = min(bits, key=lambda value: bits[value])
    return best, predict(tokens, vocabulary, best, parts)


def _counting(order: int, *, online: bool) -> Predict:
    def predict(tokens: IntArray, vocabulary: int, alpha: float, parts: Parts) -> Guesses:
        return count(tokens, vocabulary, alpha, parts, order=order, online=online)

    return predict


def count(
    tokens: IntArray, vocabulary: int, alpha: float, parts: Parts, *, order: int, online: bool
) -> Guesses:
    """Guesses at the test rows of `tokens` `[rows]` from counts of what followed the last `order`
    (0 or 1) events: p(x) = (count(x) + alpha) / (all counts + alpha V)."""
    seen = np.zeros((vocabulary if order else 1, vocabulary))
    known = parts.test if online else parts.train
    for row in range(order, known):
        seen[_context(tokens, row, order), tokens[row]] += 1
    found = []
    for row in range(parts.test, parts.end):
        context, token = _context(tokens, row, order), int(tokens[row])
        given = seen[context]
        share = (given[token] + alpha) / (given.sum() + alpha * vocabulary)
        found.append((math.log(share), among_five(given, token)))
        if online:
            given[token] += 1
    return joined(found)


def _context(tokens: IntArray, row: int, order: int) -> int:
    return int(tokens[row - 1]) if order else 0


def repeat_last(tokens: IntArray, vocabulary: int, share: float, parts: Parts) -> Guesses:
    """Guess the last event with probability `share`, all others alike; its five are the five types
    seen last. The test does not begin at the first row."""
    latest = np.full(vocabulary, -np.inf)
    np.maximum.at(latest, tokens[: parts.test], np.arange(parts.test, dtype=np.float64))
    found = []
    for row in range(parts.test, parts.end):
        token, last = int(tokens[row]), int(tokens[row - 1])
        guess = share if token == last else (1 - share) / (vocabulary - 1)
        found.append((math.log(guess), among_five(latest, token)))
        latest[token] = row
    return joined(found)
