"""Windows that are held until they close, and then run whole: read and slept on, or answered.

For models with `answers`: a window in which something is asked is one of questions, which is read
once, as the model's `questions` says; any other is for consolidation. Windows of other models are
run as they come (`advancing.py`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from adaptive_sleep.advancing import (
    Draft,
    Works,
    causes_of,
    closing_rows,
    forget,
    settle,
    slept_on,
)
from adaptive_sleep.arena import HELD, Rows
from adaptive_sleep.asking import ask
from adaptive_sleep.attention import KVCache
from adaptive_sleep.bookkeeping import arrived, read_weights, settled
from adaptive_sleep.boundary import answered, require_finite
from adaptive_sleep.ledger import IntArray
from adaptive_sleep.model import Beside, Model, Pass
from adaptive_sleep.packing import check_room
from adaptive_sleep.sleep import ClosedWindow
from adaptive_sleep.streams.events import Events, Piece
from adaptive_sleep.trace import TraceRow
from adaptive_sleep.wake import Predictions


def advance_whole(
    works: Works, pieces: Sequence[Piece], draft: Draft, forced: bool = False
) -> None:
    """Hold the new events, then run the windows that end; writes to the store, uncommitted.

    `forced`: the KV budget closes them.
    """
    if not pieces:
        return
    arena, streams = works.arena, [p.stream for p in pieces]
    index = arena.index(streams)
    state = arena.gather(index, works.small())
    check_room(pieces, state["open"].tolist(), works.settings.window)
    fresh = arrived(pieces, state, works.holding.events) | _held(pieces, state)
    arena.scatter(index, fresh)
    draft.ledger = draft.ledger.add(
        events=sum(len(p.events) for p in pieces), peak_resident_bytes=_resident(works)
    )
    rows = closing_rows(pieces, fresh)
    if len(rows):
        part = {n: t.index_select(0, rows) for n, t in (state | fresh).items()}
        names = [streams[int(r)] for r in rows]
        causes = causes_of(pieces, rows, forced)
        _close(works, names, index.index_select(0, rows), causes, part, draft)
    if forced:
        forget(works, index)


def _resident(works: Works, positions: int = 0) -> int:
    """Resident bytes while windows of so many `positions` are run behind what attention holds."""
    return works.resident(int(works.arena.tensors["cached"].sum()) + positions)


def _held(pieces: Sequence[Piece], state: Rows) -> Rows:
    """The events of the open windows after new ones, filled from the left."""
    held = {name: state[f"waiting.{name}"].clone() for name in HELD}
    for row, (piece, first) in enumerate(zip(pieces, state["open"].tolist(), strict=True)):
        place = slice(first, first + len(piece.events))
        for name, values in zip(HELD, _columns(piece.events), strict=True):
            held[name][row, place] = values
    return {f"waiting.{name}": tensor for name, tensor in held.items()}


def _columns(events: Events) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, targets (-1 where nothing is asked) and times, int64 `[n]`, as `HELD` names them."""
    assert events.tokens is not None
    asked = events.targets if events.targets is not None else np.full(len(events), -1)
    tokens, targets, times = (
        torch.tensor(column, dtype=torch.int64) for column in (events.tokens, asked, events.time)
    )
    return tokens, targets, times


@dataclass(frozen=True, eq=False)
class _Windows:
    """Closing windows: `tokens`, `targets` (-1 beyond the window) and `times` int64 `[n, L]`,
    `lengths` int64 `[n]`, of the streams `names`, in the rows `state`."""

    names: list[str]
    state: Rows
    lengths: Tensor
    tokens: Tensor
    targets: Tensor
    times: Tensor

    def select(self, rows: Tensor) -> _Windows:
        """The windows `rows` (int64 [m]) as a batch of their own."""
        state = {n: t.index_select(0, rows) for n, t in self.state.items()}
        return _windows([self.names[int(r)] for r in rows], state)

    def read(
        self, works: Works, cache: KVCache | None, draft: Draft, *, asked: bool
    ) -> tuple[Tensor, Pass]:
        """Run the windows behind `cache`, as consolidation or as questions: what was read, and the
        pass."""
        started, model, reach = time.perf_counter(), works.model, works.holding.reach
        embedded = model.placed(model.tokens.embed(self.tokens), torch.zeros_like(self.lengths))
        start = read_weights(self.state, "now")
        given = embedded, self.lengths, start, cache
        if asked:
            text = model.config.questions == "text"
            *_, done = ask(model, *given, seen="causal" if text else "diagonal", reach=reach)
        else:
            seen = model.config.sleep_attention
            done = model.run(*given, seen=seen, reach=reach, beside=Beside(start, pooled=True))
        draft.seconds["wake"] += time.perf_counter() - started
        sound = done.finite_streams() & done.weights.finite_streams()
        require_finite(sound, self.names, self.state["window"].tolist())
        return embedded, done


def _windows(names: list[str], state: Rows) -> _Windows:
    lengths = state["open"]
    size = int(lengths.max())
    tokens, targets, times = (state[f"waiting.{name}"][:, :size] for name in HELD)
    inside = torch.arange(size) < lengths[:, None]
    tokens, targets = torch.where(inside, tokens, 0), torch.where(inside, targets, -1)
    return _Windows(names, state, lengths, tokens, targets, times)


def _close(
    works: Works, names: list[str], index: Tensor, causes: list[str], state: Rows, draft: Draft
) -> None:
    """Run windows that end: questions first, so that policies hear of them before they plan."""
    windows, pressure = _windows(names, state), works.pressure()
    asked = (windows.targets != -1).any(1)
    found: dict[int, TraceRow] = {}
    for kind, run in ((asked, _answer), (~asked, _consolidate)):
        rows = torch.nonzero(kind)[:, 0]
        if len(rows):
            part, why = windows.select(rows), [causes[int(r)] for r in rows]
            closed = run(works, part, index[rows], why, pressure, draft)
            found |= dict(zip(rows.tolist(), closed, strict=True))
    draft.rows += [found[row] for row in sorted(found)]


def _cache(works: Works, index: Tensor, windows: _Windows) -> KVCache | None:
    """What attention holds of the streams `index`; None where nothing outlives a boundary."""
    return works.cache(index, windows.state) if works.holding.kept else None


def _keep(works: Works, index: Tensor, after: KVCache | None) -> None:
    """Store what outlives the boundary of windows; it is all that attention holds."""
    if after is None:
        return
    rows = {f"keys.{n}": t for n, t in after.keys.items()}
    rows |= {f"values.{n}": t for n, t in after.values.items()}
    works.arena.scatter(index, rows | {"cached": after.lengths, "held": after.lengths})


def _past(works: Works, windows: _Windows) -> tuple[IntArray, IntArray]:
    """Pairs of the windows' positions with what attention held before them, as `Holding.pairs`."""
    return works.holding.pairs(windows.state["cached"].numpy(), windows.lengths.numpy())


def _consolidate(
    works: Works,
    windows: _Windows,
    index: Tensor,
    causes: list[str],
    pressure: float,
    draft: Draft,
) -> list[TraceRow]:
    """Read windows in which nothing is asked, and sleep on them as the policy plans."""
    cache = _cache(works, index, windows)
    embedded, done = windows.read(works, cache, draft, asked=False)
    before = read_weights(windows.state, "now")
    closed = ClosedWindow(
        embedded, done.hidden, windows.lengths, before, done.weights, done.change, done.summary
    )
    lengths, causal = windows.lengths.numpy(), works.model.config.sleep_attention == "causal"
    spent = works.costs.whole(lengths, *_past(works, windows), causal=causal)
    draft.ledger = draft.ledger.add(
        wake=int(spent.sum()), peak_resident_bytes=_resident(works, int(lengths.sum()))
    )
    state = windows.state | {"wake_flops": torch.from_numpy(spent)}
    closing = works.counters(windows.names, state, pressure)
    closing = replace(closing, right=np.zeros_like(lengths), asked=np.zeros_like(lengths))
    decision = slept_on(works, closed, closing, draft)
    _keep(works, index, works.holding.after(cache, done.new))
    return settle(works, index, causes, closing, decision, state, draft, not works.holding.kept)


def _answer(
    works: Works,
    windows: _Windows,
    index: Tensor,
    causes: list[str],
    pressure: float,
    draft: Draft,
) -> list[TraceRow]:
    """Answer windows of questions from the fast weights, and tell what came of windows before.

    Questions that stand alone leave the fast weights, and what attention holds; a text also writes
    them.
    """
    cache = _cache(works, index, windows)
    _, done = windows.read(works, cache, draft, asked=True)
    answers = _answers(works.model, windows, done.hidden)
    if draft.predictions is not None:
        draft.predictions.append(answers.predictions(windows))
    asked = answers.per_window(torch.ones_like(answers.rows)).numpy()
    lengths, text = windows.lengths.numpy(), works.model.config.questions == "text"
    price = works.costs.text if text else works.costs.questions
    spent = price(lengths, asked, *_past(works, windows))
    held = _resident(works, int(lengths.sum()) if text else 0)
    draft.ledger = draft.ledger.add(wake=int(spent.sum()), peak_resident_bytes=held)
    state = windows.state | {
        "wake_flops": torch.from_numpy(spent),
        "scored": answers.per_window(answers.known.long()),
        "loss": answers.per_window(torch.where(answers.known, -answers.logprob, 0.0)),
        "spread": answers.per_window(answers.entropy),
    }
    closing = replace(
        works.counters(windows.names, state, pressure),
        predicted=asked,
        asked=asked,
        right=answers.per_window((answers.answer == answers.asked).long()).numpy(),
    )
    before = read_weights(windows.state, "now")
    after, limits = done.weights if text else before, works.limits(draft)
    decision = answered(works.policy, before, after, closing, limits, draft.pending)
    draft.pending = settled(closing, draft.pending)
    _keep(works, index, works.holding.after(cache, done.new) if text else cache)
    return settle(works, index, causes, closing, decision, state, draft, not works.holding.kept)


@dataclass(frozen=True, eq=False)
class _Answers:
    """What was answered, `[n]` in the order of windows: `rows` and `places` say where, `asked` is
    the right class (-2: not known), `answer` the likeliest; `logprob` (of `asked`, nats) and
    `entropy` (of log answers) float64."""

    windows: int
    rows: Tensor
    places: Tensor
    asked: Tensor
    answer: Tensor
    logprob: Tensor
    entropy: Tensor

    @property
    def known(self) -> Tensor:
        """Which of them can be scored."""
        return self.asked >= 0

    def per_window(self, values: Tensor) -> Tensor:
        """Sums of `values` `[n]` over each window, `[windows]`."""
        return values.new_zeros(self.windows).index_add(0, self.rows, values)

    def predictions(self, windows: _Windows) -> Predictions:
        """One row for every event at which something was asked."""
        return Predictions(
            np.array(windows.names, dtype=object)[self.rows.numpy()],
            windows.times[self.rows, self.places].numpy(),
            logprob=torch.where(self.known, self.logprob, torch.nan).numpy(),
            entropy=self.entropy.numpy(),
            asked=self.asked.numpy(),
            answer=self.answer.numpy(),
        )


def _answers(model: Model, windows: _Windows, hidden: Tensor) -> _Answers:
    """Answer wherever something is asked, from the final hidden states `[n, L, d]`."""
    rows, places = torch.nonzero(windows.targets != -1, as_tuple=True)
    asked = windows.targets[rows, places]
    log_p = model.tokens.logits(hidden[rows, places]).log_softmax(-1)
    entropy = -(log_p.exp() * log_p).sum(-1) / math.log(model.tokens.classes)
    right = log_p.gather(-1, asked.clamp(min=0)[:, None])[:, 0]
    return _Answers(
        windows=len(windows.names),
        rows=rows,
        places=places,
        asked=asked,
        answer=log_p.argmax(-1),
        logprob=right.double(),
        entropy=entropy.double(),
    )
