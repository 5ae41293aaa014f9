"""The gradient of the chunked gated delta rule, written by hand, and the autograd function that
carries it.

Per chunk the forward keeps the state before it, E and (I + A)^-1; products and decays are computed
again. With dS the gradient of the state after the chunk, and Y that of v (for which E stands in the
recurrence):

    dE = P^T do + (k' * D[C-1]) dS,    Y = (I + A)^-T dE,    dS_before = d[C-1] dS + (d q)^T do - (d
    k)^T Y

The loop over chunks computes only these three; everything else follows for a run of chunks at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .chunked import Parts, Saved, forward, prepare
from .layout import cut, join, segment_matrix


def _states(
    parts: Parts, inverses: Tensor, rows_of: Tensor, late: Tensor, d_states: Tensor, before: Tensor
) -> None:
    """Run the recurrence of dS backwards; fill the upper halves of `rows_of` with -Y.

    rows_of `[N, 2C, V]` holds do, scaled, in its lower halves; d_states `[chunks, B * H, K, V]` is
    dS after each chunk: the last is given, the others are filled, and `before` the first chunk.
    """
    count, size = inverses.shape[:2]
    chunks, rows, key, value = d_states.shape
    square = size * size
    d_o = rows_of[:, size:]
    inside = parts.products[:, size:] * parts.decay[:, :square].view(count, size, size)
    d_errors = torch.bmm(inside.mT, d_o).view(chunks, rows, size, value)
    d_state = d_states[-1]
    for d_error, inverted, reading, writing, decay, row, to in zip(
        reversed(d_errors.unbind()),
        reversed(inverses.view(chunks, rows, size, size).mT.unbind()),
        reversed(parts.reading.view(chunks, rows, 2 * size, key).mT.unbind()),
        reversed(late.view(chunks, rows, size, key).unbind()),
        reversed(parts.decay[:, -1].view(chunks, rows, 1, 1).unbind()),
        reversed(rows_of.view(chunks, rows, 2 * size, value).unbind()),
        reversed((before, *d_states[:-1].unbind())),
        strict=True,
    ):
        y = torch.bmm(inverted, d_error.baddbmm_(writing, d_state))
        torch.neg(y, out=row[:, :size])
        d_state = torch.mul(d_state, decay, out=to).baddbmm_(reading, row)


def _run(
    q: Tensor,
    k: Tensor,
    d_o: Tensor,
    gates: Tensor,
    saved: Saved,
    d_states: Tensor,
    before: Tensor,
    out: tuple[Tensor, Tensor, Tensor, Tensor],
) -> None:
    """Work backwards through one run of chunks; write dq, dk, dv, d(gates), and dS `before` it.

    d_states `[chunks, B * H, K, V]` is scratch, its last entry dS after the run.
    """
    batch, _, heads, key = q.shape
    d_q, d_k, d_v, d_gates = out
    count, size, value = saved.errors.shape
    square = size * size
    errors, inverses, _ = saved
    states = saved.states.view(count, key, value)
    parts = prepare(q, k, gates)
    both, decay = parts.keys_queries, parts.decay
    to_end = decay[:, square - size : square].unsqueeze(2)
    rows_of = q.new_empty(count, 2 * size, value)
    cut(d_o, rows_of.view(-1, batch, heads, 2, size, value)[:, :, :, 1])
    rows_of[:, size:].mul_(key**-0.5)
    _states(parts, inverses, rows_of, parts.writing * to_end, d_states, before)
    join(rows_of[:, :size], d_v, -1.0)

    d_products = torch.bmm(rows_of, errors.mT)  # of A above, of P below
    d_products.view(count, 2, square).mul_(decay[:, None, :square])
    d_products[:, :size].diagonal(dim1=1, dim2=2).zero_()
    d_both = torch.bmm(rows_of, states.mT)
    d_both.view(count, 2, size, key).mul_(decay[:, None, square:, None])
    after = d_states.view(count, key, value)
    d_writing = torch.bmm(errors, after.mT).mul_(to_end)

    d_sums = torch.empty_like(decay)  # gradient of the segment sums, laid out as the decays are
    d_sums[:, square:] = (d_both * both).sum(2).view(count, 2, size).sum(1)
    d_sums[:, -1].addcmul_((after * states).sum((1, 2)), decay[:, -1])
    above, below = parts.products.mul_(d_products).view(count, 2, square).unbind(1)
    torch.add(above, below, out=d_sums[:, :square])
    d_sums[:, square - size : square] += (d_writing * parts.writing).sum(2)
    matrix, _ = segment_matrix(size, q.dtype, q.device)
    torch.mm(d_sums, matrix, out=d_gates[0])

    d_both.baddbmm_(d_products, parts.writing)
    d_writing.baddbmm_(d_products.mT, both)
    torch.sum(d_writing * both[:, :size], 2, out=d_gates[1])
    d_both[:, :size].addcmul_(d_writing, gates[1].unsqueeze(2))
    join(d_both[:, :size], d_k)
    join(d_both[:, size:], d_q)


def backward(
    q: Tensor, k: Tensor, gates: Tensor, kept: Sequence[Saved], d_o: Tensor, d_state: Tensor
) -> tuple[Tensor, ...]:
    """Return the gradients of q, k, v, g, beta and the initial state from those of o and the final
    state.

    q, k `[B, T, H, K]`, d_o `[B, T, H, V]`, d_state `[B, H, K, V]`; gates and `kept` as
    `chunked.forward` returned them.
    """
    batch, steps, heads, key = q.shape
    value, rows = d_o.shape[3], batch * heads
    size = gates.shape[2]
    chunks = gates.shape[1] // rows
    d_q, d_k, d_v = q.new_empty(q.shape), k.new_empty(k.shape), d_o.new_empty(d_o.shape)
    d_gates = torch.empty_like(gates)
    lengths = [saved.states.shape[0] for saved in kept]
    d_states = q.new_empty(lengths[-1], rows, key, value)
    d_states[-1] = d_state.reshape(rows, key, value)
    last = chunks
    for saved, earlier in zip(reversed(kept), (*reversed(lengths[:-1]), 1), strict=True):
        first = last - saved.states.shape[0]
        preceding = q.new_empty(earlier, rows, key, value)
        here, events = slice(first * rows, last * rows), slice(first * size, last * size)
        out = (d_q[:, events], d_k[:, events], d_v[:, events], d_gates[:, here])
        inputs = (q[:, events], k[:, events], d_o[:, events], gates[:, here])
        _run(*inputs, saved, d_states, preceding[-1], out)
        d_states, last = preceding, first
    by_step = d_gates.view(2, chunks, batch, heads, size).permute(0, 2, 1, 4, 3)
    d_g, d_beta = by_step.reshape(2, batch, chunks * size, heads)[:, :, :steps].unbind()
    return d_q, d_k, d_v, d_g, d_beta, d_states.view(batch, heads, key, value)


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        q, k, v, g, beta, state = inputs
        o, final, gates, kept = forward(q, k, v, g, beta, state, keep=True)
        ctx.save_for_backward(q, k, gates, *(x for saved in kept for x in saved))
        return o, final

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_o: Tensor, d_state: Tensor) -> tuple[Tensor, ...]:
        q, k, gates, *flat = ctx.saved_tensors
        kept = [Saved(*flat[i : i + 3]) for i in range(0, len(flat), 3)]
        return backward(q, k, gates, kept, d_o, d_state)


def chunked_gated_delta_rule(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """Run the gated delta rule chunk by chunk and return o `[B, T, H, V]` and the final state;
    differentiable once.

    q, k `[B, T, H, K]`, v `[B, T, H, V]`, g, beta `[B, T, H]`, state `[B, H, K, V]`, all of one
    dtype, T >= 1. Source: Gated Delta Networks, arXiv 2412.06464, section 3.3.
    """
    inputs = (q, k, v, g, beta, state)
    if torch.is_grad_enabled() and any(x.requires_grad for x in inputs):
        return _Chunked.apply(*inputs)  # type: ignore[no-any-return, no-untyped-call]
    o, final, *_ = forward(q, k, v, g, beta, state, keep=False)
    return o, final
