"""Appending rows of different lengths: what a cache and a window buffer do with new positions."""

from __future__ import annotations

import torch
from torch import Tensor


def append_index(
    past: Tensor, size: int, new: Tensor, width: int, keep: int
) -> tuple[Tensor, Tensor]:
    """Where the last `keep` of past-then-new positions lie in `cat([old, new], 1)`.

    past, new: int64 `[B]`, valid positions of the old part (`size` slots wide) and of the new part
    (`width` slots). Returns the index `[B, S]`, S = most held, and how many are held, `[B]`.
    """
    total = past + new
    held = total.clamp(max=keep)
    slots = int(held.max()) if held.numel() else 0
    place = (total - held)[:, None] + torch.arange(slots, device=past.device)
    # a position below `past` lies in the old part, any other in the new one, behind its padding
    index = torch.where(place < past[:, None], place, place + (size - past)[:, None])
    return index.clamp(max=max(size + width - 1, 0)), held


def take(rows: Tensor, index: Tensor) -> Tensor:
    """rows[b, index[b, s]] for rows `[B, L, ...]` and index `[B, S]`."""
    spread = index.view(*index.shape, *([1] * (rows.dim() - 2)))
    return rows.gather(1, spread.expand(-1, -1, *rows.shape[2:]))


def append(old: Tensor, past: Tensor, new: Tensor, lengths: Tensor, keep: int) -> Tensor:
    """The last `keep` positions of `old` `[B, L, ...]` followed by `new` `[B, T, ...]`."""
    index, _ = append_index(past, old.shape[1], lengths, new.shape[1], keep)
    return take(torch.cat([old, new], 1), index)
