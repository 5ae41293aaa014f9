"""What happens when windows close: measure, ask the policy, clip to the budget, sleep.

It works on a batch of closing windows and returns what to store; the runtime stores it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adaptive_sleep.contract import PolicyLike, keep_going, observe, plan_passes, policy_flops
from adaptive_sleep.ledger import Costs
from adaptive_sleep.memory import FastWeights
from adaptive_sleep.model import Model
from adaptive_sleep.signals import (
    SleepProgress,
    WindowSignals,
    check_finite,
    outcomes,
    owned,
)
from adaptive_sleep.sleep import ClosedWindow, PassReport, Slept, consolidate
from adaptive_sleep.streams.errors import AdaptiveSleepError

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
Pending = dict[
    str, tuple[tuple[int, int], ...]
]  # stream -> windows not yet told of: (window, passes)


@dataclass(frozen=True, eq=False)
class Closing:
    """Counters of the windows that close, one entry per stream."""

    stream: list[str]
    window: IntArray
    tokens: IntArray
    scored: IntArray
    predicted: IntArray  # predictions made, also those that cannot be scored
    loss: FloatArray  # sum over `scored`
    spread: FloatArray  # sum over `predicted`
    gap: FloatArray
    density: FloatArray
    balance: FloatArray  # sleep FLOPs that the stream may spend
    wake_flops: IntArray
    pressure: float
    asked: IntArray | None = None  # answers given; None for a model that gives none
    right: IntArray | None = None  # of these, the right ones; likewise


@dataclass(frozen=True, eq=False)
class Decision:
    """What was measured, planned and done for a batch of closing windows."""

    signals: WindowSignals
    planned: IntArray
    slept: Slept
    passes: IntArray
    clipped_by: list[str]
    sleep_flops: IntArray
    signal_flops: IntArray
    policy_flops: IntArray
    seconds: dict[str, float]


@dataclass(frozen=True)
class Limits:
    """What bounds a decision: FLOPs by formula, the most passes, the price, the budget's cap."""

    costs: Costs
    max_passes: int
    price: float
    budget_cap: float | None  # sleep FLOPs that a stream may save up; None without a budget
    allow_sleep: bool


def window_signals(
    model: Model, closed: ClosedWindow, closing: Closing, limits: Limits
) -> WindowSignals:
    """The signals of closing windows, all from the wake pass (design, section 5)."""
    return _signals(
        closing,
        limits,
        closed.change.numpy().astype(np.float64),
        pass_flops(model, closed.lengths, limits.costs),
        closed.summary.numpy().astype(np.float32, copy=False),
    )


def _signals(
    closing: Closing,
    limits: Limits,
    state_change: FloatArray,
    more_flops: IntArray,
    summary: NDArray[np.float32],
) -> WindowSignals:
    streams = len(closing.stream)
    left = full = np.ones(streams)
    if limits.budget_cap is not None:
        cap = max(limits.budget_cap, np.finfo(np.float64).tiny)
        left = np.clip(closing.balance / cap, 0.0, 1.0)
    return owned(
        WindowSignals,
        stream=np.array(closing.stream, dtype=object),
        window=closing.window.copy(),
        tokens=closing.tokens.copy(),
        scored=closing.scored.copy(),
        uncertainty=closing.spread / np.maximum(closing.predicted, 1),
        surprise=closing.loss / np.maximum(closing.scored, 1),
        cache_pressure=closing.pressure * full,
        state_change=state_change,
        event_density=closing.density.copy(),
        gap=closing.gap.copy(),
        wake_flops=closing.wake_flops.copy(),
        pass_flops=more_flops,
        price=limits.price * full,
        budget_left=left.copy(),
        max_passes=np.full(streams, limits.max_passes, dtype=np.int64),
        summary=summary,
    )


def pass_flops(model: Model, lengths: Tensor, costs: Costs) -> IntArray:
    """FLOPs of one more pass over windows of `lengths` positions."""
    causal = model.config.sleep_attention == "causal"
    return costs.sleep_pass(lengths.numpy(), causal=causal)


def decide(
    model: Model,
    policy: PolicyLike,
    closed: ClosedWindow,
    closing: Closing,
    limits: Limits,
    pending: Mapping[str, tuple[tuple[int, int], ...]],
) -> Decision:
    """Measure, tell what came of earlier windows, ask, clip, sleep. Raises what a policy raises."""
    clock = [time.perf_counter()]
    signals = window_signals(model, closed, closing, limits)
    clock.append(time.perf_counter())
    if pending:
        observe(policy, outcomes(signals, dict(pending)))
    # what a policy is shown it could write to; what it pays by, and the trace, stay here
    shown = owned(WindowSignals, **{name: column.copy() for name, column in vars(signals).items()})
    planned = plan_passes(policy, shown)
    allowed, clipped_by = _clip(planned, signals, closing, limits)
    clock.append(time.perf_counter())
    asked = getattr(policy, "keep_going", None) is not None
    meter = _Meter(policy, signals, allowed)
    slept = consolidate(model, closed, torch.from_numpy(allowed), meter if asked else None)
    passes = slept.passes.numpy()
    require_finite(slept.weights.finite_streams(), closing.stream, closing.window.tolist())
    clock.append(time.perf_counter())
    for row in np.flatnonzero(passes < allowed):
        clipped_by[row] = "halted"
    lengths = closed.lengths.numpy()
    costs = limits.costs
    measured = costs.boundary_signals(lengths, closing.predicted)
    # at most: after the last pass of a batch nobody is asked, and nothing pooled
    after_pass = costs.progress_signals(lengths, model.config.width) if asked else costs.change
    return Decision(
        signals,
        planned,
        slept,
        passes,
        clipped_by,
        (passes - 1) * signals.pass_flops,
        (measured + (passes - 1) * after_pass).astype(np.int64),
        _shares(policy_flops(policy, len(passes)), len(passes)),
        {
            "signals": clock[1] - clock[0],
            "policy": clock[2] - clock[1] + meter.seconds,
            "sleep": clock[3] - clock[2] - meter.seconds,
        },
    )


def answered(
    policy: PolicyLike,
    before: FastWeights,
    after: FastWeights,
    closing: Closing,
    limits: Limits,
    pending: Mapping[str, tuple[tuple[int, int], ...]],
) -> Decision:
    """Measure windows of questions, and tell what came of earlier windows: no policy is asked.

    `before`, `after`: the fast weights that were read, and what goes on from there; where they are
    one object nothing was written, and no change is measured. Raises what a policy raises.
    """
    clock = [time.perf_counter()]
    count = len(closing.stream)
    none, once = np.zeros(count, dtype=np.int64), np.ones(count, dtype=np.int64)
    change, price = torch.zeros(count), limits.costs.spread * closing.predicted
    if after is not before:
        change, price = after.change_since(before), price + limits.costs.change
    summary = np.zeros((count, 0), np.float32)
    signals = _signals(closing, limits, change.double().numpy(), none, summary)
    check_finite(signals)
    clock.append(time.perf_counter())
    observe(policy, outcomes(signals, dict(pending)))
    clock.append(time.perf_counter())
    return Decision(
        signals=signals,
        planned=once,
        slept=Slept(after, torch.from_numpy(once), change),
        passes=once,
        clipped_by=[""] * count,
        sleep_flops=none,
        signal_flops=price,
        policy_flops=none,
        seconds={"signals": clock[1] - clock[0], "policy": clock[2] - clock[1]},
    )


def _clip(
    planned: IntArray, signals: WindowSignals, closing: Closing, limits: Limits
) -> tuple[IntArray, list[str]]:
    """The passes that overload and budget allow, and what took the others."""
    allowed = planned
    reason = [""] * len(planned)
    if limits.budget_cap is not None:
        # floor division is exact where rounding a quotient might spend a pass too many
        extra = np.minimum(closing.balance // signals.pass_flops, limits.max_passes)
        allowed = np.minimum(planned, 1 + extra.astype(np.int64))
        reason = ["budget" if a < p else "" for a, p in zip(allowed, planned, strict=True)]
    if not limits.allow_sleep:
        reason = ["overload" if p > 1 else "" for p in planned]
        allowed = np.ones_like(planned)
    return allowed, reason


def _shares(total: int, count: int) -> IntArray:
    """Whole FLOPs of one plan, shared out over its streams so that they add up."""
    share, rest = divmod(total, count)
    return np.array([share + (i < rest) for i in range(count)], dtype=np.int64)


def require_finite(finite: Tensor, streams: Sequence[str], windows: Sequence[int]) -> None:
    """Raise AdaptiveSleepError for the first stream whose state is not (`finite`: bool `[B]`)."""
    if bool(finite.all()):
        return
    row = int(torch.nonzero(~finite)[0, 0])
    raise AdaptiveSleepError(
        f"the state of stream {streams[row]!r} is not finite in window {windows[row]}; "
        "the step is undone"
    )


class _Meter:
    """Turns pass reports into the policy's `SleepProgress`, and times the policy's part."""

    def __init__(self, policy: PolicyLike, signals: WindowSignals, allowed: IntArray) -> None:
        self.policy, self.signals, self.allowed = policy, signals, allowed
        self.seconds = 0.0

    def __call__(self, report: PassReport) -> NDArray[np.bool_]:
        start = time.perf_counter()
        rows = report.rows
        signals, count = self.signals, report.passes
        progress = owned(
            SleepProgress,
            stream=signals.stream[rows],
            window=signals.window[rows],
            passes=np.full(len(rows), count, dtype=np.int64),
            planned=self.allowed[rows],
            state_change=report.state_change.astype(np.float64),
            hidden_change=report.hidden_change.astype(np.float64),
            summary=report.summary.astype(np.float32, copy=False),
            flops=(count - 1) * signals.pass_flops[rows],
        )
        answer = keep_going(self.policy, progress, finite=report.finite)
        self.seconds += time.perf_counter() - start
        return answer
