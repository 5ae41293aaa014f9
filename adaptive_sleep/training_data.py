"""Training data: a range of a recording in memory, and random sequences of windows out of it.

Series come with the running statistics that each sequence starts from, so that training sees the
scales that a running stream has. Nothing here trains.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from adaptive_sleep.config import ModelConfig
from adaptive_sleep.normalise import RunningStats, advance, fresh_stats
from adaptive_sleep.packing import Packed, column_order
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.recording import Recording

_CHUNK = 256  # events whose statistics are computed at once


@dataclass(frozen=True, eq=False)
class StreamData:
    """One stream in arrival order: `values` `[n, C_in]` or `tokens` `[n]`; and, for a series, the
    decayed sums before each event, `sums` `[5, n, C_in]` (origin, count, total, squares, last)."""

    values: NDArray[np.float32] | None
    tokens: NDArray[np.int64] | None
    sums: NDArray[np.float64] | None

    def __len__(self) -> int:
        found = self.values if self.values is not None else self.tokens
        return 0 if found is None else len(found)


def read_streams(
    recording: Recording, config: ModelConfig, start: int, stop: int
) -> list[StreamData]:
    """Rows `start` to `stop` of a recording by stream, in memory. Raises InputError if empty."""
    inputs = {c.name: i for i, c in enumerate(recording.channels)}
    names = [c.name for c in recording.inputs]
    order = column_order(config, names)
    columns = np.array([inputs[n] for n in names], dtype=np.int64)
    columns = columns if order is None else columns[order]
    parts: dict[int, list[NDArray[np.generic]]] = {}
    for block in recording.blocks(start=start, stop=stop):
        found = block.tokens if config.kind == "tokens" else block.values
        assert found is not None
        for number in np.unique(block.stream):
            rows = found[block.stream == number]
            parts.setdefault(int(number), []).append(
                rows if config.kind == "tokens" else rows[:, columns]
            )
    if not parts:
        raise InputError(f"recording: rows {start} to {stop} hold no events to train on")
    joined = [np.concatenate(p) for _, p in sorted(parts.items())]
    return [stream_of(j, config) for j in joined]


def stream_of(rows: NDArray[np.generic], config: ModelConfig) -> StreamData:
    """One stream in memory: rows `[n, C_in]` of a series, or tokens `[n]`, in arrival order."""
    if config.kind == "tokens":
        return StreamData(None, rows.astype(np.int64), None)
    values = np.where(np.isfinite(rows), rows, np.nan).astype(np.float32)
    stats = fresh_stats(1, values.shape[1])
    before: list[NDArray[np.float64]] = []
    for at in range(0, len(values), _CHUNK):
        part = torch.from_numpy(values[at : at + _CHUNK])[None, :, None]
        each, after = advance(
            stats, part, torch.ones(1, part.shape[1], dtype=torch.int64), config.norm_memory
        )
        names = ("count", "total", "squares", "last")
        shifted = [
            torch.cat([getattr(stats, n)[:, None], getattr(each, n)[:, :-1]], 1)[0] for n in names
        ]
        before.append(torch.stack([each.origin[0], *shifted]).numpy())
        stats = after
    return StreamData(values, None, np.concatenate(before, 1))


@dataclass(frozen=True, eq=False)
class Batch:
    """Sequences of windows, side by side: one `Packed` per window, and the statistics before."""

    windows: list[Packed]
    stats: RunningStats | None


def sample(
    streams: list[StreamData],
    config: ModelConfig,
    random: np.random.Generator,
    *,
    batch: int,
    windows: int,
    window: int,
    cold: float = 0.0,
) -> Batch:
    """`batch` random sequences of `windows` windows of `window` events each. Raises InputError.

    A share `cold` of them starts without running statistics, as a stream does that is new.
    """
    need = windows * window
    room = np.array([max(len(s) - need + 1, 0) for s in streams], dtype=np.float64)
    if not room.sum():
        longest = max(len(s) for s in streams)
        raise InputError(
            f"windows={windows}: {windows} windows of {window} events need {need} events in a "
            f"stream, the longest has {longest}; record more, or train a recipe with fewer windows"
        )
    chosen = random.choice(len(streams), size=batch, p=room / room.sum())
    starts = [int(random.integers(int(room[c]))) for c in chosen]
    picked = [streams[c] for c in chosen]
    cuts = [
        _window(picked, [s + i * window for s in starts], window, config) for i in range(windows)
    ]
    if config.kind == "tokens":
        return Batch(cuts, None)
    sums = np.stack(
        [p.sums[:, s] for p, s in zip(picked, starts, strict=True) if p.sums is not None]
    )
    sums[random.random(batch) < cold] = 0.0  # a count of 0: the origin too is found anew
    origin, count, total, squares, last = torch.from_numpy(sums).unbind(1)
    recent = _recent(picked, starts, config.skip, count) if config.skip else None
    return Batch(cuts, RunningStats(origin, count, total, squares, last, recent))


def _recent(
    streams: list[StreamData], starts: list[int], size: int, count: torch.Tensor
) -> torch.Tensor:
    """The last `size` values before each start, `[B, size, C_in]`; none where `count` `[B, C_in]`
    says that the stream is taken as new."""
    found = []
    for stream, start in zip(streams, starts, strict=True):
        assert stream.values is not None
        kept = stream.values[max(start - size, 0) : start]
        missing = np.full((size - len(kept), kept.shape[1]), np.nan, dtype=np.float32)
        found.append(np.concatenate([missing, kept]))
    recent = torch.from_numpy(np.stack(found))
    return torch.where((count > 0)[:, None], recent, torch.nan)


def _window(
    streams: list[StreamData], starts: list[int], window: int, config: ModelConfig
) -> Packed:
    patch = config.patch
    positions = -(-window // patch)
    lengths = torch.full((len(streams),), positions)
    events = torch.full((len(streams), positions), patch)
    events[:, -1] = window - (positions - 1) * patch
    none = np.zeros((len(streams), positions, patch), dtype=np.int64)
    if config.kind == "tokens":
        rows = [
            s.tokens[a : a + window]
            for s, a in zip(streams, starts, strict=True)
            if s.tokens is not None
        ]
        return Packed(lengths, events, torch.from_numpy(np.stack(rows)), None, none, None)
    values = np.full(
        (len(streams), positions * patch, len(config.inputs)), np.nan, dtype=np.float32
    )
    for row, (stream, at) in enumerate(zip(streams, starts, strict=True)):
        assert stream.values is not None
        values[row, :window] = stream.values[at : at + window]
    shaped = torch.from_numpy(values).view(len(streams), positions, patch, -1)
    return Packed(lengths, events, None, shaped, none, None)


def fill_config(model: dict[str, object], recording: Recording) -> dict[str, object]:
    """A `[model]` table with kind, channels, actions or vocabulary taken from the recording, where
    the table leaves them out."""
    filled: dict[str, object] = {"kind": recording.kind, **model}
    if recording.kind == "tokens":
        filled.setdefault("vocabulary", recording.manifest.vocabulary)
        return filled
    by_role = {r: [c.name for c in recording.inputs if c.role == r] for r in ("observed", "action")}
    filled.setdefault("channels", by_role["observed"])
    filled.setdefault("actions", by_role["action"])
    return filled


def rows_between(fractions: tuple[float, float], rows: int) -> tuple[int, int]:
    """Row numbers of a range given as fractions of a recording."""
    return round(fractions[0] * rows), round(fractions[1] * rows)
