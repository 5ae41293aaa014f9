"""The gated delta rule on Triton: launches the kernels, and carries their gradient through
autograd.

The kernels are in `triton_kernels` and `triton_gradient`. Importing this file needs Triton;
`dispatch` imports it only when it is asked for.
"""

# mypy: disable-error-code="no-untyped-call, untyped-decorator, import-untyped"

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from .triton_gradient import chunks_backward_kernel, states_backward_kernel
from .triton_kernels import forward_kernel, prepare_kernel, step_kernel

CHUNK = 32


@dataclass(frozen=True)
class Sizes:
    """The blocks that a head is cut into: C events, all of K (padded to a power of two), BV columns
    of V."""

    key: int
    value: int

    @property
    def block_key(self) -> int:
        """K padded to what a product of tensor cores takes."""
        return max(16, int(triton.next_power_of_2(self.key)))

    @property
    def block_value(self) -> int:
        """Columns of V that one program holds: few enough that a state of K = 128 stays in
        registers."""
        return max(16, min(32, int(triton.next_power_of_2(self.value))))

    @property
    def tiles(self) -> int:
        """Programs per head."""
        return -(-self.value // self.block_value)

    def options(self) -> dict[str, int]:
        """The constants of a kernel over K alone."""
        return {"K": self.key, "C": CHUNK, "BK": self.block_key}

    def all_options(self) -> dict[str, int]:
        """The constants of a kernel over K and V."""
        return self.options() | {"V": self.value, "BV": self.block_value}


class Inputs(NamedTuple):
    """The contiguous tensors of one call."""

    q: Tensor
    k: Tensor
    v: Tensor
    g: Tensor
    beta: Tensor
    start: Tensor


@dataclass(frozen=True)
class Call:
    """What a launch needs beside q, k, v, g, beta: lengths `[B]` or None, S_ref or None, whether
    norms are wanted."""

    lengths: Tensor | None
    reference: Tensor | None
    norms: bool


def _change(call: Call, heads: int, tiles: int, like: Tensor) -> Tensor:
    return like.new_empty(2, heads, tiles) if call.norms else like


def _forward(inputs: Inputs, call: Call, keep: bool) -> tuple[Tensor, ...]:
    q, k, v, g, beta, start = inputs
    batch, steps, heads, key = q.shape
    sizes = Sizes(key, v.shape[3])
    rows, chunks = batch * heads, -(-steps // CHUNK)
    inverses, inside = start.new_empty(2, rows, chunks, CHUNK, CHUNK).unbind()
    o, final = torch.empty_like(v), torch.empty_like(start)
    errors = start.new_empty(rows, chunks, CHUNK, sizes.value) if keep else start
    states = start.new_empty(rows, chunks, key, sizes.value) if keep else start
    change = _change(call, rows, sizes.tiles, start)
    lengths = call.lengths
    has, given = lengths is not None, g if lengths is None else lengths
    prepare_kernel[(rows, chunks)](
        q,
        k,
        g,
        beta,
        given,
        inverses,
        inside,
        steps,
        heads,
        chunks=chunks,
        HAS_LENGTHS=has,
        **sizes.options(),
    )
    forward_kernel[(rows, sizes.tiles)](
        q, k, v, g, beta, given, inverses, inside, start,
        start if call.reference is None else call.reference,
        o, final, errors, states, change, key**-0.5, steps, heads, chunks, rows, sizes.tiles,
        HAS_LENGTHS=has, KEEP=keep, NORMS=call.norms, num_stages=1, **sizes.all_options(),
    )  # fmt: skip
    return o, final, change, inverses, inside, errors, states


def _backward(
    saved: tuple[Tensor, ...], lengths: Tensor | None, d_o: Tensor, d_final: Tensor
) -> tuple[Tensor, ...]:
    q, k, v, g, beta, inverses, inside, errors, states = saved
    batch, steps, heads, key = q.shape
    sizes = Sizes(key, v.shape[3])
    rows, chunks = batch * heads, -(-steps // CHUNK)
    # dv is read again by the second kernel, so it keeps float32 there whatever v is.
    d_v = torch.empty_like(v, dtype=torch.float32)
    d_states, d_initial = torch.empty_like(states), torch.empty_like(d_final)
    has, given = lengths is not None, g if lengths is None else lengths
    scale = key**-0.5
    states_backward_kernel[(rows, sizes.tiles)](
        q, k, g, beta, given, inverses, inside, d_o, d_final, d_v, d_states, d_initial,
        scale, steps, heads, chunks,
        HAS_LENGTHS=has, num_stages=1, **sizes.all_options(),
    )  # fmt: skip
    d_q, d_k, d_g, d_beta = (torch.empty_like(x) for x in (q, k, g, beta))
    chunks_backward_kernel[(rows, chunks)](
        q, k, g, beta, given, d_o, d_v, errors, states, d_states, d_q, d_k, d_g, d_beta,
        scale, steps, heads, chunks,
        HAS_LENGTHS=has, num_stages=1, **sizes.all_options(),
    )  # fmt: skip
    return d_q, d_k, d_v.to(v.dtype), d_g, d_beta, d_initial


class _Triton(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: Call, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v, g, beta, start = inputs
        o, final, change, *kept = _forward(Inputs(*inputs), call, keep=True)
        ctx.save_for_backward(q, k, v, g, beta, *kept)
        ctx.lengths = call.lengths
        change = change if call.norms else start.new_empty(0)
        ctx.mark_non_differentiable(change)
        return o, final, change

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_o: Tensor, d_final: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        grads = _backward(ctx.saved_tensors, ctx.lengths, d_o.contiguous(), d_final.contiguous())
        return None, *grads


def _step(inputs: Inputs, call: Call) -> tuple[Tensor, Tensor, Tensor | None]:
    """Take one event `[B, 1, H, ...]` in one kernel; no gradient. Returns o, the new state and the
    norms."""
    q, k, v, g, beta, start = inputs
    batch, _, heads, key = q.shape
    sizes = Sizes(key, v.shape[3])
    rows = batch * heads
    o, final, change = (
        torch.empty_like(v),
        torch.empty_like(start),
        _change(call, rows, sizes.tiles, start),
    )
    has, given = call.lengths is not None, g if call.lengths is None else call.lengths
    step_kernel[(rows, sizes.tiles)](
        q, k, v, g, beta, given, start, start if call.reference is None else call.reference,
        o, final, change, key**-0.5, heads, rows, sizes.tiles, HAS_LENGTHS=has, NORMS=call.norms,
        K=key, V=sizes.value, BK=sizes.block_key, BV=sizes.block_value,
    )  # fmt: skip
    return o, final, change.sum(2).view(2, batch, heads) if call.norms else None


def triton_gated_delta_rule(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, start: Tensor, call: Call
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Run the gated delta rule on Triton; return o, the final state and, if wanted, the norms `[2,
    B, H]`.

    q, k `[B, T, H, K]`, v `[B, T, H, V]`, g, beta `[B, T, H]` of float32, bfloat16 or float16;
    start `[B, H, K, V]` float32; T >= 1. Padding may hold anything.
    """
    inputs = Inputs(*(x.contiguous() for x in (q, k, v, g, beta, start)))
    if call.lengths is not None:
        call = Call(call.lengths.contiguous(), call.reference, call.norms)
    if call.reference is not None:
        call = Call(call.lengths, call.reference.detach().to(start.dtype).contiguous(), call.norms)
    wanted = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
    if q.shape[1] == 1 and not wanted:
        return _step(inputs, call)
    if wanted:
        o, final, change = _Triton.apply(call, *inputs)
    else:
        o, final, change, *_ = _forward(inputs, call, keep=False)
    batch, _, heads, _ = q.shape
    return o, final, change.sum(2).view(2, batch, heads) if call.norms else None
