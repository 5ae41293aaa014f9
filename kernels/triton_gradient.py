"""The Triton kernels of the gradient: the recurrence backwards, then all that follows chunk by
chunk.

The derivation is in `gradient`; the launches are in `triton_rule`. No sum is taken by atomics, so
that the gradient is the same bits every time.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, import-untyped"

from __future__ import annotations

import triton
import triton.language as tl

from .triton_kernels import block, end_decay, gate, limit_of, mul, pair_decay, put, rows


@triton.jit
def states_backward_kernel(
    q, k, g, beta, lengths, inverses, inside, d_o, d_final, d_v, d_states, d_initial,
    scale, T, H, chunks,
    HAS_LENGTHS: tl.constexpr,
    K: tl.constexpr, V: tl.constexpr, C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    """Run the gradient of the state backwards for BV columns of V; store dv and dS after each
    chunk."""
    bh, tile = tl.program_id(0), tl.program_id(1)
    b, h = bh // H, bh % H
    i, dk, dv = tl.arange(0, C), tl.arange(0, BK), tile * BV + tl.arange(0, BV)
    limit = limit_of(lengths, b, T, HAS_LENGTHS)
    d_state = block(d_final, bh, dk, dv, K, V)
    for back in range(chunks):
        chunk = chunks - 1 - back
        t, at = chunk * C + i, bh * chunks + chunk
        put(d_states, d_state, at, dk, dv, K, V)
        gates = gate(g, b, h, t, limit, T, H)
        start = tl.exp(tl.cumsum(gates, 0))[:, None]
        keys = rows(k, b, h, t, limit, T, H, K, dk)
        d_out = rows(d_o, b, h, t, limit, T, H, V, dv) * scale
        late = gate(beta, b, h, t, limit, T, H) * end_decay(gates, C)
        d_error = mul(tl.trans(block(inside, at, i, i, C, C)), d_out) + mul(
            keys * late[:, None], d_state
        )
        y = mul(tl.trans(block(inverses, at, i, i, C, C)), d_error)
        to = ((b.to(tl.int64) * T + t[:, None]) * H + h) * V + dv[None, :]
        tl.store(d_v + to, y.to(d_v.dtype.element_ty), mask=(t[:, None] < T) & (dv[None, :] < V))
        queries = rows(q, b, h, t, limit, T, H, K, dk)
        d_state = d_state * tl.exp(tl.sum(gates, 0)) + mul(tl.trans(queries * start), d_out)
        d_state -= mul(tl.trans(keys * start), y)
    put(d_initial, d_state, bh, dk, dv, K, V)


@triton.jit
def chunks_backward_kernel(
    q, k, g, beta, lengths, d_o, d_v, errors, states, d_states, d_q, d_k, d_g, d_beta,
    scale, T, H, chunks,
    HAS_LENGTHS: tl.constexpr,
    K: tl.constexpr, V: tl.constexpr, C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    """Per chunk and head, sum over V and write the gradients of q, k, g and beta."""
    bh, chunk = tl.program_id(0), tl.program_id(1)
    b, h = bh // H, bh % H
    i, dk = tl.arange(0, C), tl.arange(0, BK)
    t, at = chunk * C + i, bh * chunks + chunk
    limit = limit_of(lengths, b, T, HAS_LENGTHS)
    d_a = tl.zeros((C, C), tl.float32)
    d_p = tl.zeros((C, C), tl.float32)
    d_keys = tl.zeros((C, BK), tl.float32)
    d_queries = tl.zeros((C, BK), tl.float32)
    d_writing = tl.zeros((C, BK), tl.float32)
    d_end = 0.0
    for first in range(0, V, BV):
        dv = first + tl.arange(0, BV)
        y = rows(d_v, b, h, t, limit, T, H, V, dv)
        d_out = rows(d_o, b, h, t, limit, T, H, V, dv) * scale
        error = block(errors, at, i, dv, C, V)
        d_a -= mul(y, tl.trans(error))
        d_p += mul(d_out, tl.trans(error))
        state = block(states, at, dk, dv, K, V)
        d_keys -= mul(y, tl.trans(state))
        d_queries += mul(d_out, tl.trans(state))
        d_state = block(d_states, at, dk, dv, K, V)
        d_writing += mul(error, tl.trans(d_state))
        d_end += tl.sum(d_state * state)
    gates = gate(g, b, h, t, limit, T, H)
    betas = gate(beta, b, h, t, limit, T, H)
    keys = rows(k, b, h, t, limit, T, H, K, dk)
    queries = rows(q, b, h, t, limit, T, H, K, dk)
    decay, late = pair_decay(gates, C), end_decay(gates, C)
    start = tl.exp(tl.cumsum(gates, 0))
    writing = keys * betas[:, None]
    d_keys, d_queries, d_writing = (
        d_keys * start[:, None],
        d_queries * start[:, None],
        d_writing * late[:, None],
    )
    d_from_start = tl.sum(d_keys * keys + d_queries * queries, 1)
    d_from_start += tl.where(i == C - 1, d_end * tl.exp(tl.sum(gates, 0)), 0.0)
    d_to_end = tl.sum(d_writing * writing, 1)
    d_a = tl.where(i[:, None] > i[None, :], d_a * decay, 0.0)
    d_p = d_p * decay
    d_sums = d_a * mul(keys, tl.trans(writing)) + d_p * mul(queries, tl.trans(writing))
    # g[r] lies in the segment (s, t] where s < r <= t; in [0, t] where r <= t; in (s, C) where s <
    # r.
    upto = mul(d_sums, (i[:, None] < i[None, :]).to(tl.float32)) + d_from_start[:, None]
    d_gates = tl.sum(tl.where(i[:, None] >= i[None, :], upto, 0.0), 0)
    d_gates += tl.sum(tl.where(i[:, None] < i[None, :], d_to_end[:, None], 0.0), 0)
    d_keys += mul(d_a, writing)
    d_queries += mul(d_p, writing)
    d_writing += mul(tl.trans(d_a), keys) + mul(tl.trans(d_p), queries)
    d_keys += d_writing * betas[:, None]
    to = ((b.to(tl.int64) * T + t[:, None]) * H + h) * K + dk[None, :]
    mask = (t[:, None] < T) & (dk[None, :] < K)
    tl.store(d_q + to, d_queries.to(d_q.dtype.element_ty), mask=mask)
    tl.store(
        d_k + to, tl.where(t[:, None] < limit, d_keys, 0.0).to(d_k.dtype.element_ty), mask=mask
    )
    to_gate = (b.to(tl.int64) * T + t) * H + h
    real = t < limit
    d_betas = tl.sum(d_writing * keys, 1)
    tl.store(d_g + to_gate, tl.where(real, d_gates, 0.0).to(d_g.dtype.element_ty), mask=t < T)
    tl.store(d_beta + to_gate, tl.where(real, d_betas, 0.0).to(d_beta.dtype.element_ty), mask=t < T)
