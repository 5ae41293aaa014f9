"""What a step does with its pieces: wake a batch, close the windows that end, write to the store.

That a step is a transaction is `runtime.py`; windows that are run only when they close, `whole.py`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adaptive_sleep.arena import Arena, Rows
from adaptive_sleep.attention import KVCache
from adaptive_sleep.bookkeeping import (
    closing_counters,
    counted,
    evicted,
    read_start,
    read_weights,
    strip,
    told,
    trace_rows,
)
from adaptive_sleep.boundary import (
    Closing,
    Decision,
    Limits,
    Pending,
    decide,
    require_finite,
)
from adaptive_sleep.contract import PolicyLike
from adaptive_sleep.eviction import Holding
from adaptive_sleep.ledger import Costs, Ledger, resident_bytes, sleep_bytes
from adaptive_sleep.memory import FastWeights
from adaptive_sleep.model import Beside, Model
from adaptive_sleep.packing import Packed, Waiting, check_room, pack_series, pack_tokens
from adaptive_sleep.ragged import append
from adaptive_sleep.settings import RuntimeSettings
from adaptive_sleep.sleep import ClosedWindow
from adaptive_sleep.streams.events import Piece
from adaptive_sleep.trace import TraceRow
from adaptive_sleep.wake import Predictions, wake

PHASES = ("wake", "signals", "policy", "sleep")


@dataclass(frozen=True, eq=False)
class Boundary:
    """A batch of windows that a policy planned for, as they closed, and what was decided."""

    closed: ClosedWindow
    decision: Decision


@dataclass
class Draft:
    """What a step has worked out so far; becomes the runtime's state when the step commits.

    `predictions` and `boundaries` are kept only where they are lists.
    """

    step: int
    ledger: Ledger
    pending: Pending
    allow_sleep: bool
    predictions: list[Predictions] | None
    boundaries: list[Boundary] | None = None
    rows: list[TraceRow] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))


@dataclass(frozen=True, eq=False)
class Works:
    """What every step of a runtime works with; only the store changes.

    `order`: where the model's inputs stand among the columns of pieces (None: in order); `holding`:
    what attention holds of a stream at most.
    """

    model: Model
    policy: PolicyLike
    settings: RuntimeSettings
    costs: Costs
    arena: Arena
    order: NDArray[np.int64] | None
    holding: Holding

    @property
    def learns(self) -> bool:
        """Whether the policy wants to know what came of its windows."""
        return getattr(self.policy, "observe", None) is not None

    def small(self) -> list[str]:
        """Everything that is read for every piece: all but buffers, cache and S0."""
        large = set(self.named("embedded", "hidden", "keys.", "values.", "before."))
        return [n for n in self.arena.tensors if n not in large]

    def named(self, *prefixes: str) -> list[str]:
        """The tensors of the store under these prefixes."""
        return [n for n in self.arena.tensors if n.startswith(prefixes)]

    def cache(self, index: Tensor, state: Rows) -> KVCache:
        """What attention holds of the streams `index` (`state`: their rows)."""
        kept = self.arena.gather(index, self.named("keys.", "values."), int(state["cached"].max()))
        cache = KVCache(strip(kept, "keys."), strip(kept, "values."), state["cached"])
        return self.holding.ready(cache)

    def before(self, index: Tensor) -> FastWeights:
        """S0 of the open windows of the streams `index`."""
        return read_weights(self.arena.gather(index, self.named("before.")), "before")

    def pressure(self) -> float:
        """KV events held over all streams, as a share of the KV budget; 0 without one."""
        limit = self.settings.kv_budget
        return int(self.arena.tensors["held"].sum()) / limit if limit else 0.0

    def resident(self, held: int) -> int:
        """Resident bytes with `held` KV positions over all streams."""
        return resident_bytes(self.model.config, len(self.arena.rows), held)

    def peaks(self) -> dict[str, int]:
        """Resident bytes now, without and with what only sleep needs."""
        tensors, streams = self.arena.tensors, len(self.arena.rows)
        kept = self.resident(int(tensors["cached"].sum()))
        beside = sleep_bytes(self.model.config, streams, int(tensors["positions"].sum()))
        return {"peak_resident_bytes": kept, "peak_sleeping_bytes": kept + beside}

    def counters(self, names: list[str], state: Rows, pressure: float) -> Closing:
        """Counters of the closing windows of some streams (`state`: their rows)."""
        settings = self.settings
        return closing_counters(names, state, pressure, settings.budget, settings.budget_cap)

    def limits(self, draft: Draft) -> Limits:
        """What bounds the decisions of a step."""
        settings = self.settings
        return Limits(
            self.costs, settings.max_passes, settings.price, settings.budget_cap, draft.allow_sleep
        )


def advance(works: Works, pieces: Sequence[Piece], draft: Draft, forced: bool = False) -> None:
    """Wake a batch, then close the windows that end; writes to the store, uncommitted.

    `forced`: the KV budget closes them, and attention drops what it holds also where it slides.
    """
    if not pieces:
        return
    arena, model = works.arena, works.model
    streams = [p.stream for p in pieces]
    index = arena.index(streams)
    state = arena.gather(index, works.small())
    check_room(pieces, state["open"].tolist(), works.settings.window)
    packed = _pack(works, pieces, state)
    started = time.perf_counter()
    cache = works.cache(index, state)
    named = streams if draft.predictions is not None else None
    # where all windows end, signals are measured while what they look at is at hand: hidden states
    # only of windows that are read at once
    before = works.before(index) if all(p.closes for p in pieces) else None
    beside = None if before is None else Beside(before, not state["positions"].any())
    woken = wake(model, packed, read_start(state, cache), works.holding.reach, named, beside)
    draft.seconds["wake"] += time.perf_counter() - started
    sound = woken.done.finite_streams() & woken.done.weights.finite_streams()
    require_finite(sound, streams, state["window"].tolist())
    if draft.predictions is not None and woken.predictions is not None:
        draft.predictions.append(woken.predictions)
    fresh = counted(pieces, state, packed, woken, works.costs, works.holding)
    past = state["positions"]
    old = arena.gather(index, ("embedded", "hidden"), int(past.max()))
    new = {"embedded": woken.embedded, "hidden": woken.done.hidden}
    places = model.config.window_positions
    window = {n: append(old[n], past, new[n], packed.lengths, places) for n in old}
    held = cache.extended(woken.done.new, works.holding.slots)
    caches = {f"keys.{n}": t for n, t in held.keys.items()}
    caches |= {f"values.{n}": t for n, t in held.values.items()}
    arena.scatter(index, {**fresh, **window, **caches})
    draft.ledger = draft.ledger.add(
        wake=int((fresh["wake_flops"] - state["wake_flops"]).sum()),
        events=sum(len(p.events) for p in pieces),
        **works.peaks(),
    )
    rows = closing_rows(pieces, fresh)
    if len(rows):
        part = {n: t.index_select(0, rows) for n, t in (fresh | window).items()}
        names = [streams[int(r)] for r in rows]
        causes, found = causes_of(pieces, rows, forced), (woken.done.change, woken.done.summary)
        measured = tuple(None if x is None else x.index_select(0, rows) for x in found)
        here = index.index_select(0, rows)
        start = works.before(here) if before is None else before.select(rows)
        _close(works, names, here, causes, part, start, measured, draft, forced)
    if forced:
        forget(works, index)


def forget(works: Works, index: Tensor) -> None:
    """Drop what attention holds of streams, also where their window had closed already."""
    none = torch.zeros_like(index)
    works.arena.scatter(index, {"held": none, "cached": none})


def closing_rows(pieces: Sequence[Piece], state: Rows) -> Tensor:
    """Which pieces close a window that holds events, int64 `[n]`; `state`: rows after them."""
    closes = np.array([p.closes for p in pieces])
    return torch.from_numpy(np.flatnonzero(closes & (state["open"].numpy() > 0)))


def causes_of(pieces: Sequence[Piece], rows: Tensor, forced: bool) -> list[str]:
    """Why the windows of the pieces `rows` close."""
    return ["pressure" if forced else pieces[int(r)].cause for r in rows]


def _pack(works: Works, pieces: Sequence[Piece], state: Rows) -> Packed:
    if works.model.config.kind == "tokens":
        return pack_tokens(pieces)
    waiting = Waiting(state["waiting.values"], state["waiting.times"], state["pending"])
    return pack_series(pieces, waiting, works.model.config.patch, works.order)


def _close(
    works: Works,
    names: list[str],
    index: Tensor,
    causes: list[str],
    state: Rows,
    before: FastWeights,
    measured: tuple[Tensor | None, ...],
    draft: Draft,
    forced: bool,
) -> None:
    """Measure, ask, sleep and evict for streams whose windows end (`state`: their rows; `before`:
    their S0; `measured`: how far it moved and the summary, where the wake pass measured them)."""
    lengths = state["positions"]
    size = int(lengths.max())
    closed = ClosedWindow(
        state["embedded"][:, :size],
        state["hidden"][:, :size],
        lengths,
        before,
        read_weights(state, "now"),
        *measured,
    )
    closing = works.counters(names, state, works.pressure())
    decision = slept_on(works, closed, closing, draft)
    drop = forced or not works.holding.kept
    draft.rows += settle(works, index, causes, closing, decision, state, draft, drop)


def slept_on(works: Works, closed: ClosedWindow, closing: Closing, draft: Draft) -> Decision:
    """Ask the policy about closed windows and sleep on them; they wait for their outcome."""
    limits = works.limits(draft)
    decision = decide(works.model, works.policy, closed, closing, limits, draft.pending)
    if works.learns:
        draft.pending = told(closing, decision, draft.pending)
    if draft.boundaries is not None:
        draft.boundaries.append(Boundary(closed, decision))
    return decision


def settle(
    works: Works,
    index: Tensor,
    causes: Sequence[str],
    closing: Closing,
    decision: Decision,
    state: Rows,
    draft: Draft,
    drop_cache: bool,
) -> list[TraceRow]:
    """Evict closed windows and book what their decision cost; returns their trace rows."""
    for phase, seconds in decision.seconds.items():
        draft.seconds[phase] += seconds
    works.arena.scatter(index, evicted(state, closing, decision, drop_cache))
    draft.ledger = draft.ledger.add(
        sleep=int(decision.sleep_flops.sum()),
        signals=int(decision.signal_flops.sum()),
        policy=int(decision.policy_flops.sum()),
        windows=len(causes),
        passes=int(decision.passes.sum()),
    )
    return trace_rows(draft.step, causes, closing, decision, state)
