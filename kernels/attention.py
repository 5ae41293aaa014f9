"""Softmax attention: in C over short windows (`native_attention`), over others by torch's
`scaled_dot_product_attention`.

What may be seen comes as a mask; positions and caches are the caller's business.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from adaptive_sleep.streams.errors import InputError

from . import native_attention as native


def _check(mask: Tensor | None, q: Tensor, k: Tensor, v: Tensor) -> None:
    if not q.dim() == k.dim() == 4:
        name, x = ("k", k) if q.dim() == 4 else ("q", q)
        raise InputError(
            f"{name}: shape {tuple(x.shape)}, but 4 dimensions [B, T, H, D] are wanted"
        )
    keys = (q.shape[0], k.shape[1], *q.shape[2:])
    for name, x in (("k", k), ("v", v)):
        if tuple(x.shape) != keys:
            raise InputError(f"{name}: shape {tuple(x.shape)}, but [B, S, H, D] is {keys} here")
    fitting = (q.shape[0], q.shape[1], k.shape[1])
    if mask is not None and (tuple(mask.shape) != fitting or mask.dtype != torch.bool):
        raise InputError(
            f"mask: {mask.dtype} of shape {tuple(mask.shape)}, but torch.bool of shape {fitting} "
            "is wanted"
        )


def _fused() -> bool:
    """Whether a fused form is wanted: `sdpa_kernel(SDPBackend.MATH)` asks for plain products."""
    return bool(torch.backends.cuda.flash_sdp_enabled())


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return softmax(q k^T / sqrt(D)) v, `[B, T, H, D]`, for q `[B, T, H, D]`, k, v `[B, S, H, D]`.

    `mask`: bool `[B, T, S]`, what each query sees, at least one key each; None, all. Differentiable
    once. Raises InputError for shapes that do not fit.
    """
    _check(mask, q, k, v)
    if _fused() and native.serves(q, k, v):
        return native.attend(q, k, v, mask)
    return torch_attend(q, k, v, None if mask is None else mask[:, None])


def attend_packed(packed: Tensor, mask: Tensor | None = None) -> Tensor:
    """`attend` with q, k and v in one tensor `[B, T, 3, H, D]`, and their gradients in another."""
    q, k, v = packed.unbind(2)
    _check(mask, q, k, v)
    if _fused() and native.serves(q, k, v):
        return native.attend_packed(packed, mask)
    return torch_attend(q, k, v, None if mask is None else mask[:, None])


def attend_weighed(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """`attend`, and the weight that each key got, summed over the queries, `[B, S, H]`.

    The weights are counted, not differentiated.
    """
    _check(mask, q, k, v)
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    scores = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(2, 3))
    weights = scores.masked_fill(~mask[:, None], float("-inf")).softmax(-1)
    y = torch.matmul(weights, v).transpose(1, 2)
    return y, weights.detach().sum(2).transpose(1, 2)


def attend_nearest(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor, past: int, nearest: int
) -> Tensor:
    """`attend`, where of the first `past` keys each query of each head sees only those `nearest`
    that it scores highest, and their equals; its softmax runs over them and the other keys.

    Which they are is chosen, not differentiated. `nearest`: 1 to `past`.
    """
    _check(mask, q, k, v)
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    scores = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(2, 3))
    scores = scores.masked_fill(~mask[:, None], float("-inf"))
    old, new = scores[..., :past], scores[..., past:]
    least = old.detach().topk(nearest, dim=-1).values[..., -1:]
    seen = torch.cat([old.masked_fill(old < least, float("-inf")), new], -1)
    return torch.matmul(seen.softmax(-1), v).transpose(1, 2)


def torch_attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """`attend` by torch; `mask` broadcasts to `[B, H, T, S]`, bool or added to the scores."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)
