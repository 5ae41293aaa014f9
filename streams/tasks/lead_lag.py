"""Lead and lag: each channel of a panel copies another one; asked is every channel, h steps ahead.

Who copies whom is hidden and new in every sample: it has to be found in the window, then followed.
A cycle whose edges are written down is in `hops`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .drawing import draw_difficulties, draw_in_part, draw_size, permutations, placed, taken
from .task import (
    IntArray,
    Part,
    Targets,
    TaskBatch,
    TaskSpace,
    asked_last,
    check_whole,
    checked_rungs,
)

Panel = NDArray[Any]  # classes, int64, or real values, float64


@dataclass(frozen=True)
class LeadLag:
    """Forecast a panel of copies; the difficulty is how many steps h ahead, 0..max_horizon.

    Channel c at time t is channel p(c) at t - 1, where p is one cycle through all `channels`; so h
    steps after the last time it is the last value of channel p^h(c). One event per channel,
    shuffled, holds its last `steps` values, the oldest first; then every channel is asked, in
    rising order, its values blank. h stands in every token.

    With `levels`, values are classes: a token packs (channel + 1, value + 1 for each step, h), and
    no two channels have the same value at one time, so that two steps give p away. With `levels`
    0 they are real: a token packs (channel + 1, h), its event carries the values, float32, blank
    NaN. The first are uniform in -1..1; every copy shown adds normal noise of deviation `noise`.
    The target is then what is to be expected: the last value shown of channel p^h(c).

    Parts are parts of the cycles. With `rungs`, rung n of a sample asks for
    min(h, rungs[n - 1]) steps ahead. With `least`, a panel of the part "train" leaves channels out:
    each batch draws how many it has, `least` to `channels` (`draw_size`), since what is to be found
    among few is learned sooner. Raises InputError for bad parameters.
    """

    name: ClassVar[str] = "lead_lag"
    channels: int = 12
    levels: int = 16
    steps: int = 2
    max_horizon: int = 6
    noise: float = 0.0
    rungs: Sequence[int] = ()
    least: int = 0

    def __post_init__(self) -> None:
        check_whole("lead_lag", "channels", self.channels, 4, 1024)
        check_whole("lead_lag", "levels", self.levels, 0, 4096)
        if 0 < self.levels < self.channels:
            raise InputError(
                f"lead_lag: levels={self.levels}: expected 0 (real values), or at least "
                f"channels={self.channels}, so that all values of one time differ"
            )
        # more classes than that do not fit into one token
        most = 64 if not self.levels else int(40 / math.log2(self.levels + 1))
        check_whole("lead_lag", "steps", self.steps, 2, most)
        check_whole("lead_lag", "max_horizon", self.max_horizon, 1, self.channels - 1)
        object.__setattr__(self, "rungs", checked_rungs("lead_lag", self.rungs, self.max_horizon))
        if self.least:
            check_whole("lead_lag", "least", self.least, 2, self.channels)
        if type(self.noise) not in (int, float) or not 0 <= self.noise <= 1:
            raise InputError(f"lead_lag: noise={self.noise!r}: expected a number in 0..1")
        if self.noise and self.levels:
            raise InputError(
                f"lead_lag: noise={self.noise}: classes are copied as they are; set levels=0 for "
                "real values, or leave noise out"
            )

    @cached_property
    def space(self) -> TaskSpace:
        """The sizes of all that `sample` returns."""
        shown = (self.levels + 1,) * self.steps if self.levels else ()
        return TaskSpace(
            fields=(self.channels + 1, *shown, self.max_horizon + 1),
            answers=self.levels or 1,
            window=self.channels,
            windows=2,
            difficulties=tuple(range(self.max_horizon + 1)),
            values=0 if self.levels else self.steps,
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
        h = draw_difficulties(random, count, self.space.difficulties, weights, difficulty)
        size = self.channels
        if self.least and part == "train":
            size = draw_size(random, self.least, self.channels)
        _, channel, before = draw_in_part(random, part, h, partial(self._cycles, size))
        panel = self._panel(random, before)
        ahead: list[Panel] = [panel[:, :, -1]]
        for _ in range(self.max_horizon):
            ahead.append(np.take_along_axis(ahead[-1], before, axis=1))
        found = np.stack(ahead)

        def after(most: int) -> Targets:
            reached: Targets = found[np.minimum(h, most), np.arange(count)]
            return reached

        order = permutations(random, count, size)
        read = np.take_along_axis(panel, order[:, :, None], axis=1)
        return asked_last(
            [self._tokens(taken(channel, order), read, h), self._tokens(channel, None, h)],
            after(self.max_horizon),
            h,
            [after(level) for level in self.rungs],
            () if self.levels else (read.astype(np.float32), np.full(read.shape, np.nan, "f4")),
        )

    def _cycles(
        self, size: int, random: np.random.Generator, h: IntArray
    ) -> tuple[IntArray, IntArray, IntArray]:
        """The edges of p as integers, the channels that are there, in rising order, and the place
        there of p of each, all `[R, size]`."""
        channel = np.broadcast_to(np.arange(size), (len(h), size))
        if size < self.channels:
            some = permutations(random, len(h), self.channels)[:, :size]
            channel = np.sort(some, axis=1)
        cycle = permutations(random, len(h), size)
        before = placed(np.roll(cycle, -1, axis=1), cycle)
        return channel * self.channels + taken(channel, before), channel, before

    def _panel(self, random: np.random.Generator, before: IntArray) -> Panel:
        """What is shown, `[B, size, steps]`, the oldest first; real values as float32 has them.

        `before` is p, `[B, size]`.
        """
        if self.levels:
            shown = [permutations(random, len(before), self.levels)[:, : before.shape[1]]]
            for _ in range(self.steps - 1):
                shown.append(taken(shown[-1], before))
            return np.stack(shown, axis=-1)
        values = [random.uniform(-1.0, 1.0, before.shape)]
        for _ in range(self.steps - 1):
            copied = np.take_along_axis(values[-1], before, axis=1)
            values.append(copied + self.noise * random.standard_normal(before.shape))
        return np.stack(values, axis=-1).astype(np.float32).astype(np.float64)

    def _tokens(self, channel: IntArray, read: Panel | None, h: IntArray) -> IntArray:
        """Tokens of events `[B, L]` of `channel`, with what was read of it `[B, L, steps]`."""
        shown: list[IntArray] = []
        if self.levels:
            blank = np.zeros((*channel.shape, self.steps), np.int64)
            levels = blank if read is None else read.astype(np.int64) + 1
            shown = [levels[:, :, step] for step in range(self.steps)]
        return self.space.pack(channel + 1, *shown, h[:, None])
