"""Live: events as they arrive through the runtime, forecasts out at each boundary, nothing dropped.

Under overload sleep is skipped first, and said. Where events come from is in sources.py, where they
wait in inbox.py; the run folder is runs.py and commits.py.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import msgspec
import numpy as np

from adaptive_sleep.checkpoint import load_model
from adaptive_sleep.contract import PolicyLike
from adaptive_sleep.experiments.commits import Log, holding
from adaptive_sleep.experiments.inbox import Inbox
from adaptive_sleep.experiments.live_event import LiveEvent, checked_events, shown
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
from adaptive_sleep.experiments.sources import event_channels, open_source
from adaptive_sleep.experiments.tally import Tally
from adaptive_sleep.experiments.telling import Emit, Forecasts
from adaptive_sleep.forecasting import check_forecasts
from adaptive_sleep.model import Model
from adaptive_sleep.runtime import Runtime
from adaptive_sleep.settings import real, whole
from adaptive_sleep.spec import format_spec, resolve
from adaptive_sleep.streams.cutting import Windower
from adaptive_sleep.streams.errors import InputError, OverloadWarning
from adaptive_sleep.streams.events import Events, Piece
from adaptive_sleep.streams.given import given_path
from adaptive_sleep.streams.manifest import NAME, read_manifest
from adaptive_sleep.streams.room import Step
from adaptive_sleep.streams.writer import RecordingWriter


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
    never dropped: all that arrived is run before this returns, also where bad input or `emit`
    raises, which is then raised at the end; if it raises before an event is run, `out` is not left,
    and `record` only with what had arrived.
    Raises InputError for bad input; AdaptiveSleepError for a full disk.
    """
    net = load_model(model) if isinstance(model, (str, Path)) else model
    policy = resolve(policy)
    _check_folders(out, record)
    check_forecasts(net.config)
    if (whole("horizon", horizon) or 0) < 1:
        raise InputError(f"horizon={horizon}: a forecast reaches at least 1 event ahead")
    seconds = real("seconds", seconds)
    if seconds is not None and not 0 < seconds <= threading.TIMEOUT_MAX:
        raise InputError(
            f"seconds={seconds}: more than 0 and at most {threading.TIMEOUT_MAX:.0f}, or None to "
            "run until the source ends"
        )
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
    events = _events_of(source, net, stop, hz)
    with contextlib.ExitStack() as stack:
        writer = None
        if record is not None:
            writer = _recorder(record, net)
            stack.push(_unless(lambda: not _is_empty(Path(record)), record))
            stack.callback(writer.close)
        log: Log
        if out is None:
            log = Tally(manifest, net.config)
        else:
            stack.enter_context(holding(Path(out), manifest, resume=False))
            # armed only now, so that a folder that another process holds is left alone
            stack.push(_unless(lambda: runtime.ledger.events > 0, out))
            log = Log(open_run(out), net.config)
        stack.enter_context(_until_interrupted(stop, seconds))
        inbox = Inbox(events, writer, stop)
        forecasts = Forecasts(runtime, emit, horizon, every, stop.set)
        loop = _Loop(runtime, inbox, settings, log, forecasts)
        try:
            loop.run(on_progress)
        finally:
            inbox.close()  # also where the run fails: what has arrived is in the recording
        kept = None if record is None else _reference(record)
        summary = log.finish(runtime.ledger, kept)
        for error in (inbox.error, forecasts.error):
            if error is not None:
                raise error
    return LiveSummary(
        run=summary,
        overloads=loop.overloads,
        windows_unslept=loop.unslept,
        largest_backlog=inbox.largest,
        recording="" if record is None else str(record),
    )


def _events_of(
    source: str | Iterable[LiveEvent | None], net: Model, stop: threading.Event, hz: float
) -> Iterator[LiveEvent | None]:
    """The events of a source, by its name or as they are given. Raises InputError."""
    if isinstance(source, str):
        return open_source(source, net.config, stop, hz, net.categories)
    given: object = source
    if not isinstance(given, Iterable):
        raise InputError(
            f"source={shown(given)} ({type(given).__name__}): 'host' (this machine), '-' (NDJSON "
            "on stdin), or LiveEvents, one after the other"
        )
    return checked_events(source, net.config)


def _check_folders(out: str | Path | None, record: str | Path | None) -> None:
    """Refuse a folder that is there, and two that are one or lie one in the other."""
    for name, folder in (("out", out), ("record", record)):
        if folder is not None and given_path(name, folder).exists():
            raise InputError(f"{name}={str(folder)!r}: exists already; choose another folder")
    if out is None or record is None:
        return
    run, recording = Path(out).resolve(), Path(record).resolve()
    if run == recording:
        raise InputError(f"out={str(out)!r}: also the folder to record into; give two folders")
    if run in recording.parents or recording in run.parents:
        raise InputError(
            f"out={str(out)!r}, record={str(record)!r}: one lies inside the other; give two "
            "folders side by side"
        )


def _unless(
    of_use: Callable[[], bool], folder: str | Path
) -> Callable[[type[BaseException] | None, object, object], None]:
    """On the way out of a failure: remove a folder that this run made, unless it is of use.

    A run is where an event was run, a recording where one came; that may have come and been
    recorded though the first step failed.
    """

    def leave(kind: type[BaseException] | None, error: object, trace: object) -> None:
        if kind is not None and not of_use():
            shutil.rmtree(folder, ignore_errors=True)

    return leave


def _is_empty(record: Path) -> bool:
    """Whether a recording was closed without a row, or not so much as begun."""
    if not (record / NAME).exists():
        return True
    manifest = read_manifest(record)
    return manifest.closed and not manifest.rows


def _recorder(path: str | Path, net: Model) -> RecordingWriter:
    config, named = net.config, net.categories
    try:
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
    except InputError:  # the folder may be another's
        raise
    except BaseException:
        with contextlib.suppress(OSError):
            Path(path).rmdir()
        raise


def _reference(path: str | Path) -> RecordingRef:
    recording = open_recording(path)
    return RecordingRef(where(path), recording.sha256, recording.rows, 0, recording.rows)


class _Loop:
    """Takes what waits, cuts it at windows and gaps, steps, and goes on until nothing comes."""

    def __init__(
        self, runtime: Runtime, inbox: Inbox, settings: Settings, log: Log, forecasts: Forecasts
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
            cut = self._until_gap(stream, self._events(events))
            *before, piece = self._windower.split(stream, cut)
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

    def _until_gap(self, stream: str, events: Events) -> Events:
        """The events before the first gap within them, so that they are one piece."""
        if self._windower.gap_seconds is None:
            return events
        times = events.time.tolist()  # Python's numbers, which no step in time wraps round
        for i in range(1, len(times)):
            if self._windower.gap(stream, times[i], times[i - 1]):
                return events[:i]
        return events

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
