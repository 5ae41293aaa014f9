"""From an agent trained by stable-baselines3 to a file that the policy `agent` runs.

Only what a PPO agent with an MlpPolicy is made of is looked at; stable-baselines3 itself is not
imported, and needed only to train.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from adaptive_sleep.policies.agent_file import save_agent
from adaptive_sleep.policies.agent_network import ACTIVATIONS, Network
from adaptive_sleep.policies.environment_view import View
from adaptive_sleep.streams.errors import InputError

_LINEAR = "Linear"


def export_ppo(ppo: Any, path: str | Path, view: View | None = None) -> Path:
    """Write the policy of a PPO (or MaskablePPO) agent with an MlpPolicy; returns the path.

    view: what it saw while it learned; by default that of the environments that it holds. Raises
    InputError if these see differently, for a policy of another kind, for observations that were
    normalised once more (VecNormalize) or changed by a wrapper, and as `save_agent`.
    """
    extractor = type(ppo.policy.features_extractor).__name__
    if extractor != "FlattenExtractor" or not hasattr(ppo.policy, "action_net"):
        raise InputError(
            f"policy={type(ppo.policy).__name__} with {extractor}: expected PPO's MlpPolicy"
        )
    normalised = ppo.get_vec_normalize_env()
    if normalised is not None and normalised.norm_obs:
        raise InputError(
            "VecNormalize(norm_obs=True): the environment normalises observations already; train "
            "with norm_obs=False"
        )
    layers = [*ppo.policy.mlp_extractor.policy_net, ppo.policy.action_net]
    linear = [layer for layer in layers if type(layer).__name__ == _LINEAR]
    network = Network(
        tuple(layer.weight.detach().cpu().float().numpy().copy() for layer in linear),
        tuple(layer.bias.detach().cpu().float().numpy().copy() for layer in linear),
        _activation(layers),
    )
    view = _common(ppo) if view is None else view
    _check_seen(ppo.observation_space, view)
    return save_agent(view, network, path)


def _check_seen(space: Any, view: View) -> None:
    """Refuse observations of another space than the view's, which a wrapper made. Raises
    InputError."""
    low, high = (np.asarray(getattr(space, name, np.nan)) for name in ("low", "high"))
    same = low.shape == high.shape == (view.width,) and space.dtype == np.float32
    if not (same and (low == -view.clip).all() and (high == view.clip).all()):
        raise InputError(
            f"observation_space={space}: expected what the environment shows, {view.width} numbers "
            f"from {-view.clip:g} to {view.clip:g}; train without wrappers that change observations"
        )


def _activation(layers: list[Any]) -> str:
    """The activation between linear layers, of which there must be one kind."""
    names = [type(layer).__name__ for layer in layers]
    between = {name.lower() for name in names[1::2]} or {"tanh"}
    if set(names[::2]) != {_LINEAR} or len(between) != 1 or not between <= set(ACTIVATIONS):
        raise InputError(
            f"policy_net: {', '.join(names)}; expected Linear layers with one of "
            f"{', '.join(ACTIVATIONS)} between them"
        )
    return between.pop()


def _common(ppo: Any) -> View:
    """The view of the agent's environments."""
    environments = ppo.get_env()
    views = list(_views(environments)) if environments is not None else []
    if not views:
        raise InputError(
            "view: the agent holds no environment of ours; give the view it learned by"
        )
    if not all(view.same(views[0]) for view in views):
        raise InputError(
            "view: the agent's environments see differently; make them all with view=..., one view"
        )
    return views[0]


def _views(environments: Any) -> Iterator[View]:
    try:
        found = environments.get_attr("view")
    except AttributeError:
        return
    yield from (view for view in found if isinstance(view, View))
