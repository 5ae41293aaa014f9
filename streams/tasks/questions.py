"""When a sample is asked: behind windows that hold nothing of it, and more than once.

So what a question needs may lie further back than attention reaches, whatever window it holds; and
what was read once may be of use often, which is where work at a boundary pays and work at a
question is done again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import InputError
from .task import IntArray, Targets, TaskBatch, check_whole

MOST = 4096  # windows, of a delay and of questions


def checked_delays(task: str, delays: Sequence[int]) -> tuple[int, ...]:
    """Return the delays of `task`, in windows, as a tuple. Raises InputError unless they are whole
    numbers from 0."""
    if not isinstance(delays, list | tuple):
        raise InputError(f"{task}: delays={delays!r}: expected a list of windows, e.g. [0, 4]")
    for value in delays:
        check_whole(task, "delays", value, 0, MOST)
    return tuple(delays)


def check_asks(task: str, asks: int) -> None:
    """Raise InputError unless `task` can put its questions so many times."""
    check_whole(task, "asks", asks, 1, MOST)


def delayed(
    batch: TaskBatch,
    random: np.random.Generator,
    delays: Sequence[int],
    length: int,
    draw: Callable[[tuple[int, ...]], IntArray],
) -> TaskBatch:
    """The batch with filler windows of `length` events before its last window: each sample has as
    many as one of the `delays`, all alike likely (one that is given twice is twice as likely), and
    its others are empty. `draw` gives tokens of a shape. Without delays nothing is drawn.
    """
    windows = max(delays, default=0)
    if not windows:
        return batch
    fillers = draw((len(batch), windows, length))
    many = np.array(delays, np.int64)[random.integers(len(delays), size=len(batch))]
    blank = -1 if batch.targets[-1].dtype.kind == "i" else np.nan
    kind: Any = batch.targets[-1].dtype
    unasked: Targets = np.full((len(batch), length), blank, kind)
    there = np.arange(windows) < many[:, None]
    tokens = np.where(there[:, :, None], fillers, 0)
    lengths = there * np.int64(length)
    return replace(
        batch,
        tokens=(*batch.tokens[:-1], *np.moveaxis(tokens, 1, 0), batch.tokens[-1]),
        targets=(*batch.targets[:-1], *[unasked] * windows, batch.targets[-1]),
        lengths=(*batch.lengths[:-1], *np.moveaxis(lengths, 1, 0), batch.lengths[-1]),
        diagonal=(*batch.diagonal[:-1], *[False] * windows, batch.diagonal[-1]),
        fillers=(*[False] * (len(batch.tokens) - 1), *[True] * windows, False),
    )


def repeated(batch: TaskBatch, asks: int) -> TaskBatch:
    """The batch with its last window, of questions that stand alone, `asks` times."""
    assert batch.diagonal[-1]
    more = asks - 1
    fillers = batch.fillers and (*batch.fillers, *[False] * more)
    return replace(
        batch,
        tokens=(*batch.tokens, *batch.tokens[-1:] * more),
        targets=(*batch.targets, *batch.targets[-1:] * more),
        lengths=(*batch.lengths, *batch.lengths[-1:] * more),
        diagonal=(*batch.diagonal, *batch.diagonal[-1:] * more),
        fillers=fillers,
    )
