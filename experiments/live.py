"""Live: events as they arrive through the runtime, forecasts out at each boundary, nothing dropped.

Under overload sleep is skipped first, and said. Where events come from is in sources.py, where they
wait in inbox.py; the run folder is runs.py and commits.py.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import signal
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec
import numpy as np

from adaptive_sleep.checkpoint import load_model
from adaptive_sleep.contract import PolicyLike
from adaptive_sleep.experiments.commits import Log, begin, finish
from adaptive_sleep.experiments.inbox import Inbox
from adaptive_sleep.experiments.replay import MAX_ROWS, make_runtime, tell_forced, where
from adaptive_sleep.experiments.runs import (
    ModelRef,
    RecordingRef,
    RunSummary,
    Settings,
    new_manifest,
    open_recording,
    open_run,
)
from adaptive_sleep.experiments.sources import LiveEvent, event_channels, open_source
from adaptive_sleep.forecasting import Forecast, check_forecasts
from adaptive_sleep.model import Model
from adaptive_sleep.runtime import Runtime
from adaptive_sleep.spec import format_spec, resolve
from adaptive_sleep.streams.cutting import Windower
from adaptive_sleep.streams.errors import InputError, OverloadWarning
from adaptive_sleep.streams.events import Events, Piece
from adaptive_sleep.streams.manifest import NAME, held, read_manifest
from adaptive_sleep.streams.room import Step
from adaptive_sleep.streams.writer import RecordingWriter

Emit = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class LiveSummary:
    """The figures of a live run, and how it kept up."""

    run: RunSummary
    overloads: int  # times that input came faster than the model could work
    windows_unslept: int  # windows whose planned sleep was skipped meanwhile
    largest_backlog: int  # events of one stream that were waiting at most
    recording: str  # path, "" where nothing was recorded

    def to_json(self) -> str:
        """One flat JSON object."""
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)[1:]}
        return msgspec.json.encode({**dataclasses.asdict(self.run), **own}).decode()


def run_live(
    source: str | Iterable[LiveEvent | None],
    model: str | Path | Model,
    policy: str | PolicyLike,
    *,
    emit: Emit | None = None,
    out: str | Path | None = None,
    record: str | Path | None = None,
    horizon: int = 8,
    every: bool = False,
    window: int | None = None,
    gap_seconds: float | None = None,
    eviction: str = "hard",
    kv_budget: int | None = None,
    budget: float | None = None,
    burst: float = 4.0,
    max_passes: int = 8,
    price: float = 0.0,
    seed: int = 0,
    commit_every: int = 64,
    seconds: float | None = None,
    hz: float = 4.0,
    on_progress: Callable[[int, int], None] | None = None,
) -> LiveSummary:
    """Run events as they come, until the source ends, `seconds` have passed, or Ctrl-C.

    `source`: "host" (this machine, `hz` samples per second), "-" (NDJSON on stdin) or LiveEvents
    (and None where none came for a while, so that what is recorded can be flushed in time).
    `emit` takes a forecast of `horizon` events at each boundary, or with `every` after each event.
    `record` keeps the events in a new recording, `out` the run in a new run folder; `on_progress`
    gets events and windows so far. Other arguments as `replay`. When a stream has more than one
    window of events waiting, sleep is skipped (OverloadWarning) until nothing waits; events are
    never dropped: all that arrived is run before this returns, also where bad input then raises; if
    it raises before an event is run, `out` is not left, and `record` only with what had arrived.
    Raises InputError for bad input; AdaptiveSleepError for a full disk.
    """
    net = load_model(model) if isinstance(model, (str, Path)) else model
    policy = resolve(policy)
    for name, folder in (("out", out), ("record", record)):
        if folder is not None and Path(folder).exists():
            raise InputError(f"{name}={str(folder)!r}: exists already; choose another folder")
    check_forecasts(net.config)
    if horizon < 1:
        raise InputError(f"horizon={horizon}: a forecast reaches at least 1 event ahead")
    if seconds is not None and not seconds > 0:
        raise InputError(f"seconds={seconds}: more than 0, or None to run until the source ends")
    if None not in (out, record) and where(out) == where(record):
        raise InputError(f"out={str(out)!r}: also the folder to record into; give two folders")
    settings = Settings(
        window=net.config.window if window is None else window,
        gap_seconds=gap_seconds,
        eviction=eviction,
        kv_budget=kv_budget,
        budget=budget,
        burst=burst,
        max_passes=max_passes,
        price=price,
        commit_every=commit_every,
        predictions=False,
    )
    ref = RecordingRef("" if record is None else where(record), "", 0, 0, 0)
    named = ModelRef(where(model), net.hash)
    manifest = new_manifest("live", format_spec(policy), ref, named, settings, seed)
    runtime = make_runtime(net, policy, settings, seed)
    stop = threading.Event()
    events = (
        open_source(source, net.config, stop, hz, net.categories)
        if isinstance(source, str)
        else source
    )
    with contextlib.ExitStack() as stack:
        stack.push(_leave_nothing_empty(runtime, out, record))
        if out is None:  # the figures of a run come from its folder, so there is always one
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "run"
        else:
            folder = Path(out)
        writer = None
        if record is not None:
            writer = _recorder(record, net)
            stack.callback(writer.close)
        begin(folder, manifest)
        stack.enter_context(held(folder))
        stack.enter_context(_until_interrupted(stop, seconds))
        inbox = Inbox(events, writer, stop)
        forecasts = _Forecasts(runtime, emit, horizon, every)
        loop = _Loop(runtime, inbox, settings, Log(open_run(folder), net.config), forecasts)
        try:
            loop.run(on_progress)
        finally:
            inbox.close()  # also where the run fails: what has arrived is in the recording
        summary = finish(folder, runtime.ledger, None if record is None else _reference(record))
        if inbox.error is not None:
            raise inbox.error
    return LiveSummary(
        run=summary if out is not None else dataclasses.replace(summary, trace=""),
        overloads=loop.overloads,
        windows_unslept=loop.unslept,
        largest_backlog=inbox.largest,
        recording="" if record is None else str(record),
    )


def _leave_nothing_empty(
    runtime: Runtime, out: str | Path | None, record: str | Path | None
) -> Callable[[type[BaseException] | None, object, object], None]:
    """On the way out of a failure: remove the run if no event was run, the recording if none came.

    An event may have come and been recorded though the first step failed.
    """

    def leave(kind: type[BaseException] | None, error: object, trace: object) -> None:
        if kind is None:
            return
        if out is not None and not runtime.ledger.events:
            shutil.rmtree(out, ignore_errors=True)
        if record is not None and _is_empty(Path(record)):
            shutil.rmtree(record, ignore_errors=True)

    return leave


def _is_empty(record: Path) -> bool:
    """Whether a recording was closed without a row, or not so much as begun."""
    if not (record / NAME).exists():
        return True
    manifest = read_manifest(record)
    return manifest.closed and not manifest.rows


def _recorder(path: str | Path, net: Model) -> RecordingWriter:
    config, named = net.config, net.categories
    return RecordingWriter(
        path,
        kind=config.kind,
        channels=event_channels(config),
        tokenizer=("categories" if named else "ids") if config.kind == "tokens" else None,
        vocabulary=config.vocabulary or None,
        categories=named,
        provenance={"source": "run"},
        flush_seconds=15.0,
    )


def _reference(path: str | Path) -> RecordingRef:
    recording = open_recording(path)
    return RecordingRef(where(path), recording.sha256, recording.rows, 0, recording.rows)


class _Forecasts:
    """Says what the model expects, at a boundary or after each piece."""

    def __init__(self, runtime: Runtime, emit: Emit | None, horizon: int, every: bool) -> None:
        self.every = every and emit is not None
        self._runtime, self._emit, self._horizon = runtime, emit, horizon

    def say(
        self, pieces: Sequence[Piece], windows: Mapping[str, int], times: Mapping[str, int]
    ) -> None:
        """Emit a forecast of each stream that is in `windows` (closed), or of all with `every`."""
        if self._emit is None:
            return
        for stream in dict.fromkeys([*windows, *(p.stream for p in pieces if self.every)]):
            forecast = self._runtime.predict(stream, horizon=self._horizon)
            said = {"stream": stream, "time": iso(times[stream]), "boundary": stream in windows}
            if stream in windows:
                said["window"] = windows[stream]
            self._emit({**said, **plain_forecast(forecast, self._runtime.model)})


class _Loop:
    """Takes what waits, cuts it at windows and gaps, steps, and goes on until nothing comes."""

    def __init__(
        self, runtime: Runtime, inbox: Inbox, settings: Settings, log: Log, forecasts: _Forecasts
    ) -> None:
        self.overloads = 0
        self.unslept = 0
        self._runtime, self._inbox, self._log, self._forecasts = runtime, inbox, log, forecasts
        self._windower = Windower(settings.window, settings.gap_seconds)
        self._config = runtime.model.config
        self._last: dict[str, int] = {}  # time of each stream's last event, streams as they came
        self._windows = 0
        self._overloaded = False

    def run(self, on_progress: Callable[[int, int], None] | None) -> None:
        """Run all that arrives, then close what is open and commit."""
        while self._inbox.wait():
            self._weigh(self._inbox.backlog())
            self._turn()
            if self._log.due:
                self._commit()
            if on_progress is not None:
                on_progress(self._log.events, self._windows)
        nothing = self._events([])
        open_ = [stream for stream in self._last if self._windower.held(stream)]
        if open_:
            self._step([Piece(stream, nothing, True, "end") for stream in open_])
            for stream in open_:
                self._windower.closed(stream)
        if self._log.open:
            self._commit()

    def _weigh(self, backlog: int) -> None:
        """Skip sleep from now on if more than a window waits; sleep again once all fits a turn."""
        length = self._windower.length
        if not self._overloaded and backlog > length:
            self._overloaded = True
            self.overloads += 1
            warnings.warn(
                f"{backlog} events of one stream are waiting, more than a window of {length}: "
                "input is faster than the model, so sleep is skipped until it has caught up",
                OverloadWarning,
                stacklevel=4,
            )

    def _turn(self) -> None:
        """Run the next piece of every stream that has events waiting."""
        length = self._windower.length
        most = 1 if self._forecasts.every and not self._overloaded else length
        room = self._runtime.room()
        if room is None:
            counts = {s: min(most, length - self._windower.held(s)) for s in self._last}
            waiting = self._inbox.look(counts, most, MAX_ROWS)
        else:
            waiting = self._in_order(Step(self._windower, room, most), room.looked_at)
        closing: list[Piece] = []
        pieces: list[Piece] = []
        for stream, events in waiting.items():
            *before, piece = self._windower.split(stream, self._until_gap(self._events(events)))
            closing.extend(before)
            pieces.append(piece)
        if closing:  # empty pieces: the gap before the first waiting event closes a window
            self._step(closing)
        self._step(pieces)
        self._inbox.drop(pieces)
        if self._overloaded and self._inbox.backlog() == 0:
            self._overloaded = False

    def _in_order(self, step: Step, most: int) -> dict[str, list[LiveEvent]]:
        """The events of a step by stream, as they came: what the KV budget closes depends on it."""
        taken: dict[str, list[LiveEvent]] = {}
        for event in self._inbox.first(min(most, MAX_ROWS)):
            if not step.takes(event.stream, event.time):
                break
            taken.setdefault(event.stream, []).append(event)
        return taken

    def _until_gap(self, events: Events) -> Events:
        """The events before the first gap within them, so that they are one piece."""
        if self._windower.gap_seconds is None:
            return events
        gaps = np.flatnonzero(np.diff(events.time) > round(self._windower.gap_seconds * 1e9))
        return events[: int(gaps[0]) + 1] if len(gaps) else events

    def _step(self, pieces: list[Piece]) -> None:
        since = time.perf_counter()
        result = self._runtime.step(pieces, allow_sleep=not self._overloaded)
        tell_forced(self._windower, result.forced, pieces)
        for piece in pieces:
            if len(piece.events):
                self._last[piece.stream] = int(piece.events.time[-1])
        count = sum(len(piece.events) for piece in pieces)
        self._log.add(result, count, time.perf_counter() - since)
        self._windows += len(result.rows)
        self.unslept += sum(row.clipped_by == "overload" for row in result.rows)
        self._forecasts.say(pieces, {row.stream: row.window for row in result.rows}, self._last)

    def _commit(self) -> None:
        self._log.commit(self._runtime, self._log.events, self._windower.state_dict())

    def _events(self, events: list[LiveEvent]) -> Events:
        time = np.array([event.time for event in events], np.int64)
        if self._config.kind == "tokens":
            return Events(time, tokens=np.array([event.token for event in events], np.int64))
        values = np.empty((len(events), len(self._config.inputs)), np.float32)
        for row, event in enumerate(events):
            values[row] = event.values
        return Events(time, values=values)


@contextlib.contextmanager
def _until_interrupted(stop: threading.Event, seconds: float | None) -> Iterator[None]:
    """Set `stop` after so many seconds or at the first Ctrl-C; the second interrupts as ever."""
    timer = None if seconds is None else threading.Timer(seconds, stop.set)
    if timer is not None:
        timer.daemon = True
        timer.start()
    usual = None
    if threading.current_thread() is threading.main_thread():
        usual = signal.getsignal(signal.SIGINT)

        def end(number: int, frame: FrameType | None) -> None:
            stop.set()
            signal.signal(signal.SIGINT, usual or signal.default_int_handler)

        signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        if timer is not None:
            timer.cancel()
        if usual is not None:
            signal.signal(signal.SIGINT, usual)


def iso(time_ns: int) -> str:
    """A time in ns UTC as ISO 8601.

    >>> iso(1_500_000_000)
    '1970-01-01T00:00:01.500000000Z'
    """
    return f"{np.datetime64(time_ns, 'ns')}Z"


def plain_forecast(forecast: Forecast, model: Model) -> dict[str, Any]:
    """A forecast as JSON holds it; what is not finite becomes null. Of an event log also by name,
    null for a token that stands for nothing."""
    config, names = model.config, dict(enumerate(model.categories))
    if config.kind == "tokens":
        tokens = _plain(forecast.tokens)
        said = {"tokens": tokens, "logprob": _plain(forecast.logprob)}
        return {**said, "categories": [names.get(int(t or 0)) for t in tokens]} if names else said
    mean, quantiles = forecast.mean, forecast.quantiles
    assert mean is not None
    assert quantiles is not None
    return {
        "mean": {name: _plain(mean[:, c]) for c, name in enumerate(config.channels)},
        "quantiles": {
            name: {
                str(level): _plain(quantiles[:, c, q]) for q, level in enumerate(config.quantiles)
            }
            for c, name in enumerate(config.channels)
        },
    }


def _plain(values: Any) -> list[float | int | None]:
    return [v if np.isfinite(v) else None for v in np.asarray(values).tolist()]
