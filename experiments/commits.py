"""How a run gets onto the disk: one atomic rename publishes a commit whole, or not at all.

What the files mean is in runs.py. A kill at any time leaves the last commit and crumbs for `tidy`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from adaptive_sleep.config import ModelConfig
from adaptive_sleep.experiments.runs import (
    CUTTING,
    TIMINGS_SCHEMA,
    Manifest,
    Position,
    RecordingRef,
    Run,
    RunSummary,
    commit_folder,
    open_run,
    trace_glob,
)
from adaptive_sleep.ledger import Ledger
from adaptive_sleep.runtime import Runtime, StepResult
from adaptive_sleep.streams.errors import AdaptiveSleepError, InputError
from adaptive_sleep.streams.manifest import TEMPORARY, held, sync_folder, write_atomically
from adaptive_sleep.trace import PLANNED, TraceRow, predictions_frame, trace_frame

COMMIT_EVENTS = 131_072  # a commit is due after that many events too, so that memory is bounded
PHASES = ("wake", "signals", "policy", "sleep")
CRUMBS = (f"run.json{TEMPORARY}",)
RESUMABLE = "what was committed is kept, so make room and go on with --resume"
LIVE = (
    "a live run does not go on from there, so make room and begin another (what was committed is "
    "kept where --out names a folder)"
)


@contextlib.contextmanager
def holding(run: Path, manifest: Manifest, *, resume: bool) -> Iterator[bool]:
    """Hold a run folder against every other writer, and tell whether it had begun.

    One that had not is made and given `manifest` as its run.json; where that fails, nothing is
    left that was written here. Raises InputError as `has_begun` does, and where another process
    holds the folder: what that one has there is left alone.
    """
    made = not has_begun(run, resume=resume) and _made(run)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(held(run))
            # again: another may have begun there while this one waited or loaded its model
            begun = has_begun(run, resume=resume or made)
            if begun and not resume:
                raise InputError(f"out={str(run)!r}: another process began there meanwhile")
            if not begun:
                _begin(run, manifest, made)
        except FileNotFoundError:
            raise InputError(
                f"out={str(run)!r}: another process removed it meanwhile; begin again"
            ) from None
        yield begun


def _made(run: Path) -> bool:
    """Whether the folder was made here and now. Raises InputError where a file is in the way."""
    try:
        run.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"out={str(run)!r}: cannot be made there: {error.strerror}") from None
    try:
        run.mkdir()
    except FileExistsError:
        return False
    return True


def _begin(run: Path, manifest: Manifest, made: bool) -> None:
    try:
        (run / "commits").mkdir(exist_ok=True)
        write_manifest(run, manifest)
    except BaseException:
        if made:
            shutil.rmtree(run, ignore_errors=True)
        raise


def has_begun(run: Path, *, resume: bool) -> bool:
    """Whether `run` holds a run to go on with; one that a kill left without run.json has not begun.

    Raises InputError where the folder is something else, or exists and `resume` is false.
    """
    if not run.exists():
        return False
    if not resume:
        raise InputError(
            f"out={str(run)!r}: exists already; choose another folder, or go on with --resume"
        )
    if (run / "run.json").is_file():
        return True
    if run.is_dir() and not {file.name for file in run.rglob("*")} - {"commits", *CRUMBS}:
        return False
    raise InputError(f"out={str(run)!r}: not a run (no run.json), so nothing to resume")


def write_manifest(run: Path, manifest: Manifest) -> None:
    """Put run.json in place atomically; AdaptiveSleepError where the disk is full."""
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
    with said_when_full(run, LIVE if manifest.source == "live" else RESUMABLE):
        write_atomically(run / "run.json", text)


def publish(
    run: Path,
    position: Position,
    frames: Mapping[str, pl.DataFrame],
    save: Callable[[Path], None],
    full: str = RESUMABLE,
) -> Position:
    """Publish one commit by a single rename: `frames` as NAME.parquet, and what `save` writes.

    Returns the position with the hashes of its files. The state of the commit before is removed
    afterwards. Raises AdaptiveSleepError where the disk is full, which says `full`; the commits
    before stay.
    """
    final = commit_folder(run, position.commit)
    temporary = final.parent / f".tmp-{position.commit:06d}"
    with said_when_full(run, full):
        try:
            temporary.mkdir(parents=True)
            for name, frame in frames.items():
                (temporary / f"{name}.parquet").write_bytes(as_parquet(frame))
            save(temporary)
            files = {file.name: _sync(file) for file in sorted(temporary.iterdir())}
            position = msgspec.structs.replace(position, files=files)
            write_atomically(temporary / "commit.json", msgspec.json.encode(position))
            os.rename(temporary, final)
            sync_folder(final.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    _forget_state(run, position.commit - 1)
    return position


def tidy(run: Run) -> None:
    """Remove what a kill left: half a commit, and states older than the last."""
    for half in (run.path / "commits").glob(".tmp-*"):
        shutil.rmtree(half)
    for crumb in CRUMBS:
        (run.path / crumb).unlink(missing_ok=True)
    for position in run.positions[:-1]:
        _forget_state(run.path, position.commit)


def _forget_state(run: Path, number: int) -> None:
    for file in commit_folder(run, number).glob("state.*"):
        file.unlink(missing_ok=True)


@contextlib.contextmanager
def said_when_full(where: Path, then: str = RESUMABLE) -> Iterator[None]:
    """Turn a full disk into an error that says what is kept and what to do; the outermost says."""
    try:
        yield
    except Exception as error:
        if full := _full(error):
            if full == LIMITED:
                then = then.replace("make room", "raise the limit (ulimit -f)")
            raise AdaptiveSleepError(f"{where}: {full}; {then}") from error
        raise


LIMITED = "a file would be larger than files may be here"
_FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk is full", errno.EFBIG: LIMITED}


def _full(error: BaseException | None) -> str:
    """What there is no room for, in words; "" for another error."""
    if error is None:
        return ""
    for number, words in _FULL.items():
        # Rust libraries (safetensors, polars) raise their own kind, with the system's words inside.
        if getattr(error, "errno", None) == number or os.strerror(number) in str(error):
            return words
    return _full(error.__cause__)


def as_parquet(frame: pl.DataFrame) -> bytes:
    """A frame as the bytes of a Parquet file."""
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()


def _sync(file: Path) -> str:
    """Bring a file to the disk and return its SHA-256."""
    with open(file, "rb") as handle:
        os.fsync(handle.fileno())
        return hashlib.file_digest(handle, "sha256").hexdigest()


class Log:
    """What a run did since its last commit, and the publishing of it."""

    def __init__(self, run: Run, config: ModelConfig) -> None:
        self._run = run.path
        self._config = config
        self._every = run.manifest.settings.commit_every
        self._full = LIVE if run.manifest.source == "live" else RESUMABLE
        last = run.positions[-1] if run.positions else None
        self.commits, self.steps, self.events = (
            (last.commit, last.steps, last.events) if last else (0, 0, 0)
        )
        self._start()

    def _start(self) -> None:
        self._since = (self.steps, self.events)
        self._rows: list[TraceRow] = []
        self._predictions: list[pl.DataFrame] = []
        self._timings: list[dict[str, Any]] = []

    def add(self, result: StepResult, events: int, seconds: float) -> None:
        """Take in one step of `events` events that took `seconds` of wall clock."""
        self._rows.extend(result.rows)
        for predictions in result.predictions:
            self._predictions.append(predictions_frame(predictions, self._config))
        spent = {name: float(result.seconds.get(name, 0.0)) for name in PHASES}
        counted = {"step": self.steps, "events": events, "windows": len(result.rows)}
        self._timings.append({**counted, **spent, "total": seconds})
        self.steps += 1
        self.events += events

    @property
    def due(self) -> bool:
        """Whether a commit is due; a function of steps and events, never of time."""
        steps, events = self._since
        return self.steps - steps >= self._every or self.events - events >= COMMIT_EVENTS

    @property
    def open(self) -> bool:
        """Whether there is anything to commit."""
        return bool(self._timings) or self.commits == 0

    def commit(self, runtime: Runtime, row: int, windower: dict[str, Any]) -> None:
        """Publish all since the last commit, with the state that goes on from it."""
        position = Position(
            commit=self.commits + 1, row=row, steps=self.steps, events=self.events, files={}
        )

        def save(folder: Path) -> None:
            runtime.save(folder)
            (folder / CUTTING).write_bytes(msgspec.json.encode(windower, order="deterministic"))

        publish(self._run, position, self._frames(), save, self._full)
        self.commits += 1
        self._start()

    def finish(self, ledger: Ledger, recording: RecordingRef | None = None) -> RunSummary:
        """The figures of the run, once all is committed; see `finish`."""
        return finish(self._run, ledger, recording)

    def _frames(self) -> dict[str, pl.DataFrame]:
        frames = {
            "trace": trace_frame(self._rows),
            "timings": pl.DataFrame(self._timings, schema=TIMINGS_SCHEMA),
        }
        if self._predictions:
            frames["predictions"] = pl.concat(self._predictions)
        return frames


def finish(path: Path, ledger: Ledger, recording: RecordingRef | None = None) -> RunSummary:
    """Write the summary into run.json of a run whose last commit is in place, and return it.

    `recording` is what a live run recorded meanwhile.
    """
    run = open_run(path)
    trace = summed(run.trace()).collect()
    seconds = run.timings().select(
        pl.col("total").sum(),
        pl.col("wake").quantile(0.5, "linear").alias("p50"),
        pl.col("wake").quantile(0.99, "linear").alias("p99"),
        pl.col("sleep").max(),
    )
    told = (trace_glob(path), run.trace_sha256)
    summary = summarised(ledger, trace.row(0), seconds.collect().row(0), told)
    manifest = msgspec.structs.replace(run.manifest, finished=True, summary=summary)
    if recording is not None:
        manifest = msgspec.structs.replace(manifest, recording=recording)
    write_manifest(path, manifest)
    return summary


def summed(trace: pl.LazyFrame) -> pl.LazyFrame:
    """One row: windows, passes that the policy planned and of how many windows, loss and scored
    predictions, each the sum over a trace."""
    scored = pl.when(pl.col("scored") > 0).then(pl.col("loss") * pl.col("scored"))
    planned = pl.col("passes").filter(PLANNED)  # the one pass of questions is not the policy's
    return trace.select(
        pl.len().alias("windows"),
        planned.sum(),
        planned.len().alias("planned"),
        scored.sum().alias("lost"),
        pl.col("scored").sum(),
    )


def summarised(
    ledger: Ledger,
    trace: tuple[int, int, int, float, int],
    seconds: tuple[float | None, ...],
    told: tuple[str, str],
) -> RunSummary:
    """The figures of a run: `trace` as `summed` has it, `seconds` of all steps, of waking (median,
    99th percentile) and of the longest sleep, and of the trace `told` its glob and hash."""
    windows, passes, planned, lost, predictions = trace
    total, p50, p99, stall = (found or 0.0 for found in seconds)
    return RunSummary(
        loss=lost / predictions if predictions else None,
        mean_passes=passes / planned if planned else 0.0,
        events=ledger.events,
        windows=windows,
        flops_per_event=ledger.flops_per_event if ledger.events else 0.0,
        sleep_flops_per_event=ledger.sleep / max(1, ledger.events),
        seconds=total,
        wake_p50=p50,
        wake_p99=p99,
        longest_stall=stall,
        trace=told[0],
        trace_sha256=told[1],
    )
