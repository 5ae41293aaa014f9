"""Gain files for tests: networks drawn at random, or that say the same whatever they are shown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from adaptive_sleep.policies.agent_network import Network
from adaptive_sleep.policies.gain_file import save_gain
from adaptive_sleep.policies.gain_network import Gain

WIDTH = 16  # of the summaries that the conformance kit makes up


def gain(weights: Sequence[Any], biases: Sequence[Any], most: int, **given: Any) -> Gain:
    """A gain of these layers."""
    layers = [tuple(np.array(it, dtype=np.float32) for it in part) for part in (weights, biases)]
    values: dict[str, Any] = {
        "model_hash": "0" * 64, "width": WIDTH, "horizon": 1, "provenance": {"made": "up"},
    } | given  # fmt: skip
    return Gain(network=Network(layers[0], layers[1], "relu"), most=most, **values)


def drawn(seed: int = 3, most: int = 4, hidden: int = 12, **given: Any) -> Gain:
    """A gain whose predictions differ from window to window and lie about 0.02."""
    draw = np.random.default_rng(seed)
    sizes = [given.get("width", WIDTH) + 2 + most - 1, hidden, most - 1]
    pairs = list(zip(sizes[1:], sizes[:-1], strict=True))
    weights = [draw.normal(0, wide**-0.5, (narrow, wide)) for narrow, wide in pairs]
    biases = [draw.normal(0, 0.3, narrow) for narrow, _ in pairs]
    biases[-1] += np.log(0.02)
    return gain(weights, biases, most, **given)


def constant(savings: Sequence[float], **given: Any) -> Gain:
    """A gain that always predicts these savings."""
    outputs = len(savings)
    wide = given.get("width", WIDTH) + 2 + outputs
    return gain([np.zeros((outputs, wide))], [np.log(savings)], outputs + 1, **given)


def saved(folder: Path, made: Gain, name: str = "gain.safetensors") -> str:
    """The path of a gain file, as it stands in a spec."""
    return str(save_gain(made, folder / name))
