"""The inbox of a live run: a thread takes events in as they come and records them; none is dropped.

What is full takes no more for a while, so that a pipe holds its writer back and memory is bounded.
When to run the events, and with how much sleep, is live.py's business.
"""

from __future__ import annotations

import heapq
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

from adaptive_sleep.experiments.live_event import LiveEvent
from adaptive_sleep.streams.events import Piece
from adaptive_sleep.streams.writer import RecordingWriter

MOST = 131_072  # events that wait at most, over all streams
WAIT_SECONDS = 0.1  # how often a quiet source is looked at, and so how soon Ctrl-C is heard


class Inbox:
    """What has arrived and is not yet run: a queue a stream, filled by a thread."""

    def __init__(
        self,
        events: Iterable[LiveEvent | None],
        writer: RecordingWriter | None,
        stop: threading.Event,
    ) -> None:
        self.stop = stop
        self.error: BaseException | None = None
        self.largest = 0
        self._waiting: dict[str, deque[tuple[int, LiveEvent]]] = {}  # numbered as they came
        self._count = 0
        self._came = 0
        self._writer = writer
        self._changed = threading.Condition()
        self._ended = False
        threading.Thread(target=self._fill, args=(iter(events),), daemon=True).start()

    def _fill(self, events: Iterator[LiveEvent | None]) -> None:
        try:
            for event in events:
                with self._changed:
                    while event is not None and self._count >= MOST and not self.stop.is_set():
                        self._changed.wait(WAIT_SECONDS)
                        self._tick()
                    if self.stop.is_set():
                        break
                    if event is None:  # nothing has come for a while
                        self._tick()
                        continue
                    if self._writer is not None:
                        self._writer.append(
                            event.stream,
                            event.time,
                            values=event.values,
                            tokens=event.token,
                        )
                    queue = self._waiting.setdefault(event.stream, deque())
                    queue.append((self._came, event))
                    self._came += 1
                    self._count += 1
                    self.largest = max(self.largest, len(queue))
                    self._changed.notify()
        except BaseException as error:  # told to the one who runs, after what came before it
            self.error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify()

    def _tick(self) -> None:
        """Let the recording be flushed if it is time, where nothing is added to it."""
        if self._writer is not None:
            self._writer.tick()

    def wait(self) -> bool:
        """Wait until something is there; False once nothing is and nothing more will come."""
        with self._changed:
            while not any(self._waiting.values()):
                if self._ended or self.stop.is_set():
                    return False
                self._changed.wait(WAIT_SECONDS)
            return True

    def look(
        self, most: Mapping[str, int], otherwise: int, in_all: int
    ) -> dict[str, list[LiveEvent]]:
        """The next events of each stream, at most `most[stream]` or `otherwise`; they stay.

        No more than `in_all` over all streams, those with the longest queues first.
        """
        found: dict[str, list[LiveEvent]] = {}
        with self._changed:
            queues = [(stream, queue) for stream, queue in self._waiting.items() if queue]
            for stream, queue in sorted(queues, key=lambda pair: -len(pair[1])):
                count = min(len(queue), most.get(stream, otherwise), in_all)
                in_all -= count
                if count:
                    found[stream] = [event for _, event in islice(queue, count)]
        return found

    def first(self, most: int) -> list[LiveEvent]:
        """The next events over all streams in the order in which they came; they stay."""
        with self._changed:
            came = heapq.merge(*self._waiting.values(), key=lambda pair: pair[0])
            return [event for _, event in islice(came, most)]

    def backlog(self) -> int:
        """Events of the stream that has most of them waiting."""
        with self._changed:
            return max((len(queue) for queue in self._waiting.values()), default=0)

    def drop(self, pieces: Sequence[Piece]) -> None:
        """Forget events that have been run."""
        with self._changed:
            for piece in pieces:
                for _ in range(len(piece.events)):
                    self._waiting[piece.stream].popleft()
                self._count -= len(piece.events)
            self._changed.notify()

    def close(self) -> None:
        """Take nothing more, and close the recording of what was taken."""
        self.stop.set()
        with self._changed:
            if self._writer is not None:
                self._writer.close()
