"""Policies and baselines at matched cost on a recording: trained on it, as long, and run on it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matched_cases import OF_A_SERIES
from run_cases import make_series

from adaptive_sleep.checkpoint import load_model, save_model
from adaptive_sleep.experiments.baselines.registry import BASELINES, find_baseline
from adaptive_sleep.experiments.baselines.setup import plain, shape_of
from adaptive_sleep.experiments.compare import compare
from adaptive_sleep.experiments.compare_models import models_of, taught, training_recipe
from adaptive_sleep.experiments.comparing import Models, read_comparison
from adaptive_sleep.experiments.finding import find_recipe
from adaptive_sleep.experiments.runs import open_run
from adaptive_sleep.experiments.training_cost import step_flops, training_of
from adaptive_sleep.model import Model
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.training import cut_windows, read_streams, train_step
from adaptive_sleep.training_recipe import Recipe, opened

RECIPE = """
max_passes = 3
control_seeds = [0]
targets = [1.04, 1.3]
[models]
recipe = "{folder}/training.toml"
seeds = [0]
[recording]
path = "{folder}/R"
validation = [0.5, 0.7]
test = [0.7, 1.0]
[[policies]]
name = "lot"
spec = "random(mean={{mean}}, most=3)"
grid = {{ mean = [1.0, 1.2, 3.0] }}
[[baselines]]
name = "wider_state"
equal_compute = [1.3]
[[baselines]]
name = "larger_window"
[[baselines]]
name = "fixed"
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded")
    make_series(folder / "R", rows=900, streams=1)
    (folder / "training.toml").write_text(OF_A_SERIES.format(folder=folder))
    (folder / "tiny.toml").write_text(RECIPE.format(folder=folder))
    return folder


@pytest.fixture(scope="module")
def recipe(place: Path) -> Recipe:
    found = training_recipe(str(place / "training.toml"))
    assert isinstance(found, Recipe)
    return found


@pytest.fixture(scope="module")
def found(place: Path) -> dict[str, Any]:
    return compare(place / "tiny.toml", place / "out", jobs=1)


@pytest.mark.timeout(400)  # where other work has the cores
def test_every_row_is_at_its_target(found: dict[str, Any], place: Path) -> None:
    base = next(row for row in found["rows"] if row["name"] == "fixed-1")["flops_per_event"]
    rows = [row for row in found["rows"] if row.get("target") is not None]
    for target in (1.04, 1.3):
        here = [row for row in rows if row["target"] == target]
        names = {row["name"].split("@")[0].split("-")[0] for row in here}
        assert names == {"lot", "wider_state", "larger_window", "fixed"}
        for row in here:
            beside = "-below" in row["name"] or "-above" in row["name"]
            if row["kind"] == "baseline" and not beside:
                assert row["flops_per_event"] / base == pytest.approx(target, rel=0.03)
            assert row["training_flops"] > 0
    assert found["left_out"] == {}
    longer = next(row for row in rows if row["name"].startswith("larger_window"))
    assert longer["knob"] > 8
    ours = training_of(str(place / "out" / "seed-0" / "model" / "model.safetensors"))
    assert longer["training_tokens"] == pytest.approx(ours.tokens, rel=0.6)  # few, by lot
    wider = [r for r in rows if r["name"].startswith("wider_state") and r["target"] == 1.3]
    same = next(row for row in wider if "-compute" not in row["name"])
    # as many steps; some are cut short, by lot
    assert same["training_tokens"] == pytest.approx(ours.tokens, rel=0.4)
    assert training_of(str(_trained(place, same["knob"]))).steps == ours.steps == 4
    trained = load_model(_trained(place, same["knob"]))
    assert trained.config.value_dim == same["knob"]
    test = _trained(place, same["knob"]).parents[1] / "test"
    assert open_run(test).manifest.model.hash == trained.hash


def _trained(place: Path, knob: int) -> Path:
    folder = place / "out" / "seed-0" / "baselines"
    return folder / f"wider_state-{knob}-4" / "model" / "model.safetensors"


def test_equal_compute_is_more_steps_of_what_never_sleeps(
    found: dict[str, Any], place: Path
) -> None:
    wider = [r for r in found["rows"] if r["name"].startswith("wider_state")]
    (row,) = (r for r in wider if "-compute" in r["name"])
    assert row["target"] == 1.3  # where the recipe asks for it
    ours = training_of(str(place / "out" / "seed-0" / "model" / "model.safetensors"))
    assert row["training_flops"] == pytest.approx(ours.flops, rel=0.35)  # of few steps, by lot


@pytest.mark.parametrize("passes", ["1", "1-3"])
def test_a_step_costs_what_is_expected(recipe: Recipe, passes: str) -> None:
    """The mean of many steps, as they are drawn."""
    recipe = replace(recipe, training=replace(recipe.training, passes=passes))
    recording, config = opened(recipe)
    streams, random = read_streams(recording, config, 0, 450), np.random.default_rng(0)
    torch.manual_seed(0)
    model = Model(config)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.0)
    low, high = (int(passes[0]), int(passes[-1]))
    taken = [
        train_step(model, optimiser, streams, recipe.training, random, (low, high), step)
        for step in range(1, 81)
    ]
    assert np.mean([each.flops for each in taken]) == pytest.approx(step_flops(recipe), rel=0.05)
    lengths = recipe.training.batch * recipe.training.windows * np.array(cut_windows(16))
    assert {each.tokens for each in taken} <= set(lengths.tolist())


def test_a_larger_window_is_trained_on_as_many_events_in_about_as_many_steps() -> None:
    recipe = training_recipe("telemetry")
    assert isinstance(recipe, Recipe)
    window, ours = find_baseline("larger_window"), recipe.training
    for knob in (13, 100, 538, 1152):
        longer = window.setup(recipe, knob).recipe
        assert isinstance(longer, Recipe)
        theirs = longer.training
        events = theirs.steps * theirs.batch * theirs.windows * knob
        assert events == pytest.approx(ours.steps * ours.batch * ours.windows * 12, rel=1e-3)
        assert theirs.steps == pytest.approx(ours.steps, rel=0.1)


def test_a_larger_window_is_trained_on_as_many_events(recipe: Recipe) -> None:
    window = find_baseline("larger_window")
    least, _ = window.bounds(recipe)
    assert window.setup(recipe, least).config == plain(recipe).config
    assert window.setup(recipe, least).recipe == plain(recipe).recipe
    for knob in (9, 16, 40):
        longer = window.setup(recipe, knob)
        assert longer.config.window == 2 * knob
        assert isinstance(longer.recipe, Recipe)
        ours, theirs = recipe.training, longer.recipe.training
        events = theirs.steps * theirs.batch * theirs.windows * longer.config.window
        wanted = ours.steps * ours.batch * ours.windows * 16
        assert events == pytest.approx(wanted, rel=0.5 / theirs.steps)
        assert 1 <= theirs.bptt <= theirs.windows


@pytest.mark.parametrize("name", [name for name, each in BASELINES.items() if not each.of_tasks])
def test_the_least_knob_is_what_sleeps_or_the_plain_hybrid(recipe: Recipe, name: str) -> None:
    baseline = find_baseline(name)
    setup = baseline.setup(recipe, baseline.bounds(recipe)[0])
    assert setup.config == shape_of(recipe)
    assert setup.eviction == "hard"
    assert setup.keep is None
    asleep = name in ("fixed", "random", "periodic")
    assert setup.recipe.training == (recipe if asleep else plain(recipe).recipe).training


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"fixed"', '"retrieval"', r"'retrieval': trained on tasks alone.*wider_state, deeper"),
        ("training.toml", "task.toml", "run on \\[recording\\], but it is of a task"),
    ],
)
def test_what_cannot_be_trained_on_a_recording_is_refused(
    place: Path, tmp_path: Path, old: str, new: str, said: str
) -> None:
    (place / "task.toml").write_text('[task]\nname = "hops"\nnodes = 4\n')
    file = tmp_path / "wrong.toml"
    file.write_text(RECIPE.format(folder=place).replace(old, new))
    with pytest.raises(InputError, match=said):
        read_comparison(file)


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("matched_chain", 1.5),
        ("matched_chain_all", 1.5),
        ("matched_chain_long", 1.5),
        ("matched_chain_targets", 2.0),
        ("matched_hops", 1.5),
        ("matched_late", 1.25),
        ("matched_often", 1.3),
        ("matched_often_long", 1.25),
        ("matched_recording", 1.5),
        ("matched_recording_all", 2.0),
    ],
)
def test_the_shipped_recipes_can_be_read(name: str, target: float) -> None:
    recipe = read_comparison(find_recipe(name))
    assert target in recipe.targets
    assert {"wider_state", "deeper", "fixed"} <= {each.name for each in recipe.baselines}


def test_what_was_trained_on_is_not_tested_on() -> None:
    recipe = read_comparison(find_recipe("matched_recording"))
    assert models_of(recipe, quick=False) == dict.fromkeys(range(5))
    for fit, validation, test, said in (
        ((0.0, 0.3), (0.3, 0.4), (0.4, 1.0), r"7675 to 19188 overlap rows 0 to 11513, .* trained"),
        ((0.0, 0.6), (0.6, 0.65), (0.65, 1.0), r"overlap rows 11513 to 13432, .* chosen"),
    ):
        assert recipe.recording is not None
        spans = replace(recipe.recording, fit=fit, validation=validation, test=test)
        with pytest.raises(InputError, match=said):
            models_of(replace(recipe, recording=spans), quick=False)
    kept = replace(recipe, recording=spans, models=Models(paths=("bundled:telemetry",)))
    assert models_of(kept, quick=False) == {0: "bundled:telemetry"}  # it does not say the latter
    spans = replace(spans, validation=(0.3, 0.35), fit=(0.0, 0.3), test=(0.35, 1.0))
    with pytest.raises(InputError, match=r"bundled:telemetry was trained"):
        models_of(replace(kept, recording=spans), quick=False)


def test_models_that_are_made_for_something_else_are_refused() -> None:
    recorded, asked = (read_comparison(find_recipe(f"matched_{n}")) for n in ("recording", "chain"))
    for plan, model, said in (
        (recorded, "bundled:chain", "holds series, but the model reads tokens"),
        (asked, "bundled:telemetry", r"was made for fields=\(\), but the task that is run has"),
    ):
        with pytest.raises(InputError, match=rf"\[models\] {model}: .*{said}"):
            models_of(replace(plan, models=Models(paths=(model,))), quick=False)
    for plan, name in ((recorded, "chain_stream"), (asked, "telemetry")):
        with pytest.raises(InputError, match=rf"\[models\] {name}: "):
            models_of(replace(plan, models=Models(recipe=name, seeds=(0,))), quick=False)


def test_a_model_of_another_recipe_is_not_taken_up(recipe: Recipe, tmp_path: Path) -> None:
    first = taught(recipe, tmp_path / "model", 0)
    assert taught(recipe, tmp_path / "model", 0) == first
    warmer = replace(recipe, training=replace(recipe.training, learning_rate=0.1))
    wider = replace(recipe, model={**recipe.model, "value_dim": 16})
    rows = replace(recipe, data=replace(recipe.data, train=(0.0, 0.4)))
    for other, seed, said in (
        (recipe, 1, "recipe"), (warmer, 0, "recipe"), (wider, 0, "model"), (rows, 0, "rows"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=f"another .*{said}"):
            taught(other, tmp_path / "model", seed)


def test_a_model_that_does_not_say_what_it_took_is_refused_at_once(
    place: Path, tmp_path: Path
) -> None:
    """Before anything is run."""
    model = Model(shape_of(training_recipe(str(place / "training.toml"))))
    path = save_model(model, tmp_path / "old.safetensors", provenance={})
    text = RECIPE.format(folder=place).replace("\nseeds = [0]", f'\nseeds = [0]\nquick = "{path}"')
    (tmp_path / "old.toml").write_text(text)
    with pytest.raises(InputError, match="does not say what its training took"):
        compare(tmp_path / "old.toml", tmp_path / "out", quick=True, jobs=1)
    assert not (tmp_path / "out" / "seed-0" / "validation").exists()
