"""What every form of the gated delta rule is given: shapes and dtypes checked once, with errors
that say what to do.

It holds no arithmetic of the rule itself, only the check of arguments and the treatment of padding
by `lengths`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from adaptive_sleep.streams.errors import InputError

FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def _shape(name: str, value: Tensor, allowed: tuple[int, ...], letters: str) -> None:
    if tuple(value.shape) != allowed:
        raise InputError(f"{name}: shape {tuple(value.shape)}, but {letters} is {allowed} here")


def check_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    initial_state: Tensor | None,
    lengths: Tensor | None,
    reference_state: Tensor | None,
) -> torch.dtype:
    """Check the arguments of the gated delta rule and return the dtype that it computes in.

    q, k `[B, T, H, K]`, v `[B, T, H, V]`, g, beta `[B, T, H]`, states `[B, H, K, V]`, lengths
    `[B]`. Raises InputError naming the argument.
    """
    if q.dim() != 4 or v.dim() != 4:
        name, value = ("q", q) if q.dim() != 4 else ("v", v)
        raise InputError(
            f"{name}: shape {tuple(value.shape)}, but 4 dimensions [B, T, H, K] are wanted"
        )
    batch, steps, heads, key = q.shape
    value_size = v.shape[3]
    _shape("k", k, (batch, steps, heads, key), "[B, T, H, K]")
    _shape("v", v, (batch, steps, heads, value_size), "[B, T, H, V]")
    _shape("g", g, (batch, steps, heads), "[B, T, H]")
    _shape("beta", beta, (batch, steps, heads), "[B, T, H]")
    for name, state in (("initial_state", initial_state), ("reference_state", reference_state)):
        if state is not None:
            _shape(name, state, (batch, heads, key, value_size), "[B, H, K, V]")
    if lengths is not None:
        _shape("lengths", lengths, (batch,), "[B]")
        if lengths.dtype != torch.int64:
            raise InputError(f"lengths: dtype {lengths.dtype}, but int64 is wanted")
    wide = False
    for name, value in (("q", q), ("k", k), ("v", v), ("g", g), ("beta", beta)):
        if value.dtype not in FLOATS:
            raise InputError(f"{name}: dtype {value.dtype}, but a floating dtype is wanted")
        wide = wide or value.dtype == torch.float64
    return torch.float64 if wide else torch.float32


def padding_mask(lengths: Tensor, steps: int) -> Tensor:
    """Return `[B, T]`, true at the positions t >= lengths[b] that are padding."""
    return torch.arange(steps, device=lengths.device) >= lengths[:, None]


def untouched(start: Tensor, v: Tensor, *others: Tensor) -> tuple[Tensor, Tensor]:
    """Return o and the final state of a call without streams or without events: v, which is empty,
    and the state that it started from.

    Both depend on all inputs, as the results of any other call do, so that each has a gradient.
    """
    nothing = torch.stack([x.sum() for x in (start[:0], v, *others)]).sum()
    return v - nothing, start - nothing  # x - 0 is x, its sign included


def state_change(state: Tensor, reference_state: Tensor | None) -> Tensor:
    """Return ||S - S_ref||^2 and ||S||^2 as `[2, B, H]`, outside the gradient; no reference means
    S_ref = 0.

    state, reference_state: `[B, H, K, V]`.
    """
    with torch.no_grad():
        size = state.square().sum((2, 3))
        if reference_state is None:
            return torch.stack((size, size))
        return torch.stack(((state - reference_state).square().sum((2, 3)), size))
