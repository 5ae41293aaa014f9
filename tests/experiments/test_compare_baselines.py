"""Policies and baselines at matched cost, end to end on a tiny task; what the rows say of them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matched_cases import RECIPE, TRAINING, at_cost

from adaptive_sleep.checkpoint import load_model, save_model
from adaptive_sleep.curriculum import draw, staged
from adaptive_sleep.eviction import holding
from adaptive_sleep.experiments import compare as comparing
from adaptive_sleep.experiments.baselines.registry import find_baseline
from adaptive_sleep.experiments.baselines.setup import plain
from adaptive_sleep.experiments.compare import compare
from adaptive_sleep.experiments.compare_baselines import QUICK_STEPS, affordable, targets_of
from adaptive_sleep.experiments.compare_rows import SeedRow, make_rows
from adaptive_sleep.experiments.compare_seed import Found
from adaptive_sleep.experiments.comparing import read_comparison
from adaptive_sleep.experiments.matched_reading import read_matched
from adaptive_sleep.experiments.matching import NEAR
from adaptive_sleep.experiments.runs import open_run
from adaptive_sleep.experiments.training_cost import step_flops, training_of
from adaptive_sleep.learning import TaskRecipe, config_of, read_task_recipe, task_of
from adaptive_sleep.ledger import costs
from adaptive_sleep.model import Model
from adaptive_sleep.reading_cost import GRADIENT, forward_flops
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.task_training import learn

EVICTIONS = {"compressed_kv": "heaviest", "wake_loops": "hard"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("matched")
    (folder / "training.toml").write_text(TRAINING)
    (folder / "tiny.toml").write_text(RECIPE.format(folder=folder))
    learned = learn(read_task_recipe(folder / "training.toml"), folder / "model")
    learned.path.rename(folder / "m.safetensors")
    return folder


@pytest.fixture(scope="module")
def found(place: Path) -> dict[str, Any]:
    return compare(place / "tiny.toml", place / "out", quick=True, jobs=1)


@pytest.mark.timeout(400)  # where other work has the cores
def test_every_row_is_at_its_target(found: dict[str, Any], place: Path) -> None:
    rows = {row["name"]: row for row in found["rows"] if row.get("target") is not None}
    assert {row["target"] for row in rows.values()} == {1.1}  # quick: one of them
    base = next(row for row in found["rows"] if row["name"] == "fixed-1")["flops_per_event"]
    ours, plainly = (row for row in rows.values() if row["kind"] == "matched")
    assert [ours["name"], plainly["name"]] == ["lot@1.1", "lot-by-cost@1.1"]
    assert ours["policy"].startswith(("random(mean=1.0,", "random(mean=1.1,"))
    assert found["left_out"] == {}
    assert ours["tuning_trials"] == 3
    grid = [place / "out" / "seed-0" / "validation" / f"lot-{n}" for n in range(3)]
    runs = [open_run(run).summary for run in grid]
    tried = sum(run.flops_per_event * run.events for run in runs if run is not None)
    assert ours["tuning_flops"] == plainly["tuning_flops"] == pytest.approx(tried)
    assert plainly["tuning_trials"] == 1
    assert base <= ours["flops_per_event"] <= plainly["flops_per_event"]
    tried_at = {
        run.flops_per_event: mean
        for run, mean in zip(runs, (1.0, 1.1, 2.9), strict=True)
        if run is not None and run.flops_per_event <= 1.1 * base
    }
    assert plainly["policy"].startswith(f"random(mean={tried_at[max(tried_at)]},")
    for row in rows.values():
        slept = row["sleep_flops_per_event"]
        assert row["wake_flops_per_event"] + slept <= row["flops_per_event"]
        assert (slept > 0) == (row["mean_passes"] > 1)
    thought = [row for name, row in rows.items() if name.startswith("wake_loops-above")]
    assert thought
    assert all(row["wake_flops_per_event"] > 1.3 * base for row in thought)
    for name in ("fixed", "compressed_kv", "wake_loops"):
        mine = [row for row in rows.values() if row["name"].split("@")[0].split("-")[0] == name]
        assert mine, name
        assert {(row["tuning_trials"], row["tuning_flops"]) for row in mine} == {(1, 0.0)}
        assert all(isinstance(row["knob"], int) for row in mine)
        assert all(row["kind"] == "baseline" for row in mine)
        for row in mine:
            near = abs(row["flops_per_event"] / base - 1.1)
            assert near <= NEAR or "-below" in row["name"] or "-above" in row["name"]


def test_models_are_trained_as_the_rows_say(found: dict[str, Any], place: Path) -> None:
    folder, recipe = (
        place / "out" / "seed-0" / "baselines",
        read_task_recipe(place / "training.toml"),
    )
    pressed = [row for row in found["rows"] if row["name"].startswith("compressed_kv")]
    equal = [row for row in pressed if "-compute" in row["name"]]
    assert 0 < len(equal) == len(pressed) / 2
    for row in pressed:
        if row in equal:
            assert row["training_flops"] == pytest.approx(QUICK_STEPS * step_flops(recipe), rel=0.1)
        else:
            assert row["training_tokens"] == QUICK_STEPS * 4 * 12
    models = {at.parent.parent.name: load_model(at).hash for at in folder.glob("*/model/*model.s*")}
    assert len(set(models.values())) == len(models) >= 3
    ran = {run.parent.name: open_run(run).manifest for run in folder.glob("*/test")}
    for name, manifest in ran.items():
        if name.startswith("fixed"):
            continue  # the sleeping model itself
        whose = f"plain-{QUICK_STEPS}" if name == f"wake_loops-1-{QUICK_STEPS}" else name
        assert manifest.model.hash == models[whose]
        assert manifest.settings.eviction == EVICTIONS[name.split("-")[0]]
    assert f"wake_loops-1-{QUICK_STEPS}" in ran  # below the target: the plain hybrid
    lot = open_run(next(folder.glob("fixed-*")) / "test")  # the sleeping model itself
    assert lot.manifest.model.hash == found["model_hashes"]["0"]


def test_it_is_taken_up_where_it_was(found: dict[str, Any], place: Path) -> None:
    again = compare(place / "tiny.toml", place / "out", quick=True, jobs=1)
    assert again["rows"] == found["rows"]
    assert again["reading"] == found["reading"]


def test_another_recipe_takes_up_copies_of_what_was_trained(
    found: dict[str, Any], place: Path
) -> None:
    text = (place / "tiny.toml").read_text()
    (place / "more.toml").write_text(text + '[[policies]]\nname = "one"\nspec = "fixed(1)"\n')
    with pytest.raises(InputError, match=r"recipe_sha256.*seed-\*/baselines/\*/model"):
        compare(place / "more.toml", place / "out", quick=True, jobs=1)
    held = place / "more" / "seed-0" / "baselines"
    for model in (place / "out" / "seed-0" / "baselines").glob("*/model"):
        shutil.copytree(model, held / model.parent.name / "model")
    states = {file: file.stat().st_mtime_ns for file in held.glob("*/model/state.safetensors")}
    more = compare(place / "more.toml", place / "more", quick=True, jobs=1)
    after = {file: file.stat().st_mtime_ns for file in held.glob("*/model/state.safetensors")}
    assert after == states != {}  # nothing was trained, on or anew

    def of(kind: str, rows: dict[str, Any]) -> list[Any]:
        return [(row["name"], row["score"]) for row in rows["rows"] if row["kind"] == kind]

    assert of("baseline", more) == of("baseline", found) != []
    assert [name for name, _ in of("matched", more)] == ["lot@1.1", "lot-by-cost@1.1", "one@1.1"]


def test_a_baseline_that_cannot_be_trained_is_named(place: Path) -> None:
    training = TRAINING.replace("steps = 30", "steps = 30\nrate = 1e30\nmatrix_rate = 1e30")
    (place / "wild.toml").write_text(training)
    text = RECIPE.format(folder=place).replace("training.toml", "wild.toml")
    (place / "loud.toml").write_text(text)
    with pytest.raises(InputError, match=r"baseline compressed_kv\(\d+\), seed 0: .*loss is nan"):
        compare(place / "loud.toml", place / "loud", quick=True, jobs=1)


def test_what_cannot_cost_so_much_has_a_row_at_the_most_it_costs(place: Path) -> None:
    text = RECIPE.format(folder=place).replace("[1.1, 1.6]", "[1.6]")
    text = text.split("[[baselines]]", maxsplit=1)[0] + '[[baselines]]\nname = "compressed_kv"\n'
    (place / "far.toml").write_text(text)
    found = compare(place / "far.toml", place / "far", quick=True, jobs=1)
    assert found["left_out"] == {}
    (most,) = (one for one in found["rows"] if one["kind"] == "baseline")
    assert most["name"] == "compressed_kv-most@1.6"
    base = next(one for one in found["rows"] if one["name"] == "fixed-1")
    assert 1.0 < most["flops_per_event"] / base["flops_per_event"] < 1.6
    assert sum("compressed_kv" in one for one in found["reading"]) == 3  # best, by cost, against


def said(theirs: dict[str, SeedRow], noise: float = 0.0, count: int = 6) -> list[str]:
    """What is said of `count` seeds in which a policy costs 150 and scores .80 and .81 by turns, or
    (`noise`) less and more."""
    seeds = {
        seed: {
            "ours@1.5": at_cost("matched", 150.0, 0.805 + (0.005 + noise) * (2 * (seed % 2) - 1)),
            **{f"{name}@1.5": one for name, one in theirs.items()},
            f"only-{seed}@1.5": at_cost("baseline", 150.0, 0.1, knob=5),
        }
        for seed in range(count)
    }
    rows = make_rows(seeds, 4)
    assert [one["name"] for one in rows] == list(seeds[0])[:-1]
    assert [one["knob"] for one in rows] == [None, *(one.knob for one in theirs.values())]
    return read_matched(rows)


def test_what_is_said_of_rows_follows_from_them() -> None:
    best, loops, deeper, wider, lot, few, cheap, window = said(
        {
            "loops-below": at_cost("baseline", 140.0, 0.7, knob=1),
            "loops-above": at_cost("baseline", 160.0, 0.5, knob=2),
            "deeper-below": at_cost("baseline", 149.0, 0.7, knob=3),
            "deeper-above": at_cost("baseline", 190.0, 0.1, knob=4),
            "wider": at_cost("baseline", 160.0, 0.9, knob=4),
            "lot": at_cost("baseline", 180.0, 0.1, knob=4),
            "few": at_cost("baseline", 120.0, 0.2, knob=4),
            "cheap": at_cost("baseline", 120.0, 0.95, knob=4),
            "window-most": at_cost("baseline", 120.0, 0.1, knob=4),
        }
    )
    assert best.startswith(
        "At 1.5 times the plain hybrid, the policy that was best on validation and the baseline "
        "that is best on the test: ours@1.5 0.8050 for 150 FLOPs an event, cheap@1.5 0.9500 for "
        "120 FLOPs an event; difference -0.1450 ("
    )
    assert loops.startswith("ours@1.5: score +0.3050 (")
    assert loops.endswith(") to loops-above@1.5, bracketed.")
    assert deeper.startswith("ours@1.5: score +0.1050 (")
    assert deeper.endswith(") to deeper-below@1.5, matched.")
    assert wider.startswith("ours@1.5 and wider@1.5 are not compared")  # the dearer is ahead
    assert "ours@1.5: 150 FLOPs an event" in wider
    assert "wider@1.5: 160 FLOPs an event" in wider
    assert lot.startswith("ours@1.5: score +0.7050 (")
    assert lot.endswith(") to lot@1.5, which costs 20% more: the cheaper is ahead.")
    assert few.startswith("ours@1.5 and few@1.5 are not compared")
    assert cheap.startswith("ours@1.5: score -0.1450 (")
    assert cheap.endswith(") to cheap@1.5, which costs 20% less: the cheaper is ahead.")
    assert window.endswith(") to window-most@1.5, which costs 20% less at its dearest knob.")


def test_a_cheaper_neighbour_that_scores_more_is_not_kept_quiet() -> None:
    below = {
        "loops-below": at_cost("baseline", 140.0, 0.9, knob=1),
        "loops-above": at_cost("baseline", 160.0, 0.5, knob=2),
    }
    assert said(below)[1].endswith(
        ") to loops-below@1.5, which costs 7% less: the cheaper is ahead."
    )


def test_a_cheaper_neighbour_is_told_of_where_the_dearer_is_matched() -> None:
    below = {
        "deeper-below": at_cost("baseline", 120.0, 0.9, knob=1),
        "deeper-above": at_cost("baseline", 152.0, 0.5, knob=2),
    }
    assert said(below)[1].endswith(
        ") to deeper-below@1.5, which costs 20% less: the cheaper is ahead."
    )


def test_the_policy_that_is_told_of_was_best_on_validation() -> None:
    lucky = replace(at_cost("matched", 150.0, 0.99), validation_score=0.5)
    loops = at_cost("baseline", 150.0, 0.9, knob=2)
    seeds = {
        seed: {"ours@1.5": at_cost("matched", 150.0, 0.8), "lucky@1.5": lucky, "loops@1.5": loops}
        for seed in (0, 1)
    }
    for one in seeds.values():  # nor one that could not be deployed
        one["seer@1.5"] = replace(at_cost("matched", 150.0, 0.95), online=False)
    (best, *_) = read_matched(make_rows(seeds, 4))
    assert ": ours@1.5 0.8000 for 150" in best
    assert "loops@1.5 0.9000" in best


def test_nobody_is_ahead_whose_interval_holds_zero() -> None:
    lot = {"lot": replace(at_cost("baseline", 180.0, 0.7, knob=4), resident_bytes=200)}
    (_, found) = said(lot, noise=0.3)
    assert "score +0.1050 (-" in found
    assert found.endswith("more: the cheaper is not shown to be ahead; lot@1.5 keeps more bytes.")


def test_what_was_to_take_as_much_compute_says_how_much_it_took() -> None:
    seeds = {
        s: {
            "ours@1.5": at_cost("matched", 150.0, 0.9, training_flops=100.0),
            "wide@1.5": at_cost("baseline", 150.0, 0.5, training_flops=50.0),
            "wide-compute@1.5": at_cost("baseline", 150.0, 0.6, training_flops=95.0 + 5.0 * s),
        }
        for s in range(5)
    }
    found = [one for one in read_matched(make_rows(seeds, 4)) if "-compute took" in one]
    assert found == [
        "At 1.5 times, rows that end in -compute took 95.0% to 115.0% of the training FLOPs of the "
        "model that sleeps, by seed; 105.0% on average."
    ]


def test_fewer_than_five_seeds_claim_nothing() -> None:
    lot = {"lot": at_cost("baseline", 180.0, 0.7, knob=4)}
    assert said(lot, count=4)[1].endswith(") to lot@1.5, which costs 20% more.")
    assert said(lot, count=5)[1].endswith(": the cheaper is ahead.")


def test_a_target_at_which_no_policy_could_be_deployed_says_so() -> None:
    seer = replace(at_cost("matched", 150.0, 0.95), online=False)
    seeds = {s: {"seer@1.5": seer, "lot@1.5": at_cost("baseline", 150.0, 0.5)} for s in range(5)}
    best, against = read_matched(make_rows(seeds, 4))
    assert best == "At 1.5 times the plain hybrid no policy is that could be deployed."
    assert against.endswith("to lot@1.5, matched.")


@pytest.mark.parametrize(
    ("target", "chosen"), [(99.0, None), (100.0, "half"), (101.0, "best"), (200.0, "best")]
)
def test_a_policy_costs_no_more_than_the_target(target: float, chosen: str | None) -> None:
    tried = [(150.0, 0.7, "dear"), (100.0, 0.5, "half"), (101.0, 0.7, "best"), (160.0, 0.6, "no")]
    found = affordable(tried, target)
    assert (found and found[2]) == chosen


def test_training_costs_what_its_passes_cost(place: Path) -> None:
    recipe = read_task_recipe(place / "training.toml")
    once = replace(recipe, training=replace(recipe.training, passes="1"))
    twice = replace(recipe, training=replace(recipe.training, passes="2"))
    one, two = step_flops(once), step_flops(twice)
    slept = int(costs(config_of(recipe)).sleep_pass(np.array(6), causal=False))
    assert two - one == pytest.approx(3 * 4 * slept)
    took = training_of(str(place / "m.safetensors"))
    assert (took.steps, took.tokens) == (30, 30 * 4 * 12)
    assert took.flops == pytest.approx(30 * two)


def test_stages_of_one_pass_and_what_is_carried_over_are_in_what_training_will_cost(
    place: Path, tmp_path: Path
) -> None:
    recipe = read_task_recipe(place / "training.toml")
    stages = replace(
        recipe.training, loss="every", stages=((1,), (1, 2)), carry_over=0.5, steps=120, batch=8
    )
    held = find_baseline("larger_window").setup(replace(recipe, training=stages), 60).recipe
    assert isinstance(held, TaskRecipe)
    assert (held.training.carry_from, held.training.patience) == (1, 0.5)
    took = learn(held, tmp_path / "held").flops
    assert 120 * step_flops(held) == pytest.approx(took, rel=0.02)
    for changed in ({"carry_from": 0}, {"patience": 0.05}):
        other = replace(held, training=replace(held.training, **changed))
        assert 120 * step_flops(other) > 1.04 * took


def test_what_batches_of_many_sizes_will_cost_is_told_within_two_percent(tmp_path: Path) -> None:
    """Every batch of a task with `least` has a size of its own."""
    text = TRAINING.replace('"chain"\nnodes = 6\npaths = 2', '"hops"\nnodes = 16\nleast = 4')
    (tmp_path / "sizes.toml").write_text(text.replace("steps = 30\nbatch = 4", "steps = 3000"))
    recipe = read_task_recipe(tmp_path / "sizes.toml")
    config, training = config_of(recipe), recipe.training
    (task,), holds = staged(task_of(recipe), training), holding(config, recipe.eviction)
    spent = []
    for step in range(training.steps):
        batch, passes, lessons = draw(task, training, np.random.default_rng([7, step]), step)
        spent.append(forward_flops(config, holds, batch, passes, lessons=lessons))
    assert step_flops(recipe) == pytest.approx(GRADIENT * np.mean(spent), rel=0.02)


def test_rows_that_a_seed_lacks_say_why() -> None:
    def seed(rows: tuple[str, ...], **unmatched: str) -> Found:
        told = {f"{name}@1.5": reason for name, reason in unmatched.items()}
        made = {f"{name}@1.5": at_cost("baseline", 100.0, 0.5) for name in rows}
        return Found(made, {}, {}, 1, True, told)

    found = {
        0: seed(("all", "deeper-below", "deeper-above"), wider="costs 3"),
        1: seed(("all", "deeper"), wider="costs 3"),
        2: seed(("all",), deeper="costs 4", wider="costs 3"),
    }
    assert comparing._left_out(found, [{"name": "all@1.5"}]) == {
        "deeper-below@1.5": "seed 2: costs 4; seed 1: matched by other knobs",
        "deeper-above@1.5": "seed 2: costs 4; seed 1: matched by other knobs",
        "wider@1.5": "costs 3",
        "deeper@1.5": "seed 2: costs 4; seed 0: matched by other knobs",
    }
    found = {0: seed(("loops", "loops-compute")), 1: seed((), loops="costs 5")}
    assert comparing._left_out(found, []) == {
        "loops@1.5": "seed 1: costs 5",
        "loops-compute@1.5": "seed 1: costs 5",
    }


def test_what_a_training_will_cost_is_not_told_of_stages(place: Path, tmp_path: Path) -> None:
    recipe = read_task_recipe(place / "training.toml")
    stages = replace(recipe.training, loss="every", stages=((1,), (1, 2)))
    staged = replace(recipe, training=stages)
    with pytest.raises(InputError, match="stages: what they will cost"):
        step_flops(staged)
    taught = plain(staged).recipe  # one pass in every stage
    assert isinstance(taught, TaskRecipe)
    assert taught.training.stages == ((1,), (2,))
    once = replace(recipe, training=replace(recipe.training, passes="1"))
    assert step_flops(taught) == step_flops(once)
    bare = save_model(Model(config_of(recipe)), tmp_path / "m.safetensors", provenance={})
    with pytest.raises(InputError, match="does not say what its training took"):
        training_of(str(bare))


def test_a_quick_comparison_takes_the_middle_target() -> None:
    assert targets_of([1.25, 1.5, 2.0], quick=True) == [1.5]
    assert targets_of([1.1, 1.6], quick=True) == [1.1]
    assert targets_of([1.1, 1.6], quick=False) == [1.1, 1.6]
    assert targets_of([], quick=True) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("wake_loops", "wake_loop"), "did you mean 'wake_loops'"),
        (("[1.1, 1.6]", "[1.6, 1.1]"), "rising numbers above 1"),
        (("[1.1, 1.6]", "[1.0, 1.6]"), "rising numbers above 1"),
        (("targets = [1.1, 1.6]", ""), r"targets=\[\]: they go with"),
        (('name = "fixed"', 'name = "wake_loops"'), "each once"),
        (("equal_compute", "equal_computing"), "did you mean 'equal_compute'"),
        (("equal_compute = true", "equal_compute = [1.2]"), r"\[1\.2\]: .*targets=\[1\.1, 1\.6\]"),
        (("equal_compute = true", "equal_compute = [1.1, 1.1]"), "each once"),
        (("equal_compute = true", "equal_compute = 1.1"), "equal_compute"),
    ],
)
def test_bad_tables_are_named(
    place: Path, tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(RECIPE.format(folder=place).replace(*change))
    with pytest.raises(InputError, match=message):
        read_comparison(wrong)
