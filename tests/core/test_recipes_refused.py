"""A recipe that cannot be trained is refused before anything is trained, naming the field."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.training import train
from adaptive_sleep.training_recipe import DataRecipe, Recipe, TrainingRecipe

DATA = DataRecipe(recording="nowhere")


@pytest.mark.parametrize("name", ["steps", "batch", "windows", "bptt", "validate_every"])
def test_counts_are_at_least_one(name: str, tmp_path: Path) -> None:
    settings: Any = {name: 0}
    recipe = Recipe(data=DATA, training=replace(TrainingRecipe(), **settings))
    with pytest.raises(InputError, match=f"{name}=0: at least 1"):
        train(recipe, tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("clip", 0.0, "a number above 0"),
        ("clip", float("nan"), "a number above 0"),
        ("learning_rate", 0.0, "a number above 0"),
        ("weight_decay", -1.0, "a number from 0 on"),
        ("mean_weight", -5.0, "a number from 0 on"),
        ("warmup", -3, "a number from 0 on"),
        ("seed", -1, r"a whole number from 0, below 2\*\*64"),
        ("seed", 2**64, r"a whole number from 0, below 2\*\*64"),
        ("warm_events", -200, "a number from 0 on"),
        ("jitter", 5.0, "a share from 0 to 1"),
        ("cold", -1.0, "a share from 0 to 1"),
        ("betas", (1.5, 0.9), "two numbers from 0, below 1"),
    ],
)
def test_numbers_lie_where_training_can_use_them(
    name: str, value: Any, said: str, tmp_path: Path
) -> None:
    recipe = Recipe(data=DATA, training=replace(TrainingRecipe(), **{name: value}))
    with pytest.raises(InputError, match=rf"\[training\] {name}=.*: {said}"):
        train(recipe, tmp_path / "m.safetensors")


@pytest.mark.parametrize("part", ["train", "validation"])
@pytest.mark.parametrize("span", [(0.7, 0.2), (0.0, 1.5), (-0.1, 0.5), (0.5, 0.5)])
def test_ranges_lie_within_the_recording(
    part: str, span: tuple[float, float], tmp_path: Path
) -> None:
    settings: Any = {part: span}
    with pytest.raises(InputError, match=rf"\[data\] {part}="):
        train(Recipe(data=replace(DATA, **settings)), tmp_path / "m.safetensors")


def test_a_missing_folder_is_said_before_training(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no.* does not exist"):
        train(Recipe(data=DATA), tmp_path / "no" / "m.safetensors")


def test_overlapping_ranges_are_refused(tmp_path: Path) -> None:
    data = DataRecipe(recording=str(tmp_path), train=(0.0, 0.7), validation=(0.6, 0.8))
    with pytest.raises(InputError, match=r"validation=\[0.6, 0.8\]: overlaps train=\[0.0, 0.7\]"):
        train(Recipe(data=data), tmp_path / "m.safetensors")
