"""The token face of the model: embedding, next-token head, loss and entropy.

Blocks are shared with the series face (`series.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adaptive_sleep.config import ModelConfig


@dataclass(frozen=True, eq=False)
class TokenScore:
    """How the next tokens were predicted: arrays `[B, T]`, zero where nothing was scored.

    `loss` in nats, `entropy` of the predictive distribution divided by log(vocabulary).
    """

    loss: Tensor
    uncertainty: Tensor


class TokenFace(nn.Module):
    """Embedding tied to the head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.vocabulary = config.vocabulary
        self.table = nn.Embedding(config.vocabulary, config.width)
        nn.init.normal_(self.table.weight, std=config.width**-0.5)
        self.gain = nn.Parameter(torch.ones(config.width))

    def embed(self, tokens: Tensor) -> Tensor:
        """int64 `[B, T]` -> `[B, T, d]`."""
        embedded: Tensor = self.table(tokens) * math.sqrt(self.table.weight.shape[1])
        return embedded

    def logits(self, hidden: Tensor) -> Tensor:
        """Final hidden states `[..., d]` -> `[..., vocabulary]`."""
        normal = F.rms_norm(hidden, hidden.shape[-1:], self.gain, eps=1e-6)
        return F.linear(normal, self.table.weight)

    def score(self, hidden: Tensor, targets: Tensor, scored: Tensor) -> TokenScore:
        """Loss of predicting `targets` `[B, T]` from `hidden` `[B, T, d]` where `scored`."""
        log_p = self.logits(hidden).log_softmax(-1)
        loss = -log_p.gather(-1, targets[..., None])[..., 0]
        entropy = -(log_p.exp() * log_p).sum(-1) / math.log(self.vocabulary)
        zero = torch.zeros_like(loss)
        return TokenScore(torch.where(scored, loss, zero), torch.where(scored, entropy, zero))
