"""A batch of a task through the model: read its windows, sleep on them, answer what is asked.

Windows in which nothing is asked are consolidation windows: N passes and eviction. Windows of
questions are read once, from the fast weights (arXiv 2605.26099, section 3). How a task is trained
is in `task_training`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from adaptive_sleep.attention import Visibility
from adaptive_sleep.memory import FastWeights
from adaptive_sleep.model import Model
from adaptive_sleep.sleep import ClosedWindow, sleep_pass
from adaptive_sleep.streams.tasks.task import TaskBatch


@dataclass(frozen=True, eq=False)
class Answers:
    """What was answered in one window of questions: `logits` `[n, classes]` of the n questions,
    their `targets` `[n]` and the sample `rows` `[n]` they belong to."""

    logits: Tensor
    targets: Tensor
    rows: Tensor

    def loss(self) -> Tensor:
        """Cross-entropy, nats per question."""
        return F.cross_entropy(self.logits, self.targets)

    def right(self, samples: int) -> Tensor:
        """Boolean `[samples]`: which samples have every question of theirs right."""
        wrong = (self.logits.argmax(-1) != self.targets).long()
        return torch.zeros(samples, dtype=torch.int64).index_add(0, self.rows, wrong) == 0


def fall_asleep(
    model: Model,
    tokens: Tensor,
    lengths: Tensor,
    before: FastWeights,
    passes: int,
    *,
    recompute: bool = False,
) -> list[FastWeights]:
    """Fast weights after each of `passes` passes over a window of tokens `[B, L]`, as they are at
    the boundary.

    With `recompute` the gradient runs the blocks of each pass again instead of keeping what they
    worked out.
    """

    def wake() -> tuple[Tensor, Tensor, FastWeights]:
        embedded = model.placed(model.tokens.embed(tokens), torch.zeros_like(lengths))
        done = model.run(embedded, lengths, before, seen=model.config.sleep_attention)
        return embedded, done.hidden, done.weights

    def run(part: Any, *given: Any) -> Any:
        return checkpoint(part, *given, use_reentrant=False) if recompute else part(*given)

    embedded, hidden, weights = run(wake)
    window = ClosedWindow(embedded, hidden, lengths, before, weights)
    after = [weights]
    for _ in range(passes - 1):
        hidden, weights = run(sleep_pass, model, window, hidden, weights)
        after.append(weights.with_tails(after[0]))
    return after


def answer(model: Model, batch: TaskBatch, passes: int) -> list[Answers]:
    """Read a batch of samples with `passes` passes per consolidation window, on streams that have
    seen nothing; one `Answers` for each window of questions."""
    return go_on(model, batch, passes, model.fresh(len(batch)))[0]


def go_on(
    model: Model,
    batch: TaskBatch,
    passes: int,
    start: FastWeights,
    *,
    every: bool = False,
    recompute: bool = False,
) -> tuple[list[Answers], FastWeights]:
    """Read a batch of samples from the fast weights `start` on; the `Answers` and the fast weights
    at the end.

    There is one for each window of questions, or, with `every`, for it after each pass over the
    window before. Later windows go on from the last pass. `recompute` as in `fall_asleep`.
    """
    states = [start]
    found = []
    for tokens, targets, lengths, diagonal in zip(
        batch.tokens, batch.targets, batch.lengths, batch.diagonal, strict=True
    ):
        words, valid = torch.from_numpy(tokens), torch.from_numpy(lengths)
        asked = torch.from_numpy(targets)
        rows, places = torch.nonzero(asked >= 0, as_tuple=True)
        if not len(rows):
            states = fall_asleep(model, words, valid, states[-1], passes, recompute=recompute)
            continue
        embedded = model.placed(model.tokens.embed(words), torch.zeros_like(valid))
        seen: Visibility = "diagonal" if diagonal else "causal"
        for weights in states if every else states[-1:]:
            done = model.run(embedded, valid, weights, seen=seen)
            logits = model.tokens.logits(done.hidden[rows, places])
            found.append(Answers(logits, asked[rows, places], rows))
        states = [done.weights]
    return found, states[-1]


def window_positions(batch: TaskBatch) -> tuple[float, float]:
    """Positions of a sample on average: those that every pass reads, and those of questions."""
    read = asked = 0
    for targets, lengths in zip(batch.targets, batch.lengths, strict=True):
        if (targets >= 0).any():
            asked += int(lengths.sum())
        else:
            read += int(lengths.sum())
    return read / len(batch), asked / len(batch)
