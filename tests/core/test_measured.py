"""What policies are shown: every signal of a window by its formula, and outcomes told once."""

from __future__ import annotations

from typing import Any

import core_cases as cases
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import adaptive_sleep as asl
from adaptive_sleep.kernels import moves, pooled, relative
from adaptive_sleep.ledger import costs
from adaptive_sleep.memory import EPSILON
from adaptive_sleep.model import Beside
from adaptive_sleep.normalise import RunningStats
from adaptive_sleep.sleep import ClosedWindow, sleep_pass

SECOND = cases.SECOND


def at(config: asl.ModelConfig, times: list[int], seed: int = 0) -> asl.Events:
    """Random events at the given times, ns."""
    found = cases.events(config, len(times), seed)
    return asl.Events(np.array(times, dtype=np.int64), found.values, found.tokens)


def read(
    model: asl.Model, windows: list[list[int]], passes: int = 2, **settings: Any
) -> tuple[list[asl.WindowSignals], asl.Runtime]:
    """Feed windows that begin and end at the given times; returns the signals of each."""
    policy = cases.Watching(cases.fixed(passes))
    runtime = asl.Runtime(model, policy, **settings)
    for number, times in enumerate(windows):
        runtime.step([asl.Piece("s", at(model.config, times, number), closes=True)])
    return policy.signals, runtime


@given(
    windows=st.lists(st.lists(st.integers(-3, 9), min_size=1, max_size=6), min_size=1, max_size=6),
    start=st.sampled_from([0, 1_700_000_000 * SECOND, -5 * SECOND]),
)
@settings(max_examples=25)
def test_gap_and_event_density(windows: list[list[int]], start: int) -> None:
    """Steps of time may be zero or negative; both signals stay finite."""
    clock, times = start, []
    for window in windows:
        rows = []
        for step in window:
            clock += step * SECOND
            rows.append(clock)
        times.append(rows)
    signals, _ = read(MODEL, times, passes=1)
    events, seconds, before = 0, 0.0, None
    for seen, rows in zip(signals, times, strict=True):
        lasted = (rows[-1] - (rows[0] if before is None else before)) / SECOND
        density = 1.0
        if lasted > 0 and seconds > 0:
            density = (len(rows) / lasted) / (events / seconds)
        assert seen.event_density[0] == pytest.approx(density, rel=1e-12)
        assert seen.event_density[0] > 0
        gap = 0.0 if before is None else max((rows[0] - before) / SECOND, 0.0)
        assert seen.gap[0] == pytest.approx(gap, rel=1e-12)
        if lasted > 0:
            events, seconds = events + len(rows), seconds + lasted
        before = rows[-1]


MODEL = cases.build(cases.tiny("tokens"))
SERIES = cases.build(cases.tiny("series"))


@pytest.mark.parametrize("model", [MODEL, SERIES], ids=cases.KINDS)
def test_counters_and_costs(model: asl.Model) -> None:
    config, price = model.config, costs(model.config)
    sizes = (9, 12, 1, 6)
    clock, windows = 0, []
    for size in sizes:
        windows.append([(clock := clock + SECOND) for _ in range(size)])
    signals, runtime = read(model, windows, 3, kv_budget=20, max_passes=5, price=0.25)
    wake = 0
    for number, (seen, size) in enumerate(zip(signals, sizes, strict=True)):
        positions = -(-size // config.patch)
        assert seen.stream.tolist() == ["s"]
        assert seen.window.tolist() == [number]
        assert seen.tokens.tolist() == [size]
        assert seen.max_passes.tolist() == [5]
        assert seen.price.tolist() == [0.25]
        assert seen.budget_left.tolist() == [1.0]
        assert seen.cache_pressure.tolist() == [size / 20]
        assert seen.summary.shape == (1, 2 * config.width)
        pairs = positions * (positions + 1) // 2
        blocks = positions * price.position + pairs * price.pair
        assert seen.pass_flops.tolist() == [blocks + positions * price.inject]
        assert seen.wake_flops.tolist() == [blocks + positions * (price.embed + price.head)]
        wake += int(seen.wake_flops[0])
        if config.kind == "tokens":  # the very first event is not predicted
            assert seen.scored.tolist() == [size - (number == 0)]
    assert runtime.ledger.wake == wake
    assert runtime.ledger.sleep == 2 * sum(int(s.pass_flops[0]) for s in signals)


def test_surprise_and_uncertainty_are_means_of_the_predictions() -> None:
    policy = cases.Watching(cases.fixed(2))
    runtime = asl.Runtime(MODEL, policy)
    pieces = cases.cut(cases.events(MODEL.config, 36), 12, (5, 20))
    results = cases.run_all(runtime, pieces)
    found = cases.table(results)
    bounds = [0, 11, 23, 35]
    for seen, a, b in zip(policy.signals, bounds, bounds[1:], strict=False):
        assert seen.surprise[0] == pytest.approx(-found["logprob"][a:b].mean(), rel=1e-6)
        assert seen.uncertainty[0] == pytest.approx(found["entropy"][a:b].mean(), rel=1e-6)
        assert 0 < seen.uncertainty[0] <= 1
    rows = [r for result in results for r in result.rows]
    for row, seen in zip(rows, policy.signals, strict=True):
        assert row.loss == row.surprise == seen.surprise[0]


def test_the_summary_pools_the_windows_hidden_states() -> None:
    policy = cases.Watching(cases.fixed(1))
    runtime = asl.Runtime(MODEL, policy)
    lengths = {"a": 4, "b": 9}
    whole = {n: cases.events(MODEL.config, size) for n, size in lengths.items()}
    runtime.step([asl.Piece(n, whole[n]) for n in lengths])
    hidden = {n: cases.row(runtime, n)["hidden"][: lengths[n]].double() for n in lengths}
    runtime.step([asl.Piece(n, whole[n][:0], closes=True) for n in lengths])
    seen = policy.signals[0]
    for row, name in enumerate(seen.stream):
        parts = []
        for pool in (hidden[name].mean(0), hidden[name].max(0).values):
            parts.append(pool / pool.square().mean().sqrt())
        assert cases.distance(seen.summary[row], torch.cat(parts)) < 1e-5


def test_a_series_is_scored_by_normalised_pinball_loss() -> None:
    """By hand: 2 max(q e, (q - 1) e), the mean over levels, errors in scales and clipped at 10."""
    face, random = SERIES.series, torch.Generator().manual_seed(0)
    hidden = torch.randn(1, 2, 16, generator=random)
    one = torch.ones(1, 2, 4, dtype=torch.float64)
    stats = RunningStats(2 * one, 3 * one, 3 * one, 15 * one, 4 * one)  # mean 3, scale 2
    stats.count[0, 1, 1] = 0  # a channel not seen yet is not scored
    targets = torch.randn(1, 2, 4, 4, generator=random) * 3
    targets[0, 0, 1, 2], targets[0, 0, 2, 0] = torch.nan, 1e9
    with torch.no_grad():
        mean, quantiles = face.forecast(hidden, stats)
        score = face.score(mean, quantiles, stats, targets)
    for position in range(2):
        loss = spread = squares = count = 0.0
        for event in range(4):
            for channel in range(3):
                target = float(targets[0, position, event, channel])
                if np.isnan(target) or float(stats.count[0, position, channel]) == 0:
                    continue
                z = np.clip((target - 3) / 2, -10, 10)
                fan = quantiles[0, position, event, channel].tolist()
                levels = zip(SERIES.config.quantiles, fan, strict=True)
                pinball = [2 * max(q * (z - f), (q - 1) * (z - f)) for q, f in levels]
                loss += sum(pinball) / len(pinball)
                spread += fan[-1] - fan[0]
                squares += (z - float(mean[0, position, event, channel])) ** 2
                count += 1
        assert score.values[0, position] == count
        assert float(score.loss[0, position]) == pytest.approx(loss, rel=1e-5)
        assert float(score.uncertainty[0, position]) == pytest.approx(spread, rel=1e-5)
        assert float(score.squares[0, position]) == pytest.approx(squares, rel=1e-5)


class Asleep(cases.ByName):
    """Keeps the progress that it is shown, and stops "b" after three passes."""

    def __init__(self, passes: int) -> None:
        super().__init__(dict.fromkeys("ab", passes))
        self.shown: list[asl.SleepProgress] = []

    def keep_going(self, progress: asl.SleepProgress) -> np.ndarray:
        self.shown.append(progress)
        return (progress.stream != "b") | (progress.passes < 3)


def test_the_progress_of_a_sleep() -> None:
    policy = Asleep(5)
    runtime = asl.Runtime(MODEL, policy)
    sizes = {"a": 12, "b": 7}
    whole = {n: cases.events(MODEL.config, size, size) for n, size in sizes.items()}
    rows = runtime.step([asl.Piece(n, whole[n], closes=True) for n in sizes]).rows
    assert [r.passes for r in rows] == [5, 3]
    # after passes 2, 3 and 4; nobody is asked after the fifth, there is nothing left to stop
    assert [(p.stream.tolist(), p.passes[0]) for p in policy.shown] == [
        (["a", "b"], 2),
        (["a", "b"], 3),
        (["a"], 4),
    ]
    one = {r.stream: r.sleep_flops // (r.passes - 1) for r in rows}
    moved = {n: _by_pass(whole[n], 4) for n in sizes}
    for progress in policy.shown:
        done = int(progress.passes[0])
        assert set(progress.planned.tolist()) == {5}
        for row, name in enumerate(progress.stream):
            assert progress.flops[row] == (done - 1) * one[name]
            state, hidden, pooled = moved[name][done - 2]
            assert progress.state_change[row] == pytest.approx(state, rel=1e-4)
            assert progress.hidden_change[row] == pytest.approx(hidden, rel=1e-4)
            assert cases.distance(progress.summary[row], pooled) < 1e-5


@pytest.mark.parametrize("pieces", [1, 2])
def test_the_state_change_is_that_of_the_window_whoever_else_closes(pieces: int) -> None:
    """Where all close it is measured in the pass, elsewhere after it; so is the summary, where the
    window is read at once."""
    found, summaries = [], []
    for other in (True, False):
        policy = cases.Watching(cases.fixed(1))
        runtime = asl.Runtime(MODEL, policy)
        for turn in range(2 * pieces):
            ends = turn % pieces == pieces - 1
            times = [3 * turn, 3 * turn + 1, 3 * turn + 2]
            events = [at(MODEL.config, times, seed) for seed in (turn, 9)]
            runtime.step(
                [asl.Piece("a", events[0], ends), asl.Piece("b", events[1], ends and other)]
            )
        found.append([signals.state_change[0] for signals in policy.signals])
        summaries.append(np.stack([signals.summary[0] for signals in policy.signals]))
    whole = cases.Watching(cases.fixed(1))
    runtime = asl.Runtime(MODEL, whole)
    for turn in range(0, 2 * pieces, pieces):
        times = np.arange(3 * turn, 3 * (turn + pieces))
        parts = [at(MODEL.config, [0, 1, 2], turn + k).tokens for k in range(pieces)]
        events = asl.Events(times, tokens=np.concatenate(parts))
        runtime.step([asl.Piece("a", events, closes=True)])
    once = np.stack([signals.summary[0] for signals in whole.signals])
    for summary in summaries:
        np.testing.assert_allclose(summary, once, rtol=1e-4, atol=1e-5)
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    assert len(set(found[0])) == 2


@torch.no_grad()
@pytest.mark.parametrize("tokens", [0, 3])
def test_a_pass_measures_what_is_measured_after_it(tokens: int) -> None:
    model = cases.build(cases.tiny(answers=5, memory_tokens=tokens)) if tokens else MODEL
    events = [cases.events(model.config, 5, seed) for seed in range(3)]
    embedded = model.tokens.embed(torch.from_numpy(np.stack([each.tokens for each in events])))
    start = model.run(embedded, torch.tensor([5, 2, 4]), model.fresh(3)).weights
    hidden, lengths = torch.randn_like(embedded), torch.tensor([3, 5, 0])
    done = model.run(embedded, lengths, start, beside=Beside(start, True, hidden))
    assert torch.equal(done.moved(), done.weights.change_since(start))
    assert done.moved()[2] == 0.0
    plain = model.run(embedded, lengths, start)
    assert plain.change is plain.summary is plain.hidden_change is None
    assert torch.equal(done.hidden, plain.hidden)
    assert done.summary is not None
    assert done.hidden_change is not None
    assert torch.equal(done.summary, pooled(plain.hidden, lengths))
    squares = moves(plain.hidden, hidden, lengths)
    assert torch.equal(done.hidden_change, relative(squares, floor=EPSILON))


@torch.no_grad()
def _by_pass(events: asl.Events, passes: int) -> list[tuple[float, float, torch.Tensor]]:
    """Changes of state and of hidden states, and the summary, of passes 2 .. `passes` in turn."""
    embedded = MODEL.tokens.embed(torch.from_numpy(events.tokens)[None])
    lengths, before = torch.tensor([len(events)]), MODEL.fresh(1)
    done = MODEL.run(embedded, lengths, before)
    window = ClosedWindow(embedded, done.hidden, lengths, before, done.weights)
    hidden, weights, found = done.hidden, done.weights, []
    for _ in range(passes - 1):
        ran = sleep_pass(MODEL, window, hidden, weights)
        new_hidden, new = ran.hidden, ran.weights
        parts = []
        for pool in (new_hidden[0].mean(0), new_hidden[0].max(0).values):
            parts.append(pool / pool.square().mean().sqrt())
        moved = (new_hidden - hidden).norm() / new_hidden.norm()
        found.append((float(new.change_since(weights)), float(moved), torch.cat(parts)))
        hidden, weights = new_hidden, new
    return found


class Diary:
    """Writes down what it is told, in order."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def observe(self, outcome: asl.WindowOutcome) -> None:
        columns = (outcome.stream, outcome.window, outcome.passes, outcome.lag)
        self.told += [("outcome", *row) for row in zip(*(c.tolist() for c in columns), strict=True)]
        self.losses = dict(zip(outcome.stream, outcome.loss.tolist(), strict=True))

    def plan(self, signals: asl.WindowSignals) -> np.ndarray:
        self.told += [("plan", *row) for row in zip(signals.stream, signals.window, strict=True)]
        return signals.window % 3 + 1


def test_every_outcome_is_told_once_before_the_plan() -> None:
    """A window without a scored value tells nothing; the next scored one tells of all before it."""
    diary = Diary()
    runtime = asl.Runtime(SERIES, diary)

    def window(*streams: str, missing: bool = False) -> list[asl.TraceRow]:
        whole = cases.events(SERIES.config, 12, missing=0)
        if missing:
            whole.values[:] = np.nan
        diary.told.clear()
        return runtime.step([asl.Piece(s, whole, closes=True) for s in streams]).rows

    window("a", "b")
    assert diary.told == [("plan", "a", 0), ("plan", "b", 0)]
    rows = window("a", missing=True)
    assert rows[0].scored == 0
    assert rows[0].loss is None
    assert diary.told == [("plan", "a", 1)]
    window("a", missing=True)
    rows = window("b", "a")
    assert diary.told == [
        ("outcome", "b", 0, 1, 1),
        ("outcome", "a", 0, 1, 3),
        ("outcome", "a", 1, 2, 2),
        ("outcome", "a", 2, 3, 1),
        ("plan", "b", 1),
        ("plan", "a", 3),
    ]
    assert diary.losses == {r.stream: r.loss for r in rows}
    window("a")
    assert diary.told == [("outcome", "a", 3, 1, 1), ("plan", "a", 4)]


@given(data=st.data())
@settings(max_examples=15)
def test_all_signals_are_finite(data: st.DataObject) -> None:
    """Whatever comes: constant, huge, infinite or missing values, clocks that go backwards."""
    policy = cases.Watching(cases.fixed(2))
    runtime = asl.Runtime(SERIES, policy, kv_budget=30, budget=1e4)
    odd = st.sampled_from([0.0, 5.0, -1e30, 3e38, float("inf"), float("nan"), 1e-30])
    for _ in range(data.draw(st.integers(1, 4))):
        pieces = []
        for name in ("a", "b"):
            times = data.draw(st.lists(st.integers(-(10**12), 10**12), min_size=1, max_size=8))
            values = data.draw(st.lists(odd, min_size=4, max_size=4))
            values = np.tile(np.array(values, dtype=np.float32), (len(times), 1))
            pieces.append(asl.Piece(name, asl.Events(np.array(times), values=values), closes=True))
        runtime.step(pieces, predictions=True)
    for seen in policy.signals:
        for name in asl.WindowSignals.SCALARS:
            assert np.isfinite(getattr(seen, name)).all(), name
        assert (seen.event_density > 0).all()
        assert (seen.cache_pressure <= 1).all()


def test_what_a_policy_sees_is_of_the_declared_types_and_its_own() -> None:
    """The runtime makes records of its own arrays, unchecked: they are what checked ones are."""
    policy, seen = Asleep(4), []
    policy.plan = lambda signals: (seen.append(signals), 4)[1]
    runtime = asl.Runtime(cases.build(MODEL.config), policy)
    runtime.step([asl.Piece(n, cases.events(MODEL.config, 6, 1), closes=True) for n in "ab"])
    assert policy.shown
    for record in (*seen, *policy.shown):
        checked = type(record)(**vars(record))
        assert vars(record).keys() == vars(checked).keys()
        for name, values in vars(record).items():
            assert values.dtype == vars(checked)[name].dtype, name
            assert np.array_equal(values, vars(checked)[name]), name
            assert not values.flags.writeable, name
