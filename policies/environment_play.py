"""A recording, stream by stream, through runtimes that stop wherever a policy would be asked.

A runtime asks its policy inside a step, and a step is a transaction: so the policy here raises when
it has no answer yet, the step is undone, and is made again once there is one. Nothing of a run that
was stopped so differs from one that was not; only the wake pass is computed twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from adaptive_sleep.contract import PolicyLike
from adaptive_sleep.runtime import Runtime
from adaptive_sleep.signals import IntArray, WindowSignals
from adaptive_sleep.streams.cutting import Cutter, Windower
from adaptive_sleep.streams.events import Events, Piece
from adaptive_sleep.streams.recording import Recording
from adaptive_sleep.trace import TraceRow

Tracks = dict[str, list[Piece]]
Make = Callable[[PolicyLike], Runtime]


def tracks(
    recording: Recording, start: int, stop: int, window: int, gap_seconds: float | None
) -> Tracks:
    """Cut rows `start` to `stop` into windows, stream by stream, in order of the streams.

    A stream is cut as if there were no others; all is held in memory. Raises InputError for a
    window or a gap that cannot be.
    """
    windower = Windower(window, gap_seconds)
    parts: dict[str, list[Events]] = {}
    whole = Cutter(recording, Windower(stop + 1), start=start, stop=stop, close_at_end=False)
    for _, pieces in whole:
        for piece in pieces:
            parts.setdefault(piece.stream, []).append(piece.events)
    found: Tracks = {}
    for stream in (name for name in recording.streams if name in parts):
        events = _joined(parts[stream])
        found[stream] = windower.split(stream, events)
        if windower.held(stream):
            found[stream].append(Piece(stream, events[:0], True, "end"))
    return found


def _joined(parts: Sequence[Events]) -> Events:
    columns = {}
    for name in ("values", "tokens", "targets"):
        given = [array for part in parts if (array := getattr(part, name)) is not None]
        columns[name] = np.concatenate(given) if given else None
    return Events(np.concatenate([part.time for part in parts]), **columns)


class _Undecided(Exception):  # noqa: N818  (it is no error, and nobody outside sees it)
    """A window has closed for which nothing was chosen."""

    def __init__(self, signals: WindowSignals) -> None:
        super().__init__("nothing was chosen")
        self.signals = signals


@dataclass
class _Chosen:
    """Plans what was chosen, by window; stops the step where nothing was."""

    passes: dict[int, int] = field(default_factory=dict)

    def plan(self, signals: WindowSignals) -> IntArray:
        """Return the passes chosen. Raises _Undecided."""
        windows = signals.window.tolist()
        if any(window not in self.passes for window in windows):
            raise _Undecided(signals)
        return np.array([self.passes[window] for window in windows], dtype=np.int64)


class Play:
    """One stream through a runtime of its own. `asked`: the signals of the window, one row, for
    which passes are to be chosen; None before the first and after the last."""

    def __init__(self, make: Make, pieces: Sequence[Piece]) -> None:
        self.asked: WindowSignals | None = None
        self._chosen = _Chosen()
        self._runtime = make(self._chosen)
        self._pieces = pieces
        self._at = 0

    def choose(self, passes: int) -> None:
        """Answer what is asked; the runtime may still clip it."""
        assert self.asked is not None
        self._chosen.passes[int(self.asked.window[0])] = passes

    def balance(self) -> float:
        """Sleep FLOPs that the runtime would spend on the window asked about, to the bit; of a run
        with a budget. (`budget_left` is a share of them, rounded.)"""
        settings, store = self._runtime.settings, self._runtime.works.arena
        assert self.asked is not None
        assert settings.budget is not None
        assert settings.budget_cap is not None
        row = store.rows.get(self.asked.stream[0], 0)  # row 0: a stream never seen
        saved: float = store.tensors["balance"][row].item()
        return min(settings.budget_cap, saved + settings.budget * int(self.asked.tokens[0]))

    def go_on(self) -> list[TraceRow]:
        """Run to the next window that is asked about, or to the end; the windows closed so far.

        Each window is told once, in the call in which its step was completed.
        """
        rows: list[TraceRow] = []
        self.asked = None
        while self._at < len(self._pieces):
            try:
                result = self._runtime.step([self._pieces[self._at]])
            except _Undecided as stopped:
                self.asked = stopped.signals
                return rows
            self._at += 1
            self._chosen.passes.clear()
            rows += result.rows
        return rows


@dataclass
class _Awake:
    """Never sleeps, and tells what it was asked about."""

    tell: Callable[[WindowSignals], None]

    def plan(self, signals: WindowSignals) -> int:
        """Return 1."""
        self.tell(signals)
        return 1


def awake(
    make: Make, pieces: Sequence[Piece], tell: Callable[[WindowSignals], None]
) -> list[TraceRow]:
    """Run a stream without sleep; `tell` is shown the signals of every window that is asked about.

    Returns its windows.
    """
    runtime = make(_Awake(tell))
    return [row for piece in pieces for row in runtime.step([piece]).rows]
