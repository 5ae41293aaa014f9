"""Forecasts of several patches at once: what they read, what they cost, how they are trained."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import core_cases as cases
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import adaptive_sleep as asl
from adaptive_sleep.horizon import (
    HorizonRecipe,
    HorizonTrainer,
    along,
    check_horizon,
    forecast_ahead,
    targets_after,
)
from adaptive_sleep.ledger import costs, resident_bytes
from adaptive_sleep.normalise import advance, fresh_stats
from adaptive_sleep.packing import Packed
from adaptive_sleep.training_data import sample, stream_of

AHEAD: dict[str, Any] = {"horizon": 3, "skip": 10}


def far(**changes: Any) -> asl.Model:
    """A model that forecasts three patches of 4 events, with a linear map of the last 10."""
    model = cases.build(cases.tiny("series", **(AHEAD | changes)))
    if model.series.skip is not None:
        torch.nn.init.normal_(model.series.skip.weight, std=0.3)
    return model


def read(model: asl.Model, count: int = 17, passes: int = 2, seed: int = 0) -> asl.Runtime:
    runtime = asl.Runtime(model, cases.fixed(passes))
    cases.run_all(runtime, cases.cut(cases.events(model.config, count, seed), 12))
    return runtime


@given(
    seed=st.integers(0, 99),
    counts=st.lists(st.integers(0, 3), min_size=1, max_size=6),
    kept=st.integers(1, 9),
)
@settings(max_examples=30)
def test_recent_values_are_those_of_the_last_events(
    seed: int, counts: list[int], kept: int
) -> None:
    """Padding is no event; a missing value is one."""
    random = np.random.default_rng(seed)
    values = random.normal(size=(1, len(counts), 3, 2)).astype(np.float32)
    values[random.random(values.shape) < 0.3] = np.nan
    events = [np.full((kept, 2), np.nan, np.float32)]
    for t, count in enumerate(counts):
        values[0, t, count:] = np.nan
        events.append(values[0, t, :count])
    each, end = advance(
        fresh_stats(1, 2, kept), torch.from_numpy(values), torch.tensor([counts]), 20
    )
    assert each.recent is not None
    assert end.recent is not None
    for t in range(len(counts)):
        past = np.concatenate(events[: t + 2])[-kept:]
        np.testing.assert_array_equal(each.recent[0, t].numpy(), past)
    np.testing.assert_array_equal(end.recent.numpy(), each.recent[:, -1].numpy())


def test_without_them_no_model_changes() -> None:
    plain = cases.tiny("series")
    assert (plain.horizon, plain.skip) == (1, 0)
    assert not {"horizon", "skip"} & plain.identity().keys()
    assert not [n for n in cases.build(plain).state_dict() if "skip" in n]
    assert {"horizon", "skip"} <= cases.tiny("series", **AHEAD).identity().keys()
    assert resident_bytes(plain, 2, 5) + 4 * 2 * 10 * 4 == resident_bytes(far().config, 2, 5)


@pytest.mark.parametrize(
    ("changes", "told"),
    [({"horizon": 0}, "horizon=0: a forecast is of at least 1 patch"), ({"skip": -1}, "skip=-1")],
)
def test_what_cannot_be_forecast_is_refused(changes: dict[str, int], told: str) -> None:
    with pytest.raises(asl.InputError, match=told):
        cases.tiny("series", **changes)
    with pytest.raises(asl.InputError, match="a token model has none"):
        cases.tiny(**changes)


def test_a_runtime_forecasts_what_training_saw() -> None:
    """At every patch, after sleep too, and with missing values."""
    model = far()
    events = cases.events(model.config, 24, 3)
    assert events.values is not None
    values = torch.from_numpy(events.values).view(1, 2, 3, 4, -1)
    full, counts = torch.full((1,), 3), torch.full((1, 3), 4)
    none = np.zeros((1, 3, 4), np.int64)
    packed = [Packed(full, counts, None, values[:, i], none, None) for i in range(2)]
    with torch.no_grad():
        found = list(along(model, packed, fresh_stats(1, 4, 10), torch.tensor([3])))
    runtime = asl.Runtime(model, cases.fixed(3))
    for number in range(6):
        piece = asl.Piece("s", events[number * 4 : number * 4 + 4], (number + 1) % 3 == 0)
        runtime.step([piece])
        ahead = forecast_ahead(runtime, ["s"])
        there, place = found[number // 3], number % 3
        for name in ("mean", "quantiles"):
            units = model.series.to_units(getattr(there, name), there.stats)[:, place]
            assert cases.distance(torch.from_numpy(getattr(ahead, name)), units) < 1e-5, number
    assert ahead.mean.shape == (1, 12, 3)


def test_a_forecast_begins_with_what_the_head_says() -> None:
    """And goes on beyond its horizon."""
    runtime = read(far(), 16)
    ahead = forecast_ahead(runtime, ["s"])
    near, distant = (runtime.predict("s", horizon=n) for n in (7, 30))
    for forecast in (near, distant):
        assert forecast.mean is not None
        assert forecast.quantiles is not None
        shown = min(len(forecast), 12)
        np.testing.assert_allclose(forecast.mean[:shown], ahead.mean[0, :shown], rtol=1e-5)
        np.testing.assert_allclose(
            forecast.quantiles[:shown], ahead.quantiles[0, :shown], rtol=1e-5
        )
        assert np.isfinite(forecast.mean).all()
    assert len(distant) == 30


def test_only_whole_patches_of_known_streams_are_forecast_from() -> None:
    runtime = read(far(), 17)
    with pytest.raises(asl.InputError, match="stream='s': holds events of an unfinished patch"):
        forecast_ahead(runtime, ["s"])
    with pytest.raises(asl.InputError, match="stream='ss': not seen yet, did you mean 's'"):
        forecast_ahead(runtime, ["ss"])
    runtime.step([asl.Piece("new", cases.events(runtime.model.config, 2))])
    with pytest.raises(asl.InputError, match="stream='new': nothing has been read"):
        forecast_ahead(runtime, ["new"])


def test_no_forecast_looks_ahead() -> None:
    model = far()
    events = cases.events(model.config, 24)
    assert events.values is not None
    changed = asl.Events(events.time, values=events.values.copy())
    assert changed.values is not None
    changed.values[16:] += 100.0
    for other in (events, changed):
        runtime = asl.Runtime(model, cases.fixed(2))
        cases.run_all(runtime, cases.cut(other[:16], 12))
        if other is events:
            first = forecast_ahead(runtime, ["s"])
    np.testing.assert_array_equal(forecast_ahead(runtime, ["s"]).mean, first.mean)


def test_the_next_patch_alone_is_scored_online() -> None:
    model = far()
    events = cases.events(model.config, 24, missing=0.0)
    runtime = asl.Runtime(model, cases.fixed(1))
    result = cases.run_all(runtime, cases.cut(events, 12))
    assert sum(row.scored for each in result for row in each.rows) == 20 * 3


def test_a_saved_runtime_goes_on_with_what_it_kept(tmp_path: Path) -> None:
    runtime = asl.Runtime(far(), "fixed(2)")
    cases.run_all(runtime, cases.cut(cases.events(runtime.model.config, 16), 12))
    runtime.save(tmp_path)
    resumed = asl.Runtime.resume(tmp_path, runtime.model, "fixed(2)")
    one, other = forecast_ahead(runtime, ["s"]), forecast_ahead(resumed, ["s"])
    np.testing.assert_array_equal(one.quantiles, other.quantiles)


def test_targets_follow_their_patch() -> None:
    values = torch.arange(20.0).view(1, 20, 1)
    found = targets_after(values, 4, 8)
    assert found.shape == (1, 3, 8, 1)
    for t in range(3):
        assert found[0, t, :, 0].tolist() == list(range(4 * t + 4, 4 * t + 12))


def waves(config: asl.ModelConfig, rows: int = 400) -> list[Any]:
    time = np.arange(rows)[:, None] + np.array([0, 5, 9, 2])
    return [stream_of(np.sin(time / 12 * 2 * np.pi).astype(np.float32), config)]


@pytest.mark.parametrize("in_units", [False, True])
def test_training_lowers_the_loss(in_units: bool) -> None:
    model = far()
    recipe = HorizonRecipe(
        steps=40, windows=2, learning_rate=5e-3, skip_rate=5e-3, warmup=5, in_units=in_units
    )
    trainer, random = HorizonTrainer(model, recipe), np.random.default_rng(0)
    streams = waves(model.config)
    losses = []
    for step in range(40):
        batch = sample(streams, model.config, random, batch=8, windows=3, window=12)
        losses.append(trainer.step(batch, 2, 1 + step % 3))
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])
    assert all(torch.equal(t, trainer.averaged[n]) for n, t in model.state_dict().items())


def test_averaged_weights_lag_behind() -> None:
    model = far()
    trainer = HorizonTrainer(model, HorizonRecipe(steps=9, windows=2, warmup=1, average=0.9))
    first = {n: t.clone() for n, t in model.state_dict().items()}
    batch = sample(
        waves(model.config), model.config, np.random.default_rng(0), batch=4, windows=3, window=12
    )
    for _ in range(3):
        trainer.step(batch, 2, 1)
    name = "face.write.weight"
    moved = (model.state_dict()[name] - first[name]).norm()
    lag = (model.state_dict()[name] - trainer.averaged[name]).norm()
    assert 0 < lag < moved


def test_samples_bring_the_values_before_them() -> None:
    config = far().config
    stream = stream_of(np.arange(400, dtype=np.float32)[:, None].repeat(4, 1), config)
    batch = sample([stream], config, np.random.default_rng(0), batch=6, windows=2, window=12)
    assert batch.stats is not None
    assert batch.stats.recent is not None
    for row in range(6):
        first = batch.windows[0].values[row, 0, 0, 0]
        kept = batch.stats.recent[row, :, 0]
        there = kept[torch.isfinite(kept)]
        assert there.tolist() == (first - torch.arange(len(there), 0, -1)).tolist()
    cold = sample(
        [stream], config, np.random.default_rng(0), batch=6, windows=2, window=12, cold=1.0
    )
    assert bool(torch.isnan(cold.stats.recent).all())


def test_recipes_that_train_nothing_are_refused() -> None:
    for change in (
        {"steps": 0}, {"windows": 1}, {"average": 1.0}, {"validate_every": 0}, {"clip": 0.0},
        {"skip_rate": -1.0}, {"betas": (1.0, 0.9)},
    ):  # fmt: skip
        with pytest.raises(asl.InputError, match=next(iter(change))):
            check_horizon(HorizonRecipe(**change))
    assert asdict(HorizonRecipe())["average"] == 0.0


def test_the_head_costs_its_horizon() -> None:
    one, three = costs(far(horizon=1, skip=0).config), costs(far(skip=0).config)
    assert three.head == 3 * one.head
    assert three.spread == one.spread
    linear = costs(far().config).head - three.head
    assert linear == 2 * 10 * 12 * 3
