"""The conformance kit: what every policy must hold, for use in anybody's own tests.

`check_policy` tries a policy on seeded random signals; it does not say whether it is any good.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any, NoReturn

import numpy as np

from adaptive_sleep.catalogue import default_of, hints, parameters
from adaptive_sleep.contract import (
    Choice,
    PolicyError,
    PolicyLike,
    Range,
    SleepPolicy,
    check_memory,
    keep_going,
    label,
    load_policy_state,
    observe,
    plan_passes,
    policy_flops,
    policy_state,
    registered,
    reset_policy,
)
from adaptive_sleep.signals import IntArray, SleepProgress, WindowSignals, outcomes
from adaptive_sleep.spec import format_spec, resolve
from adaptive_sleep.streams.errors import InputError

_MOST = 8  # max_passes of the made-up signals: what a runtime allows unless told otherwise
_FEWER = 4  # and what it may well be told
_STREAMS = (1, 2, 7)
_WIDTH = 16  # of the made-up summaries, 2d

Pending = dict[str, list[tuple[int, int]]]  # stream -> windows not yet told of: (window, passes)


def check_policy(policy: PolicyLike | str, *, summary_width: int = _WIDTH) -> None:
    """Try a policy, or what a spec string names, against everything that the contract asks.

    `summary_width` is 2d, for a policy that reads `summary` and was made for models of width d.
    The policy is reset on the way. Raises AssertionError saying what does not hold; InputError if
    a spec string names nothing.
    """
    tried = resolve(policy)
    # the batch last: a state that is not declared would be taken for a glance aside
    for check in (
        _check_answers, _check_ranges, _check_seed, _check_spec, _check_state, _check_batch
    ):  # fmt: skip
        _try(tried, check, summary_width)


class Conformance:
    """`check_policy` as tests to inherit, one for each thing that the contract asks.

    Derive a test class from it whose `policy` returns the policy, afresh each time:

        class TestMine(asl.testing.Conformance):
            def policy(self):
                return Mine(threshold=2.0)

    `summary_width` is as in `check_policy`.
    """

    summary_width = _WIDTH

    def policy(self) -> PolicyLike | str:
        """Return what is to be tried."""
        raise NotImplementedError(f"{type(self).__name__}: define policy(self)")

    def test_answers(self) -> None:
        """Allowed passes, stops and FLOPs; hands off the signals."""
        _try(resolve(self.policy()), _check_answers, self.summary_width)

    def test_ranges(self) -> None:
        """Defaults lie within their ranges."""
        _try(resolve(self.policy()), _check_ranges, self.summary_width)

    def test_seed(self) -> None:
        """All chance comes from `reset`."""
        _try(resolve(self.policy()), _check_seed, self.summary_width)

    def test_spec(self) -> None:
        """The spec string leads back to the policy."""
        _try(resolve(self.policy()), _check_spec, self.summary_width)

    def test_state(self) -> None:
        """A run that was saved goes on as it would have."""
        _try(resolve(self.policy()), _check_state, self.summary_width)

    def test_batch(self) -> None:
        """Without a state, no stream changes another's passes."""
        _try(resolve(self.policy()), _check_batch, self.summary_width)


def _try(policy: SleepPolicy, check: Callable[[SleepPolicy, int], None], width: int) -> None:
    """Check a policy from a fresh start; what the contract refuses has failed, too."""
    reset_policy(policy, 0)
    try:
        check(policy, width)
    except PolicyError as error:
        raise AssertionError(str(error)) from error
    finally:
        reset_policy(policy, 0)


def make_signals(
    streams: int, seed: int, summary_width: int = _WIDTH, **overrides: Any
) -> WindowSignals:
    """Return seeded random signals for streams "s0", "s1", ..., quiet and busy windows mixed.

    `summary_width` is 2d; `overrides` replace whole fields. Raises InputError for an unknown field.
    """
    draw = np.random.default_rng(seed)
    tokens = draw.integers(1, 65, streams)
    scored = tokens * (draw.random(streams) < 0.8)  # some windows hold no prediction
    values: dict[str, Any] = {
        "stream": [f"s{row}" for row in range(streams)],
        "window": draw.integers(0, 100, streams),
        "tokens": tokens,
        "scored": scored,
        "uncertainty": draw.random(streams) * (scored > 0),
        "surprise": draw.lognormal(0.0, 1.0, streams) * (scored > 0),
        "cache_pressure": np.full(streams, draw.random()),
        "state_change": draw.lognormal(-3.0, 1.0, streams),
        "event_density": draw.lognormal(0.0, 0.7, streams),
        "gap": draw.exponential(10.0, streams),
        "wake_flops": tokens * 1_000_000,
        "pass_flops": tokens * 1_200_000,
        "price": np.zeros(streams),
        "budget_left": draw.random(streams),
        "max_passes": np.full(streams, _MOST),
        "summary": draw.standard_normal((streams, summary_width)),
    }
    return WindowSignals(**_replaced(values, overrides))


def make_progress(
    streams: int, seed: int, summary_width: int = _WIDTH, **overrides: Any
) -> SleepProgress:
    """Return seeded random progress after the second of eight passes, as `make_signals` does.

    Raises InputError for an unknown field in `overrides`.
    """
    draw = np.random.default_rng(seed)
    values: dict[str, Any] = {
        "stream": [f"s{row}" for row in range(streams)],
        "window": draw.integers(0, 100, streams),
        "passes": np.full(streams, 2),
        "planned": np.full(streams, _MOST),
        "state_change": draw.lognormal(-3.0, 1.0, streams),
        "hidden_change": draw.lognormal(-3.0, 1.0, streams),
        "summary": draw.standard_normal((streams, summary_width)),
        "flops": draw.integers(1, 65, streams) * 1_200_000,
    }
    return SleepProgress(**_replaced(values, overrides))


def _replaced(values: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    for name in overrides:
        if name not in values:
            raise InputError(f"{name}: no such field, expected one of {', '.join(values)}")
    return values | overrides


def _check_spec(policy: SleepPolicy, width: int) -> None:
    """A run records the spec string, and whoever reads the record must get the same policy."""
    try:
        spec = format_spec(policy)
        again = resolve(spec)
    except InputError as error:
        _fail(policy, f"its spec string does not lead back to it: {error}")
    # a spec spells every parameter; what `reset` makes may differ, or not be there yet
    if type(again) is not type(policy) or format_spec(again) != spec:
        _fail(policy, f"its spec string {spec!r} leads back to another policy, {label(again)}")
    if type(policy) in registered().values() and str(policy) != spec:
        _fail(policy, f"its str is {str(policy)!r}, not its spec string {spec!r}")
    _same_course(
        policy, again, width, f"what its spec string {spec!r} leads back to plans differently"
    )


def _check_ranges(policy: SleepPolicy, _width: int) -> None:
    known = hints(type(policy))
    for field in parameters(type(policy)):
        default = default_of(field)
        for mark in getattr(known.get(field.name), "__metadata__", ()):
            if isinstance(mark, Range | Choice) and default is not MISSING and default not in mark:
                _fail(policy, f"{field.name}: the default {default!r} lies outside {mark}")


def _check_answers(policy: SleepPolicy, width: int) -> None:
    for streams in _STREAMS:
        policy_flops(policy, streams)
        for most in (_MOST, _FEWER):
            allowed = np.full(streams, most)
            for seed in range(8):
                signals = make_signals(streams, seed, width, max_passes=allowed)
                _check_answer(policy, signals, width)


def _check_answer(policy: SleepPolicy, signals: WindowSignals, width: int) -> None:
    """Allowed answers to plan and keep_going, and hands off the signals."""
    passes = _unchanged(policy, signals, lambda: plan_passes(policy, signals))
    asleep = np.flatnonzero(passes > 2)
    progress = make_progress(
        len(signals), int(signals.window[0]), width, window=signals.window, planned=passes
    ).select(asleep)
    if len(progress):
        _unchanged(policy, progress, lambda: keep_going(policy, progress))


def _unchanged(
    policy: SleepPolicy, record: WindowSignals | SleepProgress, ask: Callable[[], Any]
) -> Any:
    names = [field.name for field in fields(record)]
    before = {name: getattr(record, name).copy() for name in names}
    try:
        answer = ask()
    except ValueError as error:
        if "read-only" in str(error):
            _fail(policy, f"it writes into its {type(record).__name__} ({error})")
        raise
    for name in names:
        if not np.array_equal(before[name], getattr(record, name)):
            _fail(policy, f"it changes {type(record).__name__}.{name}")
    return answer


def _check_batch(policy: SleepPolicy, width: int) -> None:
    """Without a state, a stream's passes depend on its own signals only."""
    pending: Pending = {}
    for window in range(6):  # at first, or for a while, there may be nothing to remember
        _course(policy, window, window + 1, width, pending)
        if policy_state(policy):
            return
    for seed in range(8):
        signals = make_signals(max(_STREAMS), seed, width)
        whole = plan_passes(policy, signals)
        if policy_state(policy):
            return
        for rows in ([0], [5, 2], [1, 3, 4, 6]):
            part = plan_passes(policy, signals.select(rows))
            if not np.array_equal(part, whole[rows]):
                _fail(
                    policy,
                    f"streams {rows} get {part.tolist()} passes alone and {whole[rows].tolist()} "
                    "among others, though it has no state: it must not look at other streams",
                )


def _check_seed(policy: SleepPolicy, width: int) -> None:
    _same_course(policy, policy, width, "after reset(seed) it plans differently with the same seed")


def _same_course(one: SleepPolicy, other: SleepPolicy, width: int, complaint: str) -> None:
    courses = []
    for policy in (one, other):
        reset_policy(policy, 1)
        courses.append(_course(policy, 0, 8, width, {}))
    if courses[0] != courses[1]:
        _fail(one, complaint + " (is there randomness that reset does not seed?)")


def _check_state(policy: SleepPolicy, width: int) -> None:
    """A run that is saved and goes on elsewhere goes on as it would have done here."""
    for after in (6, 7):  # a memory that comes round with one of them does not with the other
        _save_and_go_on(policy, width, after)


def _save_and_go_on(policy: SleepPolicy, width: int, after: int) -> None:
    reset_policy(policy, 2)
    pending: Pending = {}
    _course(policy, 0, after, width, pending)
    saved = policy_state(policy)
    check_memory(policy)
    here = _course(policy, after, 12, width, dict(pending))
    load_policy_state(policy, saved)
    if _course(policy, after, 12, width, dict(pending)) != here:
        _fail(policy, "after load_state_dict(state_dict()) it plans differently")
    elsewhere = resolve(format_spec(policy))
    reset_policy(elsewhere, 2)
    load_policy_state(elsewhere, saved)
    if _course(elsewhere, after, 12, width, dict(pending)) != here:
        _fail(policy, "a new one with its state loaded plans differently")


def _course(
    policy: SleepPolicy, start: int, stop: int, width: int, pending: Pending
) -> list[list[int]]:
    """Play a made-up run over windows start..stop-1 of seven streams; return the passes run.

    `pending`, of the windows before, is told at the next that is scored, as a runtime does; what is
    pending at the end replaces it.
    """
    course: list[list[int]] = []
    for window in range(start, stop):
        signals = make_signals(7, window, width, window=np.full(7, window))
        observe(policy, outcomes(signals, pending))
        planned = plan_passes(policy, signals)
        course.append(_slept(policy, signals, planned, 100 * window).tolist())
        for stream, scored, passes in zip(signals.stream, signals.scored, course[-1], strict=True):
            before = [] if scored else pending.get(stream, [])
            pending[stream] = [*before, (window, passes)]
    return course


def _slept(policy: SleepPolicy, signals: WindowSignals, planned: IntArray, seed: int) -> IntArray:
    """Return the passes that are run of those planned, asking after each whether to go on."""
    done = np.ones(len(planned), dtype=np.int64)
    active = np.flatnonzero(planned > 1)
    while active.size:
        done[active] += 1
        active = active[planned[active] > done[active]]
        if active.size:
            passes = done.clip(2)  # rows that are awake are not selected
            progress = make_progress(
                len(done),
                seed + int(done.max()),
                signals.summary.shape[1],
                window=signals.window,
                passes=passes,
                planned=planned,
            )
            active = active[keep_going(policy, progress.select(active))]
    return done


def _fail(policy: SleepPolicy, complaint: str) -> NoReturn:
    raise AssertionError(f"policy {label(policy)}: {complaint}")
