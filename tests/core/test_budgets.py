"""Budgets of sleep and of attention: what is clipped, what closes early, that bounds hold."""

from __future__ import annotations

from typing import Any

import core_cases as cases
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import adaptive_sleep as asl
from adaptive_sleep.ledger import costs
from adaptive_sleep.streams.room import Room

MODEL = cases.build(cases.tiny("tokens"))
SERIES = cases.build(cases.tiny("series"))
ONE_PASS = int(costs(MODEL.config).sleep_pass(np.array([12]), causal=True)[0])


def window(stream: str, size: int = 12, seed: int = 0, closes: bool = True) -> asl.Piece:
    return asl.Piece(stream, cases.events(MODEL.config, size, seed), closes=closes, cause="length")


@given(
    budget=st.sampled_from([0.0, 1.0, 0.3 * ONE_PASS / 12, 2.5 * ONE_PASS / 12, 1e12, 1e300]),
    burst=st.sampled_from([0.1, 1.0, 4.0]),
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=8),
    planned=st.integers(1, 8),
)
@settings(max_examples=20)
def test_sleep_is_bought_from_a_balance(
    budget: float, burst: float, sizes: list[int], planned: int
) -> None:
    policy = cases.Watching(cases.fixed(planned))
    runtime = asl.Runtime(MODEL, policy, budget=budget, burst=burst)
    cap, balance, events = budget * burst * 12, 0.0, 0
    for number, size in enumerate(sizes):
        row = runtime.step([window("s", size, number)]).rows[0]
        events += size
        balance = min(cap, balance + budget * size)
        price = int(policy.signals[-1].pass_flops[0])
        assert policy.signals[-1].budget_left[0] == (balance / cap if cap else 0.0)
        assert row.budget_left == policy.signals[-1].budget_left[0]
        affordable = 1
        while affordable < planned and affordable * price <= balance:
            affordable += 1
        assert row.planned == planned
        assert row.passes == affordable
        assert row.clipped_by == ("budget" if affordable < planned else "")
        assert row.sleep_flops == (affordable - 1) * price
        balance -= row.sleep_flops
        held = float(cases.row(runtime, "s")["balance"])
        assert held >= 0
        assert held == pytest.approx(balance)
    assert runtime.ledger.sleep <= budget * events


def test_a_saved_up_balance_is_spent_when_it_is_worth_it() -> None:
    """Half a pass a window: after two windows without sleep, one pass can be had, then none."""
    policy = cases.ByName({"s": [1, 1, 3, 3]})
    runtime = asl.Runtime(MODEL, policy, budget=0.5 * ONE_PASS / 12)
    rows = [runtime.step([window("s")]).rows[0] for _ in range(4)]
    assert [r.passes for r in rows] == [1, 1, 2, 2]
    assert [r.clipped_by for r in rows] == ["", "", "budget", "budget"]


def test_streams_have_balances_of_their_own() -> None:
    policy = cases.ByName({"rich": [1, 1, 8], "poor": [8, 8, 8]})
    runtime = asl.Runtime(MODEL, policy, budget=ONE_PASS / 12)
    for _ in range(3):
        rows = runtime.step([window("rich"), window("poor")]).rows
    assert {r.stream: r.passes for r in rows} == {"rich": 4, "poor": 2}


def test_overload_skips_sleep_and_says_so() -> None:
    policy = cases.Watching(cases.ByName({"a": 4, "b": 1}).plan)
    skipping, awake = asl.Runtime(MODEL, policy), asl.Runtime(MODEL, cases.fixed(1))
    pieces = [window("a"), window("b")]
    rows = skipping.step(pieces, allow_sleep=False).rows
    awake.step(pieces)
    assert [(r.planned, r.passes, r.clipped_by) for r in rows] == [(4, 1, "overload"), (1, 1, "")]
    assert len(policy.signals) == 1  # it was asked
    assert skipping.ledger.sleep == 0
    assert cases.everything(skipping)["tensors"] == cases.everything(awake)["tensors"]
    assert skipping.step(pieces).rows[0].passes == 4


def open_windows(runtime: asl.Runtime, sizes: dict[str, int], first: dict[str, int]) -> None:
    pieces = []
    for name, size in sizes.items():
        piece = window(name, size, closes=False)
        time = first.get(name, 1000) + np.arange(size)
        pieces.append(asl.Piece(name, asl.Events(time, tokens=piece.events.tokens)))
    runtime.step(pieces)


@pytest.mark.parametrize(
    ("sizes", "first", "new", "forced"),
    [
        ({"a": 5, "b": 9, "c": 5}, {}, 1, ()),
        ({"a": 5, "b": 9, "c": 5}, {}, 2, ("b",)),
        ({"a": 6, "b": 9, "c": 5}, {}, 11, ("b", "a")),
        ({"a": 7, "b": 7, "c": 6}, {"a": 20, "b": 10}, 3, ("b",)),  # ties: the oldest
        ({"b": 7, "a": 7, "c": 6}, {}, 3, ("a",)),  # then by name
    ],
)
def test_the_longest_open_window_is_closed_first(
    sizes: dict[str, int], first: dict[str, int], new: int, forced: tuple[str, ...]
) -> None:
    runtime = asl.Runtime(MODEL, cases.fixed(3), kv_budget=20)
    open_windows(runtime, sizes, first)
    result = runtime.step([window("new", new, closes=False)])
    assert result.forced == forced
    assert [(r.stream, r.cause, r.passes) for r in result.rows] == [
        (name, "pressure", 3) for name in forced
    ]
    for row in result.rows:
        assert row.tokens == sizes[row.stream]
        assert row.cache_pressure == sum(sizes.values()) / 20
        assert int(cases.row(runtime, row.stream)["cached"]) == 0


def test_what_attention_holds_of_a_closed_window_is_let_go_beside_one_that_is_closed() -> None:
    """Of "b" only what slides is held, of "a" an open window: both are dropped for the new ones."""
    runtime = asl.Runtime(MODEL, cases.fixed(2), kv_budget=24, eviction="sliding")
    runtime.step([window("a", 5, closes=False), window("b", 5), window("c", 5, closes=False)])
    result = runtime.step([window("a", 6, closes=False), window("b", 6), window("d", 4)])
    assert result.forced == ("a", "b")
    held = {name: int(cases.row(runtime, name)["held"]) for name in "abcd"}
    assert held == {"a": 6, "b": 6, "c": 5, "d": 4}


def test_a_piece_that_was_to_fill_a_window_that_closed_before_it_fills_none() -> None:
    runtime = asl.Runtime(MODEL, cases.fixed(2), kv_budget=9)
    whole = cases.events(MODEL.config, 12)
    runtime.step([asl.Piece("s", whole[:9])])
    result = runtime.step([asl.Piece("s", whole[9:], closes=True, cause="length")])
    assert [(r.cause, r.tokens) for r in result.rows] == [("pressure", 9)]
    assert int(cases.row(runtime, "s")["open"]) == 3


def test_a_piece_behind_a_window_that_had_closed_closes_its_own() -> None:
    """Of "a" only what slides is held; its next window is as long as whoever cuts it says."""
    runtime = asl.Runtime(MODEL, cases.fixed(2), kv_budget=6, eviction="sliding")
    for _ in range(2):
        events = cases.events(MODEL.config, 4)
        result = runtime.step([asl.Piece("a", events, closes=True, cause="length")])
        assert [(r.stream, r.cause, r.tokens) for r in result.rows] == [("a", "length", 4)]
        forced = runtime.step([window("b", 2, closes=False)]).forced
    assert forced


def test_what_fits_is_said_before_a_window_must_close() -> None:
    runtime = asl.Runtime(MODEL, cases.fixed(1), kv_budget=20)
    assert runtime.room() == Room(20, {}, 12)
    open_windows(runtime, {"a": 5, "b": 9}, {})
    assert runtime.room() == Room(6, {"a": 7, "b": 3}, 12)
    runtime.step([window("a", 6, closes=False)])
    assert runtime.room() == Room(0, {"a": 1, "b": 3}, 12, "a", 11)
    assert asl.Runtime(MODEL, cases.fixed(1)).room() is None


def test_a_window_closed_early_is_an_ordinary_boundary() -> None:
    """It leaves what a boundary there would have left, and the stream goes on."""
    early, planned = (asl.Runtime(MODEL, cases.fixed(2), kv_budget=b) for b in (9, None))
    whole = cases.events(MODEL.config, 12)
    early.step([asl.Piece("s", whole[:8])])
    planned.step([asl.Piece("s", whole[:8], closes=True)])
    result = early.step([asl.Piece("s", whole[8:], closes=True)])
    assert result.forced == ("s",)
    assert [r.tokens for r in result.rows] == [8, 4]
    planned.step([asl.Piece("s", whole[8:], closes=True)])
    one, other = cases.row(early, "s"), cases.row(planned, "s")
    for name in one:
        assert torch.equal(one[name], other[name]), name


@pytest.mark.parametrize("model", [MODEL, SERIES], ids=cases.KINDS)
@pytest.mark.parametrize("eviction", cases.EVICTIONS)
@given(data=st.data())
@settings(max_examples=8)
def test_attention_never_holds_more_than_its_budget(
    model: asl.Model, eviction: str, data: st.DataObject
) -> None:
    budget = data.draw(st.integers(8, 40))
    runtime = asl.Runtime(model, cases.fixed(2), kv_budget=budget, eviction=eviction)
    count = dict.fromkeys("abcd", 0)
    total = 0
    for turn in range(8):
        pieces = []
        for name in data.draw(st.sets(st.sampled_from("abcd"), min_size=1)):
            size = data.draw(st.integers(0, min(12 - count[name], budget // 4)))
            count[name] += size
            closes = count[name] == 12 or data.draw(st.booleans())
            count[name] = 0 if closes else count[name]
            total += size
            events = cases.events(model.config, size, turn)
            pieces.append(asl.Piece(name, events, closes=closes))
        result = runtime.step(pieces)
        rows = [cases.row(runtime, n) for n in runtime.streams]
        assert sum(int(r["held"]) for r in rows) <= budget
        for row in rows:
            assert int(row["held"]) <= 12
            assert int(row["cached"]) <= max(int(row["held"]), 0)
        assert all(r.cache_pressure <= 1 for r in result.rows)
    assert runtime.ledger.events == total


def test_sliding_attention_within_its_budget_is_left_alone() -> None:
    """It lets go of the oldest events by itself: a budget of one window each is never exceeded."""
    runtime = asl.Runtime(MODEL, cases.fixed(1), kv_budget=24, eviction="sliding")
    free = asl.Runtime(MODEL, cases.fixed(1), eviction="sliding")
    for turn in range(5):
        pieces = [window(n, 12, turn) for n in "ab"]
        assert runtime.step(pieces).forced == ()
        free.step(pieces)
    assert cases.everything(runtime)["tensors"] == cases.everything(free)["tensors"]
    assert runtime.step([window("c", 5)]).forced == ("a",)


def test_a_step_larger_than_the_budget_is_refused() -> None:
    runtime = asl.Runtime(MODEL, cases.fixed(1), kv_budget=20)
    with pytest.raises(asl.InputError, match=r"kv_budget=20: .*21 events; take smaller steps"):
        runtime.step([window("a", 12), window("b", 9)])


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"window": 0}, "window=0: 1 to 12"),
        ({"window": 13}, "window=13: 1 to 12"),
        ({"eviction": "slidng"}, "eviction='slidng'.*did you mean 'sliding'"),
        ({"kv_budget": 0}, "kv_budget=0"),
        ({"budget": -1.0}, "budget=-1.0"),
        ({"budget": float("nan")}, "budget=nan"),
        ({"burst": 0.0}, "burst=0"),
        ({"max_passes": 0}, "max_passes=0"),
        ({"price": float("inf")}, "price=inf"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 1.5}, r"seed=1.5 \(float\): a whole number"),
        ({"max_passes": 2.0}, r"max_passes=2.0 \(float\): a whole number"),
        ({"kv_budget": float("nan")}, r"kv_budget=nan \(float\): a whole number"),
        ({"window": True}, r"window=True \(bool\): a whole number"),
        ({"budget": "1e6"}, r"budget='1e6' \(str\): a number"),
        ({"seed": None}, r"seed=None: a number \(None is for keep, kv_budget and budget\)"),
        ({"max_passes": None}, "max_passes=None: a number"),
        ({"price": None}, "price=None: a number"),
        ({"burst": None}, "burst=None: a number"),
        ({"budget": 1e308}, "budget=1e.308, burst=4.0: no float holds what a stream may save up"),
        ({"budget": 10**400}, "budget=10+: a finite number"),
        ({"max_passes": 2**63}, "max_passes=9223372036854775808: at most 9223372036854775807"),
        ({"streams": "abc"}, r"streams='abc': a sequence of names"),
        ({"streams": ["a", 1]}, r"stream=1: a name is a str, not int"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(asl.InputError, match=told):
        asl.Runtime(MODEL, cases.fixed(1), **settings)


@pytest.mark.parametrize("positions", ["learned", "relative"])
def test_positions_that_restart_do_not_slide(positions: str) -> None:
    model = cases.build(cases.tiny(positions=positions))
    with pytest.raises(asl.InputError, match="restart at every window"):
        asl.Runtime(model, cases.fixed(1), eviction="sliding")


def test_columns_that_lack_a_channel() -> None:
    with pytest.raises(asl.InputError, match="reads 'b', which the stream lacks"):
        asl.Runtime(SERIES, cases.fixed(1), columns=("a", "c", "u"))
