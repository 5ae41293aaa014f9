"""Small recordings that the tests of this folder make."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from adaptive_sleep.streams.events import Channel
from adaptive_sleep.streams.recording import Recording
from adaptive_sleep.streams.writer import RecordingWriter

CHANNELS = (
    Channel("load", unit="fraction"),
    Channel("phase", role="label", categories=("idle", "busy")),
    Channel("knob", role="action"),
)


def write_rows(
    path: Path,
    streams: list[str],
    times: list[int],
    *,
    kind: str = "series",
    shard_rows: int = 262_144,
    close: bool = True,
) -> Path:
    """One row per entry of `streams`; row i has load i, label 0 and knob -i, or token i % 256."""
    writer = RecordingWriter(
        path,
        kind="tokens" if kind == "tokens" else "series",
        channels=() if kind == "tokens" else CHANNELS,
        tokenizer="bytes" if kind == "tokens" else None,
        vocabulary=256 if kind == "tokens" else None,
        shard_rows=shard_rows,
        provenance={"source": "a test"},
    )
    for i, (stream, time) in enumerate(zip(streams, times, strict=True)):
        if kind == "tokens":
            writer.append(stream, time, tokens=i % 256)
        else:
            writer.append(stream, time, values=[i, 0, -i])
    if close:
        writer.close()
    else:
        writer.flush()
    return path


def interleaved(path: Path, *, rows: int, streams: int, seed: int = 0) -> Recording:
    """`rows` rows of `streams` streams in random order, half a second apart, as large appends."""
    rng = np.random.default_rng(seed)
    with RecordingWriter(path, kind="series", channels=CHANNELS) as writer:
        for first in range(0, rows, 65_536):
            row = np.arange(first, min(first + 65_536, rows))
            names = [f"s{code:04d}" for code in rng.integers(streams, size=len(row))]
            values = np.stack([row, row % 2, -row], axis=1)
            writer.append_rows(names, row * 500_000_000, values=values)
    return Recording.open(path)
