"""Recurrent memory tokens: vectors that are read before a window, and written behind it.

What a window's tokens become is carried to the next window, beside the fast weights. After the
Recurrent Memory Transformer (Bulatov et al., arXiv 2207.06881, section 3); it differs in that what
is carried is normalised, and that both ends add vectors of their own to it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adaptive_sleep.config import ModelConfig
from adaptive_sleep.kernels import rms_norm
from adaptive_sleep.ragged import take


class MemoryTokens(nn.Module):
    """`memory_tokens` m vectors of `width` d at either end of a window; a stream carries `[m, d]`,
    zeros before its first window."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        shape, scale = (config.memory_tokens, config.width), config.width**-0.5
        self.count = config.memory_tokens
        self.read = nn.Parameter(torch.randn(shape) * scale)
        self.write = nn.Parameter(torch.randn(shape) * scale)
        self.gain = nn.Parameter(torch.ones(config.width))

    def before(self, embedded: Tensor, lengths: Tensor, carried: Tensor) -> tuple[Tensor, Tensor]:
        """Questions `[B, T, d]`, `lengths` int64 `[B]` of them valid, behind what is read of the
        `carried` `[B, m, d]`: `[B, m + T, d]`, and how many of those are valid."""
        joined = torch.cat([carried + self.read, embedded], 1)
        return joined, self._sizes(lengths, 1)

    def around(self, embedded: Tensor, lengths: Tensor, carried: Tensor) -> tuple[Tensor, Tensor]:
        """A window `[B, T, d]` between what is read and what is written, which comes right behind
        its last valid position: `[B, m + T + m, d]`, and how many of those are valid."""
        size = embedded.shape[1]
        joined = torch.cat([carried + self.read, embedded, carried + self.write], 1)
        if not bool((lengths == size).all()):
            place = torch.arange(joined.shape[1], device=lengths.device)
            end = self.count + lengths[:, None]
            index = torch.where(place < end, place, place + size - lengths[:, None])
            joined = take(joined, index.clamp(max=joined.shape[1] - 1))
        return joined, self._sizes(lengths, 2)

    def written(self, hidden: Tensor, lengths: Tensor, carried: Tensor) -> Tensor:
        """What is carried on, `[B, m, d]`, from the final hidden states of `around`; an empty
        window leaves it as it was."""
        index = self.count + lengths[:, None] + torch.arange(self.count, device=lengths.device)
        left = rms_norm(take(hidden, index), self.gain)
        return torch.where((lengths > 0)[:, None, None], left, carried)

    def inner(self, x: Tensor, size: int) -> Tensor:
        """Of positions `[B, L, ...]` those `size` that are the window's or the questions' own."""
        return x[:, self.count : self.count + size]

    def _sizes(self, lengths: Tensor, ends: int) -> Tensor:
        """Valid positions with the tokens at so many ends; nothing is read beside nothing."""
        return torch.where(lengths > 0, lengths + ends * self.count, lengths)
