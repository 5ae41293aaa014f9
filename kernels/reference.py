"""The gated delta rule as its definition reads, one event after the other: slow and obviously
right.

Tests hold every fast form to it, in float64; nothing else should call it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .checks import check_rule, state_change, untouched


def gated_delta_rule_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    *,
    initial_state: Tensor | None = None,
    lengths: Tensor | None = None,
    reference_state: Tensor | None = None,
    return_state_change: bool = False,
) -> tuple[Tensor, ...]:
    """Run S_t = exp(g_t) S_{t-1} + k_t beta_t (v_t - exp(g_t) S_{t-1}^T k_t)^T, o_t = K^-1/2 S_t^T
    q_t.

    Shapes, errors and returns are those of `dispatch.gated_delta_rule`. Source: arXiv 2412.06464,
    eq. 10.
    """
    dtype = check_rule(q, k, v, g, beta, initial_state, lengths, reference_state)
    batch, steps, heads, key = q.shape
    kept_dtype = v.dtype
    q, k, v, g, beta = (x.to(dtype) for x in (q, k, v, g, beta))
    start = q.new_zeros(batch, heads, key, v.shape[3]) if initial_state is None else initial_state
    state = start.to(dtype)
    outputs = []
    for t in range(steps):
        decayed = state * g[:, t].exp()[..., None, None]
        seen = torch.einsum("bhkv,bhk->bhv", decayed, k[:, t])
        update = beta[:, t, :, None] * (v[:, t] - seen)
        after = decayed + k[:, t, :, :, None] * update[:, :, None, :]
        output = torch.einsum("bhkv,bhk->bhv", after, q[:, t]) * key**-0.5
        if lengths is not None:
            real = (t < lengths)[:, None, None]
            output = torch.where(real, output, torch.zeros_like(output))
            after = torch.where(real[..., None], after, state)
        outputs.append(output)
        state = after
    if outputs:
        o = torch.stack(outputs, 1)
    else:
        o, state = untouched(state, v, q, k, g, beta)
    if not return_state_change:
        return o.to(kept_dtype), state
    reference = start if reference_state is None else reference_state
    return o.to(kept_dtype), state, state_change(state, reference.to(dtype))
