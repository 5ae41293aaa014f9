"""The Gated DeltaNet mixer around `kernels/`: projections, short convolution, gates, output norm.

The recurrence itself lives in `adaptive_sleep.kernels`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adaptive_sleep.config import ModelConfig
from adaptive_sleep.kernels import causal_conv, gated_delta_rule, gated_norm, keys_and_values


class DeltaNet(nn.Module):
    """Gated DeltaNet (Yang et al., arXiv 2412.06464, section 3.3) with a carried state and tail."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads, self.key, self.value = config.fast_heads, config.key_dim, config.value_dim
        self.taps = config.conv
        mixed = self.heads * (2 * self.key + self.value)
        self.project = nn.Linear(config.width, mixed, bias=False)
        self.gates = nn.Linear(config.width, 2 * self.heads, bias=False)
        self.output_gate = nn.Linear(config.width, self.heads * self.value, bias=False)
        self.out = nn.Linear(self.heads * self.value, config.width, bias=False)
        self.norm = nn.Parameter(torch.ones(self.value))
        if self.taps:
            self.taps_weight = nn.Parameter(torch.zeros(mixed, self.taps))
            with torch.no_grad():  # starts as the identity on the newest input
                self.taps_weight[:, -1] = 1.0
        # Decay exp(-A softplus(a + dt)), as in Mamba-2 and Gated DeltaNet; but there are few heads
        # here, and none may start by forgetting the window: a is small at first (`Model`), A is 1,
        # and softplus(dt) is in 0.001 .. 0.01.
        self.log_rate = nn.Parameter(torch.zeros(self.heads))
        start = torch.exp(torch.linspace(math.log(1e-3), math.log(1e-2), self.heads))
        self.rate_bias = nn.Parameter(start + torch.log(-torch.expm1(-start)))

    def forward(
        self,
        x: Tensor,
        lengths: Tensor | None,
        state: Tensor,
        tail: Tensor | None,
        since: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """x `[B, T, d]`, state `[B, H, K, V]`, tail `[B, taps-1, D]` -> (y, new state, new tail,
        moved): ||new state - since||^2 and ||new state||^2, `[2, B]`, where a `since` is given.

        Positions at or past `lengths` (int64 `[B]`) touch neither state nor tail.
        """
        mixed = self.project(x)
        new_tail = tail
        if self.taps:
            assert tail is not None
            mixed, new_tail = causal_conv(mixed, self.taps_weight, tail, lengths=lengths)
        q, k, v = keys_and_values(mixed, self.heads, self.key, self.value)
        raw_beta, raw_decay = self.gates(x).split(self.heads, dim=-1)
        decay = -self.log_rate.exp() * F.softplus(raw_decay + self.rate_bias)
        o, new_state, *moved = gated_delta_rule(
            q, k, v, decay, raw_beta.sigmoid(), initial_state=state, lengths=lengths,
            reference_state=since, return_state_change=since is not None,
        )  # fmt: skip
        return self._finish(o, x), new_state, new_tail, moved[0].sum(-1) if moved else None

    def ask(self, x: Tensor, state: Tensor) -> Tensor:
        """Read the state with every position of x `[B, T, d]` as a question of its own: y.

        Nothing is written, nothing decays, and the short convolution meets the question alone.
        """
        batch, size, _ = x.shape
        split = self.heads * self.key
        mixed = F.linear(x, self.project.weight[:split])
        if self.taps:
            mixed = mixed * self.taps_weight[:split, -1]
        q = F.normalize(F.silu(mixed).view(batch, size, self.heads, self.key), dim=-1)
        o = torch.matmul(q.transpose(1, 2), state) * self.key**-0.5
        return self._finish(o.transpose(1, 2), x)

    def _finish(self, o: Tensor, x: Tensor) -> Tensor:
        """Normalise, gate by x `[B, T, d]` and project what was read, o `[B, T, H, V]`."""
        gated = gated_norm(o, self.norm, self.output_gate(x).view(o.shape))
        y: Tensor = self.out(gated.flatten(2))
        return y
