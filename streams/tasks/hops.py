"""Hops: the edges of a directed cycle are read; asked is, for every node, the node k hops on.

Paths of which only the end is asked, with no k to be seen, are in `chain`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import ClassVar, Literal, get_args

import numpy as np

from ..errors import InputError, nearest
from .drawing import draw_difficulties, draw_in_part, draw_size, permutations, taken
from .questions import check_asks, checked_delays, delayed, repeated
from .task import (
    IntArray,
    Part,
    TaskBatch,
    TaskSpace,
    asked_last,
    check_shared_out,
    check_switch,
    check_whole,
    checked_rungs,
)

Show = Literal["window", "last"]


@dataclass(frozen=True)
class Hops:
    """Find the node k hops on in a cycle; the difficulty is k, 1..max_hops.

    A token packs (source + 1, successor + 1, k). The edges, shuffled, are spread evenly over
    `windows` windows, each of which ends with (blank, blank, k); then every node is asked, as
    (node + 1, blank, k). With `show="last"`, k is blank before the last of those windows. With
    `absent`, the windows after the first also list the nodes whose edges they lack, with a blank
    successor, so that every node has a place there. With `rungs`, rung n of a sample asks for the
    node min(k, rungs[n - 1]) hops on. With `least`, a cycle of the part "train" leaves nodes out:
    each batch draws how many nodes it has, `least` to `nodes` (`draw_size`), since what is to be
    found among few is learned sooner. With `delays`, as many filler windows as one of them, drawn
    for each sample, stand before the questions, of nodes / windows events each; their tokens are
    (blank, anything, blank). The questions are put `asks` times, in as many windows. Raises
    InputError for bad parameters.
    """

    name: ClassVar[str] = "hops"
    nodes: int = 16
    windows: int = 1
    max_hops: int = 8
    show: Show = "window"
    absent: bool = False
    rungs: Sequence[int] = ()
    least: int = 0
    delays: Sequence[int] = ()
    asks: int = 1

    def __post_init__(self) -> None:
        check_whole("hops", "nodes", self.nodes, 4, 4096)
        check_whole("hops", "max_hops", self.max_hops, 1, self.nodes - 1)
        check_switch("hops", "absent", self.absent)
        object.__setattr__(self, "delays", checked_delays("hops", self.delays))
        check_asks("hops", self.asks)
        object.__setattr__(self, "rungs", checked_rungs("hops", self.rungs, self.max_hops))
        if self.windows not in (1, 2, 4):
            raise InputError(f"hops: windows={self.windows!r}: expected 1, 2 or 4")
        check_shared_out("hops", "nodes", self.nodes, self.windows)
        if self.least:
            check_whole("hops", "least", self.least, 2 * self.windows, self.nodes)
        if self.show not in get_args(Show):
            close = nearest(str(self.show), get_args(Show))
            raise InputError(f"hops: show={self.show!r}: expected 'window' or 'last'{close}")

    @cached_property
    def space(self) -> TaskSpace:
        """The sizes of all that `sample` returns."""
        listed = self.nodes if self.absent and self.windows > 1 else self.nodes // self.windows
        return TaskSpace(
            fields=(self.nodes + 1, self.nodes + 1, self.max_hops + 1),
            answers=self.nodes,
            window=max(listed + 1, self.nodes),
            windows=self.windows + max(self.delays, default=0) + self.asks,
            difficulties=tuple(range(1, self.max_hops + 1)),
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
        """Draw `count` samples; see `Task.sample`. Nodes are asked in rising order."""
        k = draw_difficulties(random, count, self.space.difficulties, weights, difficulty)
        size = self.nodes
        if self.least and part == "train":
            size = draw_size(random, self.least, self.nodes, self.windows)
        _, cycle = draw_in_part(random, part, k, partial(self._cycles, size))
        questions = self.space.pack(np.sort(cycle, axis=1) + 1, 0, k[:, None])
        windows = self._listed(random, cycle, k[:, None])
        place = np.argsort(cycle, axis=1)  # of each node that is there, in rising order

        def reached(hops: IntArray) -> IntArray:
            return taken(cycle, (place + hops[:, None]) % size)

        rungs = [reached(np.minimum(k, level)) for level in self.rungs]
        batch = asked_last([*windows, questions], reached(k), k, rungs)

        def fillers(shape: tuple[int, ...]) -> IntArray:
            return self.space.pack(0, random.integers(self.nodes + 1, size=shape), 0)

        late = delayed(batch, random, self.delays, size // self.windows, fillers)
        return repeated(late, self.asks)

    def _cycles(
        self, size: int, random: np.random.Generator, k: IntArray
    ) -> tuple[IntArray, IntArray]:
        """The edges as integers, and the nodes in the order of the cycle, both `[R, size]`."""
        cycle = permutations(random, len(k), self.nodes)[:, :size]
        return cycle * self.nodes + np.roll(cycle, -1, axis=1), cycle

    def _listed(self, random: np.random.Generator, cycle: IntArray, k: IntArray) -> list[IntArray]:
        """The windows that hold the edges, as tokens `[B, L]`; `k` is `[B, 1]`."""
        size = cycle.shape[1]
        share = size // self.windows
        order = permutations(random, len(cycle), size)  # places on the cycle, as read
        windows = []
        for number in range(self.windows):
            place = order[:, number * share : (number + 1) * share]
            held = np.ones(place.shape, np.bool_)
            if self.absent and number:
                turn = permutations(random, len(cycle), size)  # place[turn], as read
                place, held = taken(order, turn), turn // share == number
            after = np.where(held, taken(cycle, (place + 1) % size) + 1, 0)
            shown = k if self.show == "window" or number == self.windows - 1 else np.zeros_like(k)
            edges = self.space.pack(taken(cycle, place) + 1, after, shown)
            windows.append(np.concatenate([edges, self.space.pack(0, 0, shown)], axis=1))
        return windows
