"""Sleep: passes 2..N over a closed window, before it is evicted (arXiv 2605.26099, section 3).

State goes in, state comes out; nothing here knows of streams, policies or files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adaptive_sleep.kernels import pooled
from adaptive_sleep.memory import FastWeights
from adaptive_sleep.model import Beside, Model, Pass


@dataclass(frozen=True, eq=False)
class ClosedWindow:
    """A batch of windows after their wake pass.

    `embedded` h0 and `hidden` h1, `[B, L, d]`; `lengths` int64 `[B]`; `before` S0 and `after` S1;
    `measured`, `pooled`: what `change` and `summary` are, where the pass measured them.
    """

    embedded: Tensor
    hidden: Tensor
    lengths: Tensor
    before: FastWeights
    after: FastWeights
    measured: Tensor | None = None
    pooled: Tensor | None = None

    @cached_property
    def summary(self) -> Tensor:
        """The hidden states, mean- and max-pooled, RMS-normalised, `[B, 2d]`; a signal."""
        return pooled(self.hidden, self.lengths) if self.pooled is None else self.pooled

    @cached_property
    def change(self) -> Tensor:
        """Relative state change by the wake pass, `[B]`; a signal, and where sleep starts from."""
        return self.after.change_since(self.before) if self.measured is None else self.measured

    def select(self, rows: Tensor) -> ClosedWindow:
        """The windows `rows` (int64 [n])."""
        lengths = self.lengths.index_select(0, rows)
        size = int(lengths.max()) if len(rows) else 0
        return ClosedWindow(
            self.embedded.index_select(0, rows)[:, :size],
            self.hidden.index_select(0, rows)[:, :size],
            lengths,
            self.before.select(rows),
            self.after.select(rows),
            None if self.measured is None else self.measured.index_select(0, rows),
        )


@dataclass(frozen=True, eq=False)
class PassReport:
    """What one sleep pass did to the windows that have passes left: `[n]`, `summary` `[n, 2d]`.

    `rows`: their indices in the batch; `passes`: done so far; the changes are relative norms;
    `finite`: all are known to be. Held as arrays, for whoever decides reads no tensors.
    """

    rows: NDArray[np.int64]
    passes: int
    state_change: NDArray[np.float32]
    hidden_change: NDArray[np.float32]
    summary: NDArray[np.float32]
    finite: bool


@dataclass(frozen=True, eq=False)
class Slept:
    """The fast weights at the boundary and, per window, the passes done (wake included) and the
    relative state change of the last one (`[B]`; of pass 1 where there was no other)."""

    weights: FastWeights
    passes: Tensor
    last_change: Tensor


@dataclass(frozen=True, eq=False)
class Stage:
    """A batch of windows after so many passes: the fast weights as a boundary would keep them, the
    relative changes by the last pass `[B]` (`hidden_change` is NaN after pass 1) and the summary
    of its hidden states `[B, 2d]`."""

    passes: int
    weights: FastWeights
    state_change: Tensor
    hidden_change: Tensor
    summary: Tensor


KeepGoing = Callable[[PassReport], NDArray[np.bool_]]  # -> [n]: which of `rows` go on


def sleep_pass(
    model: Model,
    window: ClosedWindow,
    hidden: Tensor,
    weights: FastWeights,
    *,
    measure: bool = False,
    pool: bool = False,
) -> Pass:
    """One more pass: hn, Sn = Blocks(Inject(h0, h(n-1)), C), C by the configured carry.

    `hidden` h(n-1) and `weights` S(n-1) belong to the windows of `window`. Every pass starts from
    the convolution tail before the window; the tail of pass 1 is put back at the boundary. With
    `measure` the change from S(n-1) to Sn comes along, and with `pool` too the summary of hn and
    its change from h(n-1).
    """
    restart = model.config.carry == "restart"
    start = window.before if restart else weights.with_tails(window.before)
    injected = model.inject(window.embedded, hidden)
    beside = Beside(weights, pool, hidden if pool else None) if measure else None
    seen = model.config.sleep_attention
    return model.run(injected, window.lengths, start, seen=seen, beside=beside)


def consolidate(
    model: Model, window: ClosedWindow, passes: Tensor, keep_going: KeepGoing | None = None
) -> Slept:
    """Run passes 2..N over closed windows, N per window; windows that are done leave the batch.

    passes: int64 `[B]`, N >= 1 each. `keep_going` is asked after each sleep pass for the windows
    that have passes left, and can only stop them early; then all lies on a CPU. Returns SN with the
    tails of pass 1.
    """
    weights, last = window.after, window.change
    done = torch.ones_like(passes)
    rows = torch.nonzero(passes > 1)[:, 0]
    part = window.select(rows)
    hidden, current = part.hidden, part.after
    count = 1
    while len(rows):
        count += 1
        more = passes.index_select(0, rows) > count
        asked = keep_going is not None and bool(more.any())
        ran = sleep_pass(model, part, hidden, current, measure=True, pool=asked)
        fresh_hidden, fresh, change = ran.hidden, ran.weights, ran.moved()
        last = last.index_copy(0, rows, change)
        done = done.index_fill(0, rows, count)
        if keep_going is not None and asked:
            more = _ask(keep_going, rows, count, more, ran)
        stop = torch.nonzero(~more)[:, 0]
        if len(stop):
            weights = weights.put(
                rows[stop], fresh.select(stop).with_tails(part.after.select(stop))
            )
        go = torch.nonzero(more)[:, 0]
        if len(go) == len(rows):
            hidden, current = fresh_hidden, fresh
            continue
        rows, part, current = rows[go], part.select(go), fresh.select(go)
        hidden = fresh_hidden.index_select(0, go)[:, : part.embedded.shape[1]]
    return Slept(weights, done, last)


def stages(model: Model, window: ClosedWindow, most: int) -> Iterator[Stage]:
    """Closed windows after 1, 2, ..., `most` passes, each pass going on from the one before it.

    After N passes the weights are those of `consolidate` with N for every window, to the bit.
    """
    hidden, current = window.hidden, window.after
    change = window.change
    moved = torch.full_like(change, torch.nan)
    yield Stage(1, current, change, moved, window.summary)
    for passes in range(2, most + 1):
        ran = sleep_pass(model, window, hidden, current, measure=True, pool=True)
        hidden, current = ran.hidden, ran.weights
        kept = current.with_tails(window.after)
        assert ran.summary is not None
        assert ran.hidden_change is not None
        yield Stage(passes, kept, ran.moved(), ran.hidden_change, ran.summary)


def _ask(keep_going: KeepGoing, rows: Tensor, count: int, more: Tensor, ran: Pass) -> Tensor:
    """Report the windows that have passes left and spread the answers over all of `rows`."""
    assert ran.summary is not None
    assert ran.hidden_change is not None
    many = more.numpy()
    (ask,) = many.nonzero()
    seen = ran.moved().numpy()[ask], ran.hidden_change.numpy()[ask], ran.summary.numpy()[ask]
    answer = np.zeros(len(many), np.bool_)
    answer[ask] = keep_going(PassReport(rows.numpy()[ask], count, *seen, ran.finite))
    return torch.from_numpy(answer)
