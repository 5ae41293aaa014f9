"""Kept comparisons counted once more: the same code finds the same costs, whatever is written."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from matched_cases import OF_A_SERIES, RECIPE, TRAINING
from run_cases import make_series

from adaptive_sleep.experiments import recount as recounting
from adaptive_sleep.experiments.compare import compare
from adaptive_sleep.experiments.recount import recount
from adaptive_sleep.learning import read_task_recipe
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.task_training import learn

COSTS = ("flops_per_event", "wake_flops_per_event", "sleep_flops_per_event", "sleep_share")
COMPARISON = """
max_passes = 2
control_seeds = [0]
targets = [1.3]
[models]
recipe = "{folder}/series.toml"
seeds = [0]
[recording]
path = "{folder}/R"
validation = [0.5, 0.7]
test = [0.7, 1.0]
[changes]
price = 1e-10
[[policies]]
name = "lot"
spec = "surprise(threshold={{threshold}}, passes=2)"
grid = {{ threshold = [0.1, 1.0] }}
[[baselines]]
name = "wider_state"
[[baselines]]
name = "fixed"
"""


@pytest.fixture(scope="module", params=["task", "uneven", "series"])
def kept(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param != "series":
        late, paths = "delays = [0, 0, 5]", "paths = 2"  # windows of fillers before the questions
        training, text = TRAINING, RECIPE
        if request.param == "uneven":
            training = training.replace(paths, f"{paths}\n{late}")
            text = text.replace(paths, f"{paths}, {late}")
        (folder / "training.toml").write_text(training)
        learned = learn(read_task_recipe(folder / "training.toml"), folder / "model")
        learned.path.rename(folder / "m.safetensors")
        text = text.format(folder=folder)
    else:
        make_series(folder / "R", rows=900, streams=1)
        (folder / "series.toml").write_text(OF_A_SERIES.format(folder=folder))
        text = COMPARISON.format(folder=folder)
    (folder / "tiny.toml").write_text(text)
    return compare(folder / "tiny.toml", folder / "out", quick=request.param != "series", jobs=1)


def _alike(one: float | None, other: float | None, *, asked: bool) -> bool:
    """To the last digit; of a series nearly so, since values are missing here and there."""
    return (
        one == other if one is None else other == pytest.approx(one, rel=1e-12 if asked else 1e-3)
    )


def _tables(comparison: dict[str, Any]) -> list[dict[str, Any]]:
    """All rows, those of changes too."""
    return [*comparison["rows"], *(row for rows in comparison["changes"].values() for row in rows)]


@pytest.mark.timeout(400)  # where other work has the cores
def test_the_same_code_finds_the_same_costs(kept: dict[str, Any]) -> None:
    again = recount(kept, "here")
    assert again["recounted_at_commit"] == "here"
    assert "recounted_at_commit" not in kept
    for before, after in zip(_tables(kept), _tables(again), strict=True):
        for name in COSTS:
            assert _alike(before.get(name), after.get(name), asked=kept["asked"]), before["name"]
    assert bool(kept["changes"]) != kept["asked"]
    if kept["asked"]:
        assert again["reading"] == kept["reading"]


@pytest.mark.timeout(400)
def test_what_was_counted_wrong_is_put_right_and_all_else_stands(kept: dict[str, Any]) -> None:
    """Every pass of wake, or every signal of a series, for a thousand FLOPs an event too many."""
    wrong = copy.deepcopy(kept)
    for row in _tables(wrong):
        for own in row["seeds_values"].values():
            own["flops_per_event"] += 1000.0
            if kept["asked"] and own.get("wake_flops_per_event") is not None:
                own["wake_flops_per_event"] += 1000.0
            if not kept["asked"] and row["kind"] == "policy":
                own["sleep_flops_per_event"] += 1000.0
    for before, after in zip(_tables(kept), _tables(recount(wrong, "here")), strict=True):
        for name in set(before) - {"seeds_values"}:
            if name in COSTS:
                assert _alike(before[name], after[name], asked=kept["asked"]), before["name"]
            elif name != "sleep_share_interval":
                assert after[name] == before[name], name


def test_it_is_written_where_it_is_kept(
    kept: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    results = tmp_path / "results"
    results.mkdir()
    (results / "tiny.json").write_text(json.dumps(kept))
    monkeypatch.setattr(recounting.resources, "files", lambda package: tmp_path)
    recounting.main(["tiny"])
    text = (results / "tiny.json").read_text()
    assert text.count("\n") == 1  # in one line, as it was
    assert json.loads(text)["rows"][0]["name"] == "fixed-1"
    assert "tiny fixed-1: " in capsys.readouterr().out
    with pytest.raises(InputError, match=r"'tinny': nothing of that name.*mean 'tiny'"):
        recounting.main(["tinny"])


def test_models_that_no_recipe_trains_are_refused(kept: dict[str, Any]) -> None:
    loose = copy.deepcopy(kept)
    loose["recipe"]["models"] |= {"recipe": "", "paths": ["m.safetensors"]}
    with pytest.raises(InputError, match=r"\[models\] recipe: missing"):
        recount(loose, "here")
