"""A wider state at the compute of sleep: columns of the fast-weight matrices, found by the ledger.

The knob of `baselines/wider_state.py`, for a series model; what it is worth is not measured here.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from adaptive_sleep.config import ModelConfig
from adaptive_sleep.experiments.baselines.wider_state import BASELINE, WIDEST
from adaptive_sleep.experiments.matching import NEAR, Spent, UnmatchedError, check_matched
from adaptive_sleep.experiments.probes.states import read_streams
from adaptive_sleep.ledger import resident_bytes
from adaptive_sleep.model import Model

WINDOWS = 3  # of one stream, whose cost is measured; every window costs the same


def cost(config: ModelConfig, passes: int) -> Spent:
    """What a model of this shape spends on streams of whole windows, by the ledger of a run: models
    that are not trained cost the same."""
    with torch.random.fork_rng(devices=[]):
        model = Model(config)
    shape = (1, WINDOWS * config.window, len(config.inputs))
    found = read_streams(model, np.zeros(shape, dtype=np.float32), passes, keep=False)
    name = BASELINE.name if passes == 1 else f"fixed({passes})"
    return Spent(name, found.flops_per_event, resident_bytes(config, 1, 0), config.value_dim)


def widened(config: ModelConfig, passes: int) -> ModelConfig:
    """The shape whose wider state, at one pass a window, costs what `passes` passes of `config` do
    within 2 %; the nearest.

    Raises UnmatchedError where no width up to `WIDEST` times that of `config` costs so much.
    """
    aim = cost(config, passes)
    low, high = config.value_dim, WIDEST * config.value_dim
    costs: dict[int, Spent] = {}

    def spent(width: int) -> float:
        if width not in costs:
            costs[width] = cost(replace(config, value_dim=width), 1)
        return costs[width].flops_per_event

    if spent(high) < aim.flops_per_event * (1 - NEAR):
        raise UnmatchedError(f"{aim} is not reached by the widest state: {costs[high]}")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if spent(middle) <= aim.flops_per_event else (low, middle)
    best = min((low, high), key=lambda width: abs(spent(width) - aim.flops_per_event))
    check_matched(aim, [costs[best]])
    return replace(config, value_dim=best)
