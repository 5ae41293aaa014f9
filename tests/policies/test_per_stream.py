"""Each stream by the policy that its name decides, which sees no other stream."""

from __future__ import annotations

from typing import Any

import pytest
from policy_cases import STREAMS, Course, outcome, plan

from adaptive_sleep.contract import (
    keep_going,
    observe,
    plan_passes,
    policy_flops,
    policy_state,
    reset_policy,
)
from adaptive_sleep.policies import Bandit, Capped, Fixed, Linear, PerStream, Random, StateChange
from adaptive_sleep.spec import parse_spec
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.testing import make_progress, make_signals


def test_the_first_pattern_that_matches_decides() -> None:
    policy = PerStream({"a*": Fixed(2), "?b": Fixed(3), "*": Fixed(4)}, Fixed(1))
    names = ["a", "ab", "bb", "b", "A", ""]
    signals = make_signals(6, 0, stream=names)
    assert plan_passes(policy, signals).tolist() == [2, 2, 3, 4, 4, 4]
    assert plan(PerStream({"a[0-9]": Fixed(2)}, Fixed(3)), 0, "ab") == 3


def test_it_is_written_as_it_is_read() -> None:
    spec = "per_stream({'pump-*': fixed(4), '*': capped(surprise, 2)}, fixed)"
    policy = parse_spec(spec)
    assert isinstance(policy, PerStream)
    assert list(policy.policies) == ["pump-*", "*"]
    assert isinstance(policy.policies["*"], Capped)
    assert parse_spec(str(policy)) == policy
    assert plan(policy, 0, "pump-7") == 4
    nested = PerStream({'it\'s "x"': PerStream({}, Fixed(2))}, Fixed(1))
    assert parse_spec(str(nested)) == nested


def test_each_part_is_as_if_there_were_no_other_streams() -> None:
    """A bandit that shares what it learns, with the streams of its own only."""
    policy = PerStream({"[ab]*": Bandit(alpha=1.0)}, Bandit(alpha=0.1))
    whole = Course(7).play(policy, 25)
    apart = Course(7, STREAMS[:2]).play(Bandit(alpha=1.0), 25)
    apart |= Course(7, STREAMS[2:]).play(Bandit(alpha=0.1), 25)
    assert whole == apart


def test_during_a_sleep_each_part_is_asked_about_its_own() -> None:
    policy = PerStream({"s1": StateChange(0.5), "s2": Fixed(3)}, StateChange(0.01))
    progress = make_progress(4, 0, state_change=[0.1, 0.1, 0.0, 0.0])
    assert keep_going(policy, progress).tolist() == [True, False, True, False]


def test_outcomes_go_to_their_own_part() -> None:
    policy = PerStream({"a": Bandit()}, Bandit())
    plan(policy, 0, "a")
    plan(policy, 0, "b")
    observe(policy, outcome(0, passes=2, stream="b"))
    first, other = policy_state(policy)["parts"]
    assert not any(map(any, first["arms"]["sums"]))
    assert any(map(any, other["arms"]["sums"]))


def test_equal_parts_draw_different_numbers() -> None:
    policy = PerStream({"a": Random(1.5)}, Random(1.5))
    reset_policy(policy, 0)
    one, other = (part["seed"] for part in policy_state(policy)["parts"])
    assert one != other


def test_it_costs_at_most_what_its_dearest_part_costs() -> None:
    policy = PerStream({"a": Linear(), "b": Bandit()}, Fixed(1))
    assert policy_flops(policy, 3) == policy_flops(Bandit(), 3) > policy_flops(Linear(), 3)
    assert policy_state(PerStream({"a": Fixed(2)}, Fixed(1))) == {}


@pytest.mark.parametrize("policies", [["a*"], {1: Fixed(2)}, "a*"])
def test_what_is_no_dict_of_patterns_is_refused(policies: Any) -> None:
    with pytest.raises(InputError, match=r"policies=.*expected patterns"):
        PerStream(policies, Fixed(1))
