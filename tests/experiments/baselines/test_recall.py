"""Baselines that keep more learn to use it: what left the window long ago is recalled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from adaptive_sleep.config import decode
from adaptive_sleep.experiments.baselines.registry import find_baseline
from adaptive_sleep.experiments.baselines.setup import Setup
from adaptive_sleep.learning import TaskRecipe, accuracy, task_of
from adaptive_sleep.memory_tokens import MemoryTokens
from adaptive_sleep.model import Model
from adaptive_sleep.task_training import learn

RECIPE = decode(
    TaskRecipe,
    {
        "task": {
            "name": "distractors",
            "facts": 4,
            "fillers": 5,
            "length": 8,
            "names": 12,
            "values": 4,
        },
        "model": {
            "width": 32,
            "heads": 2,
            "fast_heads": 1,
            "key_dim": 4,
            "value_dim": 4,
            "conv": 0,
            "layers": ["attention", "deltanet"],
            "sleep_attention": "bidirectional",
        },
        "training": {
            "steps": 80,
            "batch": 16,
            "passes": "1",
            "power": [3.0, 3.0],
            "matrix_rate": 0.02,
            "rate": 0.01,
            "validate_every": 80,
            "validation": 8,
            "warmup": 10,
        },
        "test": {"passes": [1], "samples": 4, "measure": "question"},
    },
)


def right(model: Model, setup: Setup) -> float:
    """Share of the names whose value is known, of those that a fact gives one."""
    recipe, task = setup.recipe, task_of(setup.recipe)
    found = accuracy(
        model, task, recipe.test, part="test", samples=128, eviction=recipe.eviction,
        keep=recipe.keep,
    )  # fmt: skip
    return found[1][1]


@pytest.mark.timeout(400)  # where other work has the cores
def test_what_is_retrieved_is_of_use(tmp_path: Path) -> None:
    """44 events are stored, of which a question brings back 32."""
    setup = find_baseline("retrieval").setup(RECIPE, 60)
    model = learn(setup.recipe, tmp_path, seed=0).model.eval()
    without = replace(setup, recipe=replace(setup.recipe, eviction="hard", keep=None))
    known, forgotten = right(model, setup), right(model, without)
    assert known > 0.6
    assert forgotten < 0.4  # one in four by chance


@pytest.mark.timeout(400)  # where other work has the cores
def test_what_memory_tokens_carry_is_of_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over a window of distractors."""
    task = {**RECIPE.task, "facts": 2, "fillers": 1}
    training = replace(RECIPE.training, steps=150, validate_every=150)
    recipe = replace(RECIPE, task=task, training=training)
    setup = find_baseline("memory_tokens").setup(recipe, 4)
    model = learn(setup.recipe, tmp_path, seed=0).model.eval()
    known = right(model, setup)
    monkeypatch.setattr(MemoryTokens, "written", lambda *given: torch.zeros_like(given[3]))
    forgotten = right(model, setup)
    assert known > 0.6, forgotten
    assert forgotten < 0.4  # one in four by chance
