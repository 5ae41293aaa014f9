"""A batch of a task through the model: read its windows, sleep on them, answer what is asked.

Windows in which nothing is asked are consolidation windows: N passes and eviction. Windows of
questions are read once, from the fast weights (arXiv 2605.26099, section 3). How a task is trained
is in `task_training`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from adaptive_sleep.asking import Lessons, ask
from adaptive_sleep.attention import KVCache, Visibility
from adaptive_sleep.config import Eviction
from adaptive_sleep.eviction import Holding, holding
from adaptive_sleep.memory import FastWeights
from adaptive_sleep.model import Model, Pass
from adaptive_sleep.sleep import ClosedWindow, sleep_pass
from adaptive_sleep.streams.tasks.task import TaskBatch


@dataclass(frozen=True, eq=False)
class Answers:
    """What was answered in one window of questions: `logits` `[n, classes]` of the n questions,
    their `targets` `[n]` and the sample `rows` `[n]` they belong to. Where real numbers are asked,
    `targets` are floating and `logits` `[n, 1]` the answers themselves."""

    logits: Tensor
    targets: Tensor
    rows: Tensor

    def asked(self) -> Answers:
        """Without the questions whose target is -1, which a rung leaves out."""
        if self.targets.is_floating_point() or bool((self.targets >= 0).all()):
            return self
        kept = torch.nonzero(self.targets >= 0)[:, 0]
        return Answers(self.logits[kept], self.targets[kept], self.rows[kept])

    def first(self) -> Answers:
        """The first question of each sample alone; those of a sample stand together, in order."""
        kept = torch.ones_like(self.rows, dtype=torch.bool)
        kept[1:] = self.rows[1:] != self.rows[:-1]
        return Answers(self.logits[kept], self.targets[kept], self.rows[kept])

    def loss(self) -> Tensor:
        """Cross-entropy, nats per question; of real numbers the mean squared error; of no question
        0."""
        if not len(self.targets):
            return self.logits.sum()
        if self.targets.is_floating_point():
            return F.mse_loss(self.logits[:, 0], self.targets.to(self.logits.dtype))
        return F.cross_entropy(self.logits, self.targets)

    def right(self, samples: int) -> Tensor:
        """Boolean `[samples]`: which samples have every question of theirs right (classes alone:
        a real number is never right)."""
        wrong = (self.logits.argmax(-1) != self.targets).long()
        right = torch.zeros(samples, dtype=torch.int64, device=wrong.device)
        return right.index_add(0, self.rows, wrong) == 0


@dataclass(frozen=True, eq=False)
class Carried:
    """What a batch of streams takes over a boundary: fast weights, and what attention `held` under
    `holds` (None: nothing, as after a hard eviction)."""

    weights: FastWeights
    holds: Holding
    held: KVCache | None = None

    def detach(self) -> Carried:
        """The same values, cut from the gradient graph."""
        held = self.held and self.held.detach()
        return replace(self, weights=self.weights.detach(), held=held)

    def alone(self, rows: Tensor, fresh: FastWeights) -> Carried:
        """The streams `rows` (int64 [n]) as they are, the others as if they had seen nothing."""
        weights = fresh.put(rows, self.weights.select(rows))
        if self.held is None:
            return replace(self, weights=weights)
        none = torch.zeros_like(self.held.lengths)
        lengths = none.index_copy(0, rows, self.held.lengths.index_select(0, rows))
        return replace(self, weights=weights, held=replace(self.held, lengths=lengths))


def unread(
    model: Model, streams: int, eviction: Eviction = "hard", keep: int | None = None
) -> Carried:
    """Streams that have seen nothing. Raises InputError for what the model cannot run under."""
    holds = holding(model.config, eviction, keep)
    held = holds.nothing(model.config, streams, model.device)
    return Carried(model.fresh(streams), holds, held)


def fall_asleep(
    model: Model,
    tokens: Tensor,
    lengths: Tensor,
    before: FastWeights,
    passes: int,
    *,
    values: Tensor | None = None,
    held: KVCache | None = None,
    reach: int | None = None,
    recompute: bool = False,
) -> tuple[list[FastWeights], KVCache]:
    """Fast weights after each of `passes` passes over a window of tokens `[B, L]`, with `values`
    `[B, L, V]` beside them if any, as they are at the boundary; and the KV of the wake pass, which
    alone sees what attention `held` before (None: nothing, as after a hard eviction), as far back
    as its `reach`.

    With `recompute` the gradient runs the blocks of each pass again instead of keeping what they
    worked out.
    """

    def wake() -> tuple[Tensor, Tensor, FastWeights, KVCache]:
        embedded = model.placed(model.tokens.embed(tokens, values), torch.zeros_like(lengths))
        seen = model.config.sleep_attention
        done = model.run(embedded, lengths, before, held, seen=seen, reach=reach)
        return embedded, done.hidden, done.weights, done.new

    def run(part: Any, *given: Any) -> Any:
        return checkpoint(part, *given, use_reentrant=False) if recompute else part(*given)

    embedded, hidden, weights, cache = run(wake)
    window = ClosedWindow(embedded, hidden, lengths, before, weights)

    def slept(hidden: Tensor, weights: FastWeights) -> tuple[Tensor, FastWeights]:
        done = sleep_pass(model, window, hidden, weights)
        return done.hidden, done.weights

    after = [weights]
    for _ in range(passes - 1):
        hidden, weights = run(slept, hidden, weights)
        after.append(weights.with_tails(after[0]))
    return after, cache


def _on(model: Model, array: NDArray[Any]) -> Tensor:
    """An array where the model is."""
    return torch.from_numpy(array).to(model.device)


def answer(model: Model, batch: TaskBatch, passes: int) -> list[Answers]:
    """Read a batch of samples with `passes` passes per consolidation window, on streams that have
    seen nothing; one `Answers` for each window of questions."""
    return go_on(model, batch, passes, unread(model, len(batch)))[0]


def go_on(
    model: Model,
    batch: TaskBatch,
    passes: int,
    start: Carried,
    *,
    lessons: Lessons = "last",
    recompute: bool = False,
) -> tuple[list[Answers], Carried]:
    """Read a batch of samples from `start` on; the `Answers`, and what is carried on at the end.

    There is one for each window of questions, or, with `lessons` "every", for it after each pass
    over the last window that was slept on, pass n being asked for rung n where the batch has rungs;
    fillers between the two are then read once after each of those passes. Questions that stand
    alone change nothing: those behind them are answered after each pass too. A window that is slept
    on goes on from the last pass. With `lessons` "loops" there is one after each loop over the
    questions, loop n being asked for rung n. `recompute` as in `fall_asleep`.
    """
    every = lessons == "every"
    states, holds, found = [start], start.holds, []
    for window, asked in enumerate(batch.asked()):
        words, valid, targets = (
            _on(model, x[window]) for x in (batch.tokens, batch.lengths, batch.targets)
        )
        values = _on(model, batch.values[window]) if batch.values else None
        rows, places = torch.nonzero(_on(model, asked), as_tuple=True)
        if batch.fillers and batch.fillers[window]:
            often, each = (1, states) if every else (passes, states[-1:])
            states = [
                _filled(model, words, valid, state, often, values=values, recompute=recompute)
                for state in each
            ]
            continue
        last = states[-1]
        if not len(rows):
            after, cache = fall_asleep(
                model, words, valid, last.weights, passes, values=values, held=last.held,
                reach=holds.reach, recompute=recompute,
            )  # fmt: skip
            held = holds.after(last.held, cache)
            states = [Carried(weights, holds, held) for weights in after]
            continue
        embedded = model.placed(model.tokens.embed(words, values), torch.zeros_like(valid))
        seen: Visibility = "diagonal" if batch.diagonal[window] else "causal"
        rungs = () if lessons == "last" else batch.rungs
        asked_of = states if every else [last]
        taught = _taught(model, embedded, valid, asked_of, seen, loops=lessons == "loops")
        for number, done in enumerate(taught, 1):
            logits = model.tokens.logits(done.hidden[rows, places])
            if number > len(rungs):
                found.append(Answers(logits, targets[rows, places], rows))
                continue
            wanted = _on(model, rungs[number - 1])
            found.append(Answers(logits, wanted[rows, places], rows).asked())
        if not batch.diagonal[window]:
            states = [Carried(done.weights, holds, holds.after(last.held, done.new))]
    return found, states[-1]


def _taught(
    model: Model,
    embedded: Tensor,
    lengths: Tensor,
    states: Sequence[Carried],
    seen: Visibility,
    *,
    loops: bool,
) -> Iterator[Pass]:
    """What is asked about in a window of questions: it, read from each of the states; after each
    loop over it where `loops` are taught."""
    for state in states:
        done = ask(
            model, embedded, lengths, state.weights, state.held, seen=seen, reach=state.holds.reach
        )
        yield from done if loops else done[-1:]


def _filled(
    model: Model,
    words: Tensor,
    lengths: Tensor,
    start: Carried,
    passes: int,
    *,
    values: Tensor | None,
    recompute: bool,
) -> Carried:
    """What streams carry after `passes` passes over a filler window; those that lack it (of length
    0) stay as they are."""
    rows, holds = torch.nonzero(lengths)[:, 0], start.holds
    if not len(rows):
        return start
    values = None if values is None else values[rows]
    before = start.held and start.held.select(rows)
    after, cache = fall_asleep(
        model, words[rows], lengths[rows], start.weights.select(rows), passes, values=values,
        held=before, reach=holds.reach, recompute=recompute,
    )  # fmt: skip
    weights, kept = start.weights.put(rows, after[-1]), holds.after(before, cache)
    held = start.held and kept and start.held.put(rows, kept)
    return Carried(weights, holds, held)
