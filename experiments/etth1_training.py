"""Training the forecaster of ETTh1: one seed, from the training rows, chosen on validation rows.

What a step is, is in the core (horizon.py); the test rows are not read here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adaptive_sleep.config import ModelConfig, decode, read_toml
from adaptive_sleep.experiments.etth1_data import CHANNEL, Protocol, Table, moments
from adaptive_sleep.experiments.etth1_testing import score_policy
from adaptive_sleep.experiments.series_baselines import fit_ridge, windows
from adaptive_sleep.horizon import HorizonRecipe, HorizonTrainer, check_horizon
from adaptive_sleep.model import Model
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.training_data import StreamData, sample, stream_of
from adaptive_sleep.training_recipe import parse_passes

Report = Callable[[float, float | None, str], None]


@dataclass(frozen=True, kw_only=True)
class TestRecipe:
    """How to test: under which policies, and what streams read before their first forecast."""

    __test__ = False  # no test class of pytest's

    policies: tuple[str, ...] = ("fixed(1)", "fixed(2)", "fixed(3)", "fixed(4)")
    warm_windows: int = 4
    tolerance: float = 0.001  # share of the best validation error that a cheaper policy may cost


@dataclass(frozen=True, kw_only=True)
class HorizonExperiment:
    """A whole recipe: `[protocol]`, `[model]`, `[training]`, `[test]`."""

    protocol: Protocol = field(default_factory=Protocol)
    model: dict[str, Any] = field(default_factory=dict)
    training: HorizonRecipe = field(default_factory=HorizonRecipe)
    test: TestRecipe = field(default_factory=TestRecipe)


def read_experiment(path: Path) -> HorizonExperiment:
    """Decode a recipe strictly. Raises InputError naming the field."""
    recipe = decode(HorizonExperiment, read_toml(path), where=str(path))
    check_horizon(recipe.training)
    parse_passes(recipe.training.passes)
    config = config_of(recipe)
    if config.patch * config.horizon != recipe.protocol.horizon:
        raise InputError(
            f"[model] horizon={config.horizon}: {config.horizon} patches of {config.patch} rows "
            f"are not the {recipe.protocol.horizon} rows of the protocol"
        )
    if not recipe.test.policies:
        raise InputError("[test] policies: name at least 1, for example 'fixed(1)'")
    return recipe


def config_of(recipe: HorizonExperiment) -> ModelConfig:
    """The model of a recipe: a series of one channel."""
    return decode(
        ModelConfig, {"kind": "series", "channels": [CHANNEL], **recipe.model}, where="[model]"
    )


def part_moments(recipe: HorizonExperiment, table: Table, part: str) -> Callable[[], Any]:
    """The moments of a part, from the start each time that it is called."""
    config = config_of(recipe)
    shape = {"patch": config.patch, "window": config.window}
    warm = recipe.test.warm_windows * config.window
    return lambda: moments(table, recipe.protocol, part, warm=warm, **shape)


def linear_start(table: Table, protocol: Protocol, lookback: int) -> Tensor:
    """Where the linear map of the model starts: the closed-form ridge map `[H, lookback]`, on
    values from which any level has been taken (it then goes through the last value)."""
    held = windows(table.values, protocol.origins("validation"), lookback, protocol.horizon)
    rows = protocol.origins("train")
    train = windows(table.values, rows[rows >= lookback], lookback, protocol.horizon)
    weight = fit_ridge(train, held).weight.copy()
    weight[:, -1] += 1.0 - weight.sum(1)
    return torch.from_numpy(weight).float()


@dataclass(frozen=True, eq=False)
class Fitted:
    """A trained model, the step that validation chose, the validation errors by step, seconds."""

    model: Model
    step: int
    log: list[dict[str, float]]
    seconds: float


def fit(
    recipe: HorizonExperiment, table: Table, seed: int, *, on_progress: Report | None = None
) -> Fitted:
    """Train one seed; the averaged weights that forecast the validation windows best are kept.

    Validation runs under `fixed(1)`, as the test does. Raises InputError.
    """
    begun, settings, config = time.perf_counter(), recipe.training, config_of(recipe)
    low, high = parse_passes(settings.passes)
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    model = Model(config)
    if model.series.skip is not None:
        with torch.no_grad():
            start = linear_start(table, recipe.protocol, config.skip)
            model.series.skip.weight.copy_(start)
    streams = _streams(recipe, table, config)
    extra = -(-model.series.ahead // config.window)  # they hold what follows the windows read
    trainer = HorizonTrainer(model, settings)
    held = part_moments(recipe, table, "validation")
    averaged = Model(config)
    best, kept, chosen = float("inf"), dict(trainer.averaged), 0
    log: list[dict[str, float]] = []
    for step in range(1, settings.steps + 1):
        batch = sample(
            streams, config, random, batch=settings.batch, windows=settings.windows + extra,
            window=config.window,
        )  # fmt: skip
        passes = int(random.integers(low, high + 1))
        loss = trainer.step(batch, settings.windows, passes)
        note = f"seed {seed}, loss {loss:.4f}"
        if step % settings.validate_every == 0 or step == settings.steps:
            averaged.load_state_dict(trainer.averaged)
            averaged.forget_hash()
            found = score_policy(averaged, "fixed(1)", held)
            log.append({"step": step, "loss": loss, "validation_mse": found["mse"]})
            note += f", validation MSE {found['mse']:.4f}"
            if found["mse"] < best:
                best, chosen = found["mse"], step
                kept = {n: t.clone() for n, t in trainer.averaged.items()}
        if on_progress is not None:
            on_progress(step, settings.steps, note)
    averaged.load_state_dict(kept)
    averaged.forget_hash()
    return Fitted(averaged.eval(), chosen, log, time.perf_counter() - begun)


def _streams(recipe: HorizonExperiment, table: Table, config: ModelConfig) -> list[StreamData]:
    """The training rows, a stream a column."""
    rows = table.values[: recipe.protocol.train].astype(np.float32)
    return [stream_of(rows[:, c : c + 1], config) for c in range(rows.shape[1])]
