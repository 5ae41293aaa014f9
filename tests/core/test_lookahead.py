"""No look-ahead: what comes after time t changes no prediction made at or before t."""

from __future__ import annotations

from functools import cache

import core_cases as cases
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import adaptive_sleep as asl

COUNT = 30


@cache
def model_of(kind: str) -> asl.Model:
    return cases.build(cases.tiny(kind))


def predictions(
    model: asl.Model, whole: asl.Events, places: list[int], eviction: str
) -> dict[str, np.ndarray]:
    runtime = asl.Runtime(model, cases.fixed(2), eviction=eviction)
    return cases.table(cases.run_all(runtime, cases.cut(whole, 12, places)))


def equal(one: np.ndarray, other: np.ndarray) -> None:
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("eviction", cases.EVICTIONS)
@given(
    last=st.integers(1, COUNT - 1),
    seed=st.integers(0, 100),
    places=cases.places(COUNT),
)
@settings(max_examples=10)
def test_later_tokens(eviction: str, last: int, seed: int, places: list[int]) -> None:
    """`last`: events 0 .. last - 1 stay, all later ones are drawn again."""
    model = model_of("tokens")
    one, other = (cases.events(model.config, COUNT, s) for s in (seed, seed + 1000))
    mixed = asl.Events(one.time, tokens=np.concatenate([one.tokens[:last], other.tokens[last:]]))
    before = predictions(model, one, places, eviction)
    after = predictions(model, mixed, places, eviction)
    # row i predicts event i + 1 from events 0 .. i
    equal(before["logprob"][: last - 1], after["logprob"][: last - 1])
    equal(before["entropy"][:last], after["entropy"][:last])
    changed = one.tokens[last] != mixed.tokens[last]
    assert (before["logprob"][last - 1] != after["logprob"][last - 1]) == changed


def worst(kind: str, random: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Values that would give a look-ahead away."""
    values = random.normal(size=shape).astype(np.float32)
    if kind == "huge":
        values *= np.float32(1e30)
    if kind == "infinite":
        values[random.random(shape) < 0.5] = np.inf
        values[random.random(shape) < 0.2] = -np.inf
    if kind == "missing":
        values[:] = np.nan
    return values


@pytest.mark.parametrize("eviction", cases.EVICTIONS)
@given(
    last=st.integers(1, COUNT - 1),
    seed=st.integers(0, 100),
    kind=st.sampled_from(["usual", "huge", "infinite", "missing"]),
    late=st.booleans(),
    places=cases.places(COUNT),
)
@settings(max_examples=16)
def test_later_values(
    eviction: str, last: int, seed: int, kind: str, late: bool, places: list[int]
) -> None:
    """`late`: one channel is first seen among the values that change."""
    model = model_of("series")
    one = cases.events(model.config, COUNT, seed)
    if late:
        one.values[:last, 1] = np.nan
    mixed = asl.Events(one.time, values=one.values.copy())
    random = np.random.default_rng(seed)
    mixed.values[last:] = worst(kind, random, mixed.values[last:].shape)
    before = predictions(model, one, places, eviction)
    after = predictions(model, mixed, places, eviction)
    equal(before["time"], after["time"])
    # a patch is predicted before its first event is read: windows of 12 hold whole patches of 4
    position = np.searchsorted(one.time, before["time"])
    made_before = position - position % 4 <= last
    assert made_before.any() or last < 4
    for name in ("mean", "quantiles"):
        equal(before[name][made_before], after[name][made_before])
        # once its scale is known, a channel is forecast with a finite number, whatever came
        usual = kind != "missing" and not late
        assert not usual or np.isfinite(after[name][np.isfinite(before[name])]).all()
    equal(before["target"][position < last], after["target"][position < last])


def test_an_infinite_reading_is_no_reading() -> None:
    model = model_of("series")
    one = cases.events(model.config, COUNT, 1)
    absent = asl.Events(one.time, values=one.values.copy())
    absent.values[5:9] = np.nan
    infinite = asl.Events(one.time, values=absent.values.copy())
    infinite.values[5:9] = np.inf
    runs = [predictions(model, e, [7], "hard") for e in (absent, infinite)]
    for name in ("target", "mean", "quantiles"):
        equal(runs[0][name], runs[1][name])


def test_actions_are_read_but_never_forecast() -> None:
    model = model_of("series")
    one = cases.events(model.config, COUNT, 1)
    moved = asl.Events(one.time, values=one.values.copy())
    moved.values[4:, 3] += 7  # the action "u"
    runs = [predictions(model, e, [], "hard") for e in (one, moved)]
    assert runs[0]["mean"].shape[1] == 3
    equal(runs[0]["target"], runs[1]["target"])
    equal(runs[0]["mean"][:4], runs[1]["mean"][:4])
    assert not np.array_equal(runs[0]["mean"][4:], runs[1]["mean"][4:])
