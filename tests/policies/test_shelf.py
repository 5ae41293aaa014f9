"""What must hold of every policy that remembers, draws or wraps: grouping, order, saving."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_cases import STREAMS, Course

import adaptive_sleep.policies  # noqa: F401  (registers the policies that we ship)
from adaptive_sleep.contract import load_policy_state, policy_state, reset_policy
from adaptive_sleep.spec import format_spec, resolve
from adaptive_sleep.testing import check_policy

APART = [
    "random(mean=2.5, most=4)",
    "random(mean=1.25, seed=3)",
    "periodic(every=3)",
    "drift(threshold=0.3, windows=2)",
    "drift(threshold=0.2, delta=0.0, windows=1, direction='both')",
    "drift(windows=1, detector='foreign_detectors:Jump')",
    "linear",
    "linear(bias=0.5, surprise=-1.5, state_change=2.0, gap=-1.0, cache_pressure=2.0)",
    "cooldown(surprise(threshold=0.5), windows=2)",
    "cooldown(random(mean=2.5), windows=1)",
    "warmup(surprise, windows=3, passes=2)",
    "warmup(drift(threshold=0.3), windows=2)",
    "per_stream({'[ab]*': drift(threshold=0.3), '*t': random(mean=1.5)}, otherwise=linear)",
    "per_stream({}, otherwise=cooldown(fixed(3), windows=2))",
    "either(random(mean=1.5), random(mean=1.5))",
]
TOGETHER = [
    "bandit",
    "bandit(passes=6, alpha=0.1, price=5.0, ridge=0.5, remember=3)",
    "budgeted(bandit(alpha=2.0), flops_per_event=1e6)",
    "per_stream({'ant': bandit}, otherwise=cooldown(bandit, windows=1))",
]
seeds = st.integers(0, 10_000)


@pytest.mark.parametrize("spec", [*APART, *TOGETHER])
def test_it_conforms(spec: str) -> None:
    check_policy(spec)


@pytest.mark.parametrize("spec", [*APART, *TOGETHER])
def test_its_spec_string_leads_back_to_it(spec: str) -> None:
    policy = resolve(spec)
    assert resolve(str(policy)) == policy
    assert str(resolve(str(policy))) == format_spec(policy) == str(policy)


@pytest.mark.parametrize("spec", APART)
@settings(max_examples=5)
@given(seeds)
def test_a_stream_alone_gets_what_it_gets_among_others(spec: str, seed: int) -> None:
    policy, found = resolve(spec), {}
    reset_policy(policy, seed)
    together = Course(seed).play(policy, 10)
    for name in STREAMS:
        reset_policy(policy, seed)
        found |= Course(seed, (name,)).play(policy, 10)
    assert found == together


@pytest.mark.parametrize("spec", [*APART, *TOGETHER])
@settings(max_examples=5)
@given(seeds, st.permutations(STREAMS))
def test_the_order_of_streams_in_a_step_does_not_matter(
    spec: str, seed: int, order: list[str]
) -> None:
    policy = resolve(spec)
    reset_policy(policy, seed)
    straight = Course(seed).play(policy, 10)
    reset_policy(policy, seed)
    assert Course(seed, tuple(order)).play(policy, 10) == straight


@pytest.mark.parametrize("spec", [*APART, *TOGETHER])
@settings(max_examples=5)
@given(seeds, st.integers(1, 9))
def test_saved_in_the_middle_it_goes_on_as_it_would_have(spec: str, seed: int, at: int) -> None:
    here, there, course = resolve(spec), resolve(spec), Course(seed)
    reset_policy(here, seed)
    reset_policy(there, seed + 1)
    course.play(here, at)
    Course(seed + 1).play(there, 3)  # what it knew before must be gone
    text = json.dumps(policy_state(here))
    load_policy_state(there, json.loads(text))
    assert json.dumps(policy_state(there)) == text
    assert course.copy().play(there, 6) == course.play(here, 6)
    assert policy_state(there) == policy_state(here)


def test_no_policy_on_the_shelf_plans_the_same_for_all() -> None:
    """Else the tests above would hold for nothing."""
    for spec in [*APART, *TOGETHER]:
        assert len(set(Course(1).play(resolve(spec), 20).values())) > 1, spec
