"""The runtime: wake, measure, ask the policy, sleep, evict, trace; many streams side by side.

A step is a transaction. What is decided at a boundary lives in `boundary.py`, the counters in
`bookkeeping.py`, the store in `arena.py`, forecasts in `forecasting.py`, files in `snapshot.py`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adaptive_sleep import snapshot
from adaptive_sleep.arena import Arena, Rows, blank_row
from adaptive_sleep.attention import KVCache
from adaptive_sleep.bookkeeping import (
    closed_early,
    closing_counters,
    counted,
    evicted,
    read_start,
    read_weights,
    strip,
    told,
    trace_rows,
)
from adaptive_sleep.boundary import Limits, Pending, decide, require_finite
from adaptive_sleep.config import Eviction
from adaptive_sleep.contract import (
    PolicyLike,
    check_memory,
    load_policy_state,
    policy_state,
    reset_policy,
)
from adaptive_sleep.forecasting import Forecast, Sampling, as_events, forecast
from adaptive_sleep.ledger import Ledger, costs, resident_bytes
from adaptive_sleep.model import Model
from adaptive_sleep.packing import (
    Packed,
    Waiting,
    check_pieces,
    check_room,
    column_order,
    no_events,
    pack_series,
    pack_tokens,
)
from adaptive_sleep.ragged import append
from adaptive_sleep.settings import RuntimeSettings, check_settings
from adaptive_sleep.sleep import ClosedWindow
from adaptive_sleep.spec import format_spec, resolve
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.events import Piece
from adaptive_sleep.trace import TraceRow
from adaptive_sleep.wake import Predictions, wake

PHASES = ("wake", "signals", "policy", "sleep")


@dataclass(frozen=True)
class StepResult:
    """What one step did: a trace row per closed window, streams closed early by the KV budget,
    predictions if asked for, and seconds by phase ("wake", "signals", "policy", "sleep")."""

    rows: list[TraceRow]
    forced: tuple[str, ...]
    predictions: list[Predictions]
    seconds: dict[str, float]


@dataclass
class _Draft:
    """What a step has worked out so far; becomes the runtime's state when the step commits."""

    ledger: Ledger
    pending: Pending
    allow_sleep: bool
    predictions: list[Predictions] | None
    rows: list[TraceRow] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))


@dataclass(frozen=True)
class _Before:
    """What a step in flight is undone to; the arena keeps its own journal."""

    ledger: Ledger
    pending: Pending
    steps: int
    policy: dict[str, Any] | None


class Runtime:
    """Runs a model over many streams under a sleep policy."""

    def __init__(
        self,
        model: Model,
        policy: PolicyLike | str,
        *,
        window: int | None = None,
        eviction: Eviction = "hard",
        kv_budget: int | None = None,
        budget: float | None = None,
        burst: float = 4.0,
        max_passes: int = 8,
        price: float = 0.0,
        seed: int = 0,
        streams: Sequence[str] = (),
        columns: Sequence[str] | None = None,
    ) -> None:
        """model: trained; policy: an object, a callable or a spec string; settings as in
        `RuntimeSettings` (`window` defaults to the model's). `streams` are known beforehand (others
        may join); `columns` name the columns of the values that pieces bring, default the model's
        inputs in order. Raises InputError.
        """
        self.model = model.eval()
        self.policy = resolve(policy)
        self.settings = RuntimeSettings(
            window=model.config.window if window is None else window,
            eviction=eviction,
            kv_budget=kv_budget,
            budget=budget,
            burst=burst,
            max_passes=max_passes,
            price=price,
            seed=seed,
        )
        check_settings(self.settings, model.config)
        self.columns = None if columns is None else tuple(columns)
        self._order = column_order(model.config, self.columns)
        self.costs = costs(model.config)
        slots = -(-self.settings.window // model.config.patch)
        reach = slots if eviction == "sliding" else None
        # events held, positions held, positions that a query sees
        self._limits = (self.settings.window, slots, reach)
        self._arena = Arena(blank_row(model.config, slots))
        self.ledger = Ledger()
        self._pending: Pending = {}
        self._steps = 0
        self._in_flight: _Before | None = None
        self._learns = getattr(self.policy, "observe", None) is not None
        check_memory(self.policy)
        reset_policy(self.policy, seed)
        self._arena.index(list(streams))
        self._arena.commit()

    @property
    def streams(self) -> tuple[str, ...]:
        """Streams known so far."""
        return tuple(self._arena.names)

    @property
    def steps(self) -> int:
        """Steps done."""
        return self._steps

    @property
    def spec(self) -> str:
        """The policy as a spec string."""
        return format_spec(self.policy)

    def step(
        self, pieces: Sequence[Piece], *, allow_sleep: bool = True, predictions: bool = False
    ) -> StepResult:
        """Read at most one piece per stream; close, measure, sleep and evict where a window ends.

        With `allow_sleep` false (overload) policies are asked, but nothing sleeps. If anything
        raises, the runtime and the policy are as they were before.
        """
        pieces = tuple(pieces)  # read more than once
        check_pieces(pieces, self.model.config, self.columns)
        self._settle()
        closing = any(p.closes for p in pieces) or self.settings.kv_budget is not None
        memento = policy_state(self.policy) if closing else None
        draft = _Draft(self.ledger, self._pending, allow_sleep, [] if predictions else None)
        self._in_flight = _Before(self.ledger, self._pending, self._steps, memento)
        try:
            with torch.no_grad():
                forced = self._close_early(pieces, draft)
                self._advance(pieces, draft)
            result = StepResult(draft.rows, forced, draft.predictions or [], draft.seconds)
            self.ledger, self._pending = draft.ledger, draft.pending
            self._steps += 1
            self._in_flight = None  # from here on the step is real; nothing may be called after it
            return result
        except BaseException:
            self._settle()
            raise

    def _settle(self) -> None:
        """Undo a step that did not complete, or forget how to undo the last one; repeatable."""
        before = self._in_flight
        if before is None:
            self._arena.commit()
            return
        self._arena.rollback()
        self.ledger, self._pending, self._steps = before.ledger, before.pending, before.steps
        if before.policy is not None:
            load_policy_state(self.policy, before.policy)
        self._in_flight = None

    def _close_early(self, pieces: Sequence[Piece], draft: _Draft) -> tuple[str, ...]:
        """Close the longest held windows until the new events fit the KV budget."""
        limit = self.settings.kv_budget
        if limit is None:
            return ()
        new = {p.stream: len(p.events) for p in pieces}
        if sum(new.values()) > limit:
            raise InputError(
                f"kv_budget={limit}: this step alone brings {sum(new.values())} events; "
                "take smaller steps"
            )
        names = self._arena.names
        state = self._arena.gather(self._arena.index(names), ("held", "first_time"))
        chosen = closed_early(names, state, new, self.settings.window, limit)
        nothing = no_events(self.model.config, self.columns)
        self._advance([Piece(s, nothing, closes=True) for s in chosen], draft, forced=True)
        return tuple(chosen)

    def _advance(self, pieces: Sequence[Piece], draft: _Draft, forced: bool = False) -> None:
        """Wake a batch, then close the windows that end; writes to the arena, uncommitted."""
        if not pieces:
            return
        streams = [p.stream for p in pieces]
        index = self._arena.index(streams)
        state = self._arena.gather(index, self._small())
        check_room(pieces, state["open"].tolist(), self.settings.window)
        packed = self._pack(pieces, state)
        started = time.perf_counter()
        cache = self._cache(index, state)
        named = streams if draft.predictions is not None else None
        woken = wake(self.model, packed, read_start(state, cache), self._limits[2], named)
        draft.seconds["wake"] += time.perf_counter() - started
        sound = woken.done.finite_streams() & woken.done.weights.finite_streams()
        require_finite(sound, streams, state["window"].tolist())
        if draft.predictions is not None and woken.predictions is not None:
            draft.predictions.append(woken.predictions)
        fresh = counted(pieces, state, packed, woken, self.costs, self._limits)
        past = state["positions"]
        old = self._arena.gather(index, ("embedded", "hidden"), int(past.max()))
        new = {"embedded": woken.embedded, "hidden": woken.done.hidden}
        places = self.model.config.window_positions
        window = {n: append(old[n], past, new[n], packed.lengths, places) for n in old}
        held = cache.extended(woken.done.new, self._limits[1])
        caches = {f"keys.{n}": t for n, t in held.keys.items()}
        caches |= {f"values.{n}": t for n, t in held.values.items()}
        self._arena.scatter(index, {**fresh, **window, **caches})
        draft.ledger = draft.ledger.add(
            wake=int((fresh["wake_flops"] - state["wake_flops"]).sum()),
            events=sum(len(p.events) for p in pieces),
            peak_resident_bytes=self._resident(),
        )
        closes = np.array([p.closes for p in pieces])
        rows = torch.from_numpy(np.flatnonzero(closes & (fresh["open"].numpy() > 0)))
        if len(rows):
            causes = ["pressure" if forced else pieces[int(r)].cause for r in rows]
            part = {n: t.index_select(0, rows) for n, t in (fresh | window).items()}
            names = [streams[int(r)] for r in rows]
            self._close(names, index.index_select(0, rows), causes, part, draft, forced)
        if forced:  # also of streams whose window had closed already (sliding)
            none = torch.zeros_like(index)
            self._arena.scatter(index, {"held": none, "cached": none})

    def _close(
        self,
        names: list[str],
        index: Tensor,
        causes: list[str],
        state: Rows,
        draft: _Draft,
        forced: bool,
    ) -> None:
        """Measure, ask, sleep and evict for streams whose windows end (`state`: their rows)."""
        before = self._arena.gather(index, self._named("before."))
        lengths = state["positions"]
        size = int(lengths.max())
        closed = ClosedWindow(
            state["embedded"][:, :size],
            state["hidden"][:, :size],
            lengths,
            read_weights(before, "before"),
            read_weights(state, "now"),
        )
        cap = self.settings.budget_cap
        closing = closing_counters(names, state, self._pressure(), self.settings.budget, cap)
        limits = Limits(
            self.costs, self.settings.max_passes, self.settings.price, cap, draft.allow_sleep
        )
        decision = decide(self.model, self.policy, closed, closing, limits, draft.pending)
        for phase, seconds in decision.seconds.items():
            draft.seconds[phase] += seconds
        drop = forced or self.settings.eviction == "hard"
        self._arena.scatter(index, evicted(state, closing, decision, drop))
        draft.rows += trace_rows(self._steps, causes, closing, decision, state)
        if self._learns:
            draft.pending = told(closing, decision, draft.pending)
        draft.ledger = draft.ledger.add(
            sleep=int(decision.sleep_flops.sum()),
            signals=int(decision.signal_flops.sum()),
            policy=int(decision.policy_flops.sum()),
            windows=len(names),
            passes=int(decision.passes.sum()),
        )

    def _named(self, *prefixes: str) -> list[str]:
        return [n for n in self._arena.tensors if n.startswith(prefixes)]

    def _small(self) -> list[str]:
        """Everything that is read for every piece: all but buffers, cache and S0."""
        large = set(self._named("embedded", "hidden", "keys.", "values.", "before."))
        return [n for n in self._arena.tensors if n not in large]

    def _cache(self, index: Tensor, state: Rows) -> KVCache:
        kept = self._arena.gather(
            index, self._named("keys.", "values."), int(state["cached"].max())
        )
        return KVCache(strip(kept, "keys."), strip(kept, "values."), state["cached"])

    def _pack(self, pieces: Sequence[Piece], state: Rows) -> Packed:
        if self.model.config.kind == "tokens":
            return pack_tokens(pieces)
        waiting = Waiting(state["waiting.values"], state["waiting.times"], state["pending"])
        return pack_series(pieces, waiting, self.model.config.patch, self._order)

    def _pressure(self) -> float:
        """KV events held over all streams, as a share of the KV budget; 0 without one."""
        limit = self.settings.kv_budget
        return int(self._arena.tensors["held"].sum()) / limit if limit else 0.0

    def _resident(self) -> int:
        held = int(self._arena.tensors["cached"].sum())
        return resident_bytes(self.model.config, len(self._arena.rows), held)

    def predict(
        self,
        stream: str,
        *,
        horizon: int,
        keep: bool = False,
        temperature: float = 0.0,
        top_k: int | None = None,
        paths: int = 64,
    ) -> Forecast:
        """Forecast the next `horizon` events of a stream, one at a time, between boundaries.

        Tokens: greedy (temperature 0), or sampled, from the `top_k` likeliest if given. Series:
        `mean` and `quantiles`; the first patch comes from the head, later ones from `paths` sampled
        paths. Randomness is keyed by (seed, stream, events seen). The stream's state stays as it
        was, unless `keep`: then what was produced (series: the mean) is read as if it had arrived.
        Raises InputError for an unknown stream, a horizon below 1, or more kept events than the
        open window has room for.
        """
        sampling = Sampling(horizon, temperature, top_k, paths, self.settings.seed)
        sampling.check(stream, self.streams, self.model.config)
        self._settle()
        index = self._arena.index([stream])
        state = self._arena.gather(index, self._small())
        room = self.settings.window - int(state["open"][0])
        if keep and horizon > room:
            raise InputError(f"horizon={horizon}: the open window has room for {room} kept events")
        with torch.no_grad():
            start = read_start(state, self._cache(index, state))
            result = forecast(self.model, start, stream, state, sampling, self._limits[1:])
        if keep:
            columns = self.columns or self.model.config.inputs
            events = as_events(result, int(state["last_time"][0]), columns)
            self.step([Piece(stream, events)])
        return result

    def save(self, folder: str | Path) -> None:
        """Write `state.safetensors` and `state.json` into an existing folder (not atomically)."""
        self._settle()
        state = snapshot.State(
            settings=self.settings,
            model=self.model.hash,
            policy=self.spec,
            policy_state=policy_state(self.policy),
            streams=self._arena.names,
            steps=self._steps,
            ledger=self.ledger,
            pending=self._pending,
            columns=self.columns,
            machine=snapshot.machine(),
        )
        snapshot.write(Path(folder), state, self._arena.saved())

    @classmethod
    def resume(cls, folder: str | Path, model: Model, policy: PolicyLike | str) -> Runtime:
        """Go on from a saved runtime. Raises InputError for another model, policy or machine."""
        state, tensors = snapshot.read(Path(folder))
        found = resolve(policy)
        snapshot.check(state, model.hash, format_spec(found))
        settings = {n: getattr(state.settings, n) for n in RuntimeSettings.__dataclass_fields__}
        runtime = cls(model, found, columns=state.columns, **settings)
        runtime._arena.load(tensors, state.streams)
        load_policy_state(runtime.policy, state.policy_state)
        runtime.ledger, runtime._steps = state.ledger, state.steps
        runtime._pending = dict(state.pending)
        return runtime
