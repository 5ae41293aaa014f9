"""Pure bookkeeping of a step: counters before and after, what a window leaves, its trace row.

It computes rows of the arena (`arena.py`) from rows; nothing here touches a model or a policy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adaptive_sleep.arena import COUNTERS, SUMS, Rows
from adaptive_sleep.attention import KVCache
from adaptive_sleep.boundary import Closing, Decision, Pending
from adaptive_sleep.eviction import Holding
from adaptive_sleep.ledger import Costs, visible_pairs
from adaptive_sleep.memory import FastWeights
from adaptive_sleep.normalise import RunningStats
from adaptive_sleep.packing import Packed
from adaptive_sleep.streams.events import Piece
from adaptive_sleep.trace import TraceRow
from adaptive_sleep.wake import Start, Woken

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
NANOSECONDS = 1e9
_FITS = 2.0**62  # ns between two times that 64 bits surely hold


def strip(rows: Rows, prefix: str) -> Rows:
    """The tensors under `prefix`, by the rest of their names."""
    return {n[len(prefix) :]: t for n, t in rows.items() if n.startswith(prefix)}


def read_weights(rows: Rows, when: str) -> FastWeights:
    """Fast weights `when` ("now" or "before") out of arena rows."""
    return FastWeights(
        strip(rows, f"{when}.matrix."), strip(rows, f"{when}.tail."), rows.get(f"{when}.carried")
    )


def write_weights(weights: FastWeights, when: str) -> Rows:
    """Fast weights as arena rows."""
    return {f"{when}.{name}": tensor for name, tensor in weights}


def read_start(rows: Rows, cache: KVCache) -> Start:
    """Where the streams of some arena rows stand."""
    sums = strip(rows, "stats.")
    return Start(
        read_weights(rows, "now"),
        cache,
        rows["last_hidden"],
        rows["has_last"] > 0,
        RunningStats(**sums) if sums else None,
    )


def counted(
    pieces: Sequence[Piece],
    state: Rows,
    packed: Packed,
    woken: Woken,
    costs: Costs,
    holds: Holding,
) -> Rows:
    """The small state of every stream of a batch after its new positions."""
    fresh = dict(state) | arrived(pieces, state, holds.events)
    fresh["positions"] = state["positions"] + packed.lengths
    fresh["cached"] = (state["cached"] + packed.lengths).clamp(max=holds.slots)
    fresh["has_last"] = ((state["has_last"] > 0) | (packed.lengths > 0)).long()
    fresh["scored"] = state["scored"] + woken.scored
    fresh["loss"], fresh["spread"] = state["loss"] + woken.loss, state["spread"] + woken.spread
    fresh["last_hidden"] = woken.last_hidden
    lengths = packed.lengths.numpy()
    spent = costs.wake(lengths, visible_pairs(state["cached"].numpy(), lengths, holds.reach))
    fresh["wake_flops"] = state["wake_flops"] + torch.from_numpy(spent)
    fresh |= write_weights(woken.done.weights, "now")
    if packed.waiting is not None:
        assert woken.stats is not None
        fresh |= {f"stats.{n}": t for n, t in woken.stats.tensors().items()}
        fresh["waiting.values"] = packed.waiting.values
        fresh["waiting.times"] = packed.waiting.times
        fresh["pending"] = packed.waiting.pending
    return fresh


def arrived(pieces: Sequence[Piece], state: Rows, window: int) -> Rows:
    """Counters and clocks of every stream of a batch after its new events; `window`: events that
    attention holds at most."""
    count = torch.tensor([len(p.events) for p in pieces])
    fresh = _clocks(pieces, state)
    fresh["open"], fresh["seen"] = state["open"] + count, state["seen"] + count
    fresh["held"] = (state["held"] + count).clamp(max=window)
    return fresh


def closed_early(
    names: Sequence[str], state: Rows, new: Mapping[str, int], window: int, limit: int
) -> list[str]:
    """Which of the streams `names` (`state`: their rows) to close so that `new` events fit `limit`.

    The longest held first; ties: the oldest, then by name. No stream holds more than `window`.
    """
    held = dict(zip(names, state["held"].tolist(), strict=True))
    since = dict(zip(names, state["first_time"].tolist(), strict=True))
    # sliding attention lets go of the oldest events as the new ones come
    after = {s: min(held.get(s, 0) + new.get(s, 0), window) for s in {*held, *new}}
    excess = sum(after.values()) - limit
    chosen: list[str] = []
    for name in sorted(held, key=lambda s: (-held[s], since[s], s)):
        if excess <= 0:
            break
        freed = after[name] - new.get(name, 0)
        if freed > 0:
            chosen.append(name)
            excess -= freed
    return chosen


def _clocks(pieces: Sequence[Piece], state: Rows) -> Rows:
    """First event of the open window and last event of the stream, ns, after new events."""
    first, last = state["first_time"].tolist(), state["last_time"].tolist()
    for i, (piece, held) in enumerate(zip(pieces, state["open"].tolist(), strict=True)):
        if len(piece.events):
            first[i] = first[i] if held else int(piece.events.time[0])
            last[i] = int(piece.events.time[-1])
    return {"first_time": torch.tensor(first), "last_time": torch.tensor(last)}


def _seconds(state: Rows) -> Tensor:
    """How long each window lasted, from the last event before it (its own first, for window 0)."""
    since = torch.where(state["window"] > 0, state["before_time"], state["first_time"])
    return torch.from_numpy(_between(since.numpy(), state["last_time"].numpy()))


def _between(early: IntArray, late: IntArray) -> FloatArray:
    """Seconds from one time to another, in ns; exact as far as 64 bits hold the difference."""
    rough = late.astype(np.float64) - early
    between: FloatArray = np.where(np.abs(rough) > _FITS, rough, late - early) / NANOSECONDS
    return between


def closing_counters(
    names: list[str], state: Rows, pressure: float, budget: float | None, cap: float | None
) -> Closing:
    """Counters of closing windows; `budget` FLOPs per event accrue here, up to `cap`."""
    read = {n: state[n].numpy() for n in (*COUNTERS, *SUMS)}
    later = read["window"] > 0
    gap = np.maximum(_between(read["before_time"], read["first_time"]), 0.0)
    balance = read["balance"]
    if budget is not None and cap is not None:
        balance = np.minimum(cap, balance + budget * read["open"])
    return Closing(
        stream=names,
        window=read["window"],
        tokens=read["open"],
        scored=read["scored"],
        predicted=read["scored"],
        loss=read["loss"],
        spread=read["spread"],
        gap=np.where(later, gap, 0.0),
        density=_density(
            read["open"],
            _seconds(state).numpy(),
            read["density_events"],
            read["density_seconds"],
        ),
        balance=balance,
        wake_flops=read["wake_flops"],
        pressure=pressure,
    )


def _density(
    events: NDArray[np.int64],
    seconds: NDArray[np.float64],
    all_events: NDArray[np.float64],
    all_seconds: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Events per second against the stream's mean so far; 1 where either is unknown."""
    known = (seconds > 0) & (all_seconds > 0) & (all_events > 0)
    rate = events / np.where(known, seconds, 1.0)
    usual = np.where(known, all_events, 1.0) / np.where(known, all_seconds, 1.0)
    return np.where(known, rate / usual, 1.0)


def evicted(state: Rows, closing: Closing, decision: Decision, drop_cache: bool) -> Rows:
    """The state of closing streams after the boundary: SN kept, the window dropped."""
    after = write_weights(decision.slept.weights, "now")
    after |= write_weights(decision.slept.weights, "before")
    zero = torch.zeros_like(state["open"])
    after |= dict.fromkeys(("open", "positions", "scored", "wake_flops"), zero)
    after |= dict.fromkeys(("loss", "spread"), zero.double())
    if drop_cache:
        after |= {"held": zero, "cached": zero}
    after["window"] = state["window"] + 1
    after["before_time"] = state["last_time"]
    seconds = _seconds(state)
    timed = seconds > 0
    after["density_events"] = state["density_events"] + torch.where(timed, state["open"], 0)
    after["density_seconds"] = state["density_seconds"] + torch.where(timed, seconds, 0.0)
    after["balance"] = torch.from_numpy(closing.balance - decision.sleep_flops)
    return after


def trace_rows(
    step: int, causes: Sequence[str], closing: Closing, decision: Decision, state: Rows
) -> list[TraceRow]:
    """One trace row per closing window."""
    signals = decision.signals
    columns: dict[str, list[object]] = {
        "step": [step] * len(closing.stream),
        "stream": list(closing.stream),
        "cause": list(causes),
        "loss": [
            s if n else None
            for s, n in zip(signals.surprise.tolist(), signals.scored.tolist(), strict=True)
        ],
        "last_state_change": decision.slept.last_change.double().tolist(),
        "planned": decision.planned.tolist(),
        "passes": decision.passes.tolist(),
        "clipped_by": list(decision.clipped_by),
        "wake_flops": closing.wake_flops.tolist(),
        "sleep_flops": decision.sleep_flops.tolist(),
        "signal_flops": decision.signal_flops.tolist(),
        "policy_flops": decision.policy_flops.tolist(),
        "first_time": state["first_time"].tolist(),
        "last_time": state["last_time"].tolist(),
        "right": [None] * len(causes) if closing.right is None else closing.right.tolist(),
        "asked": [None] * len(causes) if closing.asked is None else closing.asked.tolist(),
    }
    for name in ("window", "tokens", "scored", "uncertainty", "surprise", "cache_pressure"):
        columns[name] = getattr(signals, name).tolist()
    for name in ("state_change", "event_density", "gap", "budget_left"):
        columns[name] = getattr(signals, name).tolist()
    names = list(columns)
    return [
        TraceRow(**dict(zip(names, row, strict=True)))
        for row in zip(*columns.values(), strict=True)
    ]


def told(closing: Closing, decision: Decision, pending: Pending) -> Pending:
    """Which windows have not had their outcome told: those of before, and the ones that close."""
    fresh = dict(settled(closing, pending))
    closed = zip(closing.window.tolist(), decision.passes.tolist(), strict=True)
    for stream, window in zip(closing.stream, closed, strict=True):
        fresh[stream] = (*fresh.get(stream, ()), window)
    return fresh


def settled(closing: Closing, pending: Pending) -> Pending:
    """Which windows still wait for their outcome: a scored window settles all before it."""
    scored = {s for s, n in zip(closing.stream, closing.scored.tolist(), strict=True) if n > 0}
    return {stream: () if stream in scored else left for stream, left in pending.items()}
