"""What reading a batch costs in FLOPs, by the ledger's formulas: samples of a task, or windows of a
recording.

A gradient is taken to cost twice its forward pass, as is usual.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adaptive_sleep.asking import Lessons
from adaptive_sleep.config import ModelConfig
from adaptive_sleep.eviction import Holding
from adaptive_sleep.ledger import IntArray, costs, visible_pairs
from adaptive_sleep.streams.tasks.task import TaskBatch

GRADIENT = 3  # times the forward pass, itself included


def forward_flops(
    config: ModelConfig,
    holds: Holding,
    batch: TaskBatch,
    passes: int,
    *,
    lessons: Lessons = "last",
    held: float = 0.0,
) -> float:
    """FLOPs of a batch, forward, with `passes` passes over each window that is slept on; with
    `lessons` "every" its questions are answered, and fillers before them read, after each of them;
    with "loops" they are answered after each loop. `held`: events that attention holds of what came
    before, on average over the streams."""
    every, more_heads = lessons == "every", (config.loops - 1) * (lessons == "loops")
    price, causal, total = costs(config), config.sleep_attention == "causal", 0.0
    past = np.full(len(batch), round(held))
    for window, asked in enumerate(batch.asked()):
        lengths = batch.lengths[window].astype(np.int64)
        pairs = holds.pairs(past, lengths)
        if asked.any():
            ask = price.questions if batch.diagonal[window] else price.text
            often = passes if every else 1
            total += often * float(ask(lengths, asked.sum(1), *pairs).sum())
            total += more_heads * float(asked.sum()) * price.head
            grown = 0 if batch.diagonal[window] else lengths
        else:
            filler = every and batch.fillers and batch.fillers[window]  # read after each pass
            read, more = (passes, 0) if filler else (1, passes - 1)
            total += read * float(price.whole(lengths, *pairs, causal=causal).sum())
            total += more * float(price.sleep_pass(lengths, causal=causal).sum())
            grown = lengths
        past = np.minimum(past + grown, holds.kept)
    return total


def sequence_flops(config: ModelConfig, windows: Sequence[IntArray], passes: int) -> float:
    """FLOPs of windows of a recording, forward, each of as many positions `[B]` and, but for the
    last, slept on with `passes` passes; every position predicts, and attention holds nothing of
    earlier windows."""
    price, causal, total = costs(config), config.sleep_attention == "causal", 0.0
    for number, positions in enumerate(windows, 1):
        total += float(price.wake(positions, visible_pairs(0 * positions, positions, None)).sum())
        if number < len(windows):
            total += (passes - 1) * float(price.sleep_pass(positions, causal=causal).sum())
    return total
