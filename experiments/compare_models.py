"""The models of a comparison: checkpoints that are there, or one trained for each seed.

A recipe of a task trains as `reproduce` does, and in folders of the same layout, so that either
takes up what the other began; a recipe of a recording trains as `adaptive-sleep train` does.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from adaptive_sleep.bundled import locate
from adaptive_sleep.config import read_toml
from adaptive_sleep.experiments.comparing import Models
from adaptive_sleep.experiments.finding import find_recipe
from adaptive_sleep.learning import read_task_recipe
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.task_training import learn
from adaptive_sleep.training import read_recipe, train


def models_of(models: Models, quick: bool) -> dict[int, str | None]:
    """The model of each seed; None where it is to be trained. Raises InputError."""
    if quick:
        one = models.quick or next(iter(models.paths), "")
        if not one:
            raise InputError("[models] quick: missing; name a trained model, e.g. 'bundled:chain'")
        return {0: _there(one)}
    if not models.recipe:
        return {number: _there(path) for number, path in enumerate(models.paths)}
    where = find_recipe(models.recipe)
    if _is_of_a_task(where):
        read_task_recipe(where)
    else:
        read_recipe(where)
    return dict.fromkeys(models.seeds)


def trained(models: Models, folder: Path, seed: int) -> str:
    """The file of a seed's model in `folder`, trained unless it is there. Raises InputError."""
    where = find_recipe(models.recipe)
    if _is_of_a_task(where):
        return str(learn(read_task_recipe(where), folder, seed=seed).path)
    out = folder / "model.safetensors"
    if not out.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        recipe = read_recipe(where)
        train(replace(recipe, training=replace(recipe.training, seed=seed)), out)
    return str(out)


def _is_of_a_task(where: Path) -> bool:
    return "task" in read_toml(where)


def _there(model: str) -> str:
    if not locate("models", model).is_file():
        raise InputError(f"[models] {model!r}: there is no such file")
    return model
