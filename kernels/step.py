"""The gated delta rule for one event: what wake-time decoding runs.

No chunks and no padding here; `dispatch` sends T == 1 to this form.
"""

from __future__ import annotations

import torch
from torch import Tensor


def gated_delta_step(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """Take one event into the state and read it; return o `[B, H, V]` and the new state.

    q, k `[B, H, K]` (L2-normalised), v `[B, H, V]`, g (log decay <= 0), beta `[B, H]`, state `[B,
    H, K, V]`. The given state is left as it was. Source: arXiv 2412.06464, eq. 10.
    """
    batch, heads, key, value = state.shape
    rows = batch * heads
    kept_dtype = v.dtype
    q, k, v, g, beta = (x.to(state.dtype) for x in (q, k, v, g, beta))
    decayed = (state * g.exp()[..., None, None]).view(rows, key, value)
    column, row = k.reshape(rows, key, 1), k.reshape(rows, 1, key)
    update = (v.reshape(rows, 1, value) - torch.bmm(row, decayed)) * beta.reshape(rows, 1, 1)
    after = torch.baddbmm(decayed, column, update)
    o = torch.bmm(q.reshape(rows, 1, key) * key**-0.5, after)
    return o.view(batch, heads, value).to(kept_dtype), after.view(batch, heads, key, value)
