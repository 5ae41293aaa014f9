"""What a comparison's bench says of its runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from synthetic_runs import make_recording

from adaptive_sleep.config import ModelConfig
from adaptive_sleep.experiments.compare_bench import forked_flops
from adaptive_sleep.experiments.counterfactual import counterfactuals
from adaptive_sleep.experiments.replay import replay
from adaptive_sleep.model import Model


def test_forks_cost_their_run_and_every_fork(tmp_path: Path) -> None:
    torch.manual_seed(0)
    make_recording(tmp_path / "R")
    model = Model(
        ModelConfig(
            kind="series", channels=("load",), width=16, heads=2, fast_heads=1, key_dim=8,
            value_dim=8,
        )
    )  # fmt: skip
    found = counterfactuals(tmp_path / "R", model, "fixed(2)", tmp_path / "forks", most=2, stop=0.2)
    run = replay(tmp_path / "R", model, "fixed(2)", tmp_path / "run", stop=0.2)
    alone = run.flops_per_event * run.events
    assert found.forked_flops > alone  # each window read on from twice
    assert forked_flops(found, tmp_path / "forks") == pytest.approx(alone + found.forked_flops)
