"""The models of the probes: trained on streams of regimes to forecast, as any recording trains one.

What is then asked of them is in the probes.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptive_sleep.config import ModelConfig, decode
from adaptive_sleep.experiments.probes.regimes import (
    RegimeRecipe,
    check_regimes,
    drawn_plan,
    stream,
)
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.events import Channel
from adaptive_sleep.streams.manifest import write_file
from adaptive_sleep.streams.writer import RecordingWriter
from adaptive_sleep.training import Progress, train
from adaptive_sleep.training_recipe import DataRecipe, Recipe, TrainingRecipe, parse_passes

TRAINING, TESTING = 0, 1  # what seeds of streams begin with: no stream is in both
SECOND = 1_000_000_000


@dataclass(frozen=True, kw_only=True)
class StreamsRecipe:
    """How many streams are trained on, how long they are, and which share of their windows, from
    the start, trains; the checkpoint is chosen on the rest."""

    streams: int = 192
    windows: int = 64
    train: float = 0.9


@dataclass(frozen=True, kw_only=True)
class LearnerRecipe:
    """What is trained: `[regimes]`, `[streams]`, `[model]`, `[training]`."""

    regimes: RegimeRecipe = field(default_factory=RegimeRecipe)
    streams: StreamsRecipe = field(default_factory=StreamsRecipe)
    model: dict[str, Any] = field(default_factory=dict)
    training: TrainingRecipe = field(default_factory=TrainingRecipe)


@dataclass(frozen=True)
class Learned:
    """A trained model's file, its shape, the events that it was trained on, seconds, and the step
    that validation chose."""

    path: Path
    tokens: int
    seconds: float
    step: int


def check_learner(recipe: LearnerRecipe) -> ModelConfig:
    """The shape of the model of a recipe. Raises InputError for what cannot be trained."""
    check_regimes(recipe.regimes)
    parse_passes(recipe.training.passes)
    for name, least in (("streams", 1), ("windows", 2)):
        value = getattr(recipe.streams, name)
        if value < least:
            raise InputError(f"[streams] {name}={value}: at least {least}")
    if not 0.0 < recipe.streams.train < 1.0:
        raise InputError(f"[streams] train={recipe.streams.train}: a share between 0 and 1")
    names = [f"c{number}" for number in range(recipe.regimes.channels)]
    return decode(
        ModelConfig, {"kind": "series", "channels": names, **recipe.model}, where="[model]"
    )


def drawn_streams(
    recipe: RegimeRecipe, config: ModelConfig, plans: NDArray[np.int64], seed: tuple[int, ...]
) -> NDArray[np.float32]:
    """One stream for each of `plans` `[S, W]`, `[S, W * window, C]`; stream s is drawn from `seed`
    and s."""
    return np.stack(
        [
            stream(recipe, plan, config.window, shapes_seed=(*seed, s, 1), noise_seed=(*seed, s, 2))
            for s, plan in enumerate(plans)
        ]
    )


def plans_of(recipe: LearnerRecipe, seed: int) -> NDArray[np.int64]:
    """Regimes by stream and window of the streams that a seed trains on, `[S, W]`."""
    shape = recipe.streams
    return np.stack(
        [
            drawn_plan(recipe.regimes, shape.windows, np.random.default_rng([TRAINING, seed, s, 0]))
            for s in range(shape.streams)
        ]
    )


def learn_regimes(
    recipe: LearnerRecipe, folder: Path, seed: int, *, on_progress: Progress | None = None
) -> Learned:
    """Train the model of a seed in `folder`, or take up what is there of the same recipe and seed.

    Raises InputError.
    """
    config = check_learner(recipe)
    mine = {name: asdict(recipe)[name] for name in LearnerRecipe.__dataclass_fields__}
    told = {"recipe": json.loads(json.dumps(mine)), "seed": seed}  # what is asked trains nothing
    path, beside = folder / "model.safetensors", folder / "model.json"
    if path.is_file() and beside.is_file():
        before: dict[str, Any] = json.loads(beside.read_text(encoding="utf-8"))
        if {name: before.get(name) for name in told} == told:
            return _learned(path, before)
    folder.mkdir(parents=True, exist_ok=True)
    beside.unlink(missing_ok=True)  # killed between two files, nothing is taken for another
    with tempfile.TemporaryDirectory() as drawn:
        recording = _record(recipe, config, seed, Path(drawn) / "regimes")
        split = recipe.streams.train
        data = DataRecipe(recording=str(recording), train=(0.0, split), validation=(split, 1.0))
        training = replace(recipe.training, seed=seed)
        done = train(
            Recipe(model=recipe.model, data=data, training=training), path, on_progress=on_progress
        )
    settings = recipe.training
    tokens = settings.steps * settings.batch * settings.windows * config.window
    found = {**told, "tokens": tokens, "seconds": done.seconds, "step": done.step, "log": done.log}
    write_file(beside, (json.dumps(found, indent=1) + "\n").encode())
    return _learned(path, found)


def _learned(path: Path, found: Mapping[str, Any]) -> Learned:
    return Learned(path, found["tokens"], found["seconds"], found["step"])


def _record(recipe: LearnerRecipe, config: ModelConfig, seed: int, path: Path) -> Path:
    """Write the streams that a seed trains on as a recording, all of them window by window."""
    plans = plans_of(recipe, seed)
    values = drawn_streams(recipe.regimes, config, plans, (TRAINING, seed))
    channels = [Channel(name) for name in config.channels]
    window = config.window
    with RecordingWriter(path, kind="series", channels=channels) as writer:
        for at in range(0, values.shape[1], window):
            time = np.arange(at, at + window, dtype=np.int64) * SECOND
            for s in range(len(values)):
                writer.append(f"stream-{s}", time, values=values[s, at : at + window])
    return path
