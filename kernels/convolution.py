"""The short causal convolution, one filter a channel, with its last inputs carried from piece to
piece, and its gradient by hand.

It knows nothing of windows or sleep: who keeps which tail is the caller's business.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from adaptive_sleep.streams.errors import InputError

BLOCK = 1 << 16  # floats worked on at once: streams are taken in blocks that stay in the cache


def _blocks(x: Tensor) -> Iterator[slice]:
    batch, steps, channels = x.shape
    size = max(1, BLOCK // max(1, steps * channels))
    return (slice(first, first + size) for first in range(0, batch, size))


def _last(lengths: Tensor, tail: Tensor) -> Tensor:
    """Return where in (tail, x) the new tail lies, `[B, W-1, D]`, to gather by."""
    _, kept, channels = tail.shape
    places = lengths[:, None] + torch.arange(kept, device=tail.device)
    return places[:, :, None].expand(-1, -1, channels)


def _forward(
    x: Tensor, weight: Tensor, tail: Tensor, lengths: Tensor | None
) -> tuple[Tensor, Tensor]:
    steps = x.shape[1]
    taps = weight.t().contiguous().unbind()
    y, after = x.new_empty(x.shape), tail.new_empty(tail.shape)
    for part in _blocks(x):
        joined = torch.cat((tail[part], x[part]), 1)
        out = torch.mul(joined[:, :steps], taps[0], out=y[part])
        for n, tap in enumerate(taps[1:], 1):
            out.addcmul_(joined[:, n : n + steps], tap)
        if lengths is None:
            after[part] = joined[:, steps:]
        else:
            torch.gather(joined, 1, _last(lengths[part], tail), out=after[part])
    return y, after


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, tail: Tensor, lengths: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, weight, tail, lengths)
        return _forward(x, weight, tail, lengths)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_y: Tensor, d_after: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, tail, lengths = ctx.saved_tensors
        steps, kept = x.shape[1], tail.shape[1]
        taps = weight.t().contiguous().unbind()
        d_x, d_tail = x.new_empty(x.shape), tail.new_empty(tail.shape)
        d_taps = weight.new_zeros(len(taps), x.shape[2])
        for part in _blocks(x):
            joined, d_out = torch.cat((tail[part], x[part]), 1), d_y[part]
            d_joined = torch.zeros_like(joined)
            if lengths is None:
                d_joined[:, steps:] = d_after[part]
            else:
                d_joined.scatter_add_(1, _last(lengths[part], tail), d_after[part])
            for n, tap in enumerate(taps):
                d_joined[:, n : n + steps].addcmul_(d_out, tap)
                d_taps[n] += (joined[:, n : n + steps] * d_out).sum((0, 1))
            d_tail[part], d_x[part] = d_joined[:, :kept], d_joined[:, kept:]
        return d_x, d_taps.t(), d_tail, None


def causal_conv(
    x: Tensor, weight: Tensor, tail: Tensor, lengths: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Convolve each channel with its own filter over the last W inputs; return y `[B, T, D]` and
    the new tail.

    x `[B, T, D]`; weight `[D, W]`, its last column meeting the newest input; tail `[B, W-1, D]`,
    the inputs before x, oldest first; lengths int64 `[B]`: inputs past lengths[b] are padding, they
    do not enter the new tail and y there is of no meaning. Differentiable once. Raises InputError
    on shapes that do not fit.
    """
    if x.dim() != 3 or weight.dim() != 2 or weight.shape[0] != x.shape[2]:
        raise InputError(
            f"weight: shape {tuple(weight.shape)}, but [D, W] is wanted "
            f"for x of shape {tuple(x.shape)}"
        )
    fitting = (x.shape[0], weight.shape[1] - 1, x.shape[2])
    if tuple(tail.shape) != fitting:
        raise InputError(f"tail: shape {tuple(tail.shape)}, but {fitting} is wanted")
    if torch.is_grad_enabled() and any(part.requires_grad for part in (x, weight, tail)):
        return _Convolution.apply(x, weight, tail, lengths)  # type: ignore[no-any-return, no-untyped-call]
    return _forward(x, weight, tail, lengths)
