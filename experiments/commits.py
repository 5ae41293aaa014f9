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
from adaptive_sleep.streams.manifest import TEMPORARY, sync_folder, write_atomically
from adaptive_sleep.trace import PLANNED, TraceRow, predictions_frame, trace_frame

COMMIT_EVENTS = 131_072  # a commit is due after that many events too, so that memory is bounded
PHASES = ("wake", "signals", "policy", "sleep")
CRUMBS = (f"run.json{TEMPORARY}",)


def begin(run: Path, manifest: Manifest) -> None:
    """Make a run folder with its run.json; nothing is left where that fails."""
    try:
        (run / "commits").mkdir(parents=True, exist_ok=True)
        write_manifest(run, manifest)
    except BaseException:
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
    with said_when_full(run):
        write_atomically(run / "run.json", text)


def publish(
    run: Path,
    position: Position,
    frames: Mapping[str, pl.DataFrame],
    save: Callable[[Path], None],
) -> Position:
    """Publish one commit by a single rename: `frames` as NAME.parquet, and what `save` writes.

    Returns the position with the hashes of its files. The state of the commit before is removed
    afterwards. Raises AdaptiveSleepError where the disk is full; the commits before stay.
    """
    final = commit_folder(run, position.commit)
    temporary = final.parent / f".tmp-{position.commit:06d}"
    with said_when_full(run):
        try:
            temporary.mkdir(parents=True)
            for name, frame in frames.items():
                buffer = io.BytesIO()
                frame.write_parquet(buffer)
                (temporary / f"{name}.parquet").write_bytes(buffer.getvalue())
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
def said_when_full(where: Path) -> Iterator[None]:
    """Turn a full disk into an error that says what to do."""
    try:
        yield
    except Exception as error:
        if _is_full(error):
            raise AdaptiveSleepError(
                f"{where}: the disk is full; what was committed is kept, "
                "so make room and go on with --resume"
            ) from error
        raise


def _is_full(error: BaseException | None) -> bool:
    if error is None:
        return False
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    # Rust libraries (safetensors, polars) raise their own kind, with the system's words inside.
    return full or "No space left on device" in str(error) or _is_full(error.__cause__)


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
        frames = {
            "trace": trace_frame(self._rows),
            "timings": pl.DataFrame(self._timings, schema=TIMINGS_SCHEMA),
        }
        if self._predictions:
            frames["predictions"] = pl.concat(self._predictions)
        position = Position(
            commit=self.commits + 1,
            row=row,
            steps=self.steps,
            events=self.events,
            windower=windower,
            files={},
        )
        publish(self._run, position, frames, runtime.save)
        self.commits += 1
        self._start()


def finish(path: Path, ledger: Ledger, recording: RecordingRef | None = None) -> RunSummary:
    """Write the summary into run.json of a run whose last commit is in place, and return it.

    `recording` is what a live run recorded meanwhile.
    """
    run = open_run(path)
    scored = pl.when(pl.col("scored") > 0).then(pl.col("loss") * pl.col("scored"))
    figures = run.trace().select(
        pl.len().alias("windows"),
        pl.col("passes").filter(PLANNED).mean(),  # the one pass of questions is not the policy's
        scored.sum().alias("lost"),
        pl.col("scored").sum(),
    )
    windows, passes, lost, predictions = figures.collect().row(0)
    seconds = run.timings().select(
        pl.col("total").sum(),
        pl.col("wake").quantile(0.5, "linear").alias("p50"),
        pl.col("wake").quantile(0.99, "linear").alias("p99"),
        pl.col("sleep").max(),
    )
    total, p50, p99, stall = seconds.collect().row(0)
    events = max(1, ledger.events)
    summary = RunSummary(
        loss=lost / predictions if predictions else None,
        mean_passes=passes or 0.0,
        events=ledger.events,
        windows=windows,
        flops_per_event=ledger.flops_per_event if ledger.events else 0.0,
        sleep_flops_per_event=ledger.sleep / events,
        seconds=total,
        wake_p50=p50 or 0.0,
        wake_p99=p99 or 0.0,
        longest_stall=stall or 0.0,
        trace=trace_glob(path),
        trace_sha256=run.trace_sha256,
    )
    manifest = msgspec.structs.replace(run.manifest, finished=True, summary=summary)
    if recording is not None:
        manifest = msgspec.structs.replace(manifest, recording=recording)
    write_manifest(path, manifest)
    return summary
