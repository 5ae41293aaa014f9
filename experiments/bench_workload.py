"""What `bench runtime` runs: models that were never trained, streams of random tokens, policies.

Speed does not depend on what a model has learned; how many passes a policy asks for does, and is
reported.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from adaptive_sleep.config import ModelConfig
from adaptive_sleep.ledger import costs
from adaptive_sleep.model import Model
from adaptive_sleep.policies.agent_network import Network
from adaptive_sleep.policies.gain_file import ACTIVATION, save_gain
from adaptive_sleep.policies.gain_network import Gain
from adaptive_sleep.signals import IntArray, WindowSignals
from adaptive_sleep.streams.events import Events, Piece

SECOND = 1_000_000_000
VOCABULARY = 64
MOST = 4  # passes that any policy here asks for
HIDDEN = 32  # of both hidden layers of the network, as fit-gain has them


@dataclass(frozen=True)
class Shape:
    """Streams side by side, events in a window, features d of the model."""

    streams: int
    window: int
    width: int

    def __str__(self) -> str:
        return f"{self.streams} x {self.window}, d {self.width}"


def model_of(shape: Shape, seed: int = 0) -> Model:
    """A hybrid of one attention and one DeltaNet layer: the least work beside the signals."""
    config = ModelConfig(
        kind="tokens",
        vocabulary=VOCABULARY,
        width=shape.width,
        key_dim=shape.width // 2,
        value_dim=shape.width // 2,
        window=shape.window,
    )
    torch.manual_seed(seed)
    return Model(config).eval()


def names_of(shape: Shape) -> list[str]:
    """Names of the streams."""
    return [f"stream-{i}" for i in range(shape.streams)]


def windows_of(shape: Shape, turn: int, *, ragged: bool = False) -> list[Piece]:
    """Window `turn` of every stream as one piece that closes it; `ragged`: some are shorter."""
    random = np.random.default_rng([shape.streams, shape.window, turn])
    pieces = []
    for i, stream in enumerate(names_of(shape)):
        size = shape.window - (3 * i + turn) % (shape.window // 2) if ragged else shape.window
        time = (turn * shape.window + np.arange(size)) * SECOND
        tokens = random.integers(0, VOCABULARY, size)
        pieces.append(Piece(stream, Events(time, tokens=tokens), True, "length"))
    return pieces


def even_passes(shape: Shape, seed: int = 0) -> dict[str, int]:
    """1 to 4 passes, each for a quarter of the streams (up to rounding), drawn at random."""
    passes = 1 + np.random.default_rng(seed).permutation(np.arange(shape.streams) % MOST)
    return dict(zip(names_of(shape), passes.tolist(), strict=True))


def prescribed(passes: Mapping[str, int]) -> Callable[[WindowSignals], IntArray]:
    """The policy that asks for so many passes of each stream."""
    return lambda signals: np.array([passes[s] for s in signals.stream], dtype=np.int64)


def policies_of(model: Model, folder: Path) -> dict[str, str]:
    """Spec strings of the policies whose cost is measured, by what they are called in the report.

    `folder`: where the file of a network that was never fitted is put.
    """
    window = model.config.window
    one_pass = int(costs(model.config).sleep_pass(np.array([window]), causal=True)[0])
    settling = f"state_change(tolerance=0.1, max_passes={MOST})"
    file = save_gain(_gain(model), folder / "gain.safetensors")
    return {
        "fixed(1)": "fixed(1)",
        settling: settling,
        "linear": "linear()",
        # all sleep on, some beyond the second pass: it is asked after two passes
        "predicted_gain": f"predicted_gain(file={str(file)!r}, threshold=0.5)",
        "budgeted": f"budgeted({settling}, flops_per_event={one_pass / window!r})",
    }


def _gain(model: Model) -> Gain:
    random = np.random.default_rng(0)
    width = 2 * model.config.width
    sizes = [width + 2 + MOST - 1, HIDDEN, HIDDEN, MOST - 1]
    weights = [
        (random.normal(size=(n, m)) / m**0.5).astype(np.float32)
        for m, n in itertools.pairwise(sizes)
    ]
    biases = [np.zeros(n, dtype=np.float32) for n in sizes[1:]]
    network = Network(tuple(weights), tuple(biases), ACTIVATION)
    return Gain(network, model.hash, most=MOST, width=width, horizon=1)
