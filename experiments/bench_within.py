"""CPU seconds of what passes measure within their kernels, for deciding alone: how far the fast
weights moved, the summary of the hidden states, and how far these moved.

Such a part has no time of its own in a step. So the kernel is timed with it and without it, in
turn, on caches that hold other things, as after a product; the difference is what it costs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from adaptive_sleep.experiments.bench_workload import Shape
from adaptive_sleep.kernels import added, gated_delta_rule
from adaptive_sleep.signals import FloatArray

HEADS = 2  # of the DeltaNet layer, keys and values half the width, as `model_of` has it
OTHER = 3_000_000  # numbers that are read in between: more than the second level of cache holds


@dataclass(frozen=True)
class Within:
    """CPU seconds for a pass over all streams: `change`, of the fast weights; `summary`; `turned`,
    the summary and how far the hidden states moved."""

    change: float
    summary: float
    turned: float

    def of(self, passes: FloatArray, *, asked: bool) -> FloatArray:
        """CPU seconds of steps with so many passes a window, the wake pass among them; `asked`:
        whether the policy is asked after each further one, as if the last were no exception."""
        further = (passes - 1) * self.turned if asked else 0.0
        return passes * self.change + self.summary + further


def within(shape: Shape, rounds: int) -> Within:
    """Time the kernels of a pass with and without what they measure."""
    random, width = torch.Generator().manual_seed(0), shape.width

    def drawn(*size: int) -> Tensor:
        return torch.randn(size, generator=random)

    x, y, before = (drawn(shape.streams, shape.window, width) for _ in range(3))
    lengths, squares = torch.full((shape.streams,), shape.window), [drawn(2, shape.streams).abs()]
    size = shape.streams, shape.window, HEADS
    q, k = (normalize(drawn(*size, width // 2), dim=-1) for _ in range(2))
    rule = q, k, drawn(*size, width // 2), -drawn(*size).abs(), drawn(*size).sigmoid()
    start, old = (drawn(shape.streams, HEADS, width // 2, width // 2) for _ in range(2))

    def run(*, change: bool) -> object:
        return gated_delta_rule(
            *rule,
            initial_state=start,
            reference_state=old if change else None,
            return_state_change=change,
        )

    spent = _in_turn(
        [
            lambda: x + y,
            lambda: added(x, y, lengths, None, squares, floor=1e-6),
            lambda: added(x, y, lengths, before, squares, floor=1e-6),
            lambda: run(change=False),
            lambda: run(change=True),
        ],
        rounds,
    )
    more = [np.median(spent[:, a] - spent[:, b]) for a, b in ((4, 3), (1, 0), (2, 0))]
    return Within(*(max(float(seconds), 0.0) for seconds in more))


def _in_turn(calls: list[Callable[[], object]], rounds: int) -> FloatArray:
    """CPU seconds of each call in each round; who begins changes every time."""
    others = torch.zeros(OTHER)
    spent = np.zeros((1 + rounds, len(calls)))
    with torch.no_grad():
        for turn, row in enumerate(spent):
            for place in range(len(calls)):
                at = (turn + place) % len(calls)
                others.add_(1.0)
                begun = time.thread_time()
                calls[at]()
                row[at] = time.thread_time() - begun
    return spent[1:]
