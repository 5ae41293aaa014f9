"""Random inputs of the gated delta rule, and the measure of error that its tests use."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import normalize

NAMES = ("q", "k", "v", "g", "beta", "state")


@dataclass(frozen=True)
class Case:
    """One call: inputs in float64, `lengths` or None."""

    q: Tensor
    k: Tensor
    v: Tensor
    g: Tensor
    beta: Tensor
    state: Tensor
    lengths: Tensor | None = None

    def cast(self, dtype: torch.dtype, grad: bool = False) -> Case:
        """Return the same call in another dtype, as leaves that want a gradient where `grad` is
        set."""
        parts = {n: getattr(self, n).detach().to(dtype).requires_grad_(grad) for n in NAMES}
        return replace(self, **parts)

    def to(self, device: str) -> Case:
        """Return the same call on another device."""
        parts = {n: getattr(self, n).detach().to(device) for n in NAMES}
        lengths = None if self.lengths is None else self.lengths.to(device)
        return replace(self, **parts, lengths=lengths)

    def inputs(self) -> tuple[Tensor, ...]:
        """Return q, k, v, g, beta."""
        return self.q, self.k, self.v, self.g, self.beta


def make_case(
    seed: int,
    *,
    batch: int = 2,
    steps: int = 33,
    heads: int = 2,
    key: int = 8,
    value: int = 8,
    gate: float = 1.0,
    beta: float | None = None,
    repeated: bool = False,
    lengths: bool = False,
    forgets: bool = False,
) -> Case:
    """Draw a call: g uniform in [-gate, 0], now and then -inf where it `forgets`, beta given or
    uniform, one repeated key if asked for."""
    rng = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng, dtype=torch.float64)

    q, k = (normalize(normal(batch, steps, heads, key), dim=-1) for _ in range(2))
    if repeated:
        k = k[:, :1].expand_as(k).contiguous()
    drawn = torch.rand(batch, steps, heads, generator=rng, dtype=torch.float64)
    case = Case(
        q=q,
        k=k,
        v=normal(batch, steps, heads, value),
        g=-gate * torch.rand(batch, steps, heads, generator=rng, dtype=torch.float64),
        beta=drawn if beta is None else torch.full_like(drawn, beta),
        state=normal(batch, heads, key, value),
        lengths=torch.randint(0, steps + 1, (batch,), generator=rng) if lengths else None,
    )
    if forgets:
        case.g[:, seed % 7 :: 7] = -torch.inf
    # Every form sees the same numbers: what float32 cannot hold is rounded away here, before any
    # form runs.
    return case.cast(torch.float32).cast(torch.float64)


def error(x: Tensor, wanted: Tensor) -> float:
    """Return ||x - wanted|| / ||wanted||, or the plain norm of the difference where wanted is below
    1e-6."""
    size = float(wanted.norm())
    away = float((x.double().cpu() - wanted.double().cpu()).norm())
    return away / size if size >= 1e-6 else away
