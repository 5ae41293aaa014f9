"""Recipes that train on a recording: what is in one, what is refused, and what it opens."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adaptive_sleep.bundled import locate
from adaptive_sleep.checkpoint import named_tokens
from adaptive_sleep.config import ModelConfig, decode, read_toml
from adaptive_sleep.recipe_checks import above_zero, at_least_one, check_betas, from_zero, shares
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.recording import Recording
from adaptive_sleep.streams.tasks.task import checked_seed
from adaptive_sleep.training_data import fill_config, rows_between


@dataclass(frozen=True, kw_only=True)
class DataRecipe:
    """What to train on: a recording, and which parts of it (fractions of its rows)."""

    recording: str = ""
    train: tuple[float, float] = (0.0, 0.6)
    validation: tuple[float, float] = (0.6, 0.7)


@dataclass(frozen=True, kw_only=True)
class TrainingRecipe:
    """How to train. Sizes in windows, rates per step."""

    steps: int = 1000
    batch: int = 16  # sequences side by side
    windows: int = 12  # windows in a sequence
    bptt: int = 12  # windows that the gradient runs back over
    passes: str = "1-4"  # N drawn per batch from a range, or one number
    jitter: float = 0.25  # share of batches whose windows are cut short (partial patches, gaps)
    cold: float = 0.25  # series: share of sequences that start without running statistics
    mean_weight: float = 0.2  # series: weight of the mean's squared error
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.98)
    warmup: int = 50
    clip: float = 1.0
    seed: int = 0
    validate_every: int = 100
    warm_events: int = 4096  # of each stream, read before the validation range and not scored


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A whole recipe: `[model]` (fields of `ModelConfig`), `[data]`, `[training]`."""

    model: dict[str, Any] = field(default_factory=dict)
    data: DataRecipe = field(default_factory=DataRecipe)
    training: TrainingRecipe = field(default_factory=TrainingRecipe)


PRESETS: dict[str, Recipe] = {
    "series": Recipe(
        model={"patch": 4, "window": 64, "dropout": 0.2}, training=TrainingRecipe(steps=600)
    ),
    "tokens": Recipe(
        model={"window": 64}, training=TrainingRecipe(steps=600, batch=16, windows=6, bptt=6)
    ),
}


def read_recipe(path: str | Path) -> Recipe:
    """Decode a recipe strictly. Raises InputError naming the field."""
    recipe = decode(Recipe, read_toml(path), where=str(path))
    if not recipe.data.recording:
        raise InputError(f"{path}: [data] recording is missing: a path or bundled:NAME")
    try:
        check_recipe(recipe)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return recipe


def opened(recipe: Recipe) -> tuple[Recording, ModelConfig]:
    """The recording of a recipe, and the shape of its model. Raises InputError."""
    recording = recorded(recipe.data.recording)
    config = decode(ModelConfig, fill_config(recipe.model, recording), where="[model]")
    if config.kind != recording.kind:
        raise InputError(f"kind={config.kind!r}: the recording holds {recording.kind}")
    if config.horizon != 1:
        raise InputError(
            f"[model] horizon={config.horizon}: on a recording a forecast of 1 patch is trained; "
            "leave it out"
        )
    return recording, config


def recorded(where: str) -> Recording:
    """A recording, without what whoever made it was warned of. Raises InputError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return Recording.open(locate("recordings", where))


def rows_said(recipe: Recipe, recording: Recording) -> dict[str, str]:
    """What a checkpoint says of its recording, of the rows that it was trained on, and of those it
    was chosen on."""
    first, last = rows_between(recipe.data.train, recording.rows)
    start, stop = rows_between(recipe.data.validation, recording.rows)
    return {
        "recording_sha256": recording.sha256,
        "rows": f"train {first} to {last} of {recording.rows}",
        "chosen_rows": f"{start} to {stop}",
        **named_tokens(recording.manifest.categories),
    }


def check_recipe(recipe: Recipe) -> None:
    """Refuse numbers that nothing can be trained with. Raises InputError."""
    training = recipe.training
    parse_passes(training.passes)
    at_least_one(training, "steps", "batch", "windows", "bptt", "validate_every")
    shares(training, "jitter", "cold")
    above_zero(training, "learning_rate", "clip")
    from_zero(training, "mean_weight", "weight_decay", "warmup", "warm_events")
    checked_seed(training.seed, "[training] seed")
    check_betas(training)
    for name in ("train", "validation"):
        first, last = getattr(recipe.data, name)
        if not 0.0 <= first < last <= 1.0:
            raise InputError(f"[data] {name}=[{first}, {last}]: 0.0 <= first < last <= 1.0")
    train_part, validation = recipe.data.train, recipe.data.validation
    if train_part[0] < validation[1] and validation[0] < train_part[1]:
        raise InputError(
            f"[data] validation={list(validation)}: overlaps train={list(train_part)}; "
            "a checkpoint is chosen on rows that it was not trained on"
        )


def parse_passes(text: str) -> tuple[int, int]:
    """`passes` of `[training]`: "1-4" -> (1, 4); "2" -> (2, 2). Raises InputError."""
    parts = str(text).split("-")
    if len(parts) > 2 or not all(p.strip().isdecimal() and int(p) >= 1 for p in parts):
        raise InputError(f"[training] passes={text!r}: a number from 1, or a range such as '1-4'")
    low, high = int(parts[0]), int(parts[-1])
    if low > high:
        raise InputError(f"[training] passes={text!r}: the range runs backwards")
    return low, high
