"""Composition: a policy inside another behaves as alone, within what the outer one allows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptive_sleep.contract import (
    PolicyError,
    SleepPolicy,
    keep_going,
    load_policy_state,
    observe,
    plan_passes,
    policy_flops,
    policy_state,
    reset_policy,
)
from adaptive_sleep.policies import Both, Capped, Either, Fixed, StateChange, Surprise
from adaptive_sleep.signals import SleepProgress, WindowOutcome, WindowSignals
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.testing import make_progress, make_signals


@dataclass
class Huge:
    """Plans whatever it is given."""

    passes: Any

    def plan(self, signals: WindowSignals) -> Any:
        return self.passes


@dataclass
class Script:
    """Plans `passes` and stops at `stops`, both by stream; notes what it was asked and told."""

    passes: dict[str, int]
    stops: dict[str, int] = field(default_factory=dict)
    notes: list[Any] = field(default_factory=list)
    asked: list[tuple[str, int]] = field(default_factory=list)

    def plan(self, signals: WindowSignals) -> Any:
        return np.array([self.passes[stream] for stream in signals.stream])

    def keep_going(self, progress: SleepProgress) -> Any:
        rows = list(zip(progress.stream.tolist(), progress.passes.tolist(), strict=True))
        self.asked += rows
        return np.array([passes < self.stops.get(stream, 99) for stream, passes in rows])

    def observe(self, outcome: WindowOutcome) -> None:
        self.notes.append(("observe", outcome.window.tolist()))

    def reset(self, seed: int) -> None:
        self.notes.append(("reset", seed))

    def state_dict(self) -> dict[str, Any]:
        return {"passes": self.passes}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.passes = state["passes"]

    def flops(self, streams: int) -> int:
        return 100 * streams


def run(policy: SleepPolicy, streams: int) -> list[int]:
    """Sleep once as the runtime does, asking after each sleep pass that is not the last."""
    planned = plan_passes(policy, make_signals(streams, 0, max_passes=[9] * streams))
    done = np.ones(streams, dtype=np.int64)
    active = np.flatnonzero(planned > 1)
    while active.size:
        done[active] += 1
        active = active[planned[active] > done[active]]
        if active.size:
            progress = make_progress(streams, 0, passes=done, planned=planned).select(active)
            active = active[keep_going(policy, progress)]
    return done.tolist()


counts = st.lists(
    st.tuples(st.integers(1, 6), st.integers(2, 7), st.integers(1, 6), st.integers(2, 7)),
    min_size=1,
    max_size=5,
)


@settings(max_examples=100, deadline=None)
@given(counts)
def test_either_runs_the_longer_and_both_the_shorter_of_what_each_runs_alone(
    rows: list[tuple[int, int, int, int]],
) -> None:
    def parts() -> tuple[Script, Script]:
        names = [f"s{row}" for row in range(len(rows))]
        return (
            Script(
                dict(zip(names, (row[0] for row in rows), strict=True)),
                dict(zip(names, (row[1] for row in rows), strict=True)),
            ),
            Script(
                dict(zip(names, (row[2] for row in rows), strict=True)),
                dict(zip(names, (row[3] for row in rows), strict=True)),
            ),
        )

    streams = len(rows)
    alone = np.array([run(part, streams) for part in parts()])
    assert run(Either(*parts()), streams) == alone.max(axis=0).tolist()
    assert run(Both(*parts()), streams) == alone.min(axis=0).tolist()
    assert run(Capped(parts()[0], 3), streams) == alone[0].clip(max=3).tolist()


def test_either_asks_a_part_only_within_its_plan_and_until_it_stops() -> None:
    first = Script({"s0": 3, "s1": 1, "s2": 5}, {"s2": 3})
    second = Script({"s0": 6, "s1": 6, "s2": 5}, {"s1": 4})
    assert run(Either(first, second), 3) == [6, 4, 5]
    assert first.asked == [("s0", 2), ("s2", 2), ("s2", 3)]
    assert [row for row in second.asked if row[0] != "s2"] == [
        ("s0", 2), ("s1", 2), ("s0", 3), ("s1", 3), ("s0", 4), ("s1", 4), ("s0", 5)
    ]  # fmt: skip


def test_a_part_without_keep_going_goes_on_to_the_end_of_its_plan() -> None:
    never = StateChange(tolerance=1e9)
    assert run(Either(Fixed(4), never), 2) == [4, 4]
    assert run(Both(Fixed(4), Fixed(3)), 2) == [3, 3]


@pytest.mark.parametrize("pair", [Either, Both])
def test_a_pair_passes_on_everything(pair: Any) -> None:
    parts = Script({"s0": 2}), Script({"s0": 3})
    policy = pair(*parts)
    observe(policy, WindowOutcome(["s0"], [7], [1], [0.1], [1], [1]))  # type: ignore[arg-type]
    reset_policy(policy, 5)
    for part in parts:
        assert part.notes[0] == ("observe", [7])
    assert parts[0].notes[1] != parts[1].notes[1]  # equal parts must not draw equal numbers
    assert policy_flops(policy, 3) == 600
    load_policy_state(policy, {"first": {"passes": {"s0": 4}}, "second": {"passes": {"s0": 5}}})
    assert policy_state(policy) == {
        "first": {"passes": {"s0": 4}},
        "second": {"passes": {"s0": 5}},
    }
    assert policy_state(pair(Fixed(2), Surprise())) == {}


def test_a_cap_passes_on_everything() -> None:
    part = Script({"s0": 2})
    policy = Capped(part, 3)
    observe(policy, WindowOutcome(["s0"], [7], [1], [0.1], [1], [1]))  # type: ignore[arg-type]
    reset_policy(policy, 5)
    assert part.notes == [("observe", [7]), ("reset", 5)]
    assert policy_flops(policy, 3) == 300
    load_policy_state(policy, {"passes": {"s0": 4}})
    assert policy_state(policy) == {"passes": {"s0": 4}} == policy_state(part)


def test_parts_may_be_functions_and_spec_strings() -> None:
    assert run(Capped(lambda signals: 5, 3), 1) == [3]  # type: ignore[arg-type]
    assert Either("fixed(2)", "surprise").first == Fixed(2)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="max_passes=0"):
        Capped(Fixed(2), 0)


def test_what_a_part_answers_wrongly_is_told_in_its_own_name() -> None:
    with pytest.raises(Exception, match=r"policy .*lambda.* planned 2\.5"):
        plan_passes(Capped(lambda signals: 2.5), make_signals(1, 0))  # type: ignore[arg-type]


def test_a_cap_cuts_off_more_than_the_runtime_allows() -> None:
    """What the one inside plans is the cap's to cut; what is below 1 stays an error."""
    signals = make_signals(streams=2, seed=0)
    most = int(signals.max_passes.max())
    inner = Script(dict.fromkeys(signals.stream.tolist(), most + 5))
    with pytest.raises(PolicyError, match="max_passes"):
        plan_passes(inner, signals)
    assert plan_passes(Capped(inner, max_passes=2), signals).tolist() == [2, 2]
    nothing = Script(dict.fromkeys(signals.stream.tolist(), 0))
    with pytest.raises(PolicyError, match="expected 1"):
        plan_passes(Capped(nothing, max_passes=2), signals)


@pytest.mark.parametrize(
    "passes", [2**70, np.array([2**63 + 5] * 2, np.uint64)], ids=["int", "uint64"]
)
def test_more_passes_than_any_number_holds_are_refused_or_cut(passes: Any) -> None:
    signals = make_signals(streams=2, seed=0)
    with pytest.raises(PolicyError, match="max_passes"):
        plan_passes(lambda signals: passes, signals)
    assert plan_passes(Capped(Huge(passes), max_passes=2), signals).tolist() == [2, 2]
