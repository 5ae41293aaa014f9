"""Cutting a recording into steps, and each stream into windows, by count and by gaps in time.

Grouping is a pure function of recording order, window length, gap, room and `closed` calls; never
of speed or of how rows are stored. What holds the KV budget, and closes early, is the runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .events import Block, Cause, Events, Piece
from .recording import Recording
from .room import Room
from .rows import rows_within

TARGET = "target"  # the label channel of a recording of tokens that says what is asked
_FAR = np.iinfo(np.int64).max
_BUFFER_ROWS = 65_536
_LONGEST = 1e18  # seconds; no two times are as far apart


class Windower:
    """Counts the events that each stream's open window holds, and sees gaps in time.

    A window closes at `length` events, or before an event that comes more than `gap_seconds` after
    the one before it in its stream. Raises InputError for a length below 1, or a gap not above 0 or
    longer than `_LONGEST` seconds.
    """

    def __init__(self, length: int, gap_seconds: float | None = None) -> None:
        if length < 1:
            raise InputError(f"length={length}: a window holds at least 1 event")
        if gap_seconds is not None and not 0 < gap_seconds <= _LONGEST:
            raise InputError(
                f"gap_seconds={gap_seconds}: above 0 and at most {_LONGEST:g}, or None for no gaps"
            )
        self.length = length
        self.gap_seconds = gap_seconds
        self._gap_ns = _FAR if gap_seconds is None else min(round(gap_seconds * 1e9), _FAR)
        self._held: dict[str, int] = {}
        self._last: dict[str, int] = {}
        self._changed: set[str] = set()

    def held(self, stream: str) -> int:
        """How many events the open window of `stream` holds."""
        return self._held.get(stream, 0)

    def gap(self, stream: str, time: int, last: int | None = None) -> bool:
        """Whether an event at `time` comes after a gap in its stream, whose event before it is at
        `last` (ns; default as it was cut last)."""
        last = self._last.get(stream) if last is None else last
        return last is not None and time - last > self._gap_ns

    def closed(self, stream: str) -> None:
        """Take note that the runtime closed the window of `stream` early."""
        self._held[stream] = 0
        self._changed.add(stream)

    def split(self, stream: str, events: Events) -> list[Piece]:
        """Cut the next events of one stream into pieces, to be stepped one after another.

        For live input; a `Cutter` cuts a recording. A gap closes the window with the events that
        came before it in this call, or with an empty piece.
        """
        pieces: list[Piece] = []
        first, held = 0, self.held(stream)
        last = self._last.get(stream)
        for i, time in enumerate(events.time.tolist()):
            if held and self.gap(stream, time, last):
                pieces.append(Piece(stream, events[first:i], True, "gap"))
                first, held = i, 0
            held, last = held + 1, time
            if held == self.length:
                pieces.append(Piece(stream, events[first : i + 1], True, "length"))
                first, held = i + 1, 0
        if first < len(events):
            pieces.append(Piece(stream, events[first:]))
        self._held[stream] = held
        if last is not None:
            self._last[stream] = last
        return pieces

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs, as JSON."""
        streams = {name: [held, self._last.get(name)] for name, held in self._held.items()}
        return {"length": self.length, "gap_seconds": self.gap_seconds, "streams": streams}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken; raises InputError if length or gap differ."""
        found = (state.get("length"), state.get("gap_seconds"))
        if found != (self.length, self.gap_seconds):
            raise InputError(
                f"state of a windower with length, gap_seconds = {found}; "
                f"this one has {(self.length, self.gap_seconds)}"
            )
        streams = state["streams"]
        self._held = {name: int(held) for name, (held, _) in streams.items()}
        self._last = {name: int(last) for name, (_, last) in streams.items() if last is not None}
        self._changed = set(self._held)

    def _take(self, stream: str, count: int, last: int, closes: bool) -> None:
        self._held[stream] = 0 if closes else self._held.get(stream, 0) + count
        self._last[stream] = last


class Cutter:
    """Yields `(row offset after this step, pieces)`, step after step, in recording order.

    A step takes contiguous rows, at most one piece per stream: it ends before the first row that
    would need a second piece of its stream, or after `max_rows`. A gap that shows at a row closes
    the window before that row, with an empty piece if the step holds no event of the stream; gaps
    that show at the same time, within `max_rows`, close their windows in the same step, so that
    streams whose windows begin together are run as one batch.
    Pieces are in the order of `recording.streams` and carry no label, but for the `target` of a
    recording of tokens, as `Events.targets`. With `close_at_end`, a last step closes what is open.
    Iterating again from a yielded offset, with the windower's state of that moment, gives the same
    further steps. `room`, asked before each step, is what fits a KV budget (None: no budget): a
    step takes no rows beyond it, or where none fits what one window that closes early makes place
    for, and closes no gap ahead of a row before which another might; so what must close early is
    the same however rows are batched.
    """

    def __init__(
        self,
        recording: Recording,
        windower: Windower,
        *,
        start: int = 0,
        stop: int | None = None,
        max_rows: int = 8192,
        close_at_end: bool = True,
        room: Callable[[], Room | None] | None = None,
    ) -> None:
        stop = recording.rows if stop is None else stop
        if not 0 <= start <= stop <= recording.rows or max_rows < 1:
            raise InputError(
                f"start={start}, stop={stop}, max_rows={max_rows}: "
                f"0 <= start <= stop <= {recording.rows} (rows), and max_rows at least 1"
            )
        self.recording, self.windower = recording, windower
        self.start, self.stop, self.max_rows = start, stop, max_rows
        self.close_at_end, self.room = close_at_end, room

    def __iter__(self) -> Iterator[tuple[int, list[Piece]]]:
        at = self.start
        reader = _Reader(self.recording, at, self.stop)
        while at < self.stop:
            buffer = reader.ahead(at, self.max_rows)
            view = _View(buffer, self.recording.streams, self.windower)
            # Rows further than max_rows ahead are in the buffer: where it ends decides no cut.
            while at < self.stop and (buffer.end == self.stop or at + self.max_rows <= buffer.end):
                room = None if self.room is None else self.room()
                at, pieces = view.step(at, min(at + self.max_rows, self.stop), room)
                yield at, pieces
        if self.close_at_end:
            pieces = self._last_pieces()
            if pieces:
                yield at, pieces

    def _last_pieces(self) -> list[Piece]:
        pieces = []
        for stream in self.recording.streams:
            if self.windower.held(stream):
                pieces.append(Piece(stream, _nothing(self.recording), True, "end"))
                self.windower.closed(stream)
        return pieces


class _Buffer:
    """Rows `start` to `end` of a recording; of its labels, only what is asked."""

    def __init__(
        self,
        start: int,
        stream: NDArray[np.int64],
        time: NDArray[np.int64],
        values: NDArray[np.float32] | None,
        tokens: NDArray[np.int64] | None,
        targets: NDArray[np.int64] | None,
    ) -> None:
        self.start, self.end = start, start + len(stream)
        self.stream, self.time, self.values, self.tokens = stream, time, values, tokens
        self.targets = targets

    def after(self, row: int) -> _Buffer:
        cut = slice(row - self.start, None)
        return _Buffer(
            row,
            self.stream[cut],
            self.time[cut],
            None if self.values is None else self.values[cut],
            None if self.tokens is None else self.tokens[cut],
            None if self.targets is None else self.targets[cut],
        )


def _join(buffers: list[_Buffer]) -> _Buffer:
    def join(arrays: list[NDArray[Any] | None]) -> NDArray[Any] | None:
        given = [array for array in arrays if array is not None]
        return np.concatenate(given) if given else None

    return _Buffer(
        buffers[0].start,
        np.concatenate([buffer.stream for buffer in buffers]),
        np.concatenate([buffer.time for buffer in buffers]),
        join([buffer.values for buffer in buffers]),
        join([buffer.tokens for buffer in buffers]),
        join([buffer.targets for buffer in buffers]),
    )


class _Reader:
    """Reads ahead through the blocks of a recording."""

    def __init__(self, recording: Recording, start: int, stop: int) -> None:
        self._rows = rows_within(len(recording.channels), _BUFFER_ROWS)
        self._blocks = recording.blocks(start=start, stop=stop, rows=self._rows)
        self._inputs = [i for i, c in enumerate(recording.channels) if c.role != "label"]
        self._series = recording.kind == "series"
        self._target = _target_column(recording)
        self._stop = stop
        self._buffer: _Buffer | None = None

    def ahead(self, row: int, rows: int) -> _Buffer:
        """A buffer from `row` on, of at least `rows` rows or up to the end."""
        parts = [] if self._buffer is None else [self._buffer.after(row)]
        end = parts[0].end if parts else row
        while end < self._stop and (end - row < rows + self._rows // 2):
            block = next(self._blocks)
            values = None
            if self._series and block.values is not None:
                values = np.ascontiguousarray(block.values[:, self._inputs])
            targets = _asked(block, self._target)
            parts.append(
                _Buffer(block.start, block.stream, block.time, values, block.tokens, targets)
            )
            end = parts[-1].end
        self._buffer = _join(parts) if len(parts) > 1 else parts[0]
        return self._buffer


class _View:
    """Where each stream's window will close within one buffer.

    Rows are sorted by stream once; `_break[s]` is the first row that needs a second piece of
    stream s (`_FAR`: none in the buffer), `_before[s]` the row of s before it (-1: none in the
    buffer), `_shows[s]` its time. They change only when a window of s closes, so a step costs its
    own rows and pieces, not those of the buffer.
    """

    def __init__(self, buffer: _Buffer, names: tuple[str, ...], windower: Windower) -> None:
        self._buffer, self._names, self._windower = buffer, names, windower
        self._order, counts = _sorted_rows(buffer.stream, len(names))
        self._ends = np.cumsum(counts)
        self._next = (self._ends - counts).copy()
        self._codes = {name: i for i, name in enumerate(names)}
        self._time = time = buffer.time[self._order]
        gap = np.zeros(len(time), dtype=bool)
        if windower.gap_seconds is not None:
            # Unsigned, so that a step forward of more than 292 years does not wrap round.
            ahead = (time[1:] - time[:-1]).view(np.uint64)
            gap[1:] = (time[1:] > time[:-1]) & (ahead > windower._gap_ns)
            for s in np.flatnonzero(counts).tolist():
                first, last = int(self._next[s]), windower._last.get(names[s])
                gap[first] = last is not None and int(time[first]) - last > windower._gap_ns
        self._gaps = np.append(np.flatnonzero(gap), _FAR)
        self._break = np.full(len(names), _FAR)
        self._before, self._shows = np.full(len(names), -1), np.zeros(len(names), dtype=np.int64)
        self._by_gap = np.zeros(len(names), dtype=bool)
        self._begins = self._next.copy()
        for s in np.flatnonzero(counts).tolist():
            self._find_break(s)
        windower._changed.clear()

    def _find_break(self, s: int) -> None:
        held, first = self._windower.held(self._names[s]), int(self._next[s])
        full = first + self._windower.length - held
        # A gap before the first event of a window closes nothing.
        gap = int(self._gaps[np.searchsorted(self._gaps, first if held else first + 1)])
        found = min(full, gap)
        inside = found < self._ends[s]
        self._by_gap[s] = inside and gap < full
        self._break[s] = self._row(found) if inside else _FAR
        if inside:
            self._shows[s] = self._time[found]
            self._before[s] = self._row(found - 1) if found > self._begins[s] else -1

    def _row(self, place: int) -> int:
        return self._buffer.start + int(self._order[place])

    def step(self, at: int, limit: int, room: Room | None = None) -> tuple[int, list[Piece]]:
        """Take rows from `at` up to `limit`, or to the first that needs a second piece or that does
        not fit `room`."""
        windower = self._windower
        for name in windower._changed:
            if name in self._codes:
                self._find_break(self._codes[name])
        windower._changed.clear()
        closing = int(np.argmin(self._break))
        end = min(int(self._break[closing]), limit)
        if room is not None and room.free < end - at:
            rows = self._buffer.stream[at - self._buffer.start : end - self._buffer.start]
            end = at + room.rows(rows[: room.looked_at], self._names)
        # A step that is full does not look at the row after it, so it sees no gap there.
        gaps: set[int] = set()
        if end < limit and end == self._break[closing] and self._by_gap[closing]:
            # Among rows that all fit nothing closes early, so these gaps may close ahead of theirs.
            ahead = limit if room is None else min(limit, at + room.free)
            gaps = {closing} | self._gaps_with(closing, ahead)
        pieces = []
        for s, events in self._gather(at - self._buffer.start, end - self._buffer.start, gaps):
            name, count = self._names[s], len(events)
            cause: Cause = ""
            if s in gaps:
                cause = "gap"
            elif windower.held(name) + count == windower.length:
                cause = "length"
            if count:
                self._next[s] += count
                windower._take(name, count, int(events.time[-1]), bool(cause))
            else:
                windower.closed(name)
            if cause:
                self._find_break(s)
            pieces.append(Piece(name, events, bool(cause), cause))
        windower._changed.clear()
        return end, pieces

    def _gaps_with(self, closing: int, limit: int) -> set[int]:
        """The streams whose gap shows when that of `closing` does, and that have no row between.

        Only rows before `limit` count, which are in the buffer wherever it ends.
        """
        row, time = self._break[closing], self._shows[closing]
        together = self._by_gap & (self._break < limit) & (self._shows == time)
        return set(np.flatnonzero(together & (self._before < row)).tolist())

    def _gather(self, first: int, end: int, gaps: set[int]) -> Iterator[tuple[int, Events]]:
        """Events of each stream in rows `first` to `end`, and of `gaps` also if they have none.

        In the order of the streams.
        """
        buffer = self._buffer
        stream = buffer.stream[first:end]
        rows, counts = _sorted_rows(stream, len(self._names))
        present = np.flatnonzero(counts)
        whole = Events(buffer.time[first:end], *_rows(buffer, first, end))
        if len(present) > 1:
            whole = Events(
                whole.time[rows],
                None if whole.values is None else whole.values[rows],
                None if whole.tokens is None else whole.tokens[rows],
                None if whole.targets is None else whole.targets[rows],
            )
        bounds = [0, *np.cumsum(counts[present]).tolist()]
        here = {s: whole[bounds[i] : bounds[i + 1]] for i, s in enumerate(present.tolist())}
        for s in sorted({*here, *gaps}):
            yield s, here.get(s, whole[0:0])


def _sorted_rows(
    stream: NDArray[np.int64], streams: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions sorted by stream, arrival order kept within it, and the count of each stream."""
    counts = np.bincount(stream, minlength=streams).astype(np.int64)
    if np.count_nonzero(counts) <= 1:
        return np.arange(len(stream), dtype=np.int64), counts
    keys = stream.astype(np.int16) if streams < 2**15 else stream  # 16 bits: a radix sort
    return np.argsort(keys, kind="stable"), counts


def _rows(
    buffer: _Buffer, first: int, end: int
) -> tuple[NDArray[np.float32] | None, NDArray[np.int64] | None, NDArray[np.int64] | None]:
    return (
        None if buffer.values is None else buffer.values[first:end],
        None if buffer.tokens is None else buffer.tokens[first:end],
        None if buffer.targets is None else buffer.targets[first:end],
    )


def _target_column(recording: Recording) -> int | None:
    """Where among the channels of a recording of tokens the label `target` stands, if it does."""
    if recording.kind != "tokens":
        return None
    names = [channel.name if channel.role == "label" else "" for channel in recording.channels]
    return names.index(TARGET) if TARGET in names else None


def _asked(block: Block, column: int | None) -> NDArray[np.int64] | None:
    """The class asked at every row, -1 where nothing is; None in a recording that asks nothing."""
    if column is None or block.values is None:
        return None
    asked = block.values[:, column]
    return np.where(np.isnan(asked), -1, asked).astype(np.int64)


def _nothing(recording: Recording) -> Events:
    series = recording.kind == "series"
    return Events(
        np.empty(0, np.int64),
        np.empty((0, len(recording.inputs)), np.float32) if series else None,
        None if series else np.empty(0, np.int64),
        None if _target_column(recording) is None else np.empty(0, np.int64),
    )
