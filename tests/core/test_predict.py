"""Forecasts between boundaries: what they say, and that they leave no trace."""

from __future__ import annotations

from typing import Any

import core_cases as cases
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import adaptive_sleep as asl
from adaptive_sleep.attention import empty_cache
from adaptive_sleep.memory import FastWeights


def started(
    kind: str, count: int = 17, eviction: str = "hard", policy: Any = None, **changes: Any
) -> asl.Runtime:
    """A runtime that has read `count` events of "s" in windows of 12, and some of another."""
    model = cases.build(cases.tiny(kind, **changes))
    runtime = asl.Runtime(model, policy or cases.fixed(2), eviction=eviction, seed=5)
    runtime.step([asl.Piece("other", cases.events(model.config, 7, 3))])
    cases.run_all(runtime, cases.cut(cases.events(model.config, count), 12))
    return runtime


def arrays(forecast: asl.Forecast) -> dict[str, np.ndarray]:
    names = ("mean", "quantiles", "tokens", "logprob")
    found = {n: getattr(forecast, n) for n in names}
    return {n: v for n, v in found.items() if v is not None}


def same(one: asl.Forecast, other: asl.Forecast) -> bool:
    return all(np.array_equal(a, arrays(other)[n], True) for n, a in arrays(one).items())


@pytest.mark.parametrize("eviction", cases.EVICTIONS)
@pytest.mark.parametrize("kind", cases.KINDS)
@pytest.mark.parametrize("horizon", [1, 5, 30])
def test_a_forecast_leaves_the_state_as_it_was(kind: str, eviction: str, horizon: int) -> None:
    runtime = started(kind, eviction=eviction)
    before = cases.everything(runtime)
    ask: dict[str, Any] = {"horizon": horizon}
    ask |= {"temperature": 0.7} if kind == "tokens" else {}
    first = runtime.predict("s", **ask)
    assert cases.everything(runtime) == before
    assert len(first) == horizon
    assert same(first, runtime.predict("s", **ask))
    untouched = started(kind, eviction=eviction)
    later = [asl.Piece("s", cases.events(runtime.model.config, 4, 8), closes=True)]
    runtime.step(later)
    untouched.step(later)
    assert cases.everything(runtime) == cases.everything(untouched)


@pytest.mark.parametrize("kind", cases.KINDS)
def test_what_is_kept_is_read_as_if_it_had_arrived(kind: str) -> None:
    keeping, feeding = started(kind), started(kind)
    forecast = keeping.predict("s", horizon=6, keep=True)
    last = int(cases.row(feeding, "s")["last_time"])
    time = last + 1 + np.arange(6)
    if kind == "tokens":
        events = asl.Events(time, tokens=forecast.tokens)
    else:
        action = np.full((6, 1), np.nan)
        events = asl.Events(time, values=np.hstack([forecast.mean, action]).astype(np.float32))
    feeding.step([asl.Piece("s", events)])
    assert cases.everything(keeping) == cases.everything(feeding)


def test_kept_events_go_to_the_columns_that_are_declared() -> None:
    model = cases.build(cases.tiny("series"))
    columns = ("u", "unused", "c", "b", "a")
    order = [columns.index(n) for n in model.config.inputs]
    whole = cases.events(model.config, 8)
    wide = np.zeros((8, 5), dtype=np.float32)
    wide[:, order] = whole.values
    mixed = asl.Runtime(model, cases.fixed(1), columns=columns)
    plain = asl.Runtime(model, cases.fixed(1))
    mixed.step([asl.Piece("s", asl.Events(whole.time, values=wide))])
    plain.step([asl.Piece("s", whole)])
    for runtime in (mixed, plain):
        runtime.predict("s", horizon=4, keep=True)
    assert cases.everything(mixed)["tensors"] == cases.everything(plain)["tensors"]


def test_kept_events_close_no_window_early() -> None:
    runtime = asl.Runtime(MODEL, cases.fixed(2), kv_budget=14)
    for name in "ab":
        runtime.step([asl.Piece(name, cases.events(MODEL.config, 6))])
    before = cases.everything(runtime)
    with pytest.raises(asl.InputError, match="horizon=3: kv_budget=14 has no room"):
        runtime.predict("a", horizon=3, keep=True)
    assert cases.everything(runtime) == before
    runtime.predict("a", horizon=2, keep=True)
    assert runtime.ledger.windows == 0


@pytest.mark.parametrize("eviction", cases.EVICTIONS)
@pytest.mark.parametrize("count", [3, 12, 17])
def test_greedy_tokens_are_those_of_reading_everything_again(eviction: str, count: int) -> None:
    """Each token from a full run over all that attention may see; 20 tokens cross a boundary."""
    runtime = started("tokens", count, eviction, policy=cases.fixed(1))
    forecast = runtime.predict("s", horizon=20)
    model, history = runtime.model, cases.events(runtime.model.config, count).tokens.tolist()
    for token, logprob in zip(forecast.tokens, forecast.logprob, strict=True):
        log_p = naive(model, history, eviction)
        assert int(log_p.argmax()) == token
        assert float(log_p[token]) == pytest.approx(logprob, abs=1e-4)
        history.append(int(token))


@torch.no_grad()
def naive(model: asl.Model, history: list[int], eviction: str) -> torch.Tensor:
    embedded = model.tokens.embed(torch.tensor([history]))
    weights: FastWeights = model.fresh(1)
    size = 12 if eviction == "hard" else len(history)
    reach = 12 if eviction == "sliding" else None
    for start in range(0, len(history), size):
        part = embedded[:, start : start + size]
        lengths = torch.tensor([part.shape[1]])
        done = model.run(part, lengths, weights, empty_cache(model.config, 1), reach=reach)
        weights = done.weights
    return model.tokens.logits(done.hidden[0, -1]).log_softmax(-1)


def test_sampling_repeats_and_is_keyed_by_stream_and_place() -> None:
    runtime, again = started("tokens"), started("tokens")
    ask = {"horizon": 12, "temperature": 1.5}
    one = runtime.predict("s", **ask)
    assert same(one, again.predict("s", **ask))
    assert not same(one, runtime.predict("s", **(ask | {"temperature": 1.4})))
    more = [asl.Piece("s", cases.events(runtime.model.config, 1, 2))]
    again.step(more)
    assert not np.array_equal(one.tokens, again.predict("s", **ask).tokens)


def test_one_likeliest_token_is_greedy() -> None:
    runtime = started("tokens")
    greedy = runtime.predict("s", horizon=9)
    assert same(greedy, runtime.predict("s", horizon=9, temperature=2.0, top_k=1))
    cold = runtime.predict("s", horizon=9, temperature=1e-4)
    assert np.array_equal(greedy.tokens, cold.tokens)


@pytest.mark.parametrize("top_k", [None, 3])
def test_sampling_so_cold_that_no_float_holds_it_is_greedy(top_k: int | None) -> None:
    runtime = started("tokens")
    coldest = runtime.predict("s", horizon=9, temperature=5e-324, top_k=top_k)
    assert same(runtime.predict("s", horizon=9), coldest)


def test_only_the_likeliest_tokens_are_drawn() -> None:
    runtime = started("tokens")
    model = runtime.model
    with torch.no_grad():
        logits = model.tokens.logits(cases.row(runtime, "s")["last_hidden"])
    best = set(logits.topk(3).indices.tolist())
    drawn = set()
    for seed in range(60):
        other = asl.Runtime(model, cases.fixed(2), seed=seed)
        cases.run_all(other, cases.cut(cases.events(model.config, 17), 12))
        drawn |= set(other.predict("s", horizon=1, temperature=5.0, top_k=3).tokens.tolist())
    assert drawn == best


@pytest.mark.parametrize("eviction", cases.EVICTIONS)
def test_the_first_patch_is_what_a_step_scores_later(eviction: str) -> None:
    runtime = started("series", 16, eviction)
    forecast = runtime.predict("s", horizon=4)
    later = cases.events(runtime.model.config, 4, 6)
    scored = cases.table([runtime.step([asl.Piece("s", later)], predictions=True)])
    np.testing.assert_array_equal(scored["mean"], forecast.mean)
    np.testing.assert_array_equal(scored["quantiles"], forecast.quantiles)
    assert forecast.channels == ("a", "b", "c")
    assert forecast.levels == runtime.model.config.quantiles


@pytest.mark.parametrize("waiting", [1, 2, 3])
def test_a_forecast_starts_at_the_last_event(waiting: int) -> None:
    """An unfinished patch is read provisionally: as if a boundary had come (but no sleep)."""
    runtime = started("series", 16 + waiting, policy=cases.fixed(1))
    assert int(cases.row(runtime, "s")["pending"]) == waiting
    forecast = runtime.predict("s", horizon=4)
    none = cases.events(runtime.model.config, 4)[:0]
    runtime.step([asl.Piece("s", none, closes=True)])
    committed = runtime.predict("s", horizon=4)
    np.testing.assert_allclose(forecast.mean, committed.mean, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(forecast.quantiles, committed.quantiles, rtol=1e-5, atol=1e-5)


def test_a_stream_with_less_than_a_patch_can_be_forecast() -> None:
    model = cases.build(cases.tiny("series"))
    runtime = asl.Runtime(model, cases.fixed(1))
    runtime.step([asl.Piece("s", cases.events(model.config, 2, missing=0))])
    assert np.isfinite(runtime.predict("s", horizon=9).mean).all()


@given(count=st.integers(1, 30), horizon=st.integers(1, 40), seed=st.integers(0, 99))
@settings(max_examples=12)
def test_quantiles_rise_and_forecasts_are_finite(count: int, horizon: int, seed: int) -> None:
    model = MODEL
    runtime = asl.Runtime(model, cases.fixed(1), seed=seed)
    whole = cases.events(model.config, count, seed, missing=0.2)
    whole.values[0] = 1.0  # every channel has been seen
    cases.run_all(runtime, cases.cut(whole, 12))
    forecast = runtime.predict("s", horizon=horizon, paths=16)
    assert forecast.mean.shape == (horizon, 3)
    assert forecast.quantiles.shape == (horizon, 3, 5)
    assert (np.diff(forecast.quantiles, axis=-1) >= 0).all()
    assert np.isfinite(forecast.mean).all()
    assert np.isfinite(forecast.quantiles).all()


MODEL = cases.build(cases.tiny("series"))


def test_a_channel_never_observed_has_no_forecast() -> None:
    runtime = asl.Runtime(MODEL, cases.fixed(1))
    whole = cases.events(MODEL.config, 9, missing=0)
    whole.values[:, 1] = np.nan
    runtime.step([asl.Piece("s", whole)])
    forecast = runtime.predict("s", horizon=10)
    assert np.isnan(forecast.mean[:, 1]).all()
    assert np.isnan(forecast.quantiles[:, 1]).all()
    assert np.isfinite(forecast.mean[:, [0, 2]]).all()
    runtime.predict("s", horizon=2, keep=True)


def test_a_forecast_beyond_the_window_goes_on() -> None:
    """12 events fill a window: the thirteenth is forecast after attention has started anew."""
    for kind in cases.KINDS:
        for positions in ("rotary", "learned", "relative"):
            runtime = started(kind, 20, positions=positions)
            long, short = (runtime.predict("s", horizon=h) for h in (40, 6))
            for name, values in arrays(short).items():
                np.testing.assert_array_equal(values, arrays(long)[name][:6])


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        ({"stream": "othre"}, "stream='othre'.*did you mean 'other'"),
        ({"horizon": 0}, "horizon=0"),
        ({"temperature": -1.0}, "temperature=-1.0"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"top_k": 0}, "top_k=0: 1 to 17"),
        ({"top_k": 18}, "top_k=18"),
        ({"paths": 1}, "paths=1"),
        ({"horizon": 2.0}, r"horizon=2.0 \(float\): a whole number"),
        ({"horizon": "2"}, r"horizon='2' \(str\): a whole number"),
        ({"horizon": None}, "horizon=None: a number"),
        ({"paths": 2.5}, r"paths=2.5 \(float\): a whole number"),
        ({"temperature": "hot"}, r"temperature='hot' \(str\): a number"),
        ({"horizon": 8, "keep": True}, "room for 7 kept events"),
    ],
)
def test_what_cannot_be_forecast_is_refused(ask: dict[str, Any], told: str) -> None:
    runtime = started("tokens")
    before = cases.everything(runtime)
    with pytest.raises(asl.InputError, match=told):
        runtime.predict(**({"stream": "s", "horizon": 3} | ask))
    assert cases.everything(runtime) == before


@pytest.mark.parametrize("left", [0, 1, 4])
def test_kept_events_that_no_clock_can_tell_are_refused(left: int) -> None:
    runtime = asl.Runtime(cases.build(cases.tiny()), "fixed(1)")
    late = np.array([2**63 - 1 - left])
    runtime.step([asl.Piece("s", asl.Events(late, tokens=np.ones(1, int)))])
    before = cases.everything(runtime)
    assert len(runtime.predict("s", horizon=left + 1)) == left + 1
    with pytest.raises(
        asl.InputError, match=rf"^horizon={left + 1}: .* give at most {left}, or keep none$"
    ):
        runtime.predict("s", horizon=left + 1, keep=True)
    assert cases.everything(runtime) == before
    if left:
        runtime.predict("s", horizon=left, keep=True)
        assert int(cases.row(runtime, "s")["last_time"]) == 2**63 - 1


@pytest.mark.parametrize("ask", [{"temperature": 0.7}, {"top_k": 1}])
def test_a_series_is_not_sampled_as_tokens_are(ask: dict[str, Any]) -> None:
    with pytest.raises(asl.InputError, match="only tokens are sampled"):
        started("series").predict("s", horizon=3, **ask)


def test_numbers_of_numpy_are_taken() -> None:
    runtime = started("tokens")
    ask: dict[str, Any] = {"temperature": np.float64(0.7), "top_k": np.int64(3)}
    found = runtime.predict("s", horizon=np.int64(4), **ask)  # type: ignore[arg-type]
    assert same(found, runtime.predict("s", horizon=4, temperature=0.7, top_k=3))


def test_a_stream_that_has_read_nothing_is_not_forecast() -> None:
    runtime = asl.Runtime(MODEL, cases.fixed(1), streams=["quiet"])
    with pytest.raises(asl.InputError, match="nothing has been read yet"):
        runtime.predict("quiet", horizon=1)
