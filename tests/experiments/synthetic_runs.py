"""Run folders and a recording with made-up figures, for tests of what reads them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import polars as pl

from adaptive_sleep.experiments.runs import (
    Machine,
    Manifest,
    ModelRef,
    Position,
    RecordingRef,
    RunSummary,
    Settings,
    commit_folder,
    open_run,
    trace_glob,
)
from adaptive_sleep.streams.events import Channel
from adaptive_sleep.streams.recording import Recording
from adaptive_sleep.streams.writer import RecordingWriter
from adaptive_sleep.trace import TRACE_SCHEMA

SECOND = 1_000_000_000
ORIGIN = 1_760_000_000 * SECOND
PHASES = ("idle", "busy", "storm")
WINDOW, WINDOWS = 64, 60


def make_recording(path: Path, *, streams: tuple[str, ...] = ("host",)) -> Recording:
    """WINDOWS windows of one channel at 4 Hz for each stream, with a label that changes."""
    channels = (Channel("load"), Channel("phase", "label", categories=PHASES))
    with RecordingWriter(path, kind="series", channels=channels, provenance={"made": "up"}) as to:
        for stream in streams:
            rows = np.arange(WINDOW * WINDOWS)
            codes = (rows // 500) % len(PHASES)
            values = np.stack([np.sin(rows / 40), codes], axis=1).astype(np.float32)
            to.append(stream, ORIGIN + rows * SECOND // 4, values=values)
    return Recording.open(path)


def make_trace(seed: int, most: int, streams: tuple[str, ...] = ("host",)) -> pl.DataFrame:
    """A trace whose loss falls a little with the passes; `most` = 1 never sleeps."""
    rng = np.random.default_rng(seed)
    parts = []
    for stream in streams:
        window = np.arange(WINDOWS)
        passes = rng.integers(1, most + 1, WINDOWS)
        first = ORIGIN + window * WINDOW * SECOND // 4
        loss = 0.4 + 0.2 * np.sin(window / 6) - 0.01 * passes
        parts.append(
            pl.DataFrame({name: _column(name, dtype) for name, dtype in TRACE_SCHEMA.items()})
            .with_columns(
                step=pl.Series(window), stream=pl.lit(stream), window=pl.Series(window),
                tokens=pl.lit(WINDOW), scored=pl.lit(WINDOW), loss=pl.Series(loss),
                surprise=pl.Series(loss), state_change=pl.Series(rng.uniform(0.1, 0.3, WINDOWS)),
                passes=pl.Series(passes), planned=pl.Series(passes), budget_left=pl.lit(1.0),
                first_time=pl.Series(first), last_time=pl.Series(first + 63 * SECOND // 4),
            )
            .cast(dict(TRACE_SCHEMA))  # type: ignore[arg-type]
        )  # fmt: skip
    return pl.concat(parts)


def _column(name: str, dtype: pl.DataType) -> pl.Series:
    empty: str | int = "" if dtype == pl.String() else 0
    return pl.Series(name, [empty] * WINDOWS)


def make_run(
    path: Path,
    recording: Recording,
    *,
    policy: str = "fixed(1)",
    most: int = 1,
    seed: int = 0,
    model_hash: str = "f" * 64,
    finished: bool = True,
) -> Path:
    """A run folder of one commit."""
    folder = commit_folder(path, 1)
    folder.mkdir(parents=True)
    frame = make_trace(seed, most, recording.streams)
    frame.write_parquet(folder / "trace.parquet")
    digest = hashlib.sha256((folder / "trace.parquet").read_bytes()).hexdigest()
    position = Position(
        commit=1, row=recording.rows, steps=WINDOWS, events=recording.rows, windower={},
        files={"trace.parquet": digest},
    )  # fmt: skip
    (folder / "commit.json").write_bytes(msgspec.json.encode(position))
    manifest = Manifest(
        source="replay",
        policy=policy,
        recording=RecordingRef(
            str(recording.path), recording.sha256, recording.rows, 0, recording.rows
        ),
        model=ModelRef("made-up.safetensors", model_hash),
        settings=Settings(
            window=WINDOW, gap_seconds=None, eviction="hard", kv_budget=None, budget=None,
            burst=4.0, max_passes=8, price=0.0, commit_every=64, predictions=False,
        ),
        machine=Machine("any", "any", "cpu", 1, "highest"),
        seed=seed,
        versions={"adaptive-sleep": "0.1.0"},
    )  # fmt: skip
    (path / "run.json").write_bytes(msgspec.json.encode(manifest))
    if finished:
        summary = replace(_summary(frame, path), trace_sha256=open_run(path).trace_sha256)
        manifest = msgspec.structs.replace(manifest, finished=True, summary=summary)
        (path / "run.json").write_bytes(msgspec.json.encode(manifest))
    return path


def _summary(frame: pl.DataFrame, path: Path) -> RunSummary:
    passes = float(frame["passes"].mean())  # type: ignore[arg-type]
    return RunSummary(
        loss=float(frame["loss"].mean()),  # type: ignore[arg-type]
        mean_passes=passes,
        events=len(frame) * WINDOW,
        windows=len(frame),
        flops_per_event=1e5 * passes,
        sleep_flops_per_event=1e5 * (passes - 1),
        seconds=2.5,
        wake_p50=0.003,
        wake_p99=0.006,
        longest_stall=0.02,
        trace=trace_glob(path),
        trace_sha256="",
    )
