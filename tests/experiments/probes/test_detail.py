"""The probe of numeric detail: what is planted in a state is found, and the rest is not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import probe_cases
import pytest

from adaptive_sleep.experiments.probes import detail as work
from adaptive_sleep.experiments.probes import detail_asking
from adaptive_sleep.experiments.probes.asked import TARGETS
from adaptive_sleep.experiments.probes.learning import check_learner
from adaptive_sleep.experiments.probes.states import Readings
from adaptive_sleep.experiments.probes.wider import cost, widened
from adaptive_sleep.experiments.reproduce import interval
from adaptive_sleep.model import Model
from adaptive_sleep.streams.errors import InputError

AGES = ["0", "2", "next"]

pytestmark = pytest.mark.timeout(400)  # models are trained


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return probe_cases.write(tmp_path_factory.mktemp("detail"), probe_cases.DETAIL)


@pytest.fixture(scope="module")
def found(recipe: Path) -> dict[str, Any]:
    return work.run(recipe.parent / "out", seeds=(0, 1), jobs=1, recipe=recipe)


def test_results_have_every_state_target_and_age(found: dict[str, Any]) -> None:
    assert list(found["rows"]) == ["N=1", "N=2", "wider"]
    assert (found["seeds"], found["recorded"]) == ([0, 1], {})
    for row in found["rows"].values():
        for part in (row, row["difference"]):
            for statistic in ("mean", "interval", "by_seed"):
                assert list(part[statistic]) == ["all", *TARGETS]
                assert all(list(cells) == AGES for cells in part[statistic].values())
        assert row["cases"] == 12 * 4
    for target, cells in found["rows"]["N=1"]["difference"]["mean"].items():
        assert set(cells.values()) == {0.0}, target


def test_means_and_differences_are_over_seeds(found: dict[str, Any]) -> None:
    base = found["rows"]["N=1"]["by_seed"]["mean"]["0"]
    for row in found["rows"].values():
        mine = row["by_seed"]["mean"]["0"]
        assert row["mean"]["mean"]["0"] == pytest.approx(np.mean(mine))
        assert row["interval"]["mean"]["0"] == pytest.approx(interval(mine))
        paired = np.subtract(mine, base).tolist()
        assert row["difference"]["by_seed"]["mean"]["0"] == pytest.approx(paired)
        every = [row["mean"][target]["2"] for target in TARGETS]
        assert row["mean"]["all"]["2"] == pytest.approx(np.mean(every))


def test_the_wider_state_costs_what_the_most_passes_do_and_reads_as_much(
    found: dict[str, Any],
) -> None:
    rows = found["rows"]
    assert rows["wider"]["flops_per_event"] == pytest.approx(
        rows["N=2"]["flops_per_event"], rel=0.02
    )
    assert rows["wider"]["flops_per_event"] > 1.2 * rows["N=1"]["flops_per_event"]
    assert rows["wider"]["numbers"] > rows["N=1"]["numbers"]
    assert found["tokens"]["wider"] == found["tokens"]["drawn"] == 3 * 4 * 3 * 8
    assert found["value_dim"]["wider"] > found["value_dim"]["drawn"] == 4


def test_a_killed_run_goes_on_with_what_lacks(recipe: Path, found: dict[str, Any]) -> None:
    out = recipe.parent / "out"
    (out / "seed-1" / "wider" / "found.json").unlink()
    before = (out / "seed-0" / "drawn" / "found.json").stat().st_mtime_ns
    again = work.run(out, seeds=(0, 1), jobs=1, recipe=recipe)
    assert (out / "seed-0" / "drawn" / "found.json").stat().st_mtime_ns == before
    assert again["rows"] == found["rows"]
    quick = work.run(out, seeds=(0, 1), quick=True, jobs=1, recipe=recipe)
    assert quick["seeds"] == [0]
    assert quick["rows"]["N=2"]["interval"]["all"]["0"] is None


def test_what_is_printed_names_every_state(found: dict[str, Any]) -> None:
    kept = json.loads(json.dumps(found))
    columns, rows = work.table_of(kept)
    assert columns[4:] == ["age 0", "age 2", "next"]
    assert len(rows) == 3 * (1 + len(TARGETS))
    assert all(len(row) == len(columns) for row in rows)
    assert "±" in rows[0][4]
    said = work.said(kept)
    for words in ("N=2 less N=1", "wider less N=1", "next", "2 seed(s)"):
        assert words in said


def _planted(monkeypatch: pytest.MonkeyPatch, model: Model, test: Any, keeps: int) -> Any:
    """What is found where a state is the last `keeps` windows, as they were read, and noise."""
    random = np.random.default_rng(0)

    def states(_: Model, values: np.ndarray, passes: int) -> Readings:
        read = detail_asking.as_read(values, model.config)
        flat = read.reshape(*read.shape[:2], -1)
        past = [np.roll(flat, age, axis=1) for age in range(keeps)]  # warm windows come first
        noise = random.normal(size=(*flat.shape[:2], 8))
        kept = np.concatenate([noise, *past], 2).astype(np.float32)
        return Readings(kept, np.zeros(flat.shape[:2]), 1.0)

    monkeypatch.setattr(detail_asking, "read_streams", states)
    learner = work.read_recipe(test)
    asked = replace(learner.test, train=80, validation=20, test=40)
    parts = detail_asking.drawn_parts(learner, model.config, asked, seed=0)
    return detail_asking.probed(model, parts, asked)["rows"]["N=1"]["r2"]


def test_what_a_state_holds_is_found_and_what_it_cannot_know_is_not(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Model(check_learner(work.read_recipe(recipe)))
    found = _planted(monkeypatch, model, recipe, keeps=1)
    for target in ("mean", "slope", "value"):
        assert found[target]["0"] > 0.99  # linear in the window
    for target in ("highest", "lowest"):
        assert 0.5 < found[target]["0"] < 0.99  # not quite
    for target in TARGETS:
        assert -0.15 < found[target]["2"] < 0.05
        assert -0.15 < found[target]["next"] < 0.05
    both = _planted(monkeypatch, model, recipe, keeps=3)
    assert both["value"]["2"] > 0.99


def test_a_state_after_eviction_tells_more_of_its_window_than_of_older_ones(recipe: Path) -> None:
    """Of a model that was never trained: its fast weights hold something of what it has read."""
    plan = work.read_recipe(recipe)
    asked = replace(plan.test, train=80, validation=20, test=40, ages=(0, 2))
    model = Model(check_learner(plan)).eval()
    parts = detail_asking.drawn_parts(plan, model.config, asked, seed=0)
    found = detail_asking.probed(model, parts, asked)["rows"]["N=1"]["r2"]["all"]
    assert found["0"] > 0.3
    assert found["0"] > found["2"] + 0.2
    assert -0.2 < found["next"] < 0.05


def test_a_recording_is_cut_into_parts_that_share_no_rows() -> None:
    from adaptive_sleep.checkpoint import load_model

    config = load_model("bundled:telemetry").config
    test = detail_asking.DetailTest()
    parts = detail_asking.recorded_parts(config, test)
    events = [part.shape[1] for part in parts.values()]
    assert all(part.shape[0] == test.shifts and part.shape[2] == 16 for part in parts.values())
    assert all(n % config.window == 0 for n in events)
    assert sum(events) + 3 * config.window <= 19_188
    step = config.window // test.shifts
    train = parts["train"]
    np.testing.assert_array_equal(train[1, :-step], train[0, step:])
    short = replace(test, rows=((0.0, 0.6), (0.6, 0.61), (0.7, 1.0)))
    with pytest.raises(InputError, match=r"rows=\[0.6, 0.61\]: 2 windows of 60 events; 14 are"):
        detail_asking.recorded_parts(config, short)


def test_the_width_is_the_nearest(recipe: Path) -> None:
    config = check_learner(work.read_recipe(recipe))
    wide, aim = widened(config, 2), cost(config, 2).flops_per_event
    near = [
        abs(cost(replace(config, value_dim=wide.value_dim + step), 1).flops_per_event - aim)
        for step in (-1, 0, 1)
    ]
    assert min(near) == near[1]
    with pytest.raises(InputError, match="not reached by the widest state"):
        widened(config, 40)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("passes = [1, 2]\nages", "passes = [2]\nages", r"passes=\[2\]: rising numbers"),
        ("ages = [0, 2]", "ages = [2, 0]", r"ages=\[2, 0\]: rising"),
        ("asked = 4", "asked = 0", "asked=0: at least 1"),
        ("warm = 1\n", "warm = -1\n", "warm=-1"),
        ("warm = 1\n", "worm = 1\n", "did you mean 'warm'"),
        ("train = 0.75", "train = 1.0", r"\[streams\] train=1.0"),
        ('recording = ""', "rows = [[0.0, 0.5]]", "rows: 1 ranges"),
        ('recording = ""', "rows = [[0.0, 0.5], [0.4, 0.6], [0.6, 1.0]]", "none shared"),
    ],
)
def test_a_wrong_recipe_is_refused_by_name(tmp_path: Path, old: str, new: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        work.read_recipe(probe_cases.write(tmp_path, probe_cases.DETAIL, old, new))
