"""The runtime: wake, measure, ask the policy, sleep, evict, trace; many streams side by side.

A step is a transaction. What it does with its pieces lives in `advancing.py` (`whole.py` for models
that answer), what is decided at a boundary in `boundary.py`, the counters in `bookkeeping.py`, the
store in `arena.py`, forecasts in `forecasting.py`, files in `snapshot.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from adaptive_sleep import snapshot
from adaptive_sleep.advancing import Boundary, Draft, Works, advance
from adaptive_sleep.arena import Arena, blank_row
from adaptive_sleep.bookkeeping import closed_early, read_start
from adaptive_sleep.boundary import Pending
from adaptive_sleep.config import Eviction
from adaptive_sleep.contract import (
    PolicyLike,
    check_memory,
    load_policy_state,
    policy_state,
    reset_policy,
)
from adaptive_sleep.eviction import holding
from adaptive_sleep.fitted import check_fitted
from adaptive_sleep.forecasting import Forecast, Sampling, as_events, forecast
from adaptive_sleep.ledger import Ledger, costs
from adaptive_sleep.model import Model
from adaptive_sleep.packing import check_pieces, column_order, no_events
from adaptive_sleep.precision import check_float32
from adaptive_sleep.settings import RuntimeSettings, check_settings
from adaptive_sleep.spec import format_spec, resolve
from adaptive_sleep.streams.errors import AdaptiveSleepError, InputError
from adaptive_sleep.streams.events import Piece, checked_name
from adaptive_sleep.streams.room import Room
from adaptive_sleep.trace import TraceRow
from adaptive_sleep.wake import Predictions
from adaptive_sleep.whole import advance_whole


@dataclass(frozen=True)
class StepResult:
    """What one step did: a trace row per closed window, streams closed early by the KV budget,
    predictions and boundaries if asked for, and seconds by phase ("wake", "signals", "policy",
    "sleep")."""

    rows: list[TraceRow]
    forced: tuple[str, ...]
    predictions: list[Predictions]
    seconds: dict[str, float]
    boundaries: tuple[Boundary, ...] = ()


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
        keep: int | None = None,
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
        check_float32("Runtime")
        self.model = model.eval()
        self.policy = resolve(policy)
        self.settings = RuntimeSettings(
            window=model.config.window if window is None else window,
            eviction=eviction,
            keep=keep,
            kv_budget=kv_budget,
            budget=budget,
            burst=burst,
            max_passes=max_passes,
            price=price,
            seed=seed,
        )
        check_settings(self.settings, model.config)
        check_fitted(self.policy, self.model)
        for name, tensor in self.model.named_parameters():
            if tensor.dtype != torch.float32:
                raise InputError(
                    f"model: {name} is of {tensor.dtype}: a runtime keeps torch.float32; give "
                    "model.float()"
                )
        self.columns = None if columns is None else tuple(columns)
        holds = holding(model.config, eviction, self.settings.keep, self.settings.window)
        self._arena = Arena(blank_row(model.config, self.settings.window, holds))
        self._works = Works(
            model=self.model,
            policy=self.policy,
            settings=self.settings,
            costs=costs(model.config),
            arena=self._arena,
            order=column_order(model.config, self.columns),
            holding=holds,
        )
        self.ledger = Ledger()
        self._pending: Pending = {}
        self._steps = 0
        self._in_flight: _Before | None = None
        check_memory(self.policy)
        reset_policy(self.policy, self.settings.seed)
        if isinstance(streams, str):
            raise InputError(f"streams={streams!r}: a sequence of names, such as [{streams!r}]")
        self._arena.index([checked_name(name) for name in streams])
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

    @property
    def works(self) -> Works:
        """What every step works with, the store included: for what runs beside (read only)."""
        return self._works

    def step(
        self,
        pieces: Sequence[Piece],
        *,
        allow_sleep: bool = True,
        predictions: bool = False,
        boundaries: bool = False,
    ) -> StepResult:
        """Read at most one piece per stream; close, measure, sleep and evict where a window ends.

        A model with `answers` holds the events of a window until it ends, then runs it whole: one
        in which something is asked (`Events.targets`) is answered and no policy is asked about it.
        What the KV budget must close, it closes first (`StepResult.forced`; see `room`); a piece of
        such a stream that was to fill its window (cause "length") is in a new one, and fills none.
        With `allow_sleep` false (overload) policies are asked, but nothing sleeps. `predictions`
        and `boundaries` (windows as they closed) are kept only if asked for. If anything raises,
        the runtime and the policy are as they were before; where a policy does not take its state
        back, a note to the error says so, and whatever is asked next tries again.
        """
        pieces = tuple(pieces)  # read more than once
        check_pieces(pieces, self.model.config, self.columns)
        check_float32("step", self.model.device.type)
        self._ready("step")
        closing = any(p.closes for p in pieces) or self.settings.kv_budget is not None
        memento = policy_state(self.policy) if closing else None
        kept: list[Predictions] | None = [] if predictions else None
        closed: list[Boundary] | None = [] if boundaries else None
        draft = Draft(self._steps, self.ledger, self._pending, allow_sleep, kept, closed)
        self._in_flight = _Before(self.ledger, self._pending, self._steps, memento)
        try:
            with torch.no_grad():
                forced = self._close_early(pieces, draft)
                ended = {row.stream for row in draft.rows}
                self._advance([_reopened(p) if p.stream in ended else p for p in pieces], draft)
            result = StepResult(
                draft.rows, forced, draft.predictions or [], draft.seconds, tuple(closed or ())
            )
            self.ledger, self._pending = draft.ledger, draft.pending
            self._steps += 1
            self._in_flight = None  # from here on the step is real; nothing may be called after it
            return result
        except BaseException as error:
            self._undo(error)
            raise

    def _ready(self, method: str) -> None:
        """Settle what was before. Raises AdaptiveSleepError while a step is running, which settling
        would undo."""
        if self._in_flight is not None and self._is_running(but=sys._getframe(1)):
            raise AdaptiveSleepError(
                f"{method}: a step of this runtime is running; a policy must not call it, and "
                "other threads wait until the step has returned"
            )
        self._settle()

    def _is_running(self, but: FrameType) -> bool:
        """Whether a step of this runtime, `but` the one that asks, is on the stack of some thread:
        no flag that an interrupt could leave behind tells it from one that has failed."""
        for frame in sys._current_frames().values():
            at: FrameType | None = frame
            while at is not None:
                asked = at.f_code is Runtime.step.__code__ and at is not but
                if asked and at.f_locals.get("self") is self:
                    return True
                at = at.f_back
        return False

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

    def _undo(self, error: BaseException) -> None:
        """Settle after an error, which stays the one that is raised whatever else goes wrong."""
        try:
            self._settle()
        except Exception as other:
            error.add_note(f"the step is not undone yet: {type(other).__name__}: {other}")

    def room(self) -> Room | None:
        """What fits the KV budget before a window must close early; None without one. Steps that
        bring no more close the same windows early however events are batched."""
        if self.settings.kv_budget is None:
            return None
        self._ready("room")
        names, most = self._arena.names, self._works.holding.events
        held = dict(
            zip(names, self._arena.tensors["held"][1 : len(names) + 1].tolist(), strict=True)
        )
        left = {name: max(most - count, 0) for name, count in held.items()}
        free = max(self.settings.kv_budget - sum(held.values()), 0)
        longest = "" if free else next(iter(self._early({"": 1})), "")
        return Room(free, left, most, longest, held.get(longest, 0))

    def _close_early(self, pieces: Sequence[Piece], draft: Draft) -> tuple[str, ...]:
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
        chosen = self._early(new)
        nothing = no_events(self.model.config, self.columns)
        self._advance([Piece(s, nothing, closes=True) for s in chosen], draft, forced=True)
        return tuple(chosen)

    def _early(self, new: Mapping[str, int]) -> list[str]:
        """The streams whose windows must close so that so many new events fit the KV budget."""
        if self.settings.kv_budget is None:
            return []
        names, held = self._arena.names, self._works.holding.events
        state = self._arena.gather(self._arena.index(names), ("held", "first_time"))
        return closed_early(names, state, new, held, self.settings.kv_budget)

    def _advance(self, pieces: Sequence[Piece], draft: Draft, forced: bool = False) -> None:
        """Read a batch of pieces and close the windows that end, uncommitted."""
        run = advance_whole if self.model.config.answers else advance
        run(self._works, pieces, draft, forced)

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
        Raises InputError for an unknown stream, a horizon below 1, what this kind of model is not
        sampled by, more kept events than the open window, the KV budget (no window is closed early
        for them) or the clock has room for, or a model that answers questions.
        """
        sampling = Sampling(horizon, temperature, top_k, paths, self.settings.seed)
        sampling.check(stream, self.streams, self.model.config)
        check_float32("predict", self.model.device.type)
        self._ready("predict")
        index = self._arena.index([stream])
        state = self._arena.gather(index, self._works.small())
        room = self.settings.window - int(state["open"][0])
        horizon = sampling.horizon  # as a number of Python's
        if keep and horizon > room:
            raise InputError(f"horizon={horizon}: the open window has room for {room} kept events")
        if keep and self._early({stream: horizon}):
            raise InputError(
                f"horizon={horizon}: kv_budget={self.settings.kv_budget} has no room for so many "
                "kept events beside what is held; close a window first"
            )
        with torch.no_grad():
            start = read_start(state, self._works.cache(index, state))
            holds = self._works.holding
            limits = holds.slots, holds.reach
            result = forecast(self.model, start, stream, state, sampling, limits)
        if keep:
            columns = self.columns or self.model.config.inputs
            events = as_events(result, int(state["last_time"][0]), columns)
            self.step([Piece(stream, events)])
        return result

    def save(self, folder: str | Path) -> None:
        """Write `state.safetensors` and `state.json` into an existing folder (not atomically).
        Raises InputError where there is none."""
        if not Path(folder).is_dir():
            raise InputError(f"folder={str(folder)!r}: no such folder")
        self._ready("save")
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


def _reopened(piece: Piece) -> Piece:
    """A piece whose window closed before it: one that was to fill it no longer does."""
    return Piece(piece.stream, piece.events) if piece.cause == "length" else piece
