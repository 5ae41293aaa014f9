"""The token face of the model: embedding, the head of next tokens or of answers, loss, entropy.

Real numbers that come beside a token are read here too. Blocks are shared with the series face
(`series.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adaptive_sleep.config import OCTAVES, ModelConfig
from adaptive_sleep.kernels import score_logits
from adaptive_sleep.streams.errors import InputError


@dataclass(frozen=True, eq=False)
class TokenScore:
    """How the next tokens were predicted: arrays `[B, T]`, zero where nothing was scored.

    `loss` in nats, `entropy` of the predictive distribution divided by log(classes).
    """

    loss: Tensor
    uncertainty: Tensor


class TokenFace(nn.Module):
    """An embedding that is tied to the head, or, where answers are asked for, a head of its own.

    A token that packs fields (mixed radix, the first the most significant) is embedded as the sum
    of one embedding per field; real numbers beside it add a linear map of their Fourier octaves.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.classes = config.answers or config.vocabulary
        self.fields = config.fields or (config.vocabulary,)
        self.table = nn.Embedding(sum(self.fields), config.width)
        nn.init.normal_(self.table.weight, std=config.width**-0.5)
        self.gain = nn.Parameter(torch.ones(config.width))
        self.answer = (
            nn.Parameter(torch.randn(config.answers, config.width) * config.width**-0.5)
            if config.answers
            else None
        )
        self.values = (
            nn.Linear(2 * OCTAVES * config.values, config.width, bias=False)
            if config.values
            else None
        )

    def embed(self, tokens: Tensor, values: Tensor | None = None) -> Tensor:
        """int64 `[B, T]`, with float32 `values` `[B, T, V]` where the model reads them (NaN:
        blank) -> `[B, T, d]`. Raises InputError for another V."""
        given = 0 if values is None else values.shape[-1]
        wanted = 0 if self.values is None else self.values.in_features // (2 * OCTAVES)
        if given != wanted:
            raise InputError(
                f"values: {given} real numbers come beside each token, but the model reads {wanted}"
            )
        embedded = self._packed(tokens)
        if self.values is None or values is None:
            return embedded
        added: Tensor = self.values(octaves(values))
        return embedded + added

    def _packed(self, tokens: Tensor) -> Tensor:
        """What the tokens alone add."""
        rest, offset = tokens, sum(self.fields)
        places = []
        for size in reversed(self.fields):
            offset -= size
            places.append(offset + rest % size)
            rest = rest // size
        size = self.table.weight.shape[1]
        if len(places) == 1:
            embedded: Tensor = self.table(tokens) * math.sqrt(size)
            return embedded
        summed = F.embedding_bag(
            torch.stack(places, -1).view(-1, len(places)), self.table.weight, mode="sum"
        )
        return summed.view(*tokens.shape, size) * math.sqrt(size)

    def logits(self, hidden: Tensor) -> Tensor:
        """Final hidden states `[..., d]` -> `[..., classes]`: of answers (for one class, the real
        number itself), or of next tokens."""
        normal = F.rms_norm(hidden, hidden.shape[-1:], self.gain, eps=1e-6)
        return F.linear(normal, self.table.weight if self.answer is None else self.answer)

    def score(self, hidden: Tensor, targets: Tensor, scored: Tensor) -> TokenScore:
        """Loss of predicting `targets` `[B, T]` from `hidden` `[B, T, d]` where `scored`."""
        loss, entropy = score_logits(self.logits(hidden), targets)
        uncertainty, zero = entropy / math.log(self.classes), torch.zeros_like(loss)
        return TokenScore(torch.where(scored, loss, zero), torch.where(scored, uncertainty, zero))


def octaves(values: Tensor) -> Tensor:
    """Real numbers `[..., V]` -> sin and cos of pi 2^j x, j < OCTAVES, `[..., V * 2 * OCTAVES]`;
    zero for a blank, NaN."""
    angle = values[..., None] * (math.pi * 2.0 ** torch.arange(OCTAVES, device=values.device))
    waves = torch.cat([angle.sin(), angle.cos()], -1)
    return torch.where(values.isnan()[..., None], 0.0, waves).flatten(-2)
