"""Replay: a recording through the runtime, committed as it goes, resumable after a kill.

The runtime decides and computes; the run folder is runs.py and commits.py; nothing is printed here.
"""

from __future__ import annotations

import filecmp
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import adaptive_sleep.experiments.controls
import adaptive_sleep.policies  # noqa: F401  (registers the policies that we ship)
from adaptive_sleep.bundled import PREFIX
from adaptive_sleep.checkpoint import load_model
from adaptive_sleep.contract import PolicyLike
from adaptive_sleep.experiments.commits import (
    Log,
    finish,
    has_begun,
    holding,
    said_when_full,
    tidy,
)
from adaptive_sleep.experiments.runs import (
    Manifest,
    ModelRef,
    RecordingRef,
    Run,
    RunSummary,
    Settings,
    differences,
    new_manifest,
    open_recording,
    open_run,
)
from adaptive_sleep.intake import check_categories, check_fits, row_range
from adaptive_sleep.model import Model
from adaptive_sleep.runtime import Runtime, StepResult
from adaptive_sleep.spec import format_spec, resolve
from adaptive_sleep.streams.cutting import Cutter, Windower
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.events import Piece
from adaptive_sleep.streams.given import given_path
from adaptive_sleep.streams.recording import Recording
from adaptive_sleep.trace import prediction_columns

MAX_ROWS = 8192  # of one step, over all streams
SLOWEST = 1e-6  # of real time: a second takes eleven days
_NAP_SECONDS = 3600.0  # time.sleep takes no more than some 292 years at once
Speed = float | str  # "max", or a multiple of real time
Watch = Callable[[Runtime, Sequence[Piece], StepResult], None]


@dataclass(frozen=True)
class Progress:
    """How far a run is: rows done, rows in all, windows closed since it was started or resumed."""

    rows: int
    total: int
    windows: int


def replay(
    recording: str | Path | Recording,
    model: str | Path | Model,
    policy: str | PolicyLike,
    out: str | Path,
    *,
    resume: bool = False,
    start: float | int = 0.0,
    stop: float | int = 1.0,
    window: int | None = None,
    gap_seconds: float | None = None,
    eviction: str = "hard",
    keep: int | None = None,
    kv_budget: int | None = None,
    budget: float | None = None,
    burst: float = 4.0,
    max_passes: int = 8,
    price: float = 0.0,
    seed: int = 0,
    commit_every: int = 64,
    speed: Speed = "max",
    predictions: str | Path | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    watch: Watch | None = None,
) -> RunSummary:
    """Run rows `start` to `stop` of a recording into the new run folder `out`.

    `start`, `stop`: fractions (float, 0 to 1) or rows (int). `window`, `keep` (what
    outlives a boundary) and `kv_budget` in events, `gap_seconds` in seconds, `budget` in sleep
    FLOPs per event, `commit_every` in steps; `speed` is "max" or a multiple of real time, and
    changes nothing but the clock. `predictions` names a new
    .parquet or .csv file. With `resume`, goes on after the last commit; a finished run gives its
    summary. `on_progress` is told after each step; `watch` is shown each step's runtime, pieces and
    result, boundaries included, and must change none of them. Whatever is raised, `out` stays
    resumable; refused input writes nothing.
    Raises InputError for bad input, an existing `out`, or a resume of what is another run;
    IntegrityError for damaged files; AdaptiveSleepError for a full disk.
    """
    out = given_path("out", out)
    begun = has_begun(out, resume=resume)  # refuses at once what `holding` would after loading
    clock = _Clock(speed)
    target = None if predictions is None else _predictions_file(predictions, begun)
    source = recording if isinstance(recording, Recording) else open_recording(recording)
    net = load_model(model) if isinstance(model, (str, Path)) else model
    rows = row_range(start, stop, source.rows)
    check_fits(source, net.config)
    check_categories(source, net.categories)
    if target is not None:
        prediction_columns(net.config)  # refuses two of one name
    policy = resolve(policy)
    settings = Settings(
        window=net.config.window if window is None else window,
        gap_seconds=gap_seconds,
        eviction=eviction,
        keep=keep,
        kv_budget=kv_budget,
        budget=budget,
        burst=burst,
        max_passes=max_passes,
        price=price,
        commit_every=commit_every,
        predictions=target is not None,
    )
    ref = RecordingRef(where(recording), source.sha256, source.rows, *rows)
    named = ModelRef(where(model), net.hash)
    manifest = new_manifest("replay", format_spec(policy), ref, named, settings, seed)
    columns = [channel.name for channel in source.inputs] or None
    runtime = make_runtime(net, policy, settings, seed, source.streams, columns)
    windower = Windower(settings.window, settings.gap_seconds)
    with holding(out, manifest, resume=resume) as begun:
        if begun:
            same_run(open_run(out), manifest)
        summary = _go_on(open_run(out), runtime, windower, source, clock, on_progress, watch)
        if target is not None:
            write_predictions(open_run(out), target)
    return summary


def _go_on(
    run: Run,
    runtime: Runtime,
    windower: Windower,
    recording: Recording,
    clock: _Clock,
    on_progress: Callable[[Progress], None] | None,
    watch: Watch | None,
) -> RunSummary:
    """Do what is not yet done of a run; `runtime` and `windower` are fresh."""
    run.verify()
    if run.summary is not None:
        return run.summary
    tidy(run)
    if run.last is not None:
        runtime = Runtime.resume(run.last, runtime.model, runtime.policy)
        windower.load_state_dict(run.windower)
    _steps(run, runtime, windower, recording, clock, on_progress, watch)
    return finish(run.path, runtime.ledger)


def _steps(
    run: Run,
    runtime: Runtime,
    windower: Windower,
    recording: Recording,
    clock: _Clock,
    on_progress: Callable[[Progress], None] | None,
    watch: Watch | None,
) -> None:
    """Step through what of the recording is not yet committed, to its end."""
    log = Log(run, runtime.model.config)
    ref, settings = run.manifest.recording, run.manifest.settings
    row = begun = run.positions[-1].row if run.positions else ref.start
    windows = 0
    since = time.perf_counter()
    cutter = Cutter(
        recording, windower, start=begun, stop=ref.stop, max_rows=MAX_ROWS, room=runtime.room
    )
    for row, pieces in cutter:
        waited = clock.wait(pieces)
        watched = watch is not None
        result = runtime.step(pieces, predictions=settings.predictions, boundaries=watched)
        tell_forced(windower, result.forced, pieces)
        events = sum(len(piece.events) for piece in pieces)
        log.add(result, events, time.perf_counter() - since - waited)
        windows += len(result.rows)
        if watch is not None:
            watch(runtime, pieces, result)
        if log.due:
            log.commit(runtime, row, windower.state_dict())
        if on_progress is not None:
            on_progress(Progress(row - ref.start, ref.stop - ref.start, windows))
        since = time.perf_counter()
    if log.open:
        log.commit(runtime, row, windower.state_dict())


def make_runtime(
    model: Model,
    policy: PolicyLike,
    settings: Settings,
    seed: int,
    streams: Sequence[str] = (),
    columns: Sequence[str] | None = None,
) -> Runtime:
    """A fresh runtime under these settings; raises InputError for one that it refuses."""
    return Runtime(
        model,
        policy,
        window=settings.window,
        eviction=settings.eviction,  # type: ignore[arg-type]  # the runtime refuses other words
        keep=settings.keep,
        kv_budget=settings.kv_budget,
        budget=settings.budget,
        burst=settings.burst,
        max_passes=settings.max_passes,
        price=settings.price,
        seed=seed,
        streams=streams,
        columns=columns,
    )


def same_run(run: Run, manifest: Manifest) -> None:
    """Raise InputError, saying what differs, unless `manifest` asks for this very run."""
    if run.manifest.source == "live":
        raise InputError(
            f"out={str(run.path)!r}: a live run, which cannot be resumed; choose another folder"
        )
    changed = differences(run.manifest, manifest)
    if changed:
        raise InputError(
            f"out={str(run.path)!r} is another run: {'; '.join(changed)}. Resume it as it was "
            "begun, or choose another folder"
        )


def where(given: Any) -> str:
    """How run.json names a recording or model: "bundled:NAME", its path, or "" for an object."""
    if isinstance(given, Recording):
        return str(given.path.resolve())
    if not isinstance(given, (str, Path)):
        return ""
    return str(given) if str(given).startswith(PREFIX) else str(Path(given).resolve())


def tell_forced(windower: Windower, forced: Sequence[str], pieces: Sequence[Piece]) -> None:
    """Tell the windower which windows the KV budget closed before these pieces were read."""
    came = {piece.stream: piece for piece in pieces}
    for stream in forced:
        windower.closed(stream)
        piece = came.get(stream)
        if piece is not None and (not piece.closes or piece.cause == "length"):
            windower.split(stream, piece.events)  # they are in the window that opened then


# ---------------------------------------------------------------- predictions


def _predictions_file(given: str | Path, begun: bool) -> Path:
    """Where predictions go; one that exists may be of the run that had begun, which
    `write_predictions` sees. Raises InputError."""
    path = given_path("predictions", given)
    if path.suffix not in (".parquet", ".csv"):
        raise InputError(f"predictions={str(path)!r}: ends in .parquet or .csv")
    if path.exists() and not begun:
        raise InputError(f"predictions={str(path)!r}: exists already; choose another name")
    if not path.parent.is_dir():
        raise InputError(f"predictions={str(path)!r}: no folder {str(path.parent)!r}")
    return path


def write_predictions(run: Run, target: Path) -> None:
    """Write all predictions of a run into one file, which appears whole or not at all.

    Raises InputError where something else lies there already; AdaptiveSleepError for a full disk.
    """
    # absolute: polars would take a leading ~ for the home folder
    temporary = target.absolute().with_name(f".tmp-{target.name}")
    frame = run.predictions()
    with said_when_full(target):
        try:
            if target.suffix == ".csv":
                frame.sink_csv(temporary)
            else:
                frame.sink_parquet(temporary)
            if target.exists() and not filecmp.cmp(temporary, target, shallow=False):
                raise InputError(
                    f"predictions={str(target)!r}: exists already, and is not what this run "
                    "writes; choose another name"
                )
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)


# ---------------------------------------------------------------- the clock


class _Clock:
    """Keeps a replay to a multiple of the recording's own time; "max" never waits."""

    def __init__(self, speed: Speed) -> None:
        """Raises InputError for a speed that is neither."""
        given: Any = speed.item() if isinstance(speed, np.generic) else speed
        factor = given if type(given) in (int, float) else 0.0
        if given != "max" and not SLOWEST <= factor <= sys.float_info.max:
            raise InputError(
                f"speed={speed!r}: 'max' or a multiple of real time, {SLOWEST:g} or more"
            )
        self._factor = float("inf") if given == "max" else float(factor)
        self._origin: tuple[int, float] | None = None

    def wait(self, pieces: Sequence[Piece]) -> float:
        """Wait until the last of these events has happened; return the seconds waited."""
        times = [int(piece.events.time[-1]) for piece in pieces if len(piece.events)]
        if self._factor == float("inf") or not times:
            return 0.0
        now = time.monotonic()
        if self._origin is None:
            self._origin = (min(int(p.events.time[0]) for p in pieces if len(p.events)), now)
        first, began = self._origin
        due = began + (max(times) - first) / 1e9 / self._factor
        while (left := due - time.monotonic()) > 0.0:
            time.sleep(min(left, _NAP_SECONDS))
        return max(0.0, due - now)
