"""Actions that work late: streams are as they say; a forecast is scored where it belongs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adaptive_sleep.config import ModelConfig
from adaptive_sleep.experiments.probes import action
from adaptive_sleep.horizon import Ahead
from adaptive_sleep.model import Model

VALVES = action.Valves(window=8, windows=3, delays=(1, 2), noise=0.1)
SMALL = action.Settings(valves=VALVES, steps=2, streams=4, cycles=6, test_streams=5, test_cycles=4)


def test_an_answer_is_what_was_turned_so_many_windows_before() -> None:
    values, turned = VALVES.draw(np.random.default_rng(0), 40)
    cut = values.reshape(40, 3, 8, 5)
    assert np.allclose(cut[:, 0, :, 3:].sum(axis=1), turned)  # one event in the first window
    assert (np.count_nonzero(cut[..., 3:], axis=(1, 2)) == (turned != 0)).all()
    for valve, delay in enumerate(VALVES.delays):
        levels = cut[..., 1 + valve].mean(axis=2)
        levels[:, delay] -= turned[:, valve]
        assert np.abs(levels).max() < 5 * 0.1 / 8**0.5
    assert set(np.unique(turned)) == {-1.0, 0.0, 1.0}


def test_nothing_but_the_valve_tells_which_way() -> None:
    values, turned = VALVES.draw(np.random.default_rng(1), 2000)
    cut = values.reshape(2000, 3, 8, 5)
    for valve, delay in enumerate(VALVES.delays):
        before = cut[:, :delay, :, :3].reshape(2000, -1)  # all that is observed before the answer
        known = np.linalg.lstsq(before[:1000], turned[:1000, valve], rcond=None)[0]
        left = turned[1000:, valve] - before[1000:] @ known
        assert np.square(left).sum() > 0.95 * np.square(turned[1000:, valve]).sum()


def _model() -> Model:
    names = [c.name for c in VALVES.channels]
    config = ModelConfig(
        kind="series", channels=tuple(names[:3]), actions=tuple(names[3:]), patch=4, window=8,
        width=16, heads=1, key_dim=8, value_dim=8,
    )  # fmt: skip
    return Model(config)


def test_a_forecast_of_what_comes_scores_one_and_of_nothing_zero(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown: list[Any] = []
    valves, patch = VALVES, SMALL.patch
    random = np.random.default_rng([7, 1])
    drawn = np.stack([valves.draw(random, SMALL.test_cycles)[0] for _ in range(5)])

    def ahead(runtime: Any, streams: list[str]) -> Ahead:
        read = runtime.ledger.events // len(streams)
        shown.append(read)
        mean = drawn[:, read : read + patch, :3].astype(np.float64)
        return Ahead(mean, mean[..., None])

    monkeypatch.setattr(action, "forecast_ahead", ahead)
    found = action.tested(_model(), SMALL, 7)
    assert found["r2"] == {n: {1: pytest.approx(1.0), 2: pytest.approx(1.0)} for n in (1, 2, 3, 4)}
    assert 0.95 < found["ceiling"] < 1.0
    assert set(shown) == {8 * (3 * cycle + delay) for cycle in range(4) for delay in (1, 2)}
    monkeypatch.setattr(
        action, "forecast_ahead", lambda *_: Ahead(np.zeros((5, 4, 3)), np.zeros((5, 4, 3, 1)))
    )
    assert action.tested(_model(), SMALL, 7)["r2"][2] == {
        1: pytest.approx(0.0, abs=1e-6),
        2: pytest.approx(0.0, abs=1e-6),
    }


def test_a_run_has_its_keys_and_is_taken_up(tmp_path: Path) -> None:
    found = action.run(tmp_path, seeds=[0, 1], jobs=1, settings=SMALL)
    assert set(found["accuracy"]) == set(found["control"]["accuracy"]) == {1, 2, 3, 4}
    assert set(found["accuracy"][1]) == set(found["hidden"]["accuracy"][1]) == {1, 2}
    again = action.run(tmp_path, seeds=[0, 1], jobs=1, settings=SMALL)
    for key in ("accuracy", "control", "hidden", "ceiling", "seconds"):
        assert again[key] == found[key]  # not trained again
    columns, rows = action.table_of(json.loads(json.dumps(found)))
    assert columns[0] == "delay, windows"
    assert [row[0] for row in rows] == ["1", "2"]
    assert "2 seed(s)" in action.said(found)
