"""The chunked (WY) form of the gated delta rule in torch: the forward arithmetic.

Streams, heads and chunks are the batch of every product; the only loop runs over chunks. Within a
chunk, with D[t, s] the decay over (s, t], d[t] that over [0, t], and rows k, q, v, k' = beta k:

    E = (I + A)^-1 (v - d k S),   A = tril(k k'^T * D, -1)        what each event adds to the state
    o = scale (d q S + P E),      P = tril(q k'^T * D)            what each query reads
    S_next = d[C-1] S + (k' * D[C-1])^T E

Source: Gated Delta Networks, arXiv 2412.06464, section 3.3. The gradient is in `gradient`, checks
in `dispatch`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .layout import chunk_size, chunks_at_once, cut, decays, inverse, join


class Saved(NamedTuple):
    """What the gradient of one run of chunks reads again: E `[N, C, V]`, (I + A)^-1 `[N, C, C]`,
    the state before each chunk `[chunks, B * H, K, V]`.
    """

    errors: Tensor
    inverses: Tensor
    states: Tensor


class Parts(NamedTuple):
    """A run of N = chunks * B * H chunks: `keys_queries` `[N, 2C, K]` (k above q), the same times
    d, k', the decays `[N, C*C + C]`, and the products of k and q with k' `[N, 2C, C]`, not yet
    decayed."""

    keys_queries: Tensor
    reading: Tensor
    writing: Tensor
    decay: Tensor
    products: Tensor


def split_gates(g: Tensor, beta: Tensor, size: int) -> Tensor:
    """Lay g and beta `[B, T, H]` out as `[2, chunks * B * H, C]`, zeros where the last chunk is not
    full."""
    batch, steps, heads = g.shape
    chunks = -(-steps // size)
    out = g.new_empty(2, chunks, batch, heads, size, 1)
    for x, into in ((g, out[0]), (beta, out[1])):
        cut(x[..., None], into)
    return out.view(2, chunks * batch * heads, size)


def prepare(q: Tensor, k: Tensor, gates: Tensor) -> Parts:
    """Lay a run of chunks out: q, k `[B, t, H, K]`, gates `[2, N, C]` (log decay, beta)."""
    batch, _, heads, key = q.shape
    count, size = gates.shape[1:]
    both = q.new_empty(count, 2 * size, key)
    rows = both.view(-1, batch, heads, 2, size, key)
    cut(k, rows[:, :, :, 0])
    cut(q, rows[:, :, :, 1])
    decay = decays(gates[0])
    writing = both[:, :size] * gates[1].unsqueeze(2)
    products = torch.bmm(both, writing.mT)
    from_start = decay[:, None, size * size :, None]
    reading = (both.view(count, 2, size, key) * from_start).view(count, 2 * size, key)
    return Parts(both, reading, writing, decay, products)


def _run(
    q: Tensor, k: Tensor, v: Tensor, gates: Tensor, states: Tensor, after: Tensor, o: Tensor
) -> Saved:
    """Work on one run of chunks from states[0]; fill the rest of states, `after` the run, and o."""
    batch, _, heads, key = q.shape
    count, size = gates.shape[1:]
    chunks, rows = states.shape[:2]
    square, value = size * size, v.shape[3]
    parts = prepare(q, k, gates)
    inside = parts.products
    inside.view(count, 2, square).mul_(parts.decay[:, None, :square])
    inverses = inverse(inside[:, :size])
    errors = q.new_empty(count, size, value)
    cut(v, errors.view(chunks, batch, heads, size, value))
    late = parts.writing.mul_(parts.decay[:, square - size : square].unsqueeze(2))
    state = states[0]
    for error, inverted, reading, writing, decay, to in zip(
        errors.view(chunks, rows, size, value).unbind(),
        inverses.view(chunks, rows, size, size).unbind(),
        parts.reading.view(chunks, rows, 2 * size, key)[:, :, :size].unbind(),
        late.view(chunks, rows, size, key).mT.unbind(),
        parts.decay[:, -1].view(chunks, rows, 1, 1).unbind(),
        (*states[1:].unbind(), after),
        strict=True,
    ):
        torch.bmm(inverted, torch.baddbmm(error, reading, state, alpha=-1), out=error)
        state = torch.mul(state, decay, out=to).baddbmm_(writing, error)
    read = torch.bmm(parts.reading[:, size:], states.view(count, key, value))
    join(read.baddbmm_(inside[:, size:], errors), o, key**-0.5)
    return Saved(errors, inverses, states)


def forward(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor, *, keep: bool
) -> tuple[Tensor, Tensor, Tensor, list[Saved]]:
    """Return o `[B, T, H, V]`, the final state and, to `keep` for the gradient, the gates as they
    were laid out and what each run of chunks saved.

    q, k `[B, T, H, K]`, v `[B, T, H, V]`, g, beta `[B, T, H]`, state `[B, H, K, V]`, of one dtype,
    T >= 1.
    """
    batch, steps, heads, key = q.shape
    value, rows = v.shape[3], batch * heads
    size = chunk_size(steps, rows, key, value)
    chunks = -(-steps // size)
    run = chunks_at_once(chunks, rows, size, max(key, value))
    gates = split_gates(g, beta, size)
    o = q.new_empty(batch, steps, heads, value)
    states = q.new_empty(run, rows, key, value)
    states[0] = state.reshape(rows, key, value)
    kept = []
    for first in range(0, chunks, run):
        last = min(first + run, chunks)
        # Each run has buffers of its own: what one frees, the next finds in the cache.
        following = q.new_empty(max(1, min(run, chunks - last)), rows, key, value)
        events, part = slice(first * size, last * size), gates[:, first * rows : last * rows]
        saved = _run(
            q[:, events], k[:, events], v[:, events], part, states, following[0], o[:, events]
        )
        if keep:
            kept.append(saved)
        states = following
    return o, states.view(batch, heads, key, value), gates, kept
