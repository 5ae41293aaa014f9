"""Rule 110: a row of cells is read; asked is every cell after t steps of the automaton.

Nothing has to be found in the window here; what grows with t is the computation alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from .drawing import draw_difficulties, draw_in_part
from .task import (
    IntArray,
    Part,
    TaskBatch,
    TaskSpace,
    asked_last,
    check_shared_out,
    check_whole,
    checked_rungs,
)

# The new value of a cell, by 4 * left + 2 * itself + right: the binary digits of 110.
RULE = np.array([0, 1, 1, 1, 0, 1, 1, 0], np.int64)


@dataclass(frozen=True)
class Rule110:
    """Run rule 110 on a ring of `width` cells; the difficulty is the depth t, 1..max_depth.

    A token packs (value + 1, depth, position + 1). The cells, in order, are spread evenly over
    `windows` windows, the depth in every token; then every position is asked, value and depth
    blank. An answer is exact if all cells are right. Parts are parts of the 2**width rows. With
    `rungs`, rung n of a sample asks for the row after min(t, rungs[n - 1]) steps. Raises
    InputError for bad parameters.
    """

    name: ClassVar[str] = "rule110"
    width: int = 10
    max_depth: int = 6
    windows: int = 1
    rungs: Sequence[int] = ()

    def __post_init__(self) -> None:
        check_whole("rule110", "width", self.width, 8, 62)
        check_whole("rule110", "max_depth", self.max_depth, 1, 4096)
        check_shared_out("rule110", "width", self.width, self.windows)
        object.__setattr__(self, "rungs", checked_rungs("rule110", self.rungs, self.max_depth))

    @cached_property
    def space(self) -> TaskSpace:
        """The sizes of all that `sample` returns."""
        return TaskSpace(
            fields=(3, self.max_depth + 1, self.width + 1),
            answers=2,
            window=self.width,
            windows=self.windows + 1,
            difficulties=tuple(range(1, self.max_depth + 1)),
        )

    def sample(
        self,
        random: np.random.Generator,
        count: int,
        *,
        part: Part,
        weights: Mapping[int, float] | None = None,
        difficulty: int | None = None,
    ) -> TaskBatch:
        """Draw `count` samples; see `Task.sample`."""
        depth = draw_difficulties(random, count, self.space.difficulties, weights, difficulty)
        _, row = draw_in_part(random, part, depth, self._rows)
        position = np.arange(1, self.width + 1)
        cells = self.space.pack(row + 1, depth[:, None], position)
        questions = np.tile(self.space.pack(0, 0, position), (count, 1))
        rows = [row]
        for _ in range(int(depth.max())):
            rows.append(after_one_step(rows[-1]))
        found = np.stack(rows)

        def after(most: int) -> IntArray:
            return found[np.minimum(depth, most), np.arange(count)]

        rungs = [after(level) for level in self.rungs]
        windows = [*np.split(cells, self.windows, axis=1), questions]
        return asked_last(windows, after(self.max_depth), depth, rungs)

    def _rows(self, random: np.random.Generator, depth: IntArray) -> tuple[IntArray, IntArray]:
        """The row as one integer `[R, 1]`, and its cells `[R, width]`."""
        row = random.integers(2, size=(len(depth), self.width))
        return (row << np.arange(self.width)).sum(axis=1, keepdims=True), row


def after_one_step(row: IntArray) -> IntArray:
    """Return the next rows of rings of cells 0 or 1, `[R, width]`."""
    after: IntArray = RULE[4 * np.roll(row, 1, axis=1) + 2 * row + np.roll(row, -1, axis=1)]
    return after
