"""Forks beside a runtime: each is what a run with those passes would have been, at its price."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import asked_cases as asked
import core_cases as cases
import numpy as np
import pytest
import torch

import adaptive_sleep as asl
from adaptive_sleep.counterfactual import Alternatives, Forks
from adaptive_sleep.sleep import ClosedWindow, consolidate, stages

MOST = 3
SHAPES = [("tokens", "hard"), ("tokens", "sliding"), ("series", "hard"), ("series", "sliding")]
Key = tuple[str, int]
Streams = dict[str, list[asl.Piece]]


@cache
def model_of(kind: str) -> asl.Model:
    return asked.model_for(asked.TASKS[kind]) if kind in asked.TASKS else cases.build(
        cases.tiny(kind)
    )  # fmt: skip


def streams_of(kind: str, count: int = 2) -> Streams:
    """Streams of several windows: cut at odd places, or two samples of a task one after another."""
    if kind in asked.TASKS:
        task = asked.TASKS[kind]
        batch = asked.in_turn(*(asked.draw(task, count, seed) for seed in range(2)))
        pieces = [asked.stream(batch, row, np.random.default_rng(row)) for row in range(count)]
        return {own[0].stream: own for own in pieces}
    config, found = model_of(kind).config, {}
    for i in range(count):
        whole = cases.events(config, 4 * config.window + 3 * i, seed=i)
        found[f"s{i}"] = cases.cut(whole, config.window, (3 + i, 20, 31 + i), f"s{i}")
    return found


def run(
    kind: str,
    streams: Streams,
    policy: Any,
    horizon: int | None = None,
    **settings: Any,
) -> tuple[asl.Runtime, list[asl.StepResult], dict[Key, Alternatives], Forks | None]:
    """Run streams side by side, with forks if a horizon is given."""
    runtime = asl.Runtime(model_of(kind), policy, **settings)
    forks = None if horizon is None else Forks(runtime, most=MOST, horizon=horizon)
    left = [list(pieces) for pieces in streams.values()]
    results, found = [], {}
    while any(left):
        pieces = [own.pop(0) for own in left if own]
        results.append(runtime.step(pieces, boundaries=forks is not None))
        for one in forks.follow(pieces, results[-1]) if forks else ():
            key = (one.signals.stream[0], int(one.signals.window[0]))
            assert key not in found
            found[key] = one
    return runtime, results, found, forks


def varied(streams: Streams) -> cases.ByName:
    return cases.ByName({name: [1 + i % 3, 2, 1, 3] for i, name in enumerate(streams)})


def later(results: list[asl.StepResult], key: Key, horizon: int) -> list[Any]:
    """The rows after a window up to its `horizon`-th scored one; fewer if there are fewer."""
    after = [r for x in results for r in x.rows if r.stream == key[0] and r.window > key[1]]
    scored = [i for i, r in enumerate(after) if r.scored]
    return after[: scored[horizon - 1] + 1] if len(scored) >= horizon else []


def mean_loss(rows: list[Any]) -> float:
    return sum(r.loss * r.scored for r in rows if r.scored) / sum(r.scored for r in rows)


ALL = [*SHAPES, ("hops", "hard"), ("chain", "hard")]


@pytest.mark.parametrize(("kind", "eviction"), ALL)
def test_a_runtime_with_forks_beside_it_is_the_same_runtime(kind: str, eviction: str) -> None:
    streams = streams_of(kind)
    policy = varied(streams)
    alone, without, _, _ = run(kind, streams, policy, eviction=eviction)
    watched, beside, found, _ = run(kind, streams, policy, 2, eviction=eviction)
    assert [x.rows for x in beside] == [x.rows for x in without]
    assert cases.everything(watched) == cases.everything(alone)
    assert found


@pytest.mark.parametrize(
    ("kind", "eviction", "horizon"),
    [
        *((*shape, 2) for shape in ALL),
        ("tokens", "hard", 1),
        ("series", "hard", 3),
        ("hops", "hard", 1),
    ],
)
def test_a_fork_is_what_a_run_with_its_passes_would_have_been(
    kind: str, eviction: str, horizon: int
) -> None:
    """With every number of passes over one window, and all others as the run had them."""
    streams = streams_of(kind, 2)
    policy = varied(streams)
    _, results, found, forks = run(kind, streams, policy, horizon, eviction=eviction)
    rows = {(r.stream, r.window): r for x in results for r in x.rows}
    planned = [key for key, row in rows.items() if not row.asked]
    assert set(found) == {key for key in planned if later(results, key, horizon)}
    assert forks is not None
    assert forks.unfinished == len(planned) - len(found)
    for key, one in found.items():
        assert one.passes == rows[key].passes
        own = later(results, key, horizon)
        assert one.lag == len(own)
        assert one.run.loss[0] == pytest.approx(mean_loss(own), rel=1e-12)
        assert one.score.loss[one.passes - 1] == pytest.approx(one.run.loss[0], rel=1e-6)
        name, window = key
        if name == "s0" or window > 2:
            continue  # each number of passes is a run of its own
        for passes in range(1, MOST + 1):
            count = 1 + max(w for s, w in rows if s == name)
            plan = [rows[name, w].passes for w in range(count)]
            plan[window] = passes
            changed = cases.ByName({**policy.passes, name: plan})
            _, other, _, _ = run(kind, {name: streams[name]}, changed, eviction=eviction)
            after = later(other, key, horizon)
            place = passes - 1
            assert one.score.loss[place] == pytest.approx(mean_loss(after), rel=1e-5)
            assert one.score.scored[place] == sum(r.scored for r in after)
            assert one.score.right[place] == sum(r.right or 0 for r in after)
            if one.asked is not None:
                assert one.asked == sum(r.asked for r in after)


@pytest.mark.parametrize("kind", ["tokens", "series", "hops"])
def test_passes_over_a_window_change_what_follows(kind: str) -> None:
    """Else all that is said of forks here would hold of forks that do nothing."""
    _, _, found, _ = run(kind, streams_of(kind), varied(streams_of(kind)), 1)
    assert all(len(set(one.score.loss.tolist())) == MOST for one in found.values())
    assert all((one.state_change > 0).all() for one in found.values())


@pytest.mark.parametrize("kind", ["tokens", "series", "chain"])
def test_streams_together_are_each_alone(kind: str) -> None:
    streams = streams_of(kind)
    policy = varied(streams)
    _, _, together, _ = run(kind, streams, policy, 2)
    alone: dict[Key, Alternatives] = {}
    for name, pieces in streams.items():
        alone |= run(kind, {name: pieces}, policy, 2)[2]
    assert together.keys() == alone.keys()
    for key, one in together.items():
        other = alone[key]
        assert (one.passes, one.lag, one.asked) == (other.passes, other.lag, other.asked)
        for mine, theirs in zip(
            (one.score, *one.halves), (other.score, *other.halves), strict=True
        ):
            np.testing.assert_allclose(mine.loss, theirs.loss, rtol=1e-5, atol=1e-6)
            assert mine.scored.tolist() == theirs.scored.tolist()
        for name in ("state_change", "hidden_change", "summary"):
            assert cases.distance(getattr(one, name), getattr(other, name)) < 1e-5


def test_a_budget_and_a_policy_that_halts_are_in_the_passes_of_the_run() -> None:
    class Halting:
        def plan(self, signals: asl.WindowSignals) -> int:
            return MOST

        def keep_going(self, progress: asl.SleepProgress) -> np.ndarray:
            return progress.window % 2 == 0

    streams = streams_of("tokens")
    budget = 1.5 * float(asl.Runtime(model_of("tokens"), "fixed(1)").works.costs.position)
    for settings in ({}, {"budget": budget, "burst": 2.0}):
        _, results, found, _ = run("tokens", streams, Halting(), 3, **settings)
        rows = [r for x in results for r in x.rows]
        assert {r.clipped_by for r in rows} >= ({"budget"} if settings else {"halted"})
        assert len({r.passes for r in rows}) > 1
        for one in found.values():
            own = one.score.loss[one.passes - 1]
            assert own == pytest.approx(one.run.loss[0], rel=1e-6)


@pytest.mark.parametrize("horizon", [1, 2])
def test_forks_cost_their_passes_and_what_they_read(horizon: int) -> None:
    """K - 1 more passes a window, and K readings of each window that follows within the horizon."""
    streams = {"s0": cases.cut(cases.events(model_of("tokens").config, 60), 12, (), "s0")}
    _, results, found, forks = run("tokens", streams, cases.fixed(2), horizon)
    assert forks is not None
    rows = [r for x in results for r in x.rows]
    assert len(rows) == 5
    assert len(found) == 5 - horizon
    one = rows[-1].sleep_flops
    between = sum(max(min(horizon, 5 - row.window - 1), 0) for row in rows)
    unread = 5 - horizon  # a finished fork does not sleep
    assert forks.ledger.sleep == MOST * (between - unread) * one + 5 * (MOST - 1) * one
    read = sum(row.wake_flops for key in range(5) for row in rows[key + 1 : key + 1 + horizon])
    assert forks.ledger.wake == MOST * read
    # The store holds the forks that are alive at one time, not all that ever were.
    assert len(forks._works.arena.rows) == MOST * horizon


@pytest.mark.parametrize("kind", ["hops", "chain"])
def test_halves_share_out_the_same_questions_whatever_the_passes(kind: str) -> None:
    _, _, found, _ = run(kind, streams_of(kind), cases.fixed(2), 1)
    for one in found.values():
        first, second = one.halves
        assert (first.scored + second.scored).tolist() == one.score.scored.tolist()
        assert (first.scored - second.scored).tolist() in ([0] * MOST, [1] * MOST)
        assert (first.right + second.right).tolist() == one.score.right.tolist()
        whole = first.loss * first.scored + second.loss * second.scored
        np.testing.assert_allclose(whole / one.score.scored, one.score.loss, rtol=1e-6)


def test_the_halves_are_drawn_by_the_seed_alone() -> None:
    kind, streams = "hops", streams_of("hops", 1)
    seen = []
    for seed in (0, 0, 1):
        runtime = asl.Runtime(model_of(kind), cases.fixed(1))
        forks = Forks(runtime, most=2, seed=seed)
        found = []
        for piece in streams["s0"]:
            found += forks.follow([piece], runtime.step([piece], boundaries=True))
        seen.append([half.loss.tolist() for one in found for half in one.halves])
    assert seen[0] == seen[1] != seen[2]


@pytest.mark.parametrize("carry", ["restart", "accumulate"])
def test_the_stages_of_a_sleep_are_sleeps_of_so_many_passes(carry: str) -> None:
    model = cases.build(replace(cases.tiny(), carry=carry))
    runtime = asl.Runtime(model, cases.fixed(1))
    pieces = [
        cases.cut(cases.events(model.config, 12 - 2 * i, seed=i), 12 - 2 * i, (), f"s{i}")[0]
        for i in range(3)
    ]
    pieces = [replace(p, closes=True, cause="gap") for p in pieces]
    closed: ClosedWindow = runtime.step(pieces, boundaries=True).boundaries[0].closed
    with torch.no_grad():
        for stage in stages(model, closed, 4):
            reports = []

            def keep(report: Any, seen: list[Any] = reports) -> np.ndarray[Any, Any]:
                seen.append(report)
                return np.ones(len(report.rows), dtype=np.bool_)

            slept = consolidate(model, closed, torch.full((3,), stage.passes))
            for (name, one), (_, other) in zip(stage.weights, slept.weights, strict=True):
                assert torch.equal(one, other), name
            assert torch.equal(stage.state_change, slept.last_change)
            consolidate(model, closed, torch.full((3,), stage.passes + 1), keep)
            if stage.passes == 1:
                assert stage.hidden_change.isnan().all()
                continue
            assert np.array_equal(stage.hidden_change, reports[-1].hidden_change)
            assert np.array_equal(stage.summary, reports[-1].summary)


def test_boundaries_are_kept_only_if_asked_for() -> None:
    pieces = streams_of("tokens", 1)["s0"]
    runtime = asl.Runtime(model_of("tokens"), cases.fixed(2))
    assert all(runtime.step([p]).boundaries == () for p in pieces)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"most": 1}, "most=1: a whole number, at least 2"),
        ({"most": 10**10}, "most=10000000000: at most 1024"),
        ({"most": 2, "horizon": 0}, "horizon=0: a whole number, at least 1"),
    ],
)
def test_forks_that_say_nothing_are_refused(given: dict[str, int], said: str) -> None:
    with pytest.raises(asl.InputError, match=said):
        Forks(asl.Runtime(model_of("tokens"), "fixed(1)"), **given)


def test_a_kv_budget_is_refused() -> None:
    with pytest.raises(asl.InputError, match="kv_budget=24: forks need a run without"):
        Forks(asl.Runtime(model_of("tokens"), "fixed(1)", kv_budget=24), most=2)
