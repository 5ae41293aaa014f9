"""A causal window cut in any places and fed in pieces gives what it gives whole."""

from __future__ import annotations

from functools import cache

import core_cases as cases
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import adaptive_sleep as asl

COUNT = 41


@cache
def model_of(kind: str, positions: str = "rotary") -> asl.Model:
    return cases.build(cases.tiny(kind, positions=positions))


def run(
    kind: str, eviction: str, places: list[int], seed: int, passes: int, positions: str
) -> asl.Runtime:
    model = model_of(kind, positions)
    runtime = asl.Runtime(model, cases.fixed(passes), eviction=eviction)
    runtime.results = cases.run_all(  # type: ignore[attr-defined]
        runtime, cases.cut(cases.events(model.config, COUNT, seed, missing=0.3), 12, places)
    )
    return runtime


def same(one: asl.Runtime, other: asl.Runtime) -> None:
    """States, predictions and trace agree to 1e-5; everything counted agrees exactly."""
    held, wanted = cases.row(one, "s"), cases.row(other, "s")
    for name, tensor in held.items():
        if tensor.dtype == torch.int64:
            assert torch.equal(tensor, wanted[name]), name
        else:
            assert cases.distance(tensor, wanted[name]) < 1e-5, name
    cut, whole = one.results, other.results  # type: ignore[attr-defined]
    found, expected = cases.table(cut), cases.table(whole)
    assert np.array_equal(found["time"], expected["time"])
    distance, where = cases.furthest(found, expected)
    assert distance < 1e-5, where
    peaks = dict.fromkeys(("peak_resident_bytes", "peak_sleeping_bytes"), 0)
    assert one.ledger.state_dict() | peaks == other.ledger.state_dict() | peaks
    rows = [r for result in cut for r in result.rows], [r for result in whole for r in result.rows]
    for mine, theirs in zip(*rows, strict=True):
        for name in ("window", "tokens", "scored", "wake_flops", "sleep_flops"):
            assert getattr(mine, name) == getattr(theirs, name), name
        for name in ("surprise", "uncertainty", "state_change", "last_state_change"):
            assert getattr(mine, name) == pytest.approx(getattr(theirs, name), rel=2e-5), name


@pytest.mark.parametrize("eviction", cases.EVICTIONS)
@pytest.mark.parametrize("kind", cases.KINDS)
@given(places=cases.places(COUNT), seed=st.integers(0, 1000), passes=st.sampled_from([1, 3]))
@settings(max_examples=12)
def test_pieces_give_what_the_whole_window_gives(
    kind: str, eviction: str, places: list[int], seed: int, passes: int
) -> None:
    cut = run(kind, eviction, places, seed, passes, "rotary")
    same(cut, run(kind, eviction, [], seed, passes, "rotary"))


@pytest.mark.parametrize("positions", ["learned", "relative", "none"])
@pytest.mark.parametrize("kind", cases.KINDS)
@given(places=cases.places(COUNT))
@settings(max_examples=4)
def test_so_they_do_with_other_positions(kind: str, positions: str, places: list[int]) -> None:
    same(run(kind, "hard", places, 3, 2, positions), run(kind, "hard", [], 3, 2, positions))


@pytest.mark.parametrize("kind", cases.KINDS)
def test_one_event_at_a_time_gives_the_same(kind: str) -> None:
    places = list(range(1, COUNT))
    same(run(kind, "hard", places, 5, 2, "rotary"), run(kind, "hard", [], 5, 2, "rotary"))


def test_a_boundary_may_come_without_events() -> None:
    model = model_of("series")
    whole = cases.events(model.config, 20, 1)
    plain, late = (asl.Runtime(model, cases.fixed(2)) for _ in range(2))
    plain.results = cases.run_all(  # type: ignore[attr-defined]
        plain, [asl.Piece("s", whole[:9], closes=True), asl.Piece("s", whole[9:])]
    )
    late.results = cases.run_all(  # type: ignore[attr-defined]
        late,
        [
            asl.Piece("s", whole[:9]),
            asl.Piece("s", whole[:0], closes=True),
            asl.Piece("s", whole[:0], closes=True),  # nothing is open: no window closes
            asl.Piece("s", whole[9:]),
        ],
    )
    same(late, plain)


def test_channels_that_are_missing_throughout_are_carried_along() -> None:
    model = model_of("series")
    whole = cases.events(model.config, 30, 1)
    whole.values[:, 1] = np.nan
    whole.values[:20, 2] = np.nan
    runs = []
    for places in ([], [3, 7, 19, 21]):
        runtime = asl.Runtime(model, cases.fixed(2))
        runtime.results = cases.run_all(runtime, cases.cut(whole, 12, places))  # type: ignore[attr-defined]
        runs.append(runtime)
    same(runs[1], runs[0])
    found = cases.table(runs[0].results)  # type: ignore[attr-defined]
    assert np.isnan(found["mean"][:, 1]).all()
    assert np.isfinite(found["mean"][:, 0]).all()
