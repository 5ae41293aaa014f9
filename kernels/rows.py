"""What a block does row by row between its products: RMS norm, squared ReLU, and what goes before
and after the gated delta rule.

Each is one pass over memory in C where that was built and can serve (`native_rows`), forward and
backward; the torch forms here say what it computes, and run everywhere else.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from adaptive_sleep.streams.errors import InputError

from .native_rows import VECTOR, norm, serves, split, square

SHORTEST = 1e-12  # a key or query shorter than this is not brought to length 1


def _check_row(name: str, value: Tensor, shape: tuple[int, ...], of: Tensor) -> None:
    if tuple(value.shape) != shape:
        raise InputError(
            f"{name}: shape {tuple(value.shape)}, but {shape} is wanted for x of shape "
            f"{tuple(of.shape)}"
        )


def rms_norm(x: Tensor, gain: Tensor, epsilon: float = 1e-6) -> Tensor:
    """Return x `[..., D]` divided by its root mean square over D, times gain `[D]`.

    Differentiable once. Raises InputError where gain does not fit. Source: arXiv 1910.07467.
    """
    _check_row("gain", gain, tuple(x.shape[-1:]), x)
    if serves(len(gain), x, gain):
        return norm(x, gain, None, epsilon)
    return torch_rms_norm(x, gain, epsilon)


def torch_rms_norm(x: Tensor, gain: Tensor, epsilon: float = 1e-6) -> Tensor:
    """`rms_norm` in torch."""
    return F.rms_norm(x, gain.shape, gain, eps=epsilon)


def gated_norm(x: Tensor, gain: Tensor, gate: Tensor, epsilon: float = 1e-6) -> Tensor:
    """Return the RMS norm of x `[..., D]` with gain `[D]`, times silu(gate), gate shaped as x.

    Differentiable once. Raises InputError where a shape does not fit.
    """
    _check_row("gain", gain, tuple(x.shape[-1:]), x)
    _check_row("gate", gate, tuple(x.shape), x)
    if serves(len(gain), x, gain, gate):
        return norm(x, gain, gate, epsilon)
    return torch_gated_norm(x, gain, gate, epsilon)


def torch_gated_norm(x: Tensor, gain: Tensor, gate: Tensor, epsilon: float = 1e-6) -> Tensor:
    """`gated_norm` in torch."""
    return torch_rms_norm(x, gain, epsilon) * F.silu(gate)


def squared_relu(x: Tensor) -> Tensor:
    """Return max(x, 0) squared, shaped as x; differentiable once. Source: arXiv 2109.08668."""
    if x.dim() and serves(x.shape[-1], x):
        return square(x)
    return torch_squared_relu(x)


def torch_squared_relu(x: Tensor) -> Tensor:
    """`squared_relu` in torch."""
    return x.relu().square()


def keys_and_values(x: Tensor, heads: int, key: int, value: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return q, k `[..., H, K]` and v `[..., H, V]` from silu of x `[..., H (2 K + V)]`, in that
    order; q and k are brought to length 1.

    Differentiable once. Raises InputError where x does not fit. Source: arXiv 2412.06464, section
    3.3.
    """
    _check_row("x", x, (*x.shape[:-1], heads * (2 * key + value)), x)
    if key % VECTOR == 0 and serves(heads * value, x):
        return split(x, heads, key, value, SHORTEST)
    return torch_keys_and_values(x, heads, key, value)


def torch_keys_and_values(
    x: Tensor, heads: int, key: int, value: int
) -> tuple[Tensor, Tensor, Tensor]:
    """`keys_and_values` in torch."""
    keys, v = F.silu(x).split([2 * heads * key, heads * value], dim=-1)
    both = F.normalize(keys.unflatten(-1, (2, heads, key)), dim=-1, eps=SHORTEST)
    q, k = both.unbind(-3)
    return q, k, v.unflatten(-1, (heads, value))
