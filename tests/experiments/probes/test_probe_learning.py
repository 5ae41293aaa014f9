"""The models of the probes: trained once, and never taken for those of another recipe."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from adaptive_sleep.checkpoint import load_model
from adaptive_sleep.experiments.probes import learning
from adaptive_sleep.training_recipe import TrainingRecipe

RECIPE = learning.LearnerRecipe(
    streams=learning.StreamsRecipe(streams=4, windows=8, train=0.75),
    model={"window": 16, "width": 32, "patch": 4},
    training=TrainingRecipe(steps=4, windows=2, bptt=2, validate_every=2, batch=2),
)


def test_a_model_that_is_there_is_taken_up(tmp_path: Path) -> None:
    found = learning.learn_regimes(RECIPE, tmp_path, 0)
    assert learning.learn_regimes(RECIPE, tmp_path, 0) == found
    assert learning.learn_regimes(RECIPE, tmp_path, 1) != found


def test_a_model_of_another_recipe_is_not_taken_up_after_an_interrupt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the model and the description beside it."""
    first = load_model(learning.learn_regimes(RECIPE, tmp_path, 0).path).hash

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    other = replace(RECIPE, training=replace(RECIPE.training, steps=6))
    with monkeypatch.context() as patch:
        patch.setattr(learning, "write_file", interrupted)
        with pytest.raises(KeyboardInterrupt):
            learning.learn_regimes(other, tmp_path, 0)
    assert load_model(tmp_path / "model.safetensors").hash != first
    assert load_model(learning.learn_regimes(RECIPE, tmp_path, 0).path).hash == first
