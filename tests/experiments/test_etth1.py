"""ETTh1: the protocol, forecasts that never see what they are of, and what a run comes to."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from adaptive_sleep.experiments import etth1
from adaptive_sleep.experiments.cli import main
from adaptive_sleep.experiments.etth1_data import Protocol, Table, find_data, moments, read_table
from adaptive_sleep.experiments.etth1_testing import score_policy
from adaptive_sleep.experiments.etth1_training import (
    HorizonExperiment,
    config_of,
    linear_start,
    part_moments,
    read_experiment,
)
from adaptive_sleep.experiments.finding import find_recipe
from adaptive_sleep.experiments.series_baselines import fit_ridge, mse, windows
from adaptive_sleep.model import Model
from adaptive_sleep.streams.errors import InputError

RECIPE = """
[protocol]
train = 240
validation = 300
test = 360
horizon = 8

[model]
patch = 4
window = 8
horizon = 2
skip = 12
norm_memory = 24
width = 8
heads = 2
key_dim = 4
value_dim = 4

[training]
steps = 2
batch = 4
windows = 2
validate_every = 1
in_units = true

[test]
policies = ["fixed(1)", "fixed(2)"]
warm_windows = 2
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A file of the public format: two columns with a day of 24 hours, and one row too many."""
    random, hours = np.random.default_rng(0), np.arange(361)
    frame = pl.DataFrame(
        {
            "date": [f"2016-07-{1 + h // 24:02d} {h % 24:02d}:00:00" for h in hours % 700],
            "load": 10 + np.sin(hours / 24 * 2 * np.pi) + 0.1 * random.normal(size=361),
            "oil": -3 + 2 * np.cos(hours / 24 * 2 * np.pi) + 0.1 * random.normal(size=361),
        }
    )
    frame.write_csv(tmp_path / "ETTh1.csv")
    return tmp_path / "ETTh1.csv"


@pytest.fixture
def plan(recipe: Path) -> HorizonExperiment:
    return read_experiment(recipe)


@pytest.fixture
def table(data: Path, plan: HorizonExperiment) -> Table:
    return read_table(data, plan.protocol)


def test_the_protocol_is_the_published_one() -> None:
    protocol = read_experiment(find_recipe("etth1")).protocol
    assert protocol == Protocol()
    for part, first in (("validation", 8640), ("test", 11520)):
        origins = protocol.origins(part)
        assert (origins[0], len(origins), origins[-1] + 96) == (first, 2785, first + 2880)


def test_rows_are_standardised_by_the_training_rows(table: Table, plan: HorizonExperiment) -> None:
    assert table.names == ("load", "oil")
    assert table.values.shape == (360, 2)
    np.testing.assert_allclose(table.values[:240].mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(table.values[:240].std(0), 1, atol=1e-6)


@pytest.mark.parametrize("part", ["validation", "test"])
def test_every_window_is_forecast_once_before_it_is_seen(
    table: Table, plan: HorizonExperiment, part: str
) -> None:
    read: dict[str, list[int]] = {}
    forecast: dict[str, list[int]] = {name: [] for name in table.names}
    for moment in moments(table, plan.protocol, part, patch=4, window=8, warm=16):
        for piece in moment.pieces:
            rows = piece.events.time // (3600 * 10**9)
            before = read.setdefault(piece.stream, [])
            column = table.names.index(piece.stream.split("/")[0])
            np.testing.assert_allclose(
                piece.events.values[:, 0], table.values[rows, column], rtol=1e-6
            )
            assert not before or rows[0] == before[-1] + 1
            before.extend(rows.tolist())
            assert piece.closes == (len(before) % 8 == 0)
        for stream, origin, truth in zip(
            moment.streams, moment.origins.tolist(), moment.truth, strict=True
        ):
            assert read[stream][-1] == origin - 1
            assert len(read[stream]) >= 16
            name = stream.split("/")[0]
            column = table.values[:, table.names.index(name)]
            np.testing.assert_array_equal(truth, column[origin : origin + 8])
            forecast[name].append(origin)
    for origins in forecast.values():
        assert sorted(origins) == plan.protocol.origins(part).tolist()


def test_the_linear_map_starts_as_the_ridge_map(table: Table, plan: HorizonExperiment) -> None:
    """With nothing from the hidden states, the model forecasts what ridge does."""
    config = config_of(plan)
    torch.manual_seed(0)
    model = Model(config)
    with torch.no_grad():
        model.series.write.weight.zero_()
        model.series.write.bias.fill_(-40.0)  # quantile steps of nothing
        outputs = model.series.write.bias.view(-1, len(config.quantiles) + 1)
        outputs[:, :2] = 0.0
        model.series.skip.weight.copy_(linear_start(table, plan.protocol, config.skip))
    origins = plan.protocol.origins("train")
    held = windows(table.values, plan.protocol.origins("validation"), 12, 8)
    ridge = fit_ridge(windows(table.values, origins[origins >= 12], 12, 8), held)
    found = score_policy(model, "fixed(1)", part_moments(plan, table, "validation"))
    assert found["mse"] == pytest.approx(mse(ridge(held[0]), held[1]), rel=1e-4)
    assert found["windows"] == len(held[0])


def test_scores_are_of_all_windows_and_costs_of_the_ledger(
    table: Table, plan: HorizonExperiment
) -> None:
    torch.manual_seed(0)
    model = Model(config_of(plan))
    streams = part_moments(plan, table, "test")
    one, four = (score_policy(model, f"fixed({n})", streams) for n in (1, 4))
    assert (one["mean_passes"], four["mean_passes"]) == (1.0, 4.0)
    assert one["sleep_flops_per_event"] == 0 < four["sleep_flops_per_event"]
    assert one["flops_per_event"] < four["flops_per_event"]
    assert 0 <= one["coverage"] <= 1
    assert one["mse"] != four["mse"]


def test_the_cheapest_of_the_best_on_validation_is_chosen() -> None:
    rows: dict[str, dict[str, float]] = {
        "a": {"validation_mse": 0.6605, "flops_per_event": 100.0, "mse": 0.4},
        "b": {"validation_mse": 0.6600, "flops_per_event": 300.0, "mse": 0.3},
        "c": {"validation_mse": 0.6700, "flops_per_event": 50.0, "mse": 0.1},
    }
    assert etth1.chosen(rows, 0.001) == "a"
    assert etth1.chosen(rows, 0.0) == "b"


KEYS = {
    "mse", "mae", "mse_interval", "by_policy", "baselines", "seeds", "seconds", "policy", "commit",
    "recipe", "data_sha256", "parameters", "steps", "reads_outside_fast_weights",
}  # fmt: skip


def test_a_run_says_what_it_found_and_is_taken_up(
    recipe: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"data": data, "seeds": (0, 1), "jobs": 1, "recipe": recipe}
    found = etth1.reproduce(tmp_path / "out", **options)
    assert found.keys() >= KEYS
    assert found["seeds"] == [0, 1]
    assert found["windows"] == 53
    row = found["by_policy"][found["policy"]]
    assert found["mse"] == row["mse"] == pytest.approx(np.mean(row["mse_by_seed"]))
    assert row["mse_interval"][0] < row["mse"] < row["mse_interval"][1]
    assert "last 12 values" in found["reads_outside_fast_weights"]
    assert {"repeat last", "last day tiled", "mean of 7 days by hour"} <= found["baselines"].keys()
    columns, rows = etth1.table_of(json.loads(json.dumps(found)))
    assert all(len(row) == len(columns) for row in rows)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(etth1, "fit", refuse)
    again = etth1.reproduce(tmp_path / "out", **options)
    for name in ("mse", "by_policy", "steps", "seconds"):
        assert again[name] == found[name]
    recipe.write_text(RECIPE.replace("steps = 2", "steps = 3"))
    with pytest.raises(AssertionError, match="trained again"):
        etth1.reproduce(tmp_path / "out", **options)


def spoilt(data: Path, column: str, row: int, value: float | None) -> Path:
    frame = pl.read_csv(data).with_row_index()
    spoil = pl.when(pl.col("index") == row).then(value).otherwise(pl.col(column))
    frame.with_columns(spoil.alias(column)).drop("index").write_csv(data)
    return data


def test_what_the_protocol_cannot_be_run_on_is_refused(data: Path, plan: HorizonExperiment) -> None:
    with pytest.raises(InputError, match="361 rows; the protocol needs 400"):
        read_table(data, replace(plan.protocol, test=400))
    with pytest.raises(InputError, match=r"line 9, column 'oil': missing"):
        read_table(spoilt(data, "oil", 7, None), plan.protocol)
    data.write_text("date,x\n" + "2016-07-01,1\n" * 360)
    with pytest.raises(InputError, match="'x' is constant"):
        read_table(data, plan.protocol)
    data.write_text("day,x\n" + "2016-07-01,1\n" * 360)
    with pytest.raises(InputError, match="no column 'date'"):
        read_table(data, plan.protocol)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("train = 240", "train = 310"), "train=310, validation=300, test=360: rows, rising"),
        (("horizon = 8", "horizon = 70"), r"\[protocol\] horizon=70: 1 to 60"),
        (("horizon = 2", "horizon = 3"), r"horizon=3: 3 patches of 4 rows are not the 8 rows"),
        (("steps = 2", "steps = 0"), "steps=0: at least 1"),
        (("steps = 2", "stepz = 2"), "did you mean 'steps'"),
        (('["fixed(1)", "fixed(2)"]', "[]"), "policies: name at least 1"),
        (("batch = 4", "unscored = 2"), "unscored=2: 0 to below windows=2"),
        (("batch = 4", "average = 1.0"), "average=1.0: 0 .none. to below 1"),
    ],
)
def test_recipes_that_cannot_be_run_are_refused(
    recipe: Path, change: tuple[str, str], told: str
) -> None:
    recipe.write_text(RECIPE.replace(*change))
    with pytest.raises(InputError, match=told):
        read_experiment(recipe)


def test_streams_need_their_rows_before_the_first_forecast(
    table: Table, plan: HorizonExperiment
) -> None:
    for warm in (4, 248):
        with pytest.raises(InputError, match=f"warm={warm}"):
            next(moments(table, plan.protocol, "validation", patch=4, window=8, warm=warm))


def test_the_file_is_found_or_asked_for(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = tmp_path / "a" / "b"
    away.mkdir(parents=True)
    monkeypatch.chdir(away)
    monkeypatch.delenv("ADAPTIVE_SLEEP_DATA", raising=False)
    assert find_data(data) == data
    with pytest.raises(InputError, match=r"--data: give the path of ETTh1\.csv"):
        find_data(None)
    with pytest.raises(InputError, match=r"--data none\.csv: no such file"):
        find_data(Path("none.csv"))
    monkeypatch.setenv("ADAPTIVE_SLEEP_DATA", str(tmp_path))
    assert find_data(None) == data


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["etth1", "--data", "none.csv"], "--data none.csv: no such file"),
        (["etth1", "--set", "training.steps=1"], "takes no"),
        (["hops", "--data", "none.csv"], "only etth1 reads a file"),
    ],
)
def test_wrong_use_is_one_message(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reproduce", *arguments]) == 2
    assert told in capsys.readouterr().err


def test_the_recipe_survives_being_written_down(plan: HorizonExperiment) -> None:
    assert json.loads(json.dumps(asdict(plan)))["training"]["steps"] == 2
