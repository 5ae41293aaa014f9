"""An experiment is trained beside its controls, tested on fresh samples, told with intervals."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adaptive_sleep.checkpoint import save_model
from adaptive_sleep.curriculum import check_training
from adaptive_sleep.experiments import reproduce as work
from adaptive_sleep.experiments.cli import main
from adaptive_sleep.experiments.commands_learn import DEFAULT_KINDS, _print, _write
from adaptive_sleep.experiments.reproduce_figure import draw
from adaptive_sleep.experiments.training_cost import step_flops
from adaptive_sleep.learning import config_of
from adaptive_sleep.model import Model
from adaptive_sleep.streams.errors import AdaptiveSleepError, InputError
from adaptive_sleep.task_training import learn

TINY = """
[task]
name = "chain"
nodes = 6
paths = 2

[model]
width = 16
heads = 1
key_dim = 8
value_dim = 8
conv = 0
positions = "learned"

[training]
steps = 4
batch = 4
validate_every = 4
validation = 2

[test]
passes = [1, 2]
samples = 6
"""

pytestmark = pytest.mark.timeout(400)  # processes that import torch
TWO = ("--seeds", "2", "--jobs", "1")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipes") / "tiny.toml"
    path.write_text(TINY, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def found(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("run") / "out"
    return work.reproduce(str(recipe), out, seeds=(0, 1), jobs=2) | {"out": str(out)}


def test_the_keys_are_there(found: dict[str, Any]) -> None:
    assert found["seeds"] == [0, 1]
    assert set(found["accuracy"]) == set(found["interval"]) == {1, 2}
    assert set(found["accuracy"][2]) == {2, 3, 4}
    assert found["tokens"] == 4 * 4 * 12
    assert found["recipe"]["training"]["passes"] == "1-4"  # also what the recipe leaves out
    for kind in ("control", "control_compute"):
        assert set(found[kind]["accuracy"]) == {1, 2}
    for key in ("parameters", "seconds", "commit"):
        assert found[key]


def test_means_and_intervals_are_over_seeds(found: dict[str, Any]) -> None:
    for n in (1, 2):
        for d in (2, 3, 4):
            values = [found["by_seed"][s][n][d] for s in (0, 1)]
            assert found["accuracy"][n][d] == pytest.approx(np.mean(values))
    low, high = work.interval([0.1, 0.3, 0.2]) or (0, 0)
    assert (low + high) / 2 == pytest.approx(0.2)
    assert high - low == pytest.approx(2 * 4.302652729911275 * 0.1 / 3**0.5)
    assert work.interval([0.5]) is None


def test_what_was_tested_is_not_tested_again_by_the_same_code(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, tests = work.recipe_of(str(recipe)), list[str]()
    usual = work.tested

    def counted(model: Any, recipe: Any, part: Any) -> Any:
        tests.append(part)
        return usual(model, recipe, part)

    monkeypatch.setattr(work, "tested", counted)
    monkeypatch.setattr(work, "commit", lambda: "c0ffee")
    folder = str(tmp_path / "one")
    first = work.train_and_test(whole, folder, 0)
    assert work.train_and_test(whole, folder, 0)["accuracy"] == first["accuracy"]
    assert tests == ["test"]
    work.train_and_test(whole, folder, 0, "validation")  # another part
    other = replace(whole, test=replace(whole.test, samples=whole.test.samples + 1))
    file = tmp_path / "one" / "recipe.json"
    written = json.loads(file.read_text())
    written["recipe"]["test"]["samples"] += 1
    file.write_text(json.dumps(written))
    work.train_and_test(other, folder, 0)  # other samples
    for code in ("beef", "beef-dirty", "beef-dirty"):  # other code, or who knows which
        monkeypatch.setattr(work, "commit", lambda code=code: code)
        work.train_and_test(other, folder, 0)
    assert tests == ["test", "validation", "test", "test", "test", "test"]


def test_the_gain_is_paired_by_seed(found: dict[str, Any]) -> None:
    for kind in ("control", "control_compute"):
        for d in (2, 3, 4):
            gained = [found["by_seed"][s][2][d] - found[kind]["by_seed"][s][1][d] for s in (0, 1)]
            assert found[kind]["gain"][d] == pytest.approx(np.mean(gained))
            assert found[kind]["gain_interval"][d] == pytest.approx(work.interval(gained))
            once = [found["by_seed"][s][1][d] - found[kind]["by_seed"][s][1][d] for s in (0, 1)]
            assert found[kind]["gains"][1][d] == pytest.approx(np.mean(once))
            assert found[kind]["gains_interval"][1][d] == pytest.approx(work.interval(once))
    for d in (2, 3, 4):
        gained = [found["by_seed"][s][2][d] - found["by_seed"][s][1][d] for s in (0, 1)]
        assert found["gain"][d] == pytest.approx(np.mean(gained))
        assert found["gain_interval"][d] == pytest.approx(work.interval(gained))
    written = json.loads(json.dumps(found))
    for one in (written, written["control"], written["control_compute"]):
        del one["gain"], one["gain_interval"], one["gains"], one["gains_interval"]
    assert work.with_gains(written) == json.loads(json.dumps(found))
    del written["control"]
    assert work.with_gains(written)["control"] is None


def test_controls_sleep_not_and_one_has_as_much_compute(
    recipe: Path, found: dict[str, Any]
) -> None:
    whole = work.recipe_of(str(recipe))
    whole = replace(whole, training=replace(whole.training, steps=400, loss="every"))
    spent = 1000 * step_flops(work.variant(whole, "control", 400))
    plain, longer = (work.variant(whole, k, 300, spent) for k in ("control", "control_compute"))
    for training in (plain.training, longer.training):
        assert (training.passes, training.loss, training.stages) == ("1", "last", ())
    assert plain.training.steps == 300
    assert longer.training.steps == pytest.approx(1000, rel=0.02)  # other batches are looked at
    assert found["steps"] == found["control"]["steps"] == {0: 4, 1: 4}
    assert min(found["control_compute"]["steps"].values()) > 4
    assert "control_staged" not in found  # it has no stages


def test_a_control_is_taught_in_the_stages_of_the_model(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = TINY.replace("steps = 4\n", 'steps = 60\nloss = "every"\nstages = [[1], [1, 2]]\n')
    path = tmp_path / "staged.toml"
    path.write_text(text.replace("validate_every = 4", "validate_every = 60\nlearned = 50.0"))
    training = work.variant(work.recipe_of(str(path)), "control_staged", 55).training
    check_training(training)
    assert (training.passes, training.stages, training.steps) == ("1", ((1,), (2,)), 55)
    options: dict[str, Any] = {"seeds": (0,), "jobs": 1}
    first = work.reproduce(str(path), tmp_path / "one", kinds=("model", "control"), **options)
    assert "control_staged" not in first
    kept = json.loads(json.dumps(first))
    assert kept["flops"]["0"] > kept["steps"]["0"] * step_flops(
        work.variant(work.recipe_of(str(path)), "control", 60)
    )
    monkeypatch.setattr(work, "kept_result", lambda name: kept)
    found = work.reproduce(str(path), tmp_path / "two", kinds=("control_staged",), **options)
    staged = found.pop("control_staged")
    assert found == kept
    assert staged["steps"] == kept["steps"]  # though both stages were learned before
    assert staged["commit"]
    for d, gain in staged["gain"].items():
        mine, other = found["by_seed"]["0"]["2"][d], staged["by_seed"]["0"]["1"][d]
        assert gain == pytest.approx(mine - other)
    for kinds, more, said in (
        (("control_staged",), {"seeds": (0, 3)}, "does not tell the steps of seed 3; add 'model'"),
        (("control_staged",), {"changes": ("training.clip=2.0",)}, "is of another recipe"),
    ):
        with pytest.raises(InputError, match=said):
            work.reproduce(str(path), tmp_path / "no", kinds=kinds, **{**options, **more})
    compute = ("control_compute", "control_staged_compute")
    later = work.reproduce(str(path), tmp_path / "three", kinds=compute, **options)
    whole = work.reproduce(str(path), tmp_path / "one", kinds=("model", *compute), **options)
    for kind in compute:
        assert later[kind]["flops"]["0"] == pytest.approx(kept["flops"]["0"], rel=0.05)
        assert whole[kind]["flops"] == {0: later[kind]["flops"]["0"]}
    del kept["flops"]  # as results did not say before
    with pytest.raises(InputError, match="does not tell the flops of seed 0; add 'model'"):
        work.reproduce(str(path), tmp_path / "no", kinds=compute[1:], **options)
    assert not (tmp_path / "no").exists()


def test_a_run_that_is_done_is_taken_up_and_says_the_same(
    recipe: Path, found: dict[str, Any]
) -> None:
    again = work.reproduce(str(recipe), found["out"], seeds=(0, 1), kinds=("model",), jobs=1)
    assert again["accuracy"] == found["accuracy"]
    assert again["seconds"] == found["seconds"]


def test_a_checkpoint_is_tested_on_the_same_samples(recipe: Path, found: dict[str, Any]) -> None:
    model = Path(found["out"]) / "seed-1" / "model" / "model.safetensors"
    tested = work.from_checkpoint(str(recipe), str(model))
    assert tested["accuracy"] == found["by_seed"][1]
    with pytest.raises(InputError, match="was made for fields"):
        work.from_checkpoint("chain", str(model))


def test_a_checkpoint_for_smaller_windows_is_refused(recipe: Path, tmp_path: Path) -> None:
    small = Model(replace(config_of(work.recipe_of(str(recipe))), window=5))
    model = save_model(small, tmp_path / "m.safetensors", provenance={})
    with pytest.raises(InputError, match=r"window=5 events, but .* has 6"):
        work.from_checkpoint(str(recipe), str(model))


def test_code_in_a_repository_that_does_not_hold_it_says_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*command: str) -> None:
        named = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", str(tmp_path), *named, *command], check=True)

    git("init", "-q")
    file = tmp_path / ".venv" / "reproduce.py"
    file.parent.mkdir()
    file.touch()
    monkeypatch.setattr(work, "__file__", str(file))
    git("commit", "-q", "--allow-empty", "-m", "theirs")
    assert work.commit() == version("adaptive-sleep")
    git("add", "-f", str(file))
    git("commit", "-q", "-m", "ours")
    assert re.fullmatch("[0-9a-f]{12}", work.commit())
    monkeypatch.setenv("PATH", "")  # there is no git
    assert work.commit() == version("adaptive-sleep")


def test_a_control_is_shown_at_one_pass_or_not_at_all(
    found: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    turned = json.loads(json.dumps(found))
    for part in (turned, turned["control"], turned["control_compute"]):
        part["accuracy"] = dict(reversed(part["accuracy"].items()))
    turned["control"]["accuracy"]["2"] = dict.fromkeys("234", 0.123)
    turned["control"]["accuracy"]["1"] = dict.fromkeys("234", 0.456)
    del turned["control_compute"]["accuracy"]["1"], turned["control_compute"]["gains"]
    _print(turned)
    table = capsys.readouterr().out.split("gain on")[0]
    assert "0.456" in table
    assert "0.123" not in table
    assert "compute" not in table
    control = next(line for line in draw(turned).data if "as many tokens" in line.name)
    assert list(control.y) == [0.456] * 3
    assert not [line for line in draw(turned).data if "as much compute" in line.name]


def test_a_result_is_written_whole_or_not_at_all(
    found: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(found, tmp_path, "tiny")
    before = [(tmp_path / name).read_bytes() for name in ("tiny.json", "tiny.html")]

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(AdaptiveSleepError, match="the disk is full"):
        _write({**found, "seeds": [0]}, tmp_path, "tiny")
    assert [(tmp_path / name).read_bytes() for name in ("tiny.json", "tiny.html")] == before
    assert len(list(tmp_path.iterdir())) == 2


def test_the_figure_has_a_line_for_every_n_and_each_control(found: dict[str, Any]) -> None:
    names = [line.name for line in draw(json.loads(json.dumps(found))).data]
    assert names[:2] == ["N = 1", "N = 2"]
    assert len(names) == 4


def test_the_command_prints_json_and_writes_its_files(
    recipe: Path, found: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    out = Path(found["out"])
    assert main(["reproduce", str(recipe), "--out", str(out), *TWO, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["accuracy"]["2"]["4"] == found["accuracy"][2][4]
    assert json.loads((out / "tiny.json").read_text())["seeds"] == [0, 1]
    assert "plotly" in (out / "tiny.html").read_text()
    assert main(["reproduce", str(recipe), "--out", str(out), *TWO]) == 0
    printed_table = capsys.readouterr().out
    words = printed_table.split()  # headers break at spaces
    assert printed_table.count("gain on ") == 3  # itself at N=1, two controls
    assert printed_table.split("gain on ")[1].split()[:6] == [
        "itself", "at", "N=1", "difficulty", "N=2", "2",
    ]  # fmt: skip
    assert (words.count("control"), words.count("compute")) == (4, 2)


def test_a_quick_run_takes_the_steps_that_the_recipe_gives_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "tiny.toml", tmp_path / "out"
    for quick, taken in ((3, 3), (9, 4)):
        text = TINY.replace("steps = 4\n", f"steps = 4\nquick = {quick}\n")
        path.write_text(text, encoding="utf-8")
        arguments = ["reproduce", str(path), "--quick", "--out", str(out / f"{quick}")]
        assert main([*arguments, "--jobs", "1", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["seeds"], found["steps"]) == ([0], {"0": taken})
    path.write_text(text.replace("quick = 9", "quick = 0"), encoding="utf-8")
    with pytest.raises(InputError, match="quick=0: at least 1"):
        work.recipe_of(str(path))


def test_a_quick_run_takes_changes_that_a_longer_one_would_refuse(tmp_path: Path) -> None:
    text = TINY.replace("steps = 4\n", 'steps = 4\nlongest = 6\nloss = "every"\nstages = [[1]]\n')
    path = tmp_path / "staged.toml"
    path.write_text(text, encoding="utf-8")
    arguments = ["reproduce", str(path), "--quick", "--jobs", "1", "--out", str(tmp_path / "out")]
    assert main([*arguments, "--set", "training.steps=8"]) == 0


def test_every_experiment_has_a_recipe_and_every_kind_is_trained() -> None:
    for name in work.EXPERIMENTS:
        assert work.recipe_of(name).training.quick >= 1
    assert tuple(DEFAULT_KINDS.split(",")) == work.KINDS


def test_the_steps_of_a_quick_run_are_no_part_of_a_run(recipe: Path, tmp_path: Path) -> None:
    first = learn(work.recipe_of(str(recipe)), tmp_path / "run")
    again = learn(work.recipe_of(str(recipe), ["training.quick=7"]), tmp_path / "run")
    assert again.seconds == first.seconds  # taken up, not refused
    assert work.recipe_of(str(recipe)) == work.recipe_of(str(recipe), ["training.quick=7"])


def test_a_recipe_can_be_changed(recipe: Path) -> None:
    changed = work.recipe_of(str(recipe), ["model.carry=accumulate", "training.power=[2, 0.5]"])
    assert changed.model["carry"] == "accumulate"
    assert changed.training.power == (2.0, 0.5)
    assert work.recipe_of(str(recipe)).model.get("carry") is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["chian"], "did you mean 'chain'"),
        (["chain", "--set", "steps"], "written table.field=value"),
        (["chain", "--set", "steps=3"], r"'steps': it belongs to \[training\]"),
        (["chain", "--set", "training.stops=3"], "did you mean 'steps'"),
        (["chain", "--set", "model.carry=keep"], "'restart' or 'accumulate'"),
        (["chain", "--kinds", "modle"], "did you mean 'model'"),
        (["chain", "--kinds", "control"], "does not tell the steps of seed 0; add 'model'"),
        (["sliding-window", "--kinds", "control_staged"], "is for recipes in stages"),
        (["sliding-window", "--kinds", "model,control_staged"], "is for recipes in stages"),
        (["hops", "--kinds", "control", "--set", "model.width=32"], "is of another recipe"),
        (["gsm-worded", "--kinds", "control"], "no result of this recipe is kept"),
        (["chain", "--quick", "--from-results"], "give one of"),
        (["chain", "--quick", "--seeds", "3"], "--quick: .* leave out --seeds 3"),
        (
            ["chain", "--from-results", "--kinds", "model"],
            "--from-results: .* leave out --kinds model",
        ),
        (["chain", "--from-checkpoint", "m", "--set", "test.samples=9"], "leave out --set"),
        (["chain", "--from-checkpoint", "m", "--jobs", "2"], "trains nothing; leave out --jobs 2"),
        (["etth1", "--from-results", "--out", "x"], "trains nothing; leave out --out x"),
        (["etth1", "--from-results", "--data", "x"], "trains nothing; leave out --data x"),
        (["chain", "--set", "training.passes=0"], r"\[training\] passes='0': a number from 1"),
        (["chain", "--set", "training.betas=[1, 'a']"], r"betas\[1\]='a': expected `float`, got"),
        (["sliding-window", "--set", "training.patience=0.3"], "patience=0.3: for stages"),
        (["nowhere.toml"], "no such file"),
    ],
)
def test_wrong_use_is_named(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reproduce", *arguments]) == 2
    assert re.search(message, capsys.readouterr().err)
