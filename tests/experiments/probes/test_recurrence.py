"""The probe of recurrence: the regime is where it is said, its twin differs nowhere else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import probe_cases
import pytest

from adaptive_sleep.experiments.probes import recurrence as work
from adaptive_sleep.experiments.probes.learning import (
    TRAINING,
    check_learner,
    drawn_streams,
    plans_of,
)
from adaptive_sleep.experiments.probes.recurrence import INJECTED, OTHER, RecurrenceTest
from adaptive_sleep.experiments.reproduce import interval
from adaptive_sleep.streams.errors import InputError

ROWS = ["N=1", "injected N=2", "every N=2", "control N=1"]

pytestmark = pytest.mark.timeout(400)  # models are trained


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return probe_cases.write(tmp_path_factory.mktemp("recurrence"), probe_cases.RECURRENCE)


@pytest.fixture(scope="module")
def found(recipe: Path) -> dict[str, Any]:
    return work.run(recipe.parent / "out", seeds=(0, 1), jobs=1, recipe=recipe)


@pytest.mark.parametrize("gap", [0, 1, 4])
def test_the_injected_regime_is_where_it_is_said(gap: int) -> None:
    test = RecurrenceTest(gaps=(0, 1, 4), shown=2, lead=3)
    plan = work.plan_of(test, gap, INJECTED).tolist()
    assert len(plan) == test.windows == 3 + 2 + 4 + 1
    assert [w for w, regime in enumerate(plan[:-1]) if regime == INJECTED] == [
        *work.injected_at(test, gap)
    ]
    assert plan[-1] == INJECTED
    last = test.windows - 1
    assert plan[last - gap : last] == list(range(last - gap, last))  # new ones in between
    others = [regime for regime in plan if regime != INJECTED]
    assert len(set(others)) == len(others) == test.windows - 3  # each of them is new
    assert min(work.injected_at(test, gap)) >= test.lead


def test_twins_differ_only_where_the_regime_first_appears(recipe: Path) -> None:
    plan = work.read_recipe(recipe)
    config = check_learner(plan)
    found = work.twins(plan, config, plan.test, 2, seed=0)
    split = found.reshape(2, plan.test.pairs, plan.test.windows, config.window, -1)
    differs = np.abs(split[0] - split[1]).max((2, 3)) > 0
    injected = [w in work.injected_at(plan.test, 2) for w in range(plan.test.windows)]
    assert differs.tolist() == [injected] * plan.test.pairs
    shape = split[0, :, work.injected_at(plan.test, 2)].mean(0)  # over shown windows: less noise
    near = np.abs(split[0, :, -1] - shape).mean((1, 2))
    far = np.abs(split[0, :, -2] - shape).mean((1, 2))
    assert np.all(near < 0.3)
    assert np.all(far > near)


def test_what_is_slept_on() -> None:
    test = RecurrenceTest(gaps=(0, 2), shown=2, lead=1)
    assert work.slept(test, 2, "injected", 3) == [1, 3, 3, 1, 1, 1]
    assert work.slept(test, 2, "every", 3) == [3] * 6
    assert OTHER != INJECTED


def test_no_stream_is_trained_on_and_tested_on(recipe: Path) -> None:
    plan = work.read_recipe(recipe)
    config = check_learner(plan)
    plans = plans_of(plan, 0)
    assert plans.shape == (6, 12)
    trained = drawn_streams(plan.regimes, config, plans, (TRAINING, 0))
    tested = work.twins(plan, config, plan.test, 0, seed=0)
    window = config.window
    mine = {row.tobytes() for row in trained.reshape(-1, window * 2)}
    assert not mine & {row.tobytes() for row in tested.reshape(-1, window * 2)}
    assert len(mine) == 6 * 12


def test_results_have_every_row_measure_and_gap(found: dict[str, Any]) -> None:
    assert list(found["rows"]) == ROWS
    assert found["seeds"] == [0, 1]
    for row in found["rows"].values():
        for statistic in ("mean", "interval", "by_seed"):
            assert list(row[statistic]) == ["loss", "unseen", "gain", "saved", "beaten", "gained"]
            assert all(list(cells) == ["0", "2"] for cells in row[statistic].values())
    for measure in ("saved", "gained"):
        assert found["rows"]["N=1"]["mean"][measure] == {"0": 0.0, "2": 0.0}
    assert found["rows"]["control N=1"]["mean"]["beaten"] == {"0": 0.0, "2": 0.0}


def test_measures_are_paired_by_seed(found: dict[str, Any]) -> None:
    base, control = (found["rows"][name]["by_seed"] for name in ("N=1", "control N=1"))
    for row in found["rows"].values():
        seeds = {name: np.array(cells["2"]) for name, cells in row["by_seed"].items()}
        assert seeds["gain"] == pytest.approx(seeds["unseen"] - seeds["loss"])
        assert seeds["saved"] == pytest.approx(np.array(base["loss"]["2"]) - seeds["loss"])
        assert seeds["beaten"] == pytest.approx(np.array(control["loss"]["2"]) - seeds["loss"])
        assert seeds["gained"] == pytest.approx(seeds["gain"] - np.array(base["gain"]["2"]))
        assert row["interval"]["gain"]["2"] == pytest.approx(interval(seeds["gain"].tolist()))
    assert control["loss"] != base["loss"]  # another model
    injected, every = found["rows"]["injected N=2"], found["rows"]["every N=2"]
    assert injected["mean"]["loss"] != every["mean"]["loss"]
    assert found["rows"]["N=1"]["mean"]["gain"]["0"] != 0.0  # the twin reads something else


def test_a_run_is_taken_up_and_printed(recipe: Path, found: dict[str, Any]) -> None:
    out = recipe.parent / "out"
    before = (out / "seed-0" / "model.safetensors").stat().st_mtime_ns
    (out / "seed-0" / "found.json").unlink()
    again = work.run(out, seeds=(0, 1), jobs=1, recipe=recipe)
    assert (out / "seed-0" / "model.safetensors").stat().st_mtime_ns == before
    assert again["rows"] == found["rows"]
    columns, rows = work.table_of(json.loads(json.dumps(again)))
    assert columns[3:] == ["M=0", "M=2"]
    assert [row[2] for row in rows][:3] == ["loss", "unseen", "gain"]
    assert [row[:2] for row in rows if row[2] == "saved"] == [["injected", "N=2"], ["every", "N=2"]]
    said = work.said(again)
    for words in ("injected N=2, better than the control by: M=0", "every N=2", "2 seed(s)"):
        assert words in said


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("gaps = [0, 2]", "gaps = [2, 0]", r"gaps=\[2, 0\]: rising"),
        ("passes = [1, 2]\ngaps", "passes = [2]\ngaps", r"passes=\[2\]"),
        ("shown = 2", "shown = 0", "shown=0: at least 1"),
        ("pairs = 5", "pears = 5", "did you mean 'pairs'"),
        ("waves = 2", "waves = 0", r"\[regimes\] waves=0"),
        ('passes = "1-2"', 'passes = "2-1"', "runs backwards"),
    ],
)
def test_a_wrong_recipe_is_refused_by_name(tmp_path: Path, old: str, new: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        work.read_recipe(probe_cases.write(tmp_path, probe_cases.RECURRENCE, old, new))
