"""From a trained PPO agent to a file: the same answers; on stand-ins, and on the real one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from environment_cases import environment, series, series_model, torch_network, view
from torch import nn

from adaptive_sleep.contract import plan_passes
from adaptive_sleep.policies import Agent
from adaptive_sleep.policies.agent_export import export_ppo
from adaptive_sleep.policies.agent_file import read_agent
from adaptive_sleep.policies.environment_view import View
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.testing import make_signals


def box(width: int, bound: float = 10.0, kind: Any = np.float32) -> gymnasium.spaces.Box:
    return gymnasium.spaces.Box(-bound, bound, (width,), kind)


class FlattenExtractor:
    """What an MlpPolicy has before its layers."""


@dataclass
class StandIn:
    """As much of a PPO agent as the export looks at."""

    layers: nn.Sequential
    views: list[Any] = field(default_factory=list)
    extractor: Any = field(default_factory=FlattenExtractor)
    normalised: Any = None
    space: gymnasium.spaces.Box | None = None  # None: what its environment shows, as it should be

    @property
    def observation_space(self) -> gymnasium.spaces.Box:
        return self.space or box(self.layers[0].in_features)

    @property
    def policy(self) -> Any:
        return SimpleNamespace(
            features_extractor=self.extractor,
            mlp_extractor=SimpleNamespace(policy_net=self.layers[:-1]),
            action_net=self.layers[-1],
        )

    def get_vec_normalize_env(self) -> Any:
        return self.normalised

    def get_env(self) -> Any:
        return SimpleNamespace(get_attr=lambda name: self.views) if self.views else None


@pytest.mark.parametrize("kind", [nn.Tanh, nn.ReLU])
@pytest.mark.parametrize("hidden", [(), (8,), (64, 64)])
def test_the_file_plans_what_the_agent_would(
    kind: type[nn.Module], hidden: tuple[int, ...], tmp_path: Path
) -> None:
    layers = torch_network(29, hidden, 4, kind)
    path = export_ppo(StandIn(layers, [view(16), view(16)]), tmp_path / "a.safetensors")
    signals = make_signals(50, 1)
    seen = torch.from_numpy(view(16).see(signals))
    assert plan_passes(Agent(str(path)), signals).tolist() == (1 + layers(seen).argmax(1)).tolist()


def test_a_view_that_is_given_comes_first(tmp_path: Path) -> None:
    agent = StandIn(torch_network(13, (8,), 4), [view(16)])
    path = export_ppo(agent, tmp_path / "a.safetensors", view())
    assert read_agent(path).view.same(view())


OTHER = View(view().signals, 0, view().mean + 1, view().scale)


@pytest.mark.parametrize(
    ("agent", "told"),
    [
        (StandIn(torch_network(13, (8,), 4)), "holds no environment of ours"),
        (StandIn(torch_network(13, (8,), 4), ["view"]), "holds no environment of ours"),
        (StandIn(torch_network(13, (8,), 4), [view(), OTHER]), "see differently"),
        (StandIn(torch_network(13, (8,), 4), [view(16)]), "29 numbers from -10 to 10"),
        (StandIn(torch_network(13, (8,), 4), [view(16)], space=box(29)), "takes 13 numbers"),
        (StandIn(torch_network(13, (8,), 4), [view()], space=box(13, np.inf)), "without wrappers"),
        (StandIn(torch_network(13, (8,), 4), [view()], space=box(13, 1.0)), "without wrappers"),
        (
            StandIn(torch_network(13, (8,), 4), [view()], space=box(13, kind=np.float64)),
            "observation_space=Box.*without wrappers",
        ),
        (StandIn(torch_network(13, (8,), 4, nn.GELU), [view()]), "Linear, GELU, Linear"),
        (StandIn(torch_network(13, (8,), 4), [view()], extractor=object()), "MlpPolicy"),
        (
            StandIn(
                torch_network(13, (8,), 4), [view()], normalised=SimpleNamespace(norm_obs=True)
            ),
            "VecNormalize",
        ),
    ],
)
def test_what_would_plan_otherwise_is_refused(agent: StandIn, told: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=told):
        export_ppo(agent, tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- with stable-baselines3


def test_observations_changed_by_a_wrapper_are_refused(tmp_path: Path) -> None:
    env = environment(series(tmp_path / "recording", rows=40), series_model())
    agent = StandIn(torch_network(13, (8,), 4), [env.view])
    for wrapper in (
        gymnasium.wrappers.NormalizeObservation,
        lambda it: gymnasium.wrappers.FrameStackObservation(it, 2),
        lambda it: gymnasium.wrappers.RescaleObservation(it, np.float32(-1), np.float32(1)),
    ):
        agent.space = wrapper(env).observation_space
        for given in (None, env.view):
            with pytest.raises(InputError, match="train without wrappers that change"):
                export_ppo(agent, tmp_path / "a.safetensors", given)
    agent.space = gymnasium.wrappers.TimeLimit(env, 10).observation_space
    assert export_ppo(agent, tmp_path / "a.safetensors").is_file()


def test_its_checker_finds_nothing(tmp_path: Path) -> None:
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    recording = series(tmp_path / "recording", rows=40)
    for settings in ({}, {"summary": True, "budget": 1500.0}):
        checker.check_env(environment(recording, series_model(), **settings), warn=True)


def test_an_agent_that_it_trained_plans_what_it_would(tmp_path: Path) -> None:
    baselines = pytest.importorskip("stable_baselines3")
    recording = series(tmp_path / "recording", rows=60)
    env = environment(recording, series_model(), summary=True)
    agent = baselines.PPO(
        "MlpPolicy", env, n_steps=16, batch_size=8, n_epochs=2, seed=0, device="cpu"
    )
    agent.learn(32)
    policy = Agent(str(export_ppo(agent, tmp_path / "a.safetensors")))
    signals = make_signals(50, 1, summary_width=env.view.summary)
    answers = agent.predict(env.view.see(signals), deterministic=True)[0]
    assert plan_passes(policy, signals).tolist() == (1 + answers).tolist()
    assert policy.model_hash == series_model().hash
