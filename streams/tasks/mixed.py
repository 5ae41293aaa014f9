"""Mixed: samples whose difficulty comes in bursts, as load does.

It draws from tasks and is none itself: its samples have an order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .drawing import check_weights
from .task import IntArray, Part, Task, TaskBatch, TaskSpace


@dataclass(frozen=True)
class Mixed:
    """Draw samples of `parts` in bursts that are easy and hard by turns.

    `parts` are tasks with weights; they share fields, answers, windows, questions and values, and
    the usual mix is one task alone. `easy` and `hard` are weights per difficulty. `bursts` are the
    mean lengths, in samples, of an easy and of a hard burst: a Markov chain of two states leaves
    its state before each sample with chance 1 / mean. Raises InputError for bad parameters.
    """

    parts: tuple[tuple[Task, float], ...]
    easy: Mapping[int, float]
    hard: Mapping[int, float]
    bursts: tuple[float, float] = (32.0, 8.0)

    name: ClassVar[str] = "mixed"

    def __post_init__(self) -> None:
        if not self.parts:
            raise InputError("parts: give at least 1 task with its weight")
        first = self.parts[0][0].space
        for task, weight in self.parts:
            if not (math.isfinite(weight) and weight > 0):
                raise InputError(f"parts: weight {weight} of {task.name}: finite and above 0")
            if _shape(task.space) != _shape(first):
                raise InputError(
                    f"parts: {task.name} has fields, answers, windows, questions, values = "
                    f"{_shape(task.space)}, {self.parts[0][0].name} has {_shape(first)}: "
                    "mix tasks that share them"
                )
            check_weights("easy", self.easy, task.space.difficulties)
            check_weights("hard", self.hard, task.space.difficulties)
        for mean in self.bursts:
            if not (math.isfinite(mean) and mean >= 1):
                raise InputError(f"bursts={self.bursts}: mean lengths are finite and at least 1")

    @property
    def space(self) -> TaskSpace:
        """The sizes of all that `sequence` returns."""
        spaces = [task.space for task, _ in self.parts]
        return TaskSpace(
            fields=spaces[0].fields,
            answers=spaces[0].answers,
            window=max(space.window for space in spaces),
            windows=spaces[0].windows,
            difficulties=tuple(sorted({d for space in spaces for d in space.difficulties})),
            questions=spaces[0].questions,
            values=spaces[0].values,
        )

    def sequence(self, random: np.random.Generator, count: int, part: Part) -> TaskBatch:
        """Return `count` samples of `part` in order, from a random moment of the chain on."""
        return self._drawn(random, self._states(random, count, None), part)

    def stream(self, seed: int, part: Part, count: int = 1) -> Iterator[TaskBatch]:
        """Yield batches of `count` samples without end; bursts run on from batch to batch."""
        random = np.random.default_rng(seed)
        last: bool | None = None
        while True:
            hard = self._states(random, count, last)
            last = bool(hard[-1])
            yield self._drawn(random, hard, part)

    def dealt(
        self, random: np.random.Generator, count: int, part: Part, *, streams: int
    ) -> TaskBatch:
        """Return `count` samples of `part`, sample i for stream i mod `streams`; each stream has
        bursts of its own. Raises InputError where a stream would have none."""
        if not 1 <= streams <= count:
            raise InputError(f"streams={streams}: from 1 to {count}, one sample each at least")
        rows = [np.arange(first, count, streams) for first in range(streams)]
        return in_order(rows, [self.sequence(random, len(some), part) for some in rows])

    def _states(
        self, random: np.random.Generator, count: int, last: bool | None
    ) -> NDArray[np.bool_]:
        """Which of the next samples are hard, `[count]`; `last` is the state before them."""
        if count < 1:
            raise InputError(f"count={count}: draw at least 1 sample")
        easy, hard = self.bursts
        if last is None:
            start = bool(random.random() < hard / (easy + hard))
        else:
            start = last ^ bool(random.random() < 1 / (hard if last else easy))
        # as many bursts as samples suffice, since each has at least one
        turns = np.arange(count) % 2 == 1
        lengths = random.geometric(1 / np.where(turns ^ start, hard, easy))
        burst = np.searchsorted(np.cumsum(lengths), np.arange(count), side="right")
        states: NDArray[np.bool_] = turns[burst] ^ start
        return states

    def _drawn(self, random: np.random.Generator, hard: NDArray[np.bool_], part: Part) -> TaskBatch:
        """Draw the samples, task by task and state by state, and put them in order."""
        weights = np.array([weight for _, weight in self.parts])
        chosen = random.choice(len(self.parts), size=len(hard), p=weights / weights.sum())
        rows: list[IntArray] = []
        batches: list[TaskBatch] = []
        for number, (task, _) in enumerate(self.parts):
            for state, table in ((False, self.easy), (True, self.hard)):
                here = np.flatnonzero((chosen == number) & (hard == state))
                if len(here):
                    rows.append(here)
                    batches.append(task.sample(random, len(here), part=part, weights=table))
        return in_order(rows, batches)


def _shape(space: TaskSpace) -> tuple[tuple[int, ...], int, int, str, int]:
    return space.fields, space.answers, space.windows, space.questions, space.values


def in_order(rows: Sequence[IntArray], batches: Sequence[TaskBatch]) -> TaskBatch:
    """Put the samples of each batch at its rows; windows are padded to the longest."""
    if len({(batch.diagonal, batch.fillers) for batch in batches}) > 1:
        raise InputError(
            "parts: all tasks ask in the same windows, all diagonal or none, after the same fillers"
        )
    windows = range(len(batches[0].tokens))
    unasked = -1 if batches[0].targets[0].dtype.kind == "i" else np.nan
    return TaskBatch(
        tokens=tuple(_merged(rows, [batch.tokens[w] for batch in batches], 0) for w in windows),
        targets=tuple(
            _merged(rows, [batch.targets[w] for batch in batches], unasked) for w in windows
        ),
        lengths=tuple(_merged(rows, [batch.lengths[w] for batch in batches], 0) for w in windows),
        difficulty=_merged(rows, [batch.difficulty for batch in batches], 0),
        diagonal=batches[0].diagonal,
        fillers=batches[0].fillers,
        values=tuple(
            _merged(rows, [batch.values[w] for batch in batches], np.nan)
            for w in range(len(batches[0].values))
        ),
    )


def _merged(rows: Sequence[IntArray], arrays: Sequence[NDArray[Any]], blank: float) -> NDArray[Any]:
    """Return the rows of `arrays`, `[R]`, `[R, L]` or `[R, L, V]`, in one array of their kind,
    filled up with `blank`."""
    shape = (sum(map(len, rows)), *np.max([array.shape[1:] for array in arrays], axis=0).tolist())
    merged = np.full(shape, blank, arrays[0].dtype)
    for here, array in zip(rows, arrays, strict=True):
        if array.ndim == 1:
            merged[here] = array
        else:
            merged[here, : array.shape[1]] = array
    return merged
