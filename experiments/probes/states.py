"""Streams of known values, read by a runtime window after window: what each boundary left.

All streams run side by side and close their windows together. What is asked of the states is not
known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from adaptive_sleep.model import Model
from adaptive_sleep.runtime import Runtime
from adaptive_sleep.signals import IntArray, WindowSignals
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.events import Events, Piece

SECOND = 1_000_000_000


@dataclass(frozen=True, eq=False)
class Readings:
    """What S streams of W windows left: `states` float32 `[S, W, D]`, the fast weights after each
    boundary, flattened (matrices, then convolution tails; D is 0 where they were not kept); `loss`
    `[S, W]`, normalised pinball, as the trace has it; FLOPs per event by the ledger."""

    states: NDArray[np.float32]
    loss: NDArray[np.float64]
    flops_per_event: float


def read_streams(
    model: Model,
    values: NDArray[np.float32],
    passes: int | Sequence[int],
    *,
    keep: bool = True,
) -> Readings:
    """Read streams `values` `[S, W * window, C]` with `passes` passes over each window, or over
    window w with `passes[w]`; `keep` says whether states are kept.

    The loss of a window in which nothing was predicted is NaN. Raises InputError for streams that
    are not whole windows, and numbers of passes that are not one for each window.
    """
    streams, events, _ = values.shape
    window = model.config.window
    windows = events // window
    if windows < 1 or events != windows * window:
        raise InputError(f"values: {events} events a stream; give whole windows of {window}")
    plan = np.full(windows, passes) if isinstance(passes, int) else np.asarray(passes)
    if plan.shape != (windows,) or plan.min() < 1:
        raise InputError(f"passes={plan.tolist()}: {windows} numbers, each at least 1")

    def planned(signals: WindowSignals) -> IntArray:
        return np.asarray(plan[signals.window], dtype=np.int64)

    names = [f"stream-{number}" for number in range(streams)]
    runtime = Runtime(model, planned, max_passes=int(plan.max()), streams=names)
    states: list[NDArray[np.float32]] = []
    loss = np.full((streams, windows), np.nan)
    for w in range(windows):
        rows = slice(w * window, (w + 1) * window)
        time = np.arange(rows.start, rows.stop, dtype=np.int64) * SECOND
        pieces = [
            Piece(name, Events(time, values=values[s, rows]), True, "length")
            for s, name in enumerate(names)
        ]
        done = runtime.step(pieces, boundaries=keep)
        loss[:, w] = [np.nan if row.loss is None else row.loss for row in done.rows]
        for boundary in done.boundaries:
            weights = boundary.decision.slept.weights
            flat = torch.cat([tensor.flatten(1) for _, tensor in weights], 1)
            states.append(flat.numpy().copy())
    kept = np.stack(states, 1) if keep else np.zeros((streams, windows, 0), dtype=np.float32)
    return Readings(kept, loss, runtime.ledger.flops_per_event)
