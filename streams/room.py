"""Where a step must end so that a KV budget closes windows by the order of events alone.

How events are batched into steps is a matter of speed and of what has arrived; what closes early
must not be. So a step brings only what fits beside what is held, and where nothing fits, what the
one window that must close makes place for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from .cutting import Windower


@dataclass(frozen=True)
class Room:
    """What fits a KV budget before a window must close early: `free` events over all streams.

    A stream takes of them at most `left[stream]`, or `most` if it is not named: more events of it
    push its own out (sliding attention) or begin its next window. Where nothing is free, the next
    event that takes a place closes `next_closed`, which frees `freed` events.
    """

    free: int
    left: Mapping[str, int]
    most: int
    next_closed: str = ""
    freed: int = 0

    @property
    def looked_at(self) -> int:
        """How many of the next events are worth a look: some of them may take no place."""
        return max(self.free + 1, self.freed + 1, 256)

    def of(self, stream: str) -> int:
        """How many events more attention can hold of a stream, whatever the others hold."""
        return self.left.get(stream, self.most)

    def before(self, stream: str) -> Room:
        """What fits from the next event on, which is of `stream`: where it closes a window, what
        that makes place for."""
        if self.free or not self.freed or not self.of(stream):
            return self
        return Room(self.freed, {**self.left, self.next_closed: self.most}, self.most)

    def rows(self, streams: NDArray[np.int64], names: Sequence[str]) -> int:
        """How many of the first rows make a step, at least one. `streams`: indices into `names`."""
        return self.before(names[streams[0]])._first(streams, names)

    def _first(self, streams: NDArray[np.int64], names: Sequence[str]) -> int:
        order = np.argsort(streams, kind="stable")
        ordered = streams[order]
        first = np.searchsorted(ordered, ordered)  # where the rows of each stream begin
        left = np.array([self.of(name) for name in names], np.int64)
        grows = np.empty(len(streams), dtype=bool)
        grows[order] = np.arange(len(streams)) - first < left[ordered]
        over = np.flatnonzero(np.cumsum(grows) > self.free)
        return max(1, int(over[0])) if len(over) else len(streams)


class Step:
    """The events of one step, counted one by one in order of arrival, as a `Cutter` cuts rows: for
    live input. A gap in time closes a window before the first event of a step, never later."""

    def __init__(self, windower: Windower, room: Room, most: int) -> None:
        """most: events of a stream that a step takes at most."""
        self._windower, self._room, self._most = windower, room, most
        self._counts: dict[str, int] = {}
        self._last: dict[str, int] = {}
        self._grown = 0

    def takes(self, stream: str, time: int) -> bool:
        """Whether the next event (`time` in ns) belongs to this step; if so it is counted."""
        if not self._counts:
            self._room = self._room.before(stream)
        count = self._counts.get(stream, 0)
        open_ = self._windower.held(stream) + count
        grown = self._grown + (count < self._room.of(stream))
        if self._counts:
            gap = open_ and self._windower.gap(stream, time, self._last.get(stream))
            ended = count and open_ >= self._windower.length
            if gap or ended or count == self._most or grown > self._room.free:
                return False
        self._grown = grown
        self._counts[stream], self._last[stream] = count + 1, time
        return True
