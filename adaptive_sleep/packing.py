"""Pieces of many streams, packed into padded arrays of positions; and what is left unfinished.

Series events become patches of P; a patch that is not complete waits, or is committed, masked, at a
boundary. Nothing is normalised or embedded here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adaptive_sleep.config import ModelConfig
from adaptive_sleep.streams.errors import InputError, nearest
from adaptive_sleep.streams.events import Events, Piece


@dataclass(frozen=True, eq=False)
class Waiting:
    """Events of a series that wait for their patch to be complete, filled from the left.

    `values` float32 `[B, P, C_in]`, `times` int64 `[B, P]` (ns), `pending` int64 `[B]`: how many.
    """

    values: Tensor
    times: Tensor
    pending: Tensor


@dataclass(frozen=True, eq=False)
class Packed:
    """New positions of a batch of streams, filled from the left.

    `lengths` int64 `[B]`, positions; `events` int64 `[B, T]`, events behind each; tokens: `tokens`
    int64 `[B, T]`; series: `values` float32 `[B, T, P, C_in]`, NaN where missing or padding, and
    what still waits; `times` int64 `[B, T, P]`, ns, of every event (0 for padding).
    """

    lengths: Tensor
    events: Tensor
    tokens: Tensor | None
    values: Tensor | None
    times: NDArray[np.int64]
    waiting: Waiting | None


def column_order(config: ModelConfig, columns: Sequence[str] | None) -> NDArray[np.int64] | None:
    """Where each of the model's inputs stands among `columns`; None if they are in order already.

    Raises InputError for an input that `columns` lack.
    """
    if config.kind == "tokens" or columns is None or tuple(columns) == config.inputs:
        return None
    for name in config.inputs:
        if name not in columns:
            raise InputError(
                f"channels: the model reads {name!r}, which the stream lacks"
                f"{nearest(name, columns)} (it has {', '.join(columns)})"
            )
    return np.array([list(columns).index(n) for n in config.inputs], dtype=np.int64)


def check_pieces(
    pieces: Sequence[Piece], config: ModelConfig, columns: Sequence[str] | None
) -> None:
    """Refuse two pieces of one stream, and events that the model cannot read. Raises InputError."""
    names = [p.stream for p in pieces]
    if len(set(names)) < len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise InputError(f"pieces: stream {twice!r} comes twice; a step takes one piece per stream")
    width = len(columns) if columns is not None else len(config.inputs)
    for piece in pieces:
        if config.kind == "tokens":
            _check_tokens(piece, config.vocabulary)
            if config.answers:
                _check_targets(piece, config.answers)
        elif piece.events.values is None or piece.events.values.shape[1:] != (width,):
            got = "tokens" if piece.events.values is None else piece.events.values.shape
            raise InputError(
                f"pieces: stream {piece.stream!r} brings {got}; the model reads values [n, {width}]"
            )


def _check_tokens(piece: Piece, vocabulary: int) -> None:
    tokens = piece.events.tokens
    if tokens is None:
        raise InputError(f"pieces: stream {piece.stream!r} brings values; the model reads tokens")
    if len(tokens) and tokens.dtype.kind not in "iu":
        raise InputError(
            f"pieces: tokens of stream {piece.stream!r} are {tokens.dtype}, not whole numbers"
        )
    if len(tokens) and not (int(tokens.min()) >= 0 and int(tokens.max()) < vocabulary):
        bad = tokens[(tokens < 0) | (tokens >= vocabulary)][0]
        raise InputError(
            f"pieces: token {bad} of stream {piece.stream!r} is outside 0..{vocabulary - 1}"
        )


def _check_targets(piece: Piece, answers: int) -> None:
    targets = piece.events.targets
    if targets is not None and len(targets):
        if targets.dtype.kind not in "iu":
            raise InputError(
                f"pieces: targets of stream {piece.stream!r} are {targets.dtype}, not whole numbers"
            )
        wrong = targets[(targets < -2) | (targets >= answers)]
        if len(wrong):
            raise InputError(
                f"pieces: target {wrong[0]} of stream {piece.stream!r}: 0 to {answers - 1}, "
                "-1 where nothing is asked, -2 where the answer is not known"
            )


def check_room(pieces: Sequence[Piece], opened: Sequence[int], window: int) -> None:
    """Refuse more events than a window holds; `opened`: events in each stream's open window."""
    for piece, held in zip(pieces, opened, strict=True):
        if held + len(piece.events) > window:
            raise InputError(
                f"pieces: stream {piece.stream!r} brings {len(piece.events)} events to an open "
                f"window of {held}; a window holds at most {window}"
            )


def no_events(config: ModelConfig, columns: Sequence[str] | None) -> Events:
    """An empty run of events that `config` can read."""
    empty = np.zeros(0, dtype=np.int64)
    if config.kind == "tokens":
        return Events(empty, tokens=empty)
    width = len(columns) if columns is not None else len(config.inputs)
    return Events(empty, values=np.zeros((0, width), dtype=np.float32))


def pack_tokens(pieces: Sequence[Piece]) -> Packed:
    """Token pieces as one padded batch; every event is a position."""
    counts = [len(p.events) for p in pieces]
    size = max(counts, default=0)
    tokens = np.zeros((len(pieces), size), dtype=np.int64)
    clock = np.zeros((len(pieces), size), dtype=np.int64)
    for row, piece in enumerate(pieces):
        assert piece.events.tokens is not None
        tokens[row, : counts[row]] = piece.events.tokens
        clock[row, : counts[row]] = piece.events.time
    lengths = torch.tensor(counts, dtype=torch.int64)
    events = (torch.arange(size) < lengths[:, None]).long()
    return Packed(lengths, events, torch.from_numpy(tokens), None, clock[:, :, None], None)


def pack_series(
    pieces: Sequence[Piece],
    waiting: Waiting,
    patch: int,
    order: NDArray[np.int64] | None,
) -> Packed:
    """Series pieces behind the events that still wait for their patch to be complete."""
    held = waiting.pending.numpy()
    total = held + np.array([len(p.events) for p in pieces], dtype=np.int64)
    closes = np.array([p.closes for p in pieces])
    done = np.where(closes, -(-total // patch), total // patch)
    used = np.where(closes, total, done * patch)
    size = int(done.max(initial=0))
    channels = waiting.values.shape[2]
    flat = np.full((len(pieces), (size + 1) * patch, channels), np.nan, dtype=np.float32)
    rest = np.full((len(pieces), patch, channels), np.nan, dtype=np.float32)
    clock = np.zeros((len(pieces), (size + 1) * patch), dtype=np.int64)
    late = np.zeros((len(pieces), patch), dtype=np.int64)
    old, old_clock = waiting.values.numpy(), waiting.times.numpy()
    for row, piece in enumerate(pieces):
        values = piece.events.values
        assert values is not None
        values = values if order is None else values[:, order]
        mine, cut = held[row], used[row]
        joined = np.concatenate([old[row, :mine], values]) if mine else values
        flat[row, :cut] = joined[:cut]
        rest[row, : total[row] - cut] = joined[cut:]
        times = np.concatenate([old_clock[row, :mine], piece.events.time])
        clock[row, :cut], late[row, : total[row] - cut] = times[:cut], times[cut:]
    starts = np.arange(size)[None] * patch
    events = np.clip(used[:, None] - starts, 0, patch)
    shaped = flat[:, : size * patch].reshape(len(pieces), size, patch, channels)
    # an infinite reading is no reading: it would poison the running statistics for ever
    shaped, rest = (np.where(np.isfinite(it), it, np.float32(np.nan)) for it in (shaped, rest))
    return Packed(
        torch.from_numpy(done),
        torch.from_numpy(events),
        None,
        torch.from_numpy(shaped),
        clock[:, : size * patch].reshape(len(pieces), size, patch),
        Waiting(torch.from_numpy(rest), torch.from_numpy(late), torch.from_numpy(total - used)),
    )
