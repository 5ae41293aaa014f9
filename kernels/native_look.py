"""What signals look at, in C: calls the compiled library.

The arithmetic is in `native_look.h`; `looks` holds the torch forms and asks `serves` before it
comes here. There are no gradients.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from . import native
from .native_rows import WORTH_A_THREAD, serves
from .native_structs import Look

__all__ = ["look", "score", "serves"]


def look(
    x: Tensor,
    lengths: Tensor | None,
    before: Tensor | None,
    rows: Tensor | None = None,
    *,
    pool: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """Of x `[B, T, D]` within `lengths` `[B]`, or of its `rows` int64 `[n]`: pooled `[n, 2 D]`
    if wanted, and, where there is a `before`, the sums of squares of x - before and of x,
    `[2, n]`."""
    x = x.contiguous()
    count, steps, size = x.shape
    if rows is not None:
        rows, count = rows.contiguous(), len(rows)
    call = Look(count, steps, size, _threads(x), torch.finfo(x.dtype).eps, x=x.data_ptr())
    pooled = norms = None
    if rows is not None:
        call.rows = rows.data_ptr()
    if lengths is not None:
        lengths = lengths.contiguous()
        call.lengths = lengths.data_ptr()
    if before is not None:
        before, norms = before.contiguous(), x.new_empty(2, count)
        call.before, call.norms = before.data_ptr(), norms.data_ptr()
    if pool:
        pooled = x.new_empty(count, 2 * size)
        call.pooled = pooled.data_ptr()
    _run(call, x.dtype)
    return pooled, norms


def score(logits: Tensor, targets: Tensor) -> Tensor:
    """Of logits `[N, C]` and targets `[N]`: losses (NaN outside 0..C - 1), entropies, `[2, N]`."""
    logits, targets = logits.contiguous(), targets.contiguous()
    count, size = logits.shape
    found = logits.new_empty(2, count)
    call = Look(count, 1, size, _threads(logits), x=logits.data_ptr())
    call.targets, call.norms = targets.data_ptr(), found.data_ptr()
    _run(call, logits.dtype)
    return found


def _threads(x: Tensor) -> int:
    return max(1, min(torch.get_num_threads(), x.numel() // WORTH_A_THREAD))


def _run(call: Look, dtype: torch.dtype) -> None:
    library = native._library()
    assert not isinstance(library, str)
    library.adaptive_sleep_look(ctypes.byref(call), int(dtype == torch.float64), native.level())
