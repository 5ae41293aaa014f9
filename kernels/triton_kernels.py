"""The Triton kernels of the forward pass: chunks made ready, the recurrence over them, and one
event alone.

Everything is float32 inside, whatever the inputs are. One program holds one head's state for a
slice of V; the norms of the state change are taken where the state is stored. Notation as in
`chunked`; launched by `triton_rule`.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, import-untyped"

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def limit_of(lengths, b, T, HAS_LENGTHS: tl.constexpr):
    """Return how many of the T events of stream b are real."""
    if HAS_LENGTHS:
        return tl.minimum(tl.load(lengths + b), T).to(tl.int32)
    return T


@triton.jit
def rows(x, b, h, t, limit, T, H, D, d):
    """Load x[b, t, h, d] of a `[B, T, H, D]` tensor as float32, 0 from `limit` on and beyond D."""
    at = ((b.to(tl.int64) * T + t[:, None]) * H + h) * D + d[None, :]
    return tl.load(x + at, mask=(t[:, None] < limit) & (d[None, :] < D), other=0.0).to(tl.float32)


@triton.jit
def gate(x, b, h, t, limit, T, H):
    """Load x[b, t, h] of a `[B, T, H]` tensor as float32, 0 from `limit` on."""
    return tl.load(x + (b.to(tl.int64) * T + t) * H + h, mask=t < limit, other=0.0).to(tl.float32)


@triton.jit
def block(x, at, i, d, R, D):
    """Load rows i, columns d of the `[R, D]` float32 matrix number `at` of x, 0 beyond it."""
    mask = (i[:, None] < R) & (d[None, :] < D)
    return tl.load(x + (at.to(tl.int64) * R + i[:, None]) * D + d[None, :], mask=mask, other=0.0)


@triton.jit
def put(x, value, at, i, d, R, D):
    """Store rows i, columns d of the `[R, D]` matrix number `at` of x."""
    mask = (i[:, None] < R) & (d[None, :] < D)
    tl.store(x + (at.to(tl.int64) * R + i[:, None]) * D + d[None, :], value, mask=mask)


@triton.jit
def mul(a, b):
    """Multiply matrices in full float32."""
    return tl.dot(a, b, input_precision="ieee")


@triton.jit
def pair_decay(g, C: tl.constexpr):
    """Return D[t, s] = exp(sum of g over (s, t]), 0 where s > t: each sum is a sum, never a
    difference."""
    i = tl.arange(0, C)
    upto = tl.where(i[None, :] <= i[:, None], g[None, :], 0.0)
    after = (i[:, None] > i[None, :]).to(tl.float32)
    return tl.where(i[:, None] >= i[None, :], tl.exp(mul(upto, after)), 0.0)


@triton.jit
def end_decay(g, C: tl.constexpr):
    """Return exp of the sum of g over (s, C): the decay from each event to the end of its chunk."""
    i = tl.arange(0, C)
    return tl.exp(tl.sum(tl.where(i[None, :] > i[:, None], g[None, :], 0.0), 1))


@triton.jit
def prepare_kernel(
    q, k, g, beta, lengths, inverses, inside, T, H, K: tl.constexpr, chunks,
    HAS_LENGTHS: tl.constexpr, C: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Per chunk and head, write (I + A)^-1 and P, both `[B * H, chunks, C, C]`."""
    bh, chunk = tl.program_id(0), tl.program_id(1)
    b, h = bh // H, bh % H
    i, d = tl.arange(0, C), tl.arange(0, BK)
    t = chunk * C + i
    limit = limit_of(lengths, b, T, HAS_LENGTHS)
    keys = rows(k, b, h, t, limit, T, H, K, d)
    queries = rows(q, b, h, t, limit, T, H, K, d)
    decay = pair_decay(gate(g, b, h, t, limit, T, H), C)
    writing = tl.trans(keys * gate(beta, b, h, t, limit, T, H)[:, None])
    system = tl.where(i[:, None] > i[None, :], mul(keys, writing) * decay, 0.0)
    result = tl.where(i[:, None] == i[None, :], 1.0, 0.0)
    for n in range(1, C):
        row = tl.sum(tl.where(i[:, None] == n, system, 0.0), 0)
        solved = -tl.sum(tl.where(i[:, None] < n, row[:, None] * result, 0.0), 0)
        result = tl.where((i[:, None] == n) & (i[None, :] < n), solved[None, :], result)
    at = bh * chunks + chunk
    put(inverses, result, at, i, i, C, C)
    put(inside, mul(queries, writing) * decay, at, i, i, C, C)


@triton.jit
def norms(state, reference, change, bh, i, d, K: tl.constexpr, V: tl.constexpr, heads, tiles, tile):
    """Write this slice's share of ||S - S_ref||^2 and ||S||^2, `[2, B * H, tiles]`."""
    away = state - block(reference, bh, i, d, K, V)
    tl.store(change + bh * tiles + tile, tl.sum(away * away))
    tl.store(change + (heads + bh) * tiles + tile, tl.sum(state * state))


@triton.jit
def forward_kernel(
    q, k, v, g, beta, lengths, inverses, inside, initial, reference,
    o, final, errors, states, change, scale, T, H, chunks, heads, tiles,
    HAS_LENGTHS: tl.constexpr, KEEP: tl.constexpr, NORMS: tl.constexpr,
    K: tl.constexpr, V: tl.constexpr, C: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    """Run the recurrence over the chunks of one head for BV columns of V; store o, the final state,
    its norms."""
    bh, tile = tl.program_id(0), tl.program_id(1)
    b, h = bh // H, bh % H
    i, dk, dv = tl.arange(0, C), tl.arange(0, BK), tile * BV + tl.arange(0, BV)
    limit = limit_of(lengths, b, T, HAS_LENGTHS)
    state = block(initial, bh, dk, dv, K, V)
    for chunk in range(chunks):
        t, at = chunk * C + i, bh * chunks + chunk
        gates = gate(g, b, h, t, limit, T, H)
        start = tl.exp(tl.cumsum(gates, 0))[:, None]
        keys = rows(k, b, h, t, limit, T, H, K, dk)
        values = rows(v, b, h, t, limit, T, H, V, dv)
        error = mul(block(inverses, at, i, i, C, C), values - mul(keys * start, state))
        queries = rows(q, b, h, t, limit, T, H, K, dk)
        out = mul(queries * start, state) + mul(block(inside, at, i, i, C, C), error)
        to = ((b.to(tl.int64) * T + t[:, None]) * H + h) * V + dv[None, :]
        tl.store(
            o + to, (out * scale).to(o.dtype.element_ty), mask=(t[:, None] < T) & (dv[None, :] < V)
        )
        if KEEP:
            put(errors, error, at, i, dv, C, V)
            put(states, state, at, dk, dv, K, V)
        late = gate(beta, b, h, t, limit, T, H) * end_decay(gates, C)
        state = state * tl.exp(tl.sum(gates, 0)) + mul(tl.trans(keys * late[:, None]), error)
    put(final, state, bh, dk, dv, K, V)
    if NORMS:
        norms(state, reference, change, bh, dk, dv, K, V, heads, tiles, tile)


@triton.jit
def step_kernel(
    q, k, v, g, beta, lengths, initial, reference, o, final, change, scale, H, heads, tiles,
    HAS_LENGTHS: tl.constexpr, NORMS: tl.constexpr,
    K: tl.constexpr, V: tl.constexpr, BK: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    """Take one event `[B, 1, H, ...]` into the state of one head for BV columns of V, and read
    it."""
    bh, tile = tl.program_id(0), tl.program_id(1)
    real = limit_of(lengths, bh // H, 1, HAS_LENGTHS) > 0
    i, d = tl.arange(0, BK), tile * BV + tl.arange(0, BV)
    state = block(initial, bh, i, d, K, V)
    key = tl.load(k + bh * K + i, mask=(i < K) & real, other=0.0).to(tl.float32)
    query = tl.load(q + bh * K + i, mask=(i < K) & real, other=0.0).to(tl.float32)
    value = tl.load(v + bh * V + d, mask=(d < V) & real, other=0.0).to(tl.float32)
    state = state * tl.exp(tl.load(g + bh, mask=real, other=0.0).to(tl.float32))
    error = value - tl.sum(state * key[:, None], 0)
    update = error * tl.load(beta + bh, mask=real, other=0.0).to(tl.float32)
    state = state + key[:, None] * update[None, :]
    out = tl.sum(state * query[:, None], 0) * scale
    tl.store(o + bh * V + d, out.to(o.dtype.element_ty), mask=d < V)
    put(final, state, bh, i, d, K, V)
    if NORMS:
        norms(state, reference, change, bh, i, d, K, V, heads, tiles, tile)
