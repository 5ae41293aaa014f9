"""A training is taken up from what it wrote, whole: nothing damaged, nothing of another one."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_task_training import tiny

from adaptive_sleep.learning import TaskRecipe
from adaptive_sleep.streams.errors import InputError, IntegrityError
from adaptive_sleep.task_training import Learned, learn

STATE, RECIPE = "state.safetensors", "recipe.json"


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Learned:
    return learn(tiny(), tmp_path_factory.mktemp("trainings") / "done", seed=3)


@pytest.fixture
def folder(done: Learned, tmp_path: Path) -> Path:
    return Path(shutil.copytree(done.path.parent, tmp_path / "run"))


def flipped(file: Path, at: int) -> None:
    held = bytearray(file.read_bytes())
    held[at] ^= 0x40
    file.write_bytes(bytes(held))


@pytest.mark.parametrize("at", [-100, -5000, -12000, 200])
def test_a_flipped_bit_is_found(folder: Path, at: int) -> None:
    flipped(folder / STATE, at)
    written = (folder / "model.safetensors").read_bytes()
    with pytest.raises(IntegrityError, match=r"state\.safetensors: damaged.*name another folder"):
        learn(tiny(), folder, seed=3)
    assert (folder / "model.safetensors").read_bytes() == written


def test_what_an_earlier_version_wrote_is_taken_up(done: Learned, folder: Path) -> None:
    with safe_open(folder / STATE, framework="pt") as state:
        loop = state.metadata()["loop"]
    save_file(load_file(folder / STATE), folder / STATE, metadata={"loop": loop})
    assert learn(tiny(), folder, seed=3).model.hash == done.model.hash


def test_the_state_of_another_training_is_refused(folder: Path, tmp_path: Path) -> None:
    learn(tiny(), tmp_path / "other", seed=4)
    shutil.copy(tmp_path / "other" / STATE, folder / STATE)
    with pytest.raises(IntegrityError, match=r"another training than recipe\.json says"):
        learn(tiny(), folder, seed=3)


def cut(folder: Path) -> None:
    file = folder / STATE
    file.write_bytes(file.read_bytes()[:1000])


def emptied(folder: Path) -> None:
    (folder / STATE).write_bytes(b"")


def replaced(folder: Path) -> None:
    shutil.copy(folder / "model.safetensors", folder / STATE)


@pytest.mark.parametrize("damage", [cut, emptied, replaced])
def test_a_state_that_cannot_be_read_is_named(folder: Path, damage: Callable[[Path], None]) -> None:
    damage(folder)
    with pytest.raises(IntegrityError, match=r"state\.safetensors: damaged"):
        learn(tiny(), folder, seed=3)


@pytest.mark.parametrize("text", [b"", b'{"recipe": ', b"[]", b"\xff\xfe"], ids=repr)
def test_a_recipe_that_cannot_be_read_is_named(folder: Path, text: bytes) -> None:
    (folder / RECIPE).write_bytes(text)
    with pytest.raises(IntegrityError, match=r"recipe\.json: damaged"):
        learn(tiny(), folder, seed=3)


def changed(**training: Any) -> TaskRecipe:
    recipe = tiny()
    return dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, **training))


def test_what_differs_is_named_with_both_values(folder: Path) -> None:
    with pytest.raises(InputError, match=r"training.steps is 40, but it was begun with 12; name"):
        learn(changed(steps=40), folder, seed=3)
    with pytest.raises(InputError, match="seed is 4, but it was begun with 3"):
        learn(tiny(), folder, seed=4)
    with pytest.raises(InputError, match=r"model\.width is 32, but it was begun with 16"):
        learn(tiny(width=32), folder, seed=3)
    said = json.loads((folder / RECIPE).read_text())
    (folder / RECIPE).write_text(json.dumps(said | {"threads": 99}))
    with pytest.raises(InputError, match=r"begun with 99 \(set OMP_NUM_THREADS\)"):
        learn(tiny(), folder, seed=3)


def test_how_many_samples_are_tested_says_nothing_of_a_training(
    done: Learned, folder: Path
) -> None:
    recipe = tiny()
    more = dataclasses.replace(recipe, test=dataclasses.replace(recipe.test, samples=8))
    assert learn(more, folder, seed=3).model.hash == done.model.hash


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(InputError, match="a file is there; name a folder"):
            learn(tiny(), out)
