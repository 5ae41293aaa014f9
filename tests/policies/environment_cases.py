"""Small models and recordings for the Gymnasium environment, and agents with random weights."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import nn

from adaptive_sleep.config import ModelConfig
from adaptive_sleep.model import Model
from adaptive_sleep.policies.agent_network import Network
from adaptive_sleep.policies.environment import ID, Consolidation
from adaptive_sleep.policies.environment_view import Moments, View
from adaptive_sleep.signals import WindowSignals
from adaptive_sleep.streams.events import Channel
from adaptive_sleep.streams.recording import Recording
from adaptive_sleep.streams.tasks.recorded import GAP_SECONDS, record
from adaptive_sleep.streams.tasks.registry import make_task
from adaptive_sleep.streams.writer import RecordingWriter
from adaptive_sleep.testing import make_signals

SECOND = 1_000_000_000
WINDOW = 8
TASK = make_task("hops", nodes=8, max_hops=3)


def series_model(seed: int = 0) -> Model:
    """A model of one channel and one action, with random weights wherever training would begin at
    zeros: else no sleep changed a prediction."""
    torch.manual_seed(seed)
    config = ModelConfig(
        kind="series", channels=("load",), actions=("fan",), patch=2, width=8, heads=2,
        fast_heads=1, key_dim=4, value_dim=4, window=WINDOW, quantiles=(0.1, 0.5, 0.9),
    )  # fmt: skip
    return _random(Model(config))


def answering_model() -> Model:
    """A model that answers the questions of TASK, with random weights."""
    torch.manual_seed(0)
    space = TASK.space
    config = ModelConfig(
        kind="tokens", vocabulary=space.vocabulary, fields=space.fields, answers=space.answers,
        width=8, heads=2, fast_heads=1, key_dim=4, value_dim=4, window=space.window,
        sleep_attention="bidirectional",
    )  # fmt: skip
    return _random(Model(config))


def _random(model: Model) -> Model:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def series(path: Path, streams: int = 1, rows: int = 100) -> Recording:
    """Interleaved streams at about 4 Hz, with values missing and an hour's pause before row 47."""
    draw = np.random.default_rng(streams)
    channels = [Channel("fan", "action"), Channel("load"), Channel("phase", "label")]
    time = 0
    with RecordingWriter(path, kind="series", channels=channels) as writer:
        for row in range(rows):
            time += SECOND // 4 if row != 47 else 3600 * SECOND
            values = draw.normal(size=(1, 3)).astype(np.float32)
            values[0, 1] = np.nan if draw.random() < 0.1 else values[0, 1]
            writer.append(f"s{draw.integers(streams)}", time, values=values)
    return Recording.open(path)


def asked(path: Path, streams: int = 3) -> Recording:
    """Samples of TASK: windows to read, each followed by one of questions."""
    return record(TASK, path, samples=12, seed=1, part="test", streams=streams)


def environment(recording: Recording | str, model: Model | str, **settings: Any) -> Consolidation:
    """The environment by its name, without wrappers, so that it knows its spec."""
    if isinstance(model, Model):
        settings = {"gap_seconds": GAP_SECONDS if model.config.answers else 60.0} | settings
    name = f"{Consolidation.__module__}:{ID}"
    made = gymnasium.make(name, recording=recording, model=model, **settings)
    assert isinstance(made.unwrapped, Consolidation)
    return made.unwrapped


Course = tuple[list[np.ndarray], list[float], list[dict[str, Any]]]


def play(env: Any, passes: Iterable[int], seed: int | None = None) -> Course:
    """One episode: all observations, rewards and infos. `passes` may be endless."""
    seen, info = env.reset(seed=seed)
    observations, rewards, infos = [seen], [], [info]
    for count in passes:
        seen, reward, terminated, truncated, info = env.step(count - 1)
        assert not truncated
        observations.append(seen)
        rewards.append(reward)
        infos.append(info)
        if terminated:
            return observations, rewards, infos
    raise AssertionError("the episode goes on after the last of the passes")


def torch_network(
    inputs: int, hidden: tuple[int, ...], outputs: int, kind: type[nn.Module] = nn.Tanh
) -> nn.Sequential:
    """Linear layers with an activation between them, and random weights."""
    torch.manual_seed(1)
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(inputs, width), kind()]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


def network(inputs: int = 13, outputs: int = 4) -> Network:
    """A network with random weights large enough that its answers differ."""
    draw = np.random.default_rng(3)
    shapes = [(16, inputs), (outputs, 16)]
    return Network(
        tuple(draw.normal(size=shape).astype(np.float32) for shape in shapes),
        tuple(draw.normal(size=shape[0]).astype(np.float32) for shape in shapes),
    )


def view(summary: int = 0, model: str = "") -> View:
    """What is usual among made-up signals."""
    moments = Moments(WindowSignals.SCALARS, summary)
    moments.add(make_signals(200, 0, summary_width=summary or 16))
    return moments.view(model)
