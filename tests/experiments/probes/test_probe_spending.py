"""The probe `spending`, whole, on made data: how it chooses, what it counts, keeps and says."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from data_cases import EVENTS, LABELS, ROWS, make_sets

from adaptive_sleep.experiments.etth1_data import Protocol
from adaptive_sleep.experiments.probes import cases, labels, seeds, spending
from adaptive_sleep.experiments.probes.spending import Plan, choose, cost
from adaptive_sleep.experiments.runs import open_run

pytestmark = pytest.mark.timeout(400)
PLAN = Plan(series=LABELS, tokens=EVENTS, shares=(0.1, 0.5), warm=64)
NAMES = ["made", "ETTh1", "BGL"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_sets(tmp_path_factory.mktemp("spending") / "data")
    (folder / "ett").mkdir()
    random, first = np.random.default_rng(0), datetime(2016, 7, 1)
    hours = [f"{first + timedelta(hours=row):%Y-%m-%d %H:%M:%S}" for row in range(ROWS)]
    values = {name: random.normal(size=ROWS) for name in ("HUFL", "OT")}
    pl.DataFrame({"date": hours, **values}).write_csv(folder / spending.ETTH1)
    return folder


def nab_alone(data: Path, out: Path) -> list[cases.Case]:
    return [cases.nab_case(data / "nab" / "made.csv", data / "nab" / "windows.json", out)]


def made(data: Path) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        for probe in (labels, spending):
            patch.setattr(probe, "find_cases", nab_alone)
        rows = Protocol(train=200, validation=260, test=380, horizon=8)
        patch.setattr(spending, "Protocol", lambda: rows)
        out = data.parent / "out"
        found = spending.run(out, seeds=range(2), jobs=1, data=data, plan=PLAN)
    return dict(json.loads(json.dumps(found)))


@pytest.fixture(scope="module")
def found(data: Path) -> dict[str, Any]:
    return made(data)


def test_every_recording_has_both_ends_and_what_was_chosen(found: dict[str, Any]) -> None:
    assert list(found["recordings"]) == NAMES
    for row in found["recordings"].values():
        assert row["mean_passes"]["plain"]["by_seed"] == [1.0, 1.0]
        assert row["mean_passes"]["most"]["by_seed"] == [4.0, 4.0]
        assert all(1 <= mean <= 4 for mean in row["mean_passes"]["chosen"]["by_seed"])
        assert row["flops_of_most"]["mean"] > row["flops_of_chosen"]["mean"] >= 1
        for seed in range(2):
            plain, most = (row["loss"][kind]["by_seed"][seed] for kind in ("plain", "most"))
            assert row["bought_by_most"]["by_seed"][seed] == pytest.approx(plain / most - 1)
    columns, rows = spending.table_of(found)
    assert [row[0] for row in rows] == NAMES
    assert {len(row) for row in rows} == {len(columns)}


def test_choices_look_at_no_test_row(data: Path, found: dict[str, Any]) -> None:
    """All replays but the last ones end where the test begins, and warm rows are not counted."""
    runs = sorted((data.parent / "out" / "runs" / "spending-ETTh1-seed-0").iterdir(), key=_number)
    parts = [open_run(run).manifest.recording for run in runs]
    held = [part for part in parts if part.stop == 260]
    tested = [part for part in parts if part.stop == 380]
    assert parts == [*held, *tested]
    assert {part.start for part in held} == {200 - 64}
    assert {part.start for part in tested} == {260 - 64}
    trace = open_run(runs[-1]).trace().sort("window").collect()
    job = json.loads((data.parent / "out" / "spending-ETTh1-seed-0.json").read_text("utf-8"))
    assert cost(trace[4:]) == job["test"]["chosen"]  # 64 rows are 4 windows of 16


def _number(run: Path) -> int:
    return int(run.name)


def test_models_are_shared_with_the_probe_labels(
    data: Path, found: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labels, "find_cases", nab_alone)
    monkeypatch.setattr(seeds, "train", lambda *_: pytest.fail("trained again"))
    labels.run(data.parent / "out", seeds=range(2), jobs=1, data=data, plan=LABELS)
    assert made(data)["recordings"] == found["recordings"]


def test_another_recording_trains_another_model(
    data: Path, found: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = nab_alone(data, tmp_path)[0]
    file = data.parent / "out" / "models" / "made-seed-0.safetensors"
    calls = []
    monkeypatch.setattr(seeds, "train", lambda *given: calls.append(given) or pytest.skip())
    recipe = labels.recipe_of(case, LABELS, 0)
    assert seeds.kept_model(recipe, case.sha256, file)["step"] >= 1  # recorded elsewhere, the same
    with pytest.raises(pytest.skip.Exception):
        seeds.kept_model(recipe, "another", file)
    assert len(calls) == 1


def test_the_cheapest_within_a_hundredth_is_chosen() -> None:
    tried = {
        "dear": {"loss": 0.5, "flops_per_event": 3.0},
        "near": {"loss": 0.5049, "flops_per_event": 2.0},
        "cheap": {"loss": 0.5051, "flops_per_event": 1.0},
    }
    assert choose(tried, 0.5) == "near"
    assert choose(tried, 0.6) == "cheap"
    assert choose(tried, 0.4) == "dear"


def test_costs_count_every_kind_of_work_and_weigh_losses() -> None:
    flops = {name: [each, each] for each, name in enumerate(spending.FLOPS, 1)}
    trace = pl.DataFrame(
        {"loss": [1.0, 4.0], "scored": [3, 1], "tokens": [4, 1], "passes": [1, 2], **flops}
    )
    assert cost(trace) == {"loss": 1.75, "flops_per_event": 4.0, "mean_passes": 1.5}
    one = trace[:1].with_columns(scored=pl.lit(0, pl.Int64), loss=pl.lit(float("nan")))
    unscored = pl.concat([trace, one.with_columns(tokens=pl.lit(4, pl.Int64))])
    assert cost(unscored)["loss"] == 1.75


@pytest.mark.parametrize(("lost", "holds"), [([0.0, 0.004], False), ([0.003, 0.003], True)])
def test_a_bound_is_held_by_the_interval(lost: list[float], holds: bool) -> None:
    """Of two seeds that differ the interval is wide."""

    def test_of(loss: float) -> dict[str, Any]:
        each = {"flops_per_event": 1.0, "mean_passes": 1.0}
        kinds = {"plain": 1.0, "most": 1.0, "chosen": 1.0 + loss}
        return {"test": {k: {"loss": v, **each} for k, v in kinds.items()}, "chosen": "x"}

    row = spending._of_one([test_of(each) for each in lost])
    assert (row["holds"], row["buys_nothing"], row["not_spending"]) == (holds, True, True)
    assert spending._of_one([test_of(0.0)])["holds"] is None
