"""Whether the environment can be learned from: a short PPO run on hops, against the same by lot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats

from adaptive_sleep.experiments.replay import replay
from adaptive_sleep.experiments.runs import open_run
from adaptive_sleep.policies.agent_export import export_ppo
from adaptive_sleep.policies.environment import Consolidation
from adaptive_sleep.streams.recording import Recording
from adaptive_sleep.streams.tasks.recorded import GAP_SECONDS, record
from adaptive_sleep.streams.tasks.registry import make_task
from adaptive_sleep.streams.tasks.task import Part

MODEL = "bundled:hops"
MIX = {1: 1.0, 2: 1.0, 4: 1.0, 8: 1.0}  # hops that need 1, 1, 2 and 4 passes
PRICE = 5e-8  # 0.14 nats a pass


def hops(path: Path, part: Part, samples: int, seed: int) -> Recording:
    """Each sample a stream of its own: the model was taught to begin each one afresh."""
    task = make_task("hops", nodes=16, max_hops=8)
    return record(task, path, samples=samples, seed=seed, part=part, streams=samples, weights=MIX)


def run(recording: Recording, spec: str, out: Path) -> tuple[Any, float]:
    """Loss of every window of questions, by stream, and the mean passes of those slept on."""
    replay(recording, MODEL, spec, out, gap_seconds=GAP_SECONDS, max_passes=4)
    trace = open_run(out).trace().collect().sort("stream", "window")
    slept = trace.filter(pl.col("asked") == 0)["passes"].to_numpy()
    return trace.filter(pl.col("asked") > 0)["loss"].to_numpy(), float(slept.mean())


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ppo_beats_chance_at_equal_mean_passes(tmp_path: Path) -> None:
    baselines = pytest.importorskip("stable_baselines3")
    env = Consolidation(
        hops(tmp_path / "train", "train", 512, 1),
        MODEL,
        gap_seconds=GAP_SECONDS,
        price=PRICE,
        summary=True,
    )
    # a stream is one decision and what came of it, so nothing later is to be looked forward to
    agent = baselines.PPO(
        "MlpPolicy", env, learning_rate=1e-3, n_steps=256, batch_size=64, gamma=0.0,
        ent_coef=0.01, seed=0, device="cpu",
    )  # fmt: skip
    agent.learn(3072)
    file = export_ppo(agent, tmp_path / "agent.safetensors")

    test = hops(tmp_path / "test", "test", 256, 7)
    own, passes = run(test, f"agent(file={str(file)!r})", tmp_path / "agent")
    assert 1.0 < passes < 4.0
    chance = []
    for seed in range(3):
        spec = f"random(mean={passes!r}, seed={seed})"
        losses, mean = run(test, spec, tmp_path / f"random-{seed}")
        assert mean == pytest.approx(passes, abs=0.1)
        chance.append(losses)
    saved = np.mean(chance, axis=0) - own  # paired by stream
    interval = stats.t.interval(0.95, len(saved) - 1, saved.mean(), stats.sem(saved))
    assert interval[0] > 0.0, interval
