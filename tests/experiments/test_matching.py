"""Matching: the search on made-up costs, the costs of real setups, and what may be compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from adaptive_sleep.config import decode
from adaptive_sleep.experiments.baselines.registry import find_baseline
from adaptive_sleep.experiments.baselines.setup import Setup, plain
from adaptive_sleep.experiments.matching import (
    Measure,
    Spent,
    as_roomy,
    check_matched,
    match,
    measured,
    spent,
)
from adaptive_sleep.experiments.replay import replay
from adaptive_sleep.experiments.runs import open_run
from adaptive_sleep.learning import TaskRecipe, task_of
from adaptive_sleep.model import Model
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.tasks.recorded import GAP_SECONDS, record

RECIPE = decode(
    TaskRecipe,
    {
        "task": {"name": "chain", "nodes": 6, "paths": 2},
        "model": {"width": 16, "heads": 2, "key_dim": 8, "value_dim": 8, "positions": "rotary"},
        "training": {"carry_over": 0.5},
    },
)
LOOPS, WINDOW = find_baseline("wake_loops"), find_baseline("larger_window")


def costing(price: Callable[[int], float], asked: list[int] | None = None) -> Measure:
    """Loops that cost what `price` says, and are written down in `asked`."""

    def measure(setup: Setup) -> Spent:
        knob = setup.config.loops
        if asked is not None:
            asked.append(knob)
        return Spent(setup.policy, price(knob), 100 * knob)

    return measure


@pytest.mark.parametrize("target", [1000.0, 1500.0, 1990.0, 2700.0, 16_000.0, 32_000.0])
def test_a_knob_within_two_hundredths_is_found(target: float) -> None:
    asked: list[int] = []
    found = match(LOOPS, RECIPE, target, costing(lambda knob: 1000.0 * knob, asked))
    nearest = min(range(1, 33), key=lambda knob: abs(1000 * knob - target))
    if abs(1000 * nearest - target) <= 0.02 * target:
        assert [one.knob for one in found.found] == [nearest]
        assert not found.bracketed
    else:
        assert found.bracketed
        assert [one.knob for one in found.found] == [int(target // 1000), int(target // 1000) + 1]
        assert [one.resident_bytes for one in found.found] == [
            100 * int(one.knob or 0) for one in found.found
        ]
    assert len(asked) == len(set(asked)) <= 12  # each once, and few of all 32


def test_a_target_below_all_knobs_is_refused_with_the_figures() -> None:
    with pytest.raises(InputError, match=r"target=900 .*wake_loops costs at least 1,000, .*knob 1"):
        match(LOOPS, RECIPE, 900.0, costing(lambda knob: 1000.0 * knob))


@pytest.mark.parametrize("end", [1, 2, 5, 31, 32])
def test_above_all_knobs_the_least_of_the_dearest_is_found(end: int) -> None:
    found = match(LOOPS, RECIPE, 40_000.0, costing(lambda knob: 1000.0 * min(knob, end)))
    assert found.short
    assert not found.bracketed
    assert [(one.knob, one.flops_per_event) for one in found.found] == [(end, 1000.0 * end)]


def test_of_knobs_that_cost_the_same_the_least_is_found() -> None:
    found = match(LOOPS, RECIPE, 5050.0, costing(lambda knob: 1000.0 * min(knob, 5)))
    assert [one.knob for one in found.found] == [5]
    assert not found.short


def test_costs_that_fall_are_refused() -> None:
    with pytest.raises(InputError, match=r"falls as the knob rises: .*knob 1\).*knob 2\)"):
        match(LOOPS, RECIPE, 990.0, costing(lambda knob: 950.0 / knob))


@pytest.fixture(scope="module")
def on(tmp_path_factory: pytest.TempPathFactory) -> Measure:
    folder = tmp_path_factory.mktemp("matching") / "chain"
    task = record(task_of(RECIPE), folder, samples=24, seed=0, part="validation", streams=2)
    return partial(measured, recording=task, gap_seconds=GAP_SECONDS)


def test_a_larger_window_is_matched_by_what_a_replay_costs(on: Measure) -> None:
    target = 1.1 * on(plain(RECIPE)).flops_per_event
    found = match(WINDOW, RECIPE, target, on)
    assert all(one.knob is not None and one.knob > 6 for one in found.found)
    again = [on(WINDOW.setup(RECIPE, one.knob or 0)) for one in found.found]
    assert [one.flops_per_event for one in again] == [one.flops_per_event for one in found.found]
    ours = Spent("ours", target, found.found[0].resident_bytes)
    assert check_matched(ours, found.found) == ("bracketed" if found.bracketed else "matched")
    assert max(abs(one.flops_per_event - target) for one in found.found) < 0.2 * target


def test_what_a_setup_costs_does_not_depend_on_its_weights(on: Measure, tmp_path: Path) -> None:
    setup = WINDOW.setup(RECIPE, 15)
    bare, other = on(setup), replace(setup, policy="fixed(passes=2)")
    assert on(setup) == bare
    assert on(other).flops_per_event > bare.flops_per_event
    recording = on.keywords["recording"]  # type: ignore[attr-defined]
    model, kept = Model(setup.config), {"eviction": "sliding", "keep": 15}
    out = tmp_path / "run"
    replay(recording, model, setup.policy, out, gap_seconds=GAP_SECONDS, **kept)  # type: ignore[arg-type]
    assert spent(open_run(out), bare.name) == bare


def test_only_what_costs_the_same_is_compared() -> None:
    def one(flops: float, room: int = 100) -> Spent:
        return Spent("other", flops, room, 3)

    ours = Spent("ours", 1000.0, 100)
    assert check_matched(ours, [one(1019.0)]) == "matched"
    assert check_matched(ours, [one(700.0), one(990.0)]) == "matched"
    assert check_matched(ours, [one(1200.0), one(900.0)]) == "bracketed"
    for theirs in ([one(1030.0)], [one(900.0)], [one(1100.0), one(1200.0)], []):
        with pytest.raises(InputError, match="ours: 1,000 FLOPs an event is not matched"):
            check_matched(ours, theirs)
    with pytest.raises(InputError, match=r"other \(knob 3\): 1,030 FLOPs an event"):
        check_matched(ours, [one(1030.0)])
    assert as_roomy(ours, one(1000.0, 110))
    assert not as_roomy(ours, one(1000.0, 111))
