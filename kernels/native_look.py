"""What signals look at, in C: calls the compiled library.

The arithmetic is in `native_look.h`; `looks` holds the torch forms and asks `serves` before it
comes here. There are no gradients.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from . import native
from .native_rows import WORTH_A_THREAD, serves
from .native_structs import Look

__all__ = ["look", "score", "serves", "settled"]

EPSILON = {kind: torch.finfo(kind).eps for kind in (torch.float32, torch.float64)}


class Looked(NamedTuple):
    """What there is to see, what was asked for, and whether all of that is known to be finite."""

    x: Tensor
    pooled: Tensor | None
    norms: Tensor | None
    moved: Tensor | None
    change: Tensor | None
    finite: bool


def look(
    x: Tensor,
    lengths: Tensor | None,
    before: Tensor | None,
    *,
    pool: bool,
    floor: float = 0.0,
    add: Tensor | None = None,
    squares: Sequence[Tensor] = (),
) -> Looked:
    """Of x `[B, T, D]`, or x + `add`, within `lengths` `[B]`: pooled `[B, 2 D]` if wanted; where
    there is a `before`, as norms the sums of squares of x - before and of x, `[2, B]`; with a
    `floor`, as moved the relative change that these are of, the root of the first over that of the
    second and the floor, `[B]`, and as change that of all `squares`, each `[2, B]`, together."""
    x = x.contiguous()
    count, steps, size = x.shape
    call = Look(count, steps, size, _threads(x), EPSILON[x.dtype], floor)
    call.x, seen = x.data_ptr(), x
    pooled = norms = moved = change = held = None
    if squares:
        change, held = _given(call, squares)
    if lengths is not None:
        lengths = lengths.contiguous()
        call.lengths = lengths.data_ptr()
    if add is not None:
        add, seen = add.contiguous(), torch.empty_like(x)
        call.add, call.sum = add.data_ptr(), seen.data_ptr()
    if before is not None:
        before, norms = before.contiguous(), x.new_empty(2, count)
        call.before, call.norms = before.data_ptr(), norms.data_ptr()
        if floor:
            moved = x.new_empty(count)
            call.moved = moved.data_ptr()
    if pool:
        pooled = x.new_empty(count, 2 * size)
        call.pooled = pooled.data_ptr()
    _run(call, x.dtype)
    del held
    return Looked(seen, pooled, norms, moved, change, bool(call.finite))


def settled(squares: Sequence[Tensor], floor: float) -> Tensor:
    """The change that `look` makes of `squares`, each `[2, B]`, alone."""
    call = Look(count=squares[0].shape[1], threads=1, floor=floor)
    change, held = _given(call, squares)
    _run(call, change.dtype)
    del held
    return change


def _given(call: Look, squares: Sequence[Tensor]) -> tuple[Tensor, object]:
    """Put sums of squares into a call; what comes of them, and what must live until it is made."""
    held, change = [each.contiguous() for each in squares], squares[0].new_empty(call.count)
    places = (ctypes.c_void_p * len(held))(*(each.data_ptr() for each in held))
    call.parts, call.squares = len(held), ctypes.addressof(places)
    call.change = change.data_ptr()
    return change, (held, places)


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
