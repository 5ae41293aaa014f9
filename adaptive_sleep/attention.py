"""Windowed softmax attention and its KV cache; `kernels/` does the arithmetic.

Keys are cached unrotated, so that rotary positions can count from the oldest held event.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from adaptive_sleep.config import ModelConfig
from adaptive_sleep.kernels import attend, attend_packed, torch_attend
from adaptive_sleep.ragged import append_index, take

CPU = torch.device("cpu")
Visibility = Literal["causal", "bidirectional", "diagonal"]


@dataclass(frozen=True, eq=False)
class KVCache:
    """What attention holds of each stream.

    `keys[name]`, `values[name]`: `[B, L, H, D]`, filled from the left; `lengths`: int64 `[B]`,
    positions held. `name` is the layer's index as a string.
    """

    keys: dict[str, Tensor]
    values: dict[str, Tensor]
    lengths: Tensor

    def select(self, rows: Tensor) -> KVCache:
        """The streams `rows` (int64 [n]) as a new batch."""
        return KVCache(
            {n: t.index_select(0, rows) for n, t in self.keys.items()},
            {n: t.index_select(0, rows) for n, t in self.values.items()},
            self.lengths.index_select(0, rows),
        )

    def extended(self, new: KVCache, keep: int) -> KVCache:
        """This cache followed by `new` (`lengths` valid positions each), the last `keep` held.

        The result has L = min(keep, longest) positions.
        """
        past = next((int(t.shape[1]) for t in self.keys.values()), 0)
        width = next((int(t.shape[1]) for t in new.keys.values()), 0)
        index, held = append_index(self.lengths, past, new.lengths, width, keep)
        return KVCache(
            {n: take(torch.cat([t, new.keys[n]], 1), index) for n, t in self.keys.items()},
            {n: take(torch.cat([t, new.values[n]], 1), index) for n, t in self.values.items()},
            held,
        )


def empty_cache(config: ModelConfig, streams: int, device: torch.device = CPU) -> KVCache:
    """A cache that holds nothing."""
    names = [str(i) for i, layer in enumerate(config.layers) if layer == "attention"]
    shape = (streams, 0, config.heads, config.width // config.heads)
    return KVCache(
        {n: torch.zeros(shape, device=device) for n in names},
        {n: torch.zeros(shape, device=device) for n in names},
        torch.zeros(streams, dtype=torch.int64, device=device),
    )


@dataclass(frozen=True, eq=False)
class View:
    """Who sees whom, shared by all attention layers of one run of the blocks.

    `mask`: bool `[B, T, L + T]` (past, then new); `key_positions` `[B, L + T]` and
    `query_positions` `[B, T]` count from the oldest held position. `full`: no new position is
    padding; `all`: besides, every query sees every key; `alone`: every query sees itself only.
    """

    mask: Tensor
    query_positions: Tensor
    key_positions: Tensor
    full: bool = False
    all: bool = False
    alone: bool = False


def view(
    past: Tensor, past_size: int, lengths: Tensor, size: int, seen: Visibility, window: int | None
) -> View:
    """Visibility of `size` new positions behind `past` held ones.

    past, lengths: int64 `[B]`; `window`: positions that a query sees at most, itself included
    (None: all). A padded query sees itself alone, so that no row of the softmax is empty.
    """
    full = bool((lengths == size).all())
    steps = torch.arange(size, device=past.device)
    slots = torch.arange(past_size, device=past.device)
    queries = past[:, None] + steps
    keys = torch.cat([slots.expand(len(past), -1), queries], 1)
    valid = torch.cat([slots < past[:, None], steps < lengths[:, None]], 1)
    offset = queries[:, :, None] - keys[:, None, :]
    own = torch.cat([torch.zeros(size, past_size), torch.eye(size)], 1).to(past.device).bool()
    visible = valid[:, None, :]
    if seen == "causal":
        visible = visible & (offset >= 0)
    elif seen == "diagonal":
        old = torch.arange(past_size + size, device=past.device) < past_size
        visible = visible & (old | own)
    if window is not None:
        visible = visible & (offset < window)
    bare = full and not past_size and window is None
    every, alone = bare and seen == "bidirectional", bare and seen == "diagonal"
    return View(visible | own, queries, keys, full, every, alone)


class Attention(nn.Module):
    """Multi-head softmax attention over the held window and the new positions."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads, self.head_dim = config.heads, config.width // config.heads
        self.project = nn.Linear(config.width, 3 * config.width, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)
        self.rotary = config.positions == "rotary"
        self.reach = config.window_positions
        # Learned bias per head and offset (Rule 110 needs it); offsets run over the window.
        self.bias = (
            nn.Parameter(torch.zeros(config.heads, 2 * self.reach - 1))
            if config.positions == "relative"
            else None
        )
        half = self.head_dim // 2
        frequencies = 10_000.0 ** (-torch.arange(half, dtype=torch.float32) / half)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.frequencies: Tensor

    def forward(
        self, x: Tensor, look: View, past_keys: Tensor, past_values: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x `[B, T, d]`, past `[B, L, H, D]` -> y `[B, T, d]`, new keys and values."""
        batch, size, width = x.shape
        packed = self.project(x).view(batch, size, 3, self.heads, self.head_dim)
        q, k, v = packed.unbind(2)
        keys = torch.cat([past_keys, k], 1) if past_keys.shape[1] else k
        values = torch.cat([past_values, v], 1) if past_values.shape[1] else v
        if self.rotary:
            q = self._rotate(q, look.query_positions)
            keys = self._rotate(keys, look.key_positions)
        if look.alone:  # a softmax over one key
            return self.out(v.reshape(batch, size, width)), k, v
        mask = None if look.all else look.mask
        if self.bias is not None:
            y = torch_attend(q, keys, values, self._biased(look))
        elif self.rotary or keys is not k:
            y = attend(q, keys, values, mask)
        else:
            y = attend_packed(packed, mask)
        return self.out(y.reshape(batch, size, width)), k, v

    def _rotate(self, x: Tensor, positions: Tensor) -> Tensor:
        """Rotary position embedding of x `[B, L, H, D]` at `positions` `[B, L]` (halves layout)."""
        angle = (positions[:, :, None] * self.frequencies)[:, :, None, :]
        cos, sin = angle.cos(), angle.sin()
        a, b = x.chunk(2, dim=-1)
        return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)

    def _biased(self, look: View) -> Tensor:
        """The learned bias per head and offset, minus infinity where a key is not seen."""
        assert self.bias is not None
        offset = look.query_positions[:, :, None] - look.key_positions[:, None, :]
        index = (offset + self.reach - 1).clamp(0, 2 * self.reach - 2)
        bias = self.bias[:, index].transpose(0, 1)
        return bias.masked_fill(~look.mask[:, None], float("-inf"))
