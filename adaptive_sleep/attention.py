"""Windowed softmax attention and its KV cache; `kernels/` does the arithmetic.

Keys are cached unrotated, so that rotary positions can count from the oldest held event.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adaptive_sleep.config import ModelConfig
from adaptive_sleep.kernels import (
    attend,
    attend_nearest,
    attend_packed,
    attend_weighed,
    torch_attend,
)
from adaptive_sleep.ragged import append_index, take

CPU = torch.device("cpu")
Visibility = Literal["causal", "bidirectional", "diagonal"]


@dataclass(frozen=True, eq=False)
class KVCache:
    """What attention holds of each stream.

    `keys[name]`, `values[name]`: `[B, L, H, D]`, filled from the left; `lengths`: int64 `[B]`,
    positions held. `name` is the layer's index as a string. `mass[name]` `[B, L, H]`: how much
    each position has been attended to, summed over queries; None where nobody counts. Of the new
    positions that a run of the blocks leaves it is `[B, past + L, H]`: what the past got as well.
    `brought`: of the positions held, how many each query of each head brings back, those that it
    scores highest (None: all).
    """

    keys: dict[str, Tensor]
    values: dict[str, Tensor]
    lengths: Tensor
    mass: dict[str, Tensor] | None = None
    brought: int | None = None

    def select(self, rows: Tensor) -> KVCache:
        """The streams `rows` (int64 [n]) as a new batch."""
        return KVCache(
            {n: t.index_select(0, rows) for n, t in self.keys.items()},
            {n: t.index_select(0, rows) for n, t in self.values.items()},
            self.lengths.index_select(0, rows),
            self.mass and {n: t.index_select(0, rows) for n, t in self.mass.items()},
            self.brought,
        )

    def put(self, rows: Tensor, other: KVCache) -> KVCache:
        """A copy in which the streams `rows` are replaced by those of `other`, in order."""

        def merged(mine: Tensor, theirs: Tensor) -> Tensor:
            short = theirs.shape[1] - mine.shape[1]
            mine, theirs = _padded(mine, short), _padded(theirs, -short)
            return mine.index_copy(0, rows, theirs)

        mass = self.mass and {n: merged(t, (other.mass or {})[n]) for n, t in self.mass.items()}
        return KVCache(
            {n: merged(t, other.keys[n]) for n, t in self.keys.items()},
            {n: merged(t, other.values[n]) for n, t in self.values.items()},
            self.lengths.index_copy(0, rows, other.lengths),
            mass,
            self.brought,
        )

    def detach(self) -> KVCache:
        """The same values, cut from the gradient graph."""
        return KVCache(
            {n: t.detach() for n, t in self.keys.items()},
            {n: t.detach() for n, t in self.values.items()},
            self.lengths,
            self.mass,
            self.brought,
        )

    def counting(self) -> KVCache:
        """The same, with nothing attended to so far."""
        mass = {n: t.new_zeros(t.shape[:3]) for n, t in self.keys.items()}
        return replace(self, mass=mass)

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
            self.mass and {n: take(self._grown(n, new), index) for n in self.mass},
            self.brought,
        )

    def _grown(self, name: str, new: KVCache) -> Tensor:
        """How much past and new positions of a layer have been attended to, `[B, L + T, H]`."""
        assert self.mass is not None
        assert new.mass is not None
        past = self.mass[name].shape[1]
        return torch.cat([self.mass[name] + new.mass[name][:, :past], new.mass[name][:, past:]], 1)

    def heaviest(self, keep: int) -> KVCache:
        """The `keep` positions that were attended to most, of each head its own, in their order.

        Of equals the older one stays. Only for a cache that counts.
        """
        assert self.mass is not None
        held = self.lengths.clamp(max=keep)
        size = int(held.max()) if held.numel() else 0
        keys, values, kept = {}, {}, {}
        for name, mass in self.mass.items():
            there = torch.arange(mass.shape[1], device=mass.device) < self.lengths[:, None]
            weight = torch.where(there[..., None], mass, -torch.inf)
            order = weight.sort(dim=1, descending=True, stable=True).indices[:, :size]
            index = order.sort(dim=1).values  # what is not there lies beyond all that is
            wide = index[..., None].expand(-1, -1, -1, self.keys[name].shape[3])
            keys[name] = self.keys[name].gather(1, wide)
            values[name] = self.values[name].gather(1, wide)
            kept[name] = mass.gather(1, index)
        return KVCache(keys, values, held, kept)


def _padded(held: Tensor, more: int) -> Tensor:
    """`[B, L, ...]` with `more` empty positions behind, if that is above 0."""
    if more <= 0:
        return held
    return torch.cat([held, held.new_zeros(len(held), more, *held.shape[2:])], 1)


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
    padding; `all`: besides, every query sees every key; `alone`: every query sees itself only, full
    or not.
    """

    mask: Tensor
    query_positions: Tensor
    key_positions: Tensor
    full: bool = False
    all: bool = False
    alone: bool = False
    turns: list[Tensor] = field(default_factory=list, init=False, repr=False)  # of `turned`

    def turned(self, frequencies: Tensor) -> list[Tensor]:
        """Cosines and sines `[B, L + T, 1, F]` at the keys' positions, for `frequencies` `[F]`, the
        same in all layers: worked out by the first that asks."""
        if not self.turns:
            angle = (self.key_positions[:, :, None] * frequencies)[:, :, None, :]
            self.turns.extend((angle.cos(), angle.sin()))
        return self.turns


def view(
    past: Tensor,
    past_size: int,
    lengths: Tensor,
    size: int,
    seen: Visibility,
    window: int | None,
    shared: int = 0,
) -> View:
    """Visibility of `size` new positions behind `past` held ones.

    past, lengths: int64 `[B]`; `window`: positions that a query sees at most, itself included
    (None: all). Where questions see themselves alone, they also see the first `shared` new ones. A
    padded query sees itself alone, so that no row of the softmax is empty, and what others are
    attended to is the same however long a batch is.
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
        old = torch.arange(past_size + size, device=past.device) < past_size + shared
        visible = visible & (old | own)
    if window is not None:
        visible = visible & (offset < window)
    if not full:
        visible = visible & (steps < lengths[:, None])[:, :, None]
    bare = full and not past_size and window is None
    alone = seen == "diagonal" and not past_size and not shared
    return View(visible | own, queries, keys, full, bare and seen == "bidirectional", alone)


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
        self,
        x: Tensor,
        look: View,
        past_keys: Tensor,
        past_values: Tensor,
        brought: int | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x `[B, T, d]`, past `[B, L, H, D]` -> y `[B, T, d]`, new keys and values.

        Each query sees all of the past, or those `brought` back that it scores highest.
        """
        batch, size, width = x.shape
        packed = self._packed(x)
        _, k, v = packed.unbind(2)
        q, keys, values = self._seen(packed, look, past_keys, past_values)
        mask = None if look.all else look.mask
        if self.bias is not None:
            y = torch_attend(q, keys, values, self._biased(look))
        elif brought is not None and past_keys.shape[1] > brought:
            y = attend_nearest(q, keys, values, look.mask, past_keys.shape[1], brought)
        elif self.rotary or past_keys.shape[1]:
            y = attend(q, keys, values, mask)
        else:
            y = attend_packed(packed, mask)
        return self.out(y.reshape(batch, size, width)), k, v

    def alone(self, x: Tensor) -> Tensor:
        """y `[B, T, d]` of positions x that see themselves alone: a softmax over one key is 1."""
        values = F.linear(x, self.project.weight[2 * x.shape[2] :])
        y: Tensor = self.out(values)
        return y

    def weighed(
        self, x: Tensor, look: View, past_keys: Tensor, past_values: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As `forward`, and how much each position was attended to, `[B, L + T, H]`.

        Not for learned biases, which belong to windows that leave nothing.
        """
        packed = self._packed(x)
        _, k, v = packed.unbind(2)
        y, mass = attend_weighed(*self._seen(packed, look, past_keys, past_values), look.mask)
        return self.out(y.reshape(x.shape)), k, v, mass

    def _packed(self, x: Tensor) -> Tensor:
        """Queries, keys and values of x `[B, T, d]`, `[B, T, 3, H, D]`."""
        packed: Tensor = self.project(x)
        return packed.view(*x.shape[:2], 3, self.heads, self.head_dim)

    def _seen(
        self, packed: Tensor, look: View, past_keys: Tensor, past_values: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries `[B, T, H, D]`, and the keys and values `[B, L + T, H, D]` of past and new."""
        past = past_keys.shape[1]
        q, k, v = packed.unbind(2)
        if self.rotary:
            cos, sin = look.turned(self.frequencies)
            turned = _rotate(packed[:, :, :2], cos[:, past:, None], sin[:, past:, None])
            q, k = turned.unbind(2)
        if not past:
            return q, k, v
        if self.rotary:
            past_keys = _rotate(past_keys, cos[:, :past], sin[:, :past])
        return q, torch.cat([past_keys, k], 1), torch.cat([past_values, v], 1)

    def _biased(self, look: View) -> Tensor:
        """The learned bias per head and offset, minus infinity where a key is not seen."""
        assert self.bias is not None
        offset = look.query_positions[:, :, None] - look.key_positions[:, None, :]
        index = (offset + self.reach - 1).clamp(0, 2 * self.reach - 2)
        bias = self.bias[:, index].transpose(0, 1)
        return bias.masked_fill(~look.mask[:, None], float("-inf"))


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding of x `[..., D]` by angles `[..., D / 2]` (halves layout)."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)
