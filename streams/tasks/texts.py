"""Texts of varying length, made of padded pieces: closed up, cut into windows, their answers named.

For tasks whose target is the next token. What the tokens mean is the task's affair.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .task import IntArray, TaskBatch


def closed_up(padded: IntArray) -> tuple[IntArray, IntArray]:
    """Return texts `[B, L]`, without the zeros inside `padded` `[B, P]`, and lengths `[B]`."""
    rows, columns = np.nonzero(padded)
    lengths = np.bincount(rows, minlength=len(padded))
    starts = np.cumsum(lengths) - lengths
    texts = np.zeros((len(padded), int(lengths.max(initial=0))), np.int64)
    texts[rows, np.arange(len(rows)) - starts[rows]] = padded[rows, columns]
    return texts, lengths


def cut(texts: IntArray, stops: IntArray) -> list[tuple[IntArray, IntArray]]:
    """Return texts and lengths of windows that end at `stops` `[B, W]`, rising in each row."""
    windows = []
    starts = np.zeros(len(texts), np.int64)
    for stop in stops.T:
        held = stop - starts
        place = starts[:, None] + np.arange(int(held.max(initial=0)))
        inside = place < stop[:, None]
        rows = np.arange(len(texts))[:, None]
        windows.append((np.where(inside, texts[rows, np.where(inside, place, 0)], 0), held))
        starts = stop
    return windows


def even_stops(lengths: IntArray, windows: int) -> IntArray:
    """Return where to cut texts of `lengths` `[B]` evenly, `[B, W]`: the first take the rest."""
    share, rest = np.divmod(lengths[:, None], windows)
    number = np.arange(1, windows + 1)
    return number * share + np.minimum(number, rest)


def text_batch(
    windows: Sequence[tuple[IntArray, IntArray]],
    questions: IntArray,
    answered: NDArray[np.bool_],
    difficulty: IntArray,
    rungs: Sequence[IntArray] = (),
) -> TaskBatch:
    """Return the batch of the windows read, and a last one made of `questions` `[B, P]`, padded.

    Where `answered` `[B, P]`, the token is an answer: it is the target of the token before it.
    Each of `rungs` `[B, P]` is the questions with easier answers, of as many tokens.
    """
    asked, held = closed_up(questions)
    # every entry that is a token says whether it answers (2) or not (1), so both close up alike
    marks, _ = closed_up(np.where(questions > 0, 1 + answered, 0))

    def targets_of(text: IntArray) -> IntArray:
        targets = np.full_like(text, -1)
        targets[:, :-1] = np.where(marks[:, 1:] == 2, text[:, 1:], -1)
        return targets

    return TaskBatch(
        tokens=(*(texts for texts, _ in windows), asked),
        targets=(*(np.full_like(texts, -1) for texts, _ in windows), targets_of(asked)),
        lengths=(*(lengths for _, lengths in windows), held),
        difficulty=difficulty,
        diagonal=(*(False for _ in windows), False),
        rungs=tuple(targets_of(closed_up(rung)[0]) for rung in rungs),
    )
