"""Chain: the edges of disjoint paths are read; asked is, for every node, the end of its path.

No token tells how long the longest path is: a policy must find out what a window needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
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


@dataclass(frozen=True)
class Chain:
    """Find the end of the path that a node lies on; the difficulty is the longest path, in hops.

    A token packs (source + 1, successor + 1); an end points at itself. The edges of all nodes,
    shuffled, are spread evenly over `windows` windows; then every node is asked, as
    (node + 1, blank). The longest path has `shortest`..`longest` edges (None: as few, as many as
    fit); the other nodes make the other paths, none longer, each way to share them out equally
    likely. With `alone` all paths are of the longest length, and a node that is left over is a path
    of its own: where a path ends cannot be told from which ends there are. With `rungs`, rung n of
    a sample asks for the node rungs[n - 1] hops on, or the end if that is nearer. With `least`, a
    sample of the part "train" leaves nodes out of its paths: each batch draws how many nodes it
    has, `least` to `nodes` (`draw_size`), since what is to be found among few is learned sooner;
    its difficulty is that of the whole. With `delays`, as many filler windows as one of them, drawn
    for each sample, stand before the questions, as long as those before them; their tokens are
    (blank, anything). The questions are put `asks` times, in as many windows. Raises InputError for
    bad parameters.
    """

    name: ClassVar[str] = "chain"
    nodes: int = 16
    paths: int = 4
    windows: int = 1
    shortest: int | None = None
    longest: int | None = None
    alone: bool = False
    rungs: Sequence[int] = ()
    least: int = 0
    delays: Sequence[int] = ()
    asks: int = 1

    def __post_init__(self) -> None:
        check_whole("chain", "nodes", self.nodes, 4, 64)  # what the tables stay small for
        check_whole("chain", "paths", self.paths, 1, self.nodes // 2)
        check_shared_out("chain", "nodes", self.nodes, self.windows)
        check_switch("chain", "alone", self.alone)
        if self.least:
            check_whole("chain", "least", self.least, 2 * self.windows, self.nodes)
        object.__setattr__(self, "delays", checked_delays("chain", self.delays))
        check_asks("chain", self.asks)
        least, most = self._bounds()
        object.__setattr__(self, "rungs", checked_rungs("chain", self.rungs, most))
        for name in ("shortest", "longest"):
            value = getattr(self, name)
            if value is None:
                continue
            check_whole("chain", name, value, 1, self.nodes)
            if not least <= value <= most:
                raise InputError(
                    f"chain: {name}={value}: with nodes={self.nodes}, paths={self.paths} and "
                    f"alone={self.alone}, the longest path has {least}..{most} edges"
                )
        if (self.shortest or least) > (self.longest or most):
            raise InputError(f"chain: shortest={self.shortest} is above longest={self.longest}")

    def _bounds(self) -> tuple[int, int]:
        """The fewest and the most edges that the longest path can have."""
        if self.alone:
            return 1, self.nodes // self.paths - 1
        return -(-self.nodes // self.paths) - 1, self.nodes - self.paths

    @cached_property
    def space(self) -> TaskSpace:
        """The sizes of all that `sample` returns."""
        least, most = self._bounds()
        first = least if self.shortest is None else self.shortest
        last = most if self.longest is None else self.longest
        return TaskSpace(
            fields=(self.nodes + 1, self.nodes + 1),
            answers=self.nodes,
            window=self.nodes,
            windows=self.windows + max(self.delays, default=0) + self.asks,
            difficulties=tuple(range(first, last + 1)),
        )

    @cached_property
    def _shares(self) -> NDArray[np.float64]:
        """`_share_table` for every difficulty, `[difficulties, paths, nodes + 1, nodes + 1]`."""
        return np.stack(
            [_share_table(self.nodes, self.paths, hops + 1) for hops in self.space.difficulties]
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
        hops = draw_difficulties(random, count, self.space.difficulties, weights, difficulty)
        size = self.nodes
        if self.least and part == "train":
            size = draw_size(random, self.least, self.nodes, self.windows)
        edges, node, sizes = draw_in_part(random, part, hops, partial(self._paths, size))
        order = permutations(random, count, size)
        source, after = np.divmod(taken(edges, order), self.nodes)
        windows = np.split(self.space.pack(source + 1, after + 1), self.windows, axis=1)
        questions = self.space.pack(np.sort(node, axis=1) + 1, 0)
        asked = np.argsort(node, axis=1)  # where on the paths each node is, in rising order
        last = np.cumsum(sizes, axis=1) - 1
        place = np.arange(size)
        end = taken(last, (last[:, :, None] < place).sum(axis=1))

        def reached(hops: int) -> IntArray:
            return taken(taken(node, np.minimum(place + hops, end)), asked)

        rungs = [reached(level) for level in self.rungs]
        batch = asked_last([*windows, questions], reached(size), hops, rungs)

        def fillers(shape: tuple[int, ...]) -> IntArray:
            return self.space.pack(0, random.integers(self.nodes + 1, size=shape))

        late = delayed(batch, random, self.delays, size // self.windows, fillers)
        return repeated(late, self.asks)

    def _paths(
        self, size: int, random: np.random.Generator, hops: IntArray
    ) -> tuple[IntArray, ...]:
        """Edges as integers and `size` nodes `[R, size]`, path after path; sizes `[R, paths]`."""
        sizes = self._sizes(random, hops)
        node = permutations(random, len(hops), self.nodes)
        if size < self.nodes:
            kept = permutations(random, len(hops), self.nodes) < size
            path = (np.cumsum(sizes, axis=1)[:, :, None] <= np.arange(self.nodes)).sum(axis=1)
            number = np.arange(sizes.shape[1])[:, None]
            sizes = (kept[:, None] & (path[:, None] == number)).sum(axis=2)
            node = node[kept].reshape(len(hops), size)
        after = np.roll(node, -1, axis=1)
        rows, last = np.nonzero(sizes)[0], (np.cumsum(sizes, axis=1) - 1)[sizes > 0]
        after[rows, last] = node[rows, last]
        return node * self.nodes + after, node, sizes

    def _sizes(self, random: np.random.Generator, hops: IntArray) -> IntArray:
        """How many nodes each path has, `[R, paths]`, the longest first; if `alone`, those of nodes
        that are left over come after them, 0 where there is none."""
        if self.alone:
            left = self.nodes - self.paths * (hops + 1)
            single = np.arange(self.nodes - 2 * self.paths) < left[:, None]
            whole = np.broadcast_to(hops[:, None] + 1, (len(hops), self.paths))
            return np.concatenate([whole, single], axis=1)
        sizes = np.empty((len(hops), self.paths), np.int64)
        sizes[:, 0] = hops + 1
        left = self.nodes - sizes[:, 0]
        row = hops - self.space.difficulties[0]
        for number in range(1, self.paths):
            bounds = self._shares[row, self.paths - number, left]
            sizes[:, number] = (bounds <= random.random((len(hops), 1))).sum(axis=1)
            left = left - sizes[:, number]
        return sizes


def _share_table(nodes: int, paths: int, largest: int) -> NDArray[np.float64]:
    """How the next of several paths gets its nodes, every way to share them out equally likely.

    `[paths, nodes + 1, nodes + 1]`: entry [p, m, s] is the chance that, of p paths of 1..`largest`
    nodes that share m nodes, the first gets at most s. Entries that cannot occur are 0.
    """
    ways = [[1] + [0] * nodes]
    for _ in range(1, paths):
        below = ways[-1]
        ways.append(
            [sum(below[max(0, m - largest) : m]) for m in range(nodes + 1)]  # m - size, size >= 1
        )
    table = np.zeros((paths, nodes + 1, nodes + 1))
    for p in range(1, paths):
        for m in range(p, min(nodes, p * largest) + 1):
            total = 0
            for size in range(1, nodes + 1):
                if size <= min(m, largest):
                    total += ways[p - 1][m - size]
                table[p, m, size] = total / ways[p][m]
    return table
