"""The models of a comparison: checkpoints that are there, or one trained for each seed.

A recipe of a task trains as `reproduce` does, and in folders of the same layout, so that either
takes up what the other began; a recipe of a recording trains as `adaptive-sleep train` does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from adaptive_sleep.bundled import locate
from adaptive_sleep.checkpoint import describe_model, load_model
from adaptive_sleep.config import ModelConfig, read_toml
from adaptive_sleep.experiments.baselines.setup import AnyRecipe
from adaptive_sleep.experiments.comparing import ERRORS, Comparison, Models
from adaptive_sleep.experiments.finding import find_recipe
from adaptive_sleep.intake import check_fits
from adaptive_sleep.learning import TaskRecipe, check_made_for, config_of, read_task_recipe
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.recording import Recording
from adaptive_sleep.task_training import learn
from adaptive_sleep.training import train
from adaptive_sleep.training_data import rows_between
from adaptive_sleep.training_recipe import Recipe, opened, read_recipe, rows_said


def models_of(plan: Comparison, quick: bool) -> dict[int, str | None]:
    """The model of each seed; None where it is to be trained. Raises InputError, also for those
    that do not fit what is run, or say that they were trained or chosen on rows that are tested
    on."""
    found = _named(plan.models, quick)
    if plan.recording is not None:
        recording = Recording.open(locate("recordings", plan.recording.path))
    for model in dict.fromkeys(found.values()):
        named = f"[models] {model or plan.models.recipe}"
        config, said = _described(model, plan.models.recipe)
        if plan.recording is None:
            assert plan.task is not None
            check_made_for(config, plan.made_task().space, named)
        else:
            _check_recorded(recording, plan.recording.test, config, said, named)
        _check_fits(plan, config, named)
    _check_apart([model for model in found.values() if model])
    return found


def _check_apart(models: Sequence[str]) -> None:
    """Raise InputError for one model under two paths, which is not two trained models."""
    held: dict[str, str] = {}
    for model in models:
        first = held.setdefault(load_model(model).hash, model)
        if first != model:
            raise InputError(
                f"[models] paths: {first!r} and {model!r} are one model (its hash is the same); "
                "intervals are over models, so each has to be trained for itself"
            )


def _check_fits(plan: Comparison, config: ModelConfig, named: str) -> None:
    for entry in plan.policies:
        if entry.fit == ERRORS and config.kind == "series":
            raise InputError(
                f"policy {entry.name!r}: fit={entry.fit!r}: {named} answers no questions, so none "
                "is wrong; fit to losses ('gain')"
            )


def _named(models: Models, quick: bool) -> dict[int, str | None]:
    if quick:
        one = models.quick or next(iter(models.paths), "")
        if not one:
            raise InputError(
                "[models] quick: missing; name a trained model of what is run, a file or "
                "bundled:NAME, or leave out --quick"
            )
        return {0: _there(one)}
    if not models.recipe:
        return {number: _there(path) for number, path in enumerate(models.paths)}
    return dict.fromkeys(models.seeds)


def _described(model: str | None, training: str) -> tuple[ModelConfig, Mapping[str, str]]:
    """The shape of a model, or (None) of what a recipe trains, and what it says, or will say, of
    the rows that it learned from."""
    if model:
        return load_model(model).config, describe_model(model)["provenance"]
    recipe = training_recipe(training)
    if isinstance(recipe, TaskRecipe):
        return config_of(recipe), {}
    recording, config = opened(recipe)
    return config, rows_said(recipe, recording)


def _check_recorded(
    recording: Recording, test: tuple[float, float], config: ModelConfig, said: Mapping[str, str],
    named: str,
) -> None:  # fmt: skip
    try:
        check_fits(recording, config)
    except InputError as error:
        raise InputError(f"{named}: {error}") from None
    if said.get("recording_sha256") != recording.sha256:
        return  # of another recording, or it does not say
    start, stop = rows_between(test, recording.rows)
    for name, how in (("rows", "trained"), ("chosen_rows", "chosen")):
        found = re.search(r"(\d+) to (\d+)", said.get(name, ""))
        if found and max(int(found[1]), start) < min(int(found[2]), stop):
            raise InputError(
                f"[recording] test={list(test)}: rows {start} to {stop} overlap rows {found[0]}, "
                f"on which {named} was {how}"
            )


def trained(models: Models, folder: Path, seed: int) -> str:
    """The file of a seed's model in `folder`, trained unless it is there. Raises InputError."""
    return taught(training_recipe(models.recipe), folder, seed)


def training_recipe(name: str) -> AnyRecipe:
    """The recipe of that name or path: of a task, or of a recording. Raises InputError."""
    where = find_recipe(name)
    return read_task_recipe(where) if "task" in read_toml(where) else read_recipe(where)


def taught(recipe: AnyRecipe, folder: Path, seed: int) -> str:
    """The file of a model that a recipe has trained in `folder`, unless it is there. Raises
    InputError, also for one that another recipe has trained there."""
    if isinstance(recipe, TaskRecipe):
        return str(learn(recipe, folder, seed=seed).path)
    out = folder / "model.safetensors"
    recipe = replace(recipe, training=replace(recipe.training, seed=seed))
    if out.is_file():
        _check_taught(out, recipe)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        train(recipe, out)
    return str(out)


def _check_taught(model: Path, recipe: Recipe) -> None:
    """Raise InputError unless the model says that this recipe has trained it."""
    recording, config = opened(recipe)
    wanted = {**rows_said(recipe, recording), "recipe": repr(recipe.training)}
    said = describe_model(str(model))["provenance"]
    for name, value in wanted.items():
        if said.get(name, value if name == "chosen_rows" else None) != value:  # new: may be missing
            raise InputError(
                f"{model}: was trained with another {name}, {said.get(name)!r}, not {value!r}; "
                "choose another folder"
            )
    if load_model(model).config != config:
        raise InputError(f"{model}: was trained with another [model]; choose another folder")


def _there(model: str) -> str:
    if not locate("models", model).is_file():
        raise InputError(f"[models] {model!r}: there is no such file")
    return model
