"""The gated delta rule in C: loads the compiled library, calls it, and carries its gradient through
autograd.

The arithmetic is in `native.c` and the headers beside it, which are built when the package is
installed where there is a C compiler; `dispatch` asks `available` before it comes here.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.machinery
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .native_structs import GRADIENTS, INPUTS, Attention, Call, Look, Network, Rows, Three

FORWARD, KEEPING, BACKWARD = 0, 1, 2
# FLOPs below which starting another thread costs more than it saves.
WORTH_A_THREAD = 400_000


class Options(NamedTuple):
    """What a call needs beside its tensors: lengths int64 `[B]` or None, S_ref `[B, H, K, V]`, and
    whether the state change is wanted."""

    lengths: Tensor | None
    reference: Tensor
    change: bool


# Every struct that a call hands over, by its name in C: a library built for others is not used.
_STRUCTS: dict[str, type[ctypes.Structure]] = {
    "call": Call,
    "rows": Rows,
    "attention": Attention,
    "look": Look,
    "dense": Network,
}


def built_for(library: ctypes.CDLL, part: str, struct: type[ctypes.Structure]) -> bool:
    """Whether a compiled library was built for `struct`, known there as `part`."""
    size = getattr(library, f"adaptive_sleep_{part}_bytes", None)
    if size is None:
        return False
    size.restype = ctypes.c_int64
    return bool(size() == ctypes.sizeof(struct))


@functools.cache
def _library() -> ctypes.CDLL | str:
    """The compiled library, or why there is none."""
    folder = Path(__file__).parent
    names = [f"_native{suffix}" for suffix in importlib.machinery.EXTENSION_SUFFIXES]
    found = [folder / name for name in names if (folder / name).exists()]
    if not found:
        return (
            "it was not compiled when the package was installed (that takes a C compiler); "
            "install it again where there is one"
        )
    try:
        library = ctypes.CDLL(str(found[0]))
    except OSError as error:
        return f"{found[0].name} cannot be loaded ({error})"
    if not all(built_for(library, part, struct) for part, struct in _STRUCTS.items()):
        return f"{found[0].name} was built from other sources; install the package again"
    library.adaptive_sleep_level.restype = ctypes.c_int
    library.adaptive_sleep_rule.restype = ctypes.c_int
    library.adaptive_sleep_kept.restype = None
    library.adaptive_sleep_look.restype = None
    library.adaptive_sleep_dense.restype = ctypes.c_int
    return library


def unavailable() -> str:
    """Why the compiled form cannot be used here; empty where it can."""
    library = _library()
    return library if isinstance(library, str) else ""


@functools.cache
def level() -> int:
    """The instruction set that the compiled form uses: 1 AVX2, 0 what every processor has."""
    library = _library()
    assert not isinstance(library, str)
    return int(library.adaptive_sleep_level())


def _run(call: Call, way: int, dtype: torch.dtype) -> None:
    library = _library()
    assert not isinstance(library, str)
    wide = int(dtype == torch.float64)
    if library.adaptive_sleep_rule(ctypes.byref(call), wide, way, level()):
        raise MemoryError("gated_delta_rule: no memory for the working buffers of its threads")


def _kept(call: Call) -> tuple[int, int]:
    """Numbers of E and of states that one sequence keeps for the gradient."""
    library = _library()
    assert not isinstance(library, str)
    out = (ctypes.c_int64 * 2)()
    library.adaptive_sleep_kept(ctypes.byref(call), out)
    return out[0], out[1]


def _threads(rows: int, flops: int) -> int:
    return max(1, min(torch.get_num_threads(), rows, flops // WORTH_A_THREAD))


def _dense(x: Tensor) -> Tensor:
    """x with its last dimension contiguous; its other strides may be any."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _strides(x: Tensor) -> Any:
    return Three(*x.stride()[:3])


def _call(inputs: Sequence[Tensor], options: Options) -> Call:
    q, _, v, *_ = inputs
    batch, steps, heads, key = q.shape
    value, rows = v.shape[3], batch * heads
    sizes = (batch, steps, heads, key, value, _threads(rows, 8 * rows * steps * key * value))
    call = Call(*sizes, *(x.data_ptr() for x in inputs), options.reference.data_ptr())
    for name, x in zip(INPUTS[:5], inputs[:5], strict=True):
        setattr(call, f"{name}_at", _strides(x))
    if options.lengths is not None:
        call.lengths = options.lengths.data_ptr()
    return call


def _forward(
    inputs: Sequence[Tensor], options: Options, *, keep: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    q, _, v, *_, start = inputs
    batch, steps, heads = q.shape[:3]
    rows = batch * heads
    call = _call(inputs, options)
    o, final = v.new_empty(batch, steps, heads, v.shape[3]), torch.empty_like(start)
    change = start.new_empty(2, batch, heads) if options.change else start.new_empty(0)
    call.o, call.final = o.data_ptr(), final.data_ptr()
    if options.change:
        call.change = change.data_ptr()
    errors, states = (start.new_empty(rows * n) for n in (_kept(call) if keep else (0, 0)))
    if keep:
        call.errors, call.states = errors.data_ptr(), states.data_ptr()
    _run(call, KEEPING if keep else FORWARD, start.dtype)
    return o, final, change, errors, states


class _Native(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, options: Options, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        o, final, change, errors, states = _forward(inputs, options, keep=True)
        ctx.save_for_backward(*inputs, errors, states)
        ctx.options = options
        ctx.mark_non_differentiable(change)
        return o, final, change

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_o: Tensor, d_final: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, errors, states = ctx.saved_tensors
        call = _call(inputs, ctx.options)
        d_o, d_final = _dense(d_o), d_final.contiguous()
        call.errors, call.states = errors.data_ptr(), states.data_ptr()
        call.d_o, call.d_final, call.d_o_at = d_o.data_ptr(), d_final.data_ptr(), _strides(d_o)
        gradients = [x.new_empty(x.shape) for x in inputs]
        for name, x in zip(GRADIENTS, gradients, strict=True):
            setattr(call, name, x.data_ptr())
        _run(call, BACKWARD, d_final.dtype)
        return None, *gradients


def native_gated_delta_rule(
    inputs: tuple[Tensor, ...], options: Options
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the gated delta rule in C; return o, the final state and the norms `[2, B, H]` (empty
    unless wanted).

    inputs: q, k `[B, T, H, K]`, v `[B, T, H, V]`, g, beta `[B, T, H]`, start `[B, H, K, V]`, all
    float32 or all float64, on the CPU, T >= 1. Padding may hold anything. Differentiable once.
    Source: Gated Delta Networks, arXiv 2412.06464, section 3.3.
    """
    q, k, v, g, beta, start = inputs
    inputs = (_dense(q), _dense(k), _dense(v), g, beta, start.contiguous())
    reference = options.reference.detach().to(start.dtype).contiguous()
    lengths = None if options.lengths is None else options.lengths.contiguous()
    options = Options(lengths, reference, options.change)
    if torch.is_grad_enabled() and any(x.requires_grad for x in inputs):
        return _Native.apply(options, *inputs)  # type: ignore[no-any-return, no-untyped-call]
    return _forward(inputs, options, keep=False)[:3]
