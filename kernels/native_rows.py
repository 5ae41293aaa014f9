"""What blocks do row by row, in C: calls the compiled library, and carries gradients through
autograd.

The arithmetic is in `native_rows.h`; `rows` holds the torch forms and asks `serves` before it comes
here.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import native
from .native_structs import Rows

NORM, NORM_BACK, SQUARE, SQUARE_BACK, SPLIT, SPLIT_BACK = range(6)
# Numbers below which starting another thread costs more than it saves.
WORTH_A_THREAD = 100_000
VECTOR = 8  # numbers that are worked on together, at most; a row holds a multiple of them


def serves(size: int, *tensors: Tensor) -> bool:
    """Whether the compiled form can work on these, in rows of `size` numbers: all float32 or all
    float64, on a CPU, not empty."""
    dtype = tensors[0].dtype
    return (
        size % VECTOR == 0
        and (dtype == torch.float32 or dtype == torch.float64)
        and all(x.device.type == "cpu" and x.dtype == dtype for x in tensors)
        and tensors[0].numel() > 0
        and not native.unavailable()
    )


def _run(way: int, x: Tensor, count: int, size: int, **fields: Any) -> None:
    library = native._library()
    assert not isinstance(library, str)
    threads = max(1, min(torch.get_num_threads(), x.numel() // WORTH_A_THREAD))
    given = {n: f.data_ptr() if isinstance(f, Tensor) else f for n, f in fields.items()}
    call = Rows(count=count, size=size, threads=threads, x=x.data_ptr(), **given)
    wide = int(x.dtype == torch.float64)
    if library.adaptive_sleep_rows(ctypes.byref(call), wide, way, native.level()):
        raise MemoryError("kernels.rows: no memory for the sums of its blocks")


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, gate: Tensor | None, epsilon: float) -> Tensor:
        x, gain = x.contiguous(), gain.contiguous()
        size = x.shape[-1]
        count = x.numel() // size
        y, scale = torch.empty_like(x), x.new_empty(count)
        given = {} if gate is None else {"gate": gate.contiguous()}
        _run(NORM, x, count, size, gain=gain, y=y, scale=scale, epsilon=epsilon, **given)
        ctx.save_for_backward(x, gain, scale, given.get("gate"))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor | None, ...]:
        x, gain, scale, gate = ctx.saved_tensors
        d_x, d_gain = torch.empty_like(x), torch.empty_like(gain)
        d_gate = None if gate is None else torch.empty_like(gate)
        given = {} if gate is None else {"gate": gate, "d_gate": d_gate}
        _run(
            NORM_BACK, x, len(scale), len(gain),
            gain=gain, scale=scale, d_y=d_y.contiguous(), d_x=d_x, d_gain=d_gain, **given,
        )  # fmt: skip
        return d_x, d_gain, d_gate, None


class _Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.contiguous()
        y = torch.empty_like(x)
        _run(SQUARE, x, x.numel() // x.shape[-1], x.shape[-1], y=y)
        ctx.save_for_backward(x)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_y: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        d_x = torch.empty_like(x)
        size = x.shape[-1]
        _run(SQUARE_BACK, x, x.numel() // size, size, d_y=d_y.contiguous(), d_x=d_x)
        return d_x


class _Split(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, heads: int, key: int, value: int, epsilon: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        x = x.contiguous()
        lead = x.shape[:-1]
        q, k = x.new_empty(*lead, heads, key), x.new_empty(*lead, heads, key)
        v, scale = x.new_empty(*lead, heads, value), x.new_empty(*lead, 2 * heads)
        sizes = {"heads": heads, "value": value, "epsilon": epsilon}
        count = x.numel() // x.shape[-1]
        _run(SPLIT, x, count, key, q=q, k=k, y=v, scale=scale, **sizes)
        ctx.save_for_backward(x, q, k, scale)
        ctx.value = value
        return q, k, v

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_q: Tensor, d_k: Tensor, d_v: Tensor) -> tuple[Tensor | None, ...]:
        x, q, k, scale = ctx.saved_tensors
        heads, key = q.shape[-2:]
        d_x = torch.empty_like(x)
        _run(
            SPLIT_BACK, x, x.numel() // x.shape[-1], key, heads=heads, value=ctx.value,
            q=q, k=k, scale=scale, d_x=d_x,
            d_q=d_q.contiguous(), d_k=d_k.contiguous(), d_y=d_v.contiguous(),
        )  # fmt: skip
        return d_x, None, None, None, None


def norm(x: Tensor, gain: Tensor, gate: Tensor | None, epsilon: float) -> Tensor:
    """Return x `[..., D]` / rms * gain `[D]`, times silu(gate `[..., D]`) where there is one."""
    return _Norm.apply(x, gain, gate, epsilon)  # type: ignore[no-any-return, no-untyped-call]


def square(x: Tensor) -> Tensor:
    """Return max(x, 0) squared."""
    return _Square.apply(x)  # type: ignore[no-any-return, no-untyped-call]


def split(
    x: Tensor, heads: int, key: int, value: int, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return silu of x `[..., H (2 K + V)]` as q, k `[..., H, K]` of length 1 (divided by `epsilon`
    where shorter than that) and v `[..., H, V]`."""
    return _Split.apply(x, heads, key, value, epsilon)  # type: ignore[no-any-return, no-untyped-call]
