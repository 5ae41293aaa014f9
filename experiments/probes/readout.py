"""A linear read-out: ridge regression from states to what is asked of them, and how well it does.

Where states come from, and what is asked, is not known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adaptive_sleep.streams.errors import InputError

FloatArray = NDArray[np.float64]
STRENGTHS = tuple(10.0**k for k in range(-4, 5))
FLAT = 1e-12  # of variance: a column that says nothing, or that cannot be scored


@dataclass(frozen=True, eq=False)
class Cases:
    """Examples of one part: `states` `[n, D]` and what is asked of them, `answers` `[n, K]`."""

    states: FloatArray
    answers: FloatArray

    def __post_init__(self) -> None:
        if len(self.states) != len(self.answers) or not len(self.states):
            raise InputError(
                f"states: {len(self.states)} rows, but answers has {len(self.answers)}; "
                "give one per state, and at least 1"
            )


@dataclass(frozen=True, eq=False)
class Scored:
    """How well each of K questions is answered on the test part: `r2` `[K]`, NaN where the answers
    do not vary; `strength` `[K]`, lambda as a share of the examples, as validation chose it."""

    r2: FloatArray
    strength: FloatArray


def read_out(
    train: Cases, validation: Cases, test: Cases, *, strengths: Sequence[float] = STRENGTHS
) -> Scored:
    """Fit a ridge map from states to answers on `train`, choose lambda for every question on
    `validation`, score it on `test`.

    States are centred and scaled by the training part, columns that do not vary are left out;
    lambda is a strength times the examples of the training part. R2 is 1 less the squared error
    over that of the test part's own mean: a state that knows nothing has about 0, or less. Raises
    InputError for parts whose widths differ.
    """
    for name, part in (("validation", validation), ("test", test)):
        for what in ("states", "answers"):
            has, wanted = getattr(part, what).shape[1], getattr(train, what).shape[1]
            if has != wanted:
                raise InputError(f"{name}: {what} of width {has}, but those of train have {wanted}")
    centre, spread = train.states.mean(0), train.states.std(0)
    used = spread > FLAT**0.5
    level = train.answers.mean(0)

    def ready(part: Cases) -> FloatArray:
        scaled: FloatArray = (part.states[:, used] - centre[used]) / spread[used]
        return scaled

    x = ready(train)
    values, basis, right = _solved(x, train.answers - level)
    held, asked = ready(validation) @ basis, ready(test) @ basis
    best = np.full(len(level), np.inf)
    chosen, found = np.zeros(len(level)), np.zeros_like(test.answers)
    for strength in strengths:
        shrunk = right / (values + strength * len(x))[:, None]
        error = np.square(held @ shrunk + level - validation.answers).mean(0)
        better = error < best
        best[better], chosen[better] = error[better], strength
        found[:, better] = (asked @ shrunk + level)[:, better]
    return Scored(r_squared(found, test.answers), chosen)


def _solved(x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Eigenvalues `[r]`, a basis `[D, r]` and the answers in it `[r, K]`, such that the ridge map
    is `basis @ (right / (values + lambda))`; by the smaller of both Gram matrices."""
    if x.shape[1] <= len(x):
        values, vectors = np.linalg.eigh(x.T @ x)
        return values.clip(0.0), vectors, vectors.T @ (x.T @ y)
    values, vectors = np.linalg.eigh(x @ x.T)
    return values.clip(0.0), x.T @ vectors, vectors.T @ y


def r_squared(found: FloatArray, answers: FloatArray) -> FloatArray:
    """R2 of each column of `found` against `answers`, both `[n, K]`; NaN where these are flat."""
    spread = np.square(answers - answers.mean(0)).sum(0)
    error = np.square(found - answers).sum(0)
    flat = spread <= FLAT * len(answers)
    score: FloatArray = np.where(flat, np.nan, 1.0 - error / np.where(flat, 1.0, spread))
    return score
