"""Average precision of scores against labels, and what scores that know nothing would get.

Shuffled scores are the usual control. Rotated ones keep that both scores and labels come in runs,
which makes chance hits more common than a shuffle says.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from adaptive_sleep.streams.errors import InputError

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]
ROTATIONS = 2000  # at most so many


def average_precision(scores: FloatArray, labels: BoolArray) -> float:
    """The area under the precision-recall curve of `scores` `[n]` for `labels` `[n]`, in steps:
    the sum over distinct scores, falling, of (recall gained) times (precision so far).

    Equal scores are taken together, so their order changes nothing; equal scores throughout give
    the base rate. Raises InputError without a labelled one, or for a score that is not finite.
    """
    order, ends = _ranked(scores, labels)
    return float(_areas(labels[order][None], ends)[0])


def shuffled_precisions(
    scores: FloatArray, labels: BoolArray, count: int, seed: int = 0
) -> FloatArray:
    """Average precision `[count]` of the same scores shuffled over the `n` places."""
    order, ends = _ranked(scores, labels)
    random = np.random.default_rng(seed)
    return _areas(random.permuted(np.tile(labels[order], (count, 1)), axis=1), ends)


def rotated_precisions(scores: FloatArray, labels: BoolArray) -> FloatArray:
    """Average precision of the same scores moved on along the sequence by 1 to n - 1 places, what
    leaves at the end coming in at the start; of many places, `ROTATIONS` evenly spread."""
    order, ends = _ranked(scores, labels)
    places = len(labels)
    moves = np.unique(np.linspace(1, places - 1, min(places - 1, ROTATIONS)).round())
    # to move the scores by m is to move the labels by -m
    at = (order[None, :] + moves.astype(np.int64)[:, None]) % places
    return _areas(labels[at], ends)


def p_value(found: float, under: FloatArray) -> float:
    """The share of what a control gave that is at least what was found, itself counted once."""
    near = found - 1e-12  # sums in another order
    return float((1 + np.sum(under >= near)) / (1 + len(under)))


def _ranked(scores: FloatArray, labels: BoolArray) -> tuple[IntArray, IntArray]:
    """Places by falling score `[n]`, and where among them each run of equal scores ends."""
    if scores.shape != labels.shape or scores.ndim != 1:
        raise InputError(f"labels {labels.shape}: one for each of the scores {scores.shape}")
    if not np.isfinite(scores).all():
        raise InputError("scores: finite numbers only")
    if not labels.any():
        raise InputError("labels: none is set, so nothing can be found")
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    return order, ends


def _areas(labels: BoolArray, ends: IntArray) -> FloatArray:
    """Average precision `[m]` of labels `[m, n]` in the order of falling scores."""
    hits = labels.cumsum(1)[:, ends]
    precision = hits / (ends + 1)
    gained = np.diff(hits, axis=1, prepend=0) / hits[:, -1:]
    return np.asarray((precision * gained).sum(1), dtype=np.float64)
