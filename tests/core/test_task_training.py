"""The folder of a training: which seeds it takes, what a kill leaves, exact resume with dropout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adaptive_sleep.config import decode
from adaptive_sleep.learning import TaskRecipe
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.task_training import learn


def tiny(**model: Any) -> TaskRecipe:
    shape = {"width": 16, "heads": 2, "fast_heads": 1, "key_dim": 8, "value_dim": 8, "conv": 0}
    return decode(
        TaskRecipe,
        {
            "task": {"name": "chain", "nodes": 6, "paths": 2},
            "model": {**shape, **model},
            "training": {"steps": 12, "batch": 4, "validate_every": 4, "validation": 4},
            "test": {"passes": [1], "samples": 4},
        },
    )


def test_a_killed_run_with_dropout_ends_with_the_same_losses(tmp_path: Path) -> None:
    def stop(done: float, total: float | None, note: str) -> None:
        if done == 7:
            raise KeyboardInterrupt

    whole = learn(tiny(dropout=0.3), tmp_path / "whole", seed=3)
    with pytest.raises(KeyboardInterrupt):
        learn(tiny(dropout=0.3), tmp_path / "killed", seed=3, on_progress=stop)
    again = learn(tiny(dropout=0.3), tmp_path / "killed", seed=3)
    assert again.log.drop("seconds").equals(whole.log.drop("seconds"))
    assert again.model.hash == whole.model.hash
    dropless = learn(tiny(), tmp_path / "dropless", seed=3)
    assert dropless.log["loss"][0] != whole.log["loss"][0]  # something was dropped


@pytest.mark.parametrize("seed", [-1, 1.5, 2**64, True, "1", None])
def test_a_seed_that_is_none_is_refused_before_the_folder_is_claimed(
    seed: Any, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=rf"seed={seed!r}: a whole number from 0"):
        learn(tiny(), tmp_path / "run", seed=seed)
    assert not (tmp_path / "run").exists()


def test_a_seed_of_numpy_is_one_of_python(tmp_path: Path) -> None:
    learn(tiny(), tmp_path / "run", seed=np.int64(2))  # type: ignore[arg-type]
    assert json.loads((tmp_path / "run" / "recipe.json").read_text())["seed"] == 2
    learn(tiny(), tmp_path / "run", seed=2)


def test_a_kill_while_the_folder_is_claimed_leaves_one_that_can_be_taken_up(tmp_path: Path) -> None:
    (tmp_path / "recipe.json.tmp").write_text("{")
    learn(tiny(), tmp_path)
    assert not (tmp_path / "recipe.json.tmp").exists()
