"""Muon: momentum whose every matrix is made nearly orthogonal before it is applied.

For the weight matrices of blocks; everything else goes to AdamW. torch has a Muon of its own, but
it takes whole parameters one by one in bfloat16; here the matrices of each head are updated apart,
all of one shape in one batch of products, in float32. Which matrices there are is in `matrices`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from adaptive_sleep.attention import Attention
from adaptive_sleep.deltanet import DeltaNet
from adaptive_sleep.model import Block, Model

# Quintic iteration whose fixed points are near 1 (Jordan et al., Muon, 2024).
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
STEPS = 5


class Muon(torch.optim.Optimizer):
    """Muon over matrices that may be cut: each group has `params` and, alike for all of them,
    `dim` and `sizes`, how a parameter is cut into the matrices of its heads (`sizes` () is whole).

    Source: Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024; the
    update of an `[r, c]` matrix is scaled by sqrt(max(1, r / c)).
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], lr: float = 0.02, momentum: float = 0.95
    ) -> None:
        super().__init__(list(groups), {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Apply one update; parameters without a gradient stay."""
        batches: dict[tuple[int, int], list[tuple[Tensor, Tensor, float]]] = {}
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p)
                held = state["momentum"].mul_(group["momentum"]).add_(p.grad)
                wanted = p.grad.add(held, alpha=group["momentum"])
                sizes = group["sizes"] or (p.shape[group["dim"]],)
                for matrix, update in zip(
                    p.split(sizes, group["dim"]), wanted.split(sizes, group["dim"]), strict=True
                ):
                    shape = (matrix.shape[0], matrix.shape[1])
                    batches.setdefault(shape, []).append((matrix, update, group["lr"]))
        for shape, found in batches.items():
            scale = max(1.0, shape[0] / shape[1]) ** 0.5
            straight = orthogonal(torch.stack([update for _, update, _ in found]))
            for (matrix, _, rate), update in zip(found, straight.unbind(), strict=True):
                matrix.add_(update, alpha=-rate * scale)


def orthogonal(x: Tensor) -> Tensor:
    """Bring the singular values of each matrix of x `[n, r, c]` near 1, whatever its scale."""
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / (x.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(STEPS):
        gram = torch.bmm(x, x.mT)
        mixed = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, mixed, x, beta=a)
    return x.mT if tall else x


def matrices(model: Model) -> list[dict[str, Any]]:
    """The weight matrices of a model's blocks, cut by head, as groups for `Muon`."""
    config, groups = model.config, []

    def add(weight: Tensor, dim: int = 0, sizes: tuple[int, ...] = ()) -> None:
        groups.append({"params": [weight], "dim": dim, "sizes": sizes})

    keys, values = (config.key_dim,) * config.fast_heads, (config.value_dim,) * config.fast_heads
    split = (config.width // config.heads,) * config.heads
    for block in model.blocks:
        assert isinstance(block, Block)
        mixer = block.mixer
        if isinstance(mixer, Attention):
            add(mixer.project.weight, 0, split * 3)
            add(mixer.out.weight, 1, split)
        elif isinstance(mixer, DeltaNet):
            add(mixer.project.weight, 0, keys + keys + values)
            add(mixer.output_gate.weight, 0, values)
            add(mixer.out.weight, 1, values)
        add(block.up.weight)
        add(block.down.weight)
    return groups
