"""Choices: a recipe changed in one thing at a time, trained, tested and compared by seed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_reproduce import TINY

from adaptive_sleep.checkpoint import load_model
from adaptive_sleep.experiments import choices as work
from adaptive_sleep.experiments.cli import main
from adaptive_sleep.experiments.finding import shipped_recipes
from adaptive_sleep.experiments.reproduce import interval
from adaptive_sleep.learning import accuracy, task_of
from adaptive_sleep.streams.errors import InputError

FILE = """
recipe = "tiny.toml"
seeds = 2

[[choices]]
name = "accumulate"
changes = ["model.carry=accumulate"]

[[choices]]
name = "longer"
changes = ["training.steps=6"]
"""

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("choices")
    (folder / "tiny.toml").write_text(TINY, encoding="utf-8")
    path = folder / "given.toml"
    path.write_text(FILE, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def found(file: Path) -> dict[str, Any]:
    return work.compare_choices(file, file.parent / "out", jobs=1)


def test_every_choice_is_a_row_and_the_recipe_as_it_is_comes_first(found: dict[str, Any]) -> None:
    assert [row["name"] for row in found["rows"]] == [work.AS_IS, "accumulate", "longer"]
    assert [row["changes"] for row in found["rows"]] == [
        [], ["model.carry=accumulate"], ["training.steps=6"],
    ]  # fmt: skip
    assert [row["steps"] for row in found["rows"]] == [{0: 4, 1: 4}, {0: 4, 1: 4}, {0: 6, 1: 6}]
    assert found["seeds"] == [0, 1]
    assert found["recipe"] == "tiny.toml"


def test_means_are_over_difficulties_and_differences_by_seed(found: dict[str, Any]) -> None:
    base = found["rows"][0]
    for row in found["rows"]:
        for n in (1, 2):
            means = [np.mean(list(row["by_seed"][s][n].values())) for s in (0, 1)]
            theirs = [np.mean(list(base["by_seed"][s][n].values())) for s in (0, 1)]
            assert row["mean"][n] == pytest.approx(np.mean(means))
            assert row["mean_interval"][n] == pytest.approx(interval(means))
            gained = np.subtract(means, theirs).tolist()
            assert row["difference"][n] == pytest.approx(np.mean(gained))
            assert row["difference_interval"][n] == pytest.approx(interval(gained))
    assert base["difference"] == {1: 0.0, 2: 0.0}


def test_choices_are_judged_on_validation_and_not_as_training_looks(
    file: Path, found: dict[str, Any]
) -> None:
    _, made = work.read_choices(file)
    model = load_model(file.parent / "out" / "as-is" / "seed-0" / "model.safetensors")
    recipe = made[work.AS_IS]
    wanted = accuracy(model, task_of(recipe), recipe.test, part="validation", samples=6, seed=1)
    assert found["rows"][0]["by_seed"][0] == wanted
    assert found["part"] == "validation"


def test_there_is_no_difference_between_tasks(file: Path) -> None:
    other = file.parent / "tasks.toml"
    other.write_text(FILE.replace("model.carry=accumulate", "task.paths=3"), encoding="utf-8")
    rows = work.compare_choices(other, file.parent / "tasks", seeds=1, jobs=1)["rows"]
    assert [bool(row["difference"]) for row in rows] == [True, False, True]
    assert rows[1]["mean"]


def test_a_choice_says_what_it_took(found: dict[str, Any]) -> None:
    base, longer = found["rows"][0], found["rows"][2]
    assert longer["tokens"] == base["tokens"] * 6 / 4
    assert longer["flops"] > base["flops"] > 0
    assert longer["parameters"] == base["parameters"]


def test_some_choices_are_taken_up_from_an_earlier_run(
    file: Path, found: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    out = file.parent / "out"
    given = [str(file), "--out", str(out), "--only", "longer", "--jobs", "1"]
    assert main(["choices", *given, "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in again["rows"]] == [work.AS_IS, "longer"]
    assert again["rows"][1]["mean"]["2"] == found["rows"][2]["mean"][2]
    assert again["rows"][1]["seconds"] == found["rows"][2]["seconds"]  # not trained again
    assert json.loads((out / "given-only.json").read_text(encoding="utf-8")) == again
    assert main(["choices", *given]) == 0
    shown = capsys.readouterr().out
    assert "accumulate" not in shown
    for words in ("as-is", "longer", "tiny.toml"):
        assert words in shown


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("accumulate\"\nchanges", "as-is\"\nchanges", "'as-is' is the recipe unchanged"),
        ('name = "longer"', 'name = "accumulate"', "a name of its own"),
        ('name = "longer"', 'name = ".."', "name='..': a name of its own, which a folder can have"),
        ("model.carry=accumulate", "model.carry=acumulate", "choice 'accumulate'"),
        ("seeds = 2", "seeds = 0", "seeds=0: at least 1"),
        ("training.steps=6", "test.passes=[1, 3]", "'longer': changes test: all"),
        ("training.steps=6", 'eviction=sliding", "model.positions=rotary', "changes eviction: all"),
        ("tiny.toml", "absent.toml", "no such file"),
        ("[[choices]]", "[[choise]]", "choise"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_by_name(file: Path, old: str, new: str, words: str) -> None:
    wrong = file.parent / "wrong.toml"
    wrong.write_text(FILE.replace(old, new), encoding="utf-8")
    with pytest.raises(InputError, match=words):
        work.read_choices(wrong)


@pytest.mark.parametrize(
    "given", [["--out", "X"], ["--only", "a"], ["--seeds", "2"], ["--jobs", "3"]], ids=str
)
def test_what_was_found_takes_nothing_that_trains(
    given: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["choices", "choices_hops", "--from-results", *given]) == 2
    assert f"leave out {' '.join(given)}" in capsys.readouterr().err


def test_only_names_choices(file: Path) -> None:
    with pytest.raises(InputError, match=r"'longr': no such choice.*longer"):
        work.compare_choices(file, file.parent / "none", only=["longr"])
    assert not (file.parent / "none").exists()


@pytest.mark.parametrize("name", [n for n in shipped_recipes() if n.startswith("choices")])
def test_our_own_files_can_be_read(name: str) -> None:
    given, made = work.read_choices(name)
    assert len(made) == 1 + len(given.choices) > 1
    assert len({str(recipe) for recipe in made.values()}) == len(made)  # every choice changes it
