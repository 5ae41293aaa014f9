"""A model that predicts the next event of a log: one replay gives its guesses and its windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from adaptive_sleep.experiments.probes.guesses import Guesses, IntArray, among_five, joined
from adaptive_sleep.experiments.replay import replay
from adaptive_sleep.experiments.runs import open_run
from adaptive_sleep.model import Model
from adaptive_sleep.runtime import Runtime, StepResult
from adaptive_sleep.streams.events import Piece


@dataclass(frozen=True, eq=False)
class Guessed:
    """What a replay of one stream from its first row gives: `guesses` at the rows from 1 on (what
    comes first is not predicted), the `trace` by window, and FLOPs per event of all phases."""

    guesses: Guesses
    trace: pl.DataFrame
    flops_per_event: float
    mean_passes: float


class _Follower:
    """Watches a replay of one stream, and keeps the hidden states that predict."""

    def __init__(self) -> None:
        self.hidden: list[Tensor] = []

    def __call__(self, runtime: Runtime, pieces: Sequence[Piece], result: StepResult) -> None:
        for boundary in result.boundaries:
            closed = boundary.closed
            self.hidden.append(closed.hidden[0, : int(closed.lengths[0])].clone())


def guess(
    model: Model, recording: str, tokens: IntArray, policy: str, out: Path, *, most: int
) -> Guessed:
    """Replay the whole of a `recording` of one stream, whose tokens are `tokens` `[rows]`, under a
    policy into the new folder `out`; every event is predicted by the wake pass that read the one
    before it."""
    follower = _Follower()
    done = replay(recording, model, policy, out, max_passes=most, watch=follower)
    hidden = torch.cat(follower.hidden)
    with torch.no_grad():
        logits = model.tokens.logits(hidden[:-1])
        logprob = torch.log_softmax(logits.double(), -1).numpy()
    targets = tokens[1:].tolist()
    pairs = [(row[t], among_five(row, t)) for row, t in zip(logprob, targets, strict=True)]
    trace = open_run(out).trace().sort("window").collect()
    return Guessed(joined(pairs), trace, done.flops_per_event, done.mean_passes)


def tokens_of(scan: pl.LazyFrame) -> IntArray:
    """The tokens of a recording `[rows]`, in arrival order."""
    return np.asarray(scan.select("token").collect()["token"].to_numpy(), dtype=np.int64)
