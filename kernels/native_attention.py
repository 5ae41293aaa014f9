"""Attention over short windows in C: calls the compiled library, and carries its gradient through
autograd.

The arithmetic is in `native_attention.h`; `attention` asks `serves` before it comes here.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import native
from .native_structs import Attention, Three, Two

WINDOW, HEAD, LANES = 64, 64, 16  # as in native.c
# FLOPs below which starting another thread costs more than it saves.
WORTH_A_THREAD = 400_000


def serves(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether the compiled form can attend with these, q `[B, T, H, D]`, k, v `[B, S, H, D]`."""
    return (
        0 < q.shape[1] <= WINDOW
        and 0 < k.shape[1] <= WINDOW
        and q.shape[-1] % LANES == 0
        and 0 < q.shape[-1] <= HEAD
        and q.dtype in (torch.float32, torch.float64)
        and all(x.device.type == "cpu" and x.dtype == q.dtype for x in (q, k, v))
        and not native.unavailable()
    )


def _dense(x: Tensor) -> Tensor:
    """x with its last dimension contiguous; its other strides may be any."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _call(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Attention:
    batch, queries, heads, size = q.shape
    keys = k.shape[1]
    worth = 4 * batch * heads * queries * keys * size // WORTH_A_THREAD
    threads = max(1, min(torch.get_num_threads(), batch * heads, worth))
    call = Attention(batch, queries, keys, heads, size, threads)
    for name, x in (("q", q), ("k", k), ("v", v)):
        setattr(call, name, x.data_ptr())
        setattr(call, f"{name}_at", Three(*x.stride()[:3]))
    if mask is not None:
        call.mask = mask.data_ptr()
    return call


def _run(call: Attention, dtype: torch.dtype, *, back: bool) -> None:
    library = native._library()
    assert not isinstance(library, str)
    wide = int(dtype == torch.float64)
    library.adaptive_sleep_attention(ctypes.byref(call), wide, int(back), native.level())


def _forward(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *, keep: bool
) -> tuple[Tensor, Tensor]:
    batch, queries, heads, _ = q.shape
    call = _call(q, k, v, mask)
    o = q.new_empty(q.shape)
    wide = -(-k.shape[1] // LANES) * LANES
    weights = q.new_empty(batch * heads * queries * wide if keep else 0)
    call.o = o.data_ptr()
    if keep:
        call.weights = weights.data_ptr()
    _run(call, q.dtype, back=False)
    return o, weights


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mask: Tensor | None, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        o, weights = _forward(q, k, v, mask, keep=True)
        ctx.save_for_backward(q, k, v, weights)
        return o

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_o: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, weights = ctx.saved_tensors
        d_q, d_k, d_v = (x.new_empty(x.shape) for x in (q, k, v))
        _backward(q, k, v, weights, d_o, (d_q, d_k, d_v))
        return None, d_q, d_k, d_v


class _Packed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mask: Tensor | None, packed: Tensor) -> Tensor:
        q, k, v = packed.unbind(2)
        o, weights = _forward(q, k, v, mask, keep=True)
        ctx.save_for_backward(packed, weights)
        return o

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_o: Tensor) -> tuple[Tensor | None, ...]:
        packed, weights = ctx.saved_tensors
        d_packed = packed.new_empty(packed.shape)
        q, k, v = packed.unbind(2)
        _backward(q, k, v, weights, d_o, d_packed.unbind(2))
        return None, d_packed


def _backward(
    q: Tensor, k: Tensor, v: Tensor, weights: Tensor, d_o: Tensor, into: tuple[Tensor, ...]
) -> None:
    call, d_o = _call(q, k, v, None), d_o.contiguous()
    d_q, d_k, d_v = into
    call.weights, call.d_o = weights.data_ptr(), d_o.data_ptr()
    call.d_q, call.d_k, call.d_v = d_q.data_ptr(), d_k.data_ptr(), d_v.data_ptr()
    call.d_q_at, call.d_k_at = Two(*d_q.stride()[:2]), Two(*d_k.stride()[:2])
    _run(call, q.dtype, back=True)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Attend with q `[B, T, H, D]` to k, v `[B, S, H, D]` where `mask` (bool `[B, T, S]`) is set:
    `[B, T, H, D]`."""
    q, k, v = _dense(q), _dense(k), _dense(v)
    mask = None if mask is None else mask.contiguous()
    if torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v)):
        return _Attention.apply(mask, q, k, v)  # type: ignore[no-any-return, no-untyped-call]
    return _forward(q, k, v, mask, keep=False)[0]


def attend_packed(packed: Tensor, mask: Tensor | None) -> Tensor:
    """The same with q, k and v in one tensor `[B, T, 3, H, D]`, as a projection leaves them."""
    packed = packed.contiguous()
    mask = None if mask is None else mask.contiguous()
    if torch.is_grad_enabled() and packed.requires_grad:
        return _Packed.apply(mask, packed)  # type: ignore[no-any-return, no-untyped-call]
    q, k, v = packed.unbind(2)
    return _forward(q, k, v, mask, keep=False)[0]
