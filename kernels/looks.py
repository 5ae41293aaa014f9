"""What signals look at: how far numbers have moved, and windows of hidden states pooled,
predictions scored.

Each is one pass over memory in C where that was built and can serve (`native_look`); the torch
forms here say what it computes, and run everywhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from adaptive_sleep.streams.errors import InputError

from .native_look import look, score, serves, settled
from .native_rows import VECTOR


def pooled(hidden: Tensor, lengths: Tensor) -> Tensor:
    """Return the mean- and max-pooled events of each row of hidden `[B, T, D]` within `lengths`
    `[B]` int64, each divided by its root mean square, `[B, 2 D]`; zeros for a row without events.

    Raises InputError for shapes and dtypes that do not fit."""
    _check(hidden, lengths)
    if _served(hidden):
        found = look(hidden, lengths, None, pool=True).pooled
        assert found is not None
        return found
    return torch_pooled(hidden, lengths)


def moves(after: Tensor, before: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Return the sums of squares of after - before and of after, both `[B, T, D]`, within `lengths`
    `[B]` int64 (None: all), `[2, B]`. Raises InputError for shapes and dtypes that do not fit."""
    _check(after, lengths, before=before)
    if _served(after, before):
        found = look(after, lengths, before, pool=False).norms
        assert found is not None
        return found
    return torch_moves(after, before, lengths)


class Added(NamedTuple):
    """A sum `[B, T, D]` and what was seen while it was made: `pooled` `[B, 2 D]`, `moved` and
    `change` `[B]`, where they were asked for; `finite`: all that was seen is known to be finite."""

    sum: Tensor
    pooled: Tensor
    moved: Tensor | None
    change: Tensor | None
    finite: bool


def added(
    x: Tensor,
    y: Tensor,
    lengths: Tensor,
    before: Tensor | None = None,
    squares: Sequence[Tensor] = (),
    *,
    floor: float,
) -> Added:
    """Return x + y, all `[B, T, D]`; `pooled` of that within `lengths` `[B]`; how far it has moved
    from `before`, `relative(moves(x + y, before, lengths), floor=floor)`, where that is given; and
    `relative(*squares, floor=floor)`, where there are any. In one reading.

    Raises InputError for a floor that is not above 0 and for shapes and dtypes that do not fit."""
    if floor <= 0:
        raise InputError(f"floor={floor}: expected a number above 0")
    _check(x, lengths, y=y, before=before)
    if _served(x, y, *(() if before is None else (before,)), *squares):
        seen = look(x, lengths, before, pool=True, floor=floor, add=y, squares=squares)
        assert seen.pooled is not None
        return Added(seen.x, seen.pooled, seen.moved, seen.change, seen.finite)
    z = x + y
    moved = None if before is None else relative(torch_moves(z, before, lengths), floor=floor)
    change = relative(*squares, floor=floor) if squares else None
    return Added(z, torch_pooled(z, lengths), moved, change, finite=False)


def relative(*squares: Tensor, floor: float) -> Tensor:
    """Return the relative change `[B]` that sums of squares, each `[2, B]`, are of together: the
    root of the first, over that of the second and `floor`."""
    if _served(*squares, size=VECTOR):
        return settled(squares, floor)
    return torch_relative(*squares, floor=floor)


def torch_relative(*squares: Tensor, floor: float) -> Tensor:
    """`relative` in torch."""
    total = squares[0]
    for each in squares[1:]:
        total = total + each
    moved, size = total.sqrt().unbind(0)
    return moved / (size + floor)


def score_logits(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return the losses -log softmax(logits)[target], nats, and the entropies of softmax(logits),
    nats, for logits `[..., C]` and targets int64 `[...]` within 0..C - 1; both `[...]`.

    For another target torch raises IndexError or RuntimeError, and the compiled form gives NaN.
    Raises InputError for shapes and dtypes that do not fit."""
    if targets.shape != logits.shape[:-1] or targets.dtype != torch.int64:
        raise InputError(
            f"targets: {targets.dtype} of shape {tuple(targets.shape)}, expected torch.int64 of "
            f"shape {tuple(logits.shape[:-1])}, as logits without their last dimension"
        )
    if _served(logits):
        flat = score(logits.reshape(-1, logits.shape[-1]), targets.flatten())
        loss, entropy = flat.reshape(2, *targets.shape)
        return loss, entropy
    return torch_score_logits(logits, targets)


def torch_score_logits(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """`score_logits` in torch."""
    log_p = logits.log_softmax(-1)
    loss = -log_p.gather(-1, targets[..., None])[..., 0]
    return loss, -(log_p.exp() * log_p).sum(-1)


def _check(x: Tensor, lengths: Tensor | None, **alike: Tensor | None) -> None:
    """Raise InputError unless x is `[B, T, D]`, lengths int64 `[B]` and the others are as x."""
    if x.dim() != 3:
        raise InputError(f"shape {tuple(x.shape)}: 3 dimensions [B, T, D] are wanted")
    for name, other in alike.items():
        if other is not None and other.shape != x.shape:
            raise InputError(f"{name}: shape {tuple(other.shape)}, expected {tuple(x.shape)} as x")
    if lengths is not None and (lengths.shape != x.shape[:1] or lengths.dtype != torch.int64):
        raise InputError(
            f"lengths: {lengths.dtype} of shape {tuple(lengths.shape)}, expected torch.int64 of "
            f"shape {tuple(x.shape[:1])}"
        )


def _served(*given: Tensor, size: int = 0) -> bool:
    wanted = torch.is_grad_enabled() and any(x.requires_grad for x in given)
    return not wanted and serves(size or given[0].shape[-1], *given)


def torch_pooled(hidden: Tensor, lengths: Tensor) -> Tensor:
    """`pooled` in torch."""
    if not hidden.shape[1]:
        return hidden.new_zeros(len(hidden), 2 * hidden.shape[2])
    mean = _valid(hidden, lengths, 0.0).sum(1) / lengths.clamp(min=1)[:, None]
    top = _valid(hidden, lengths, -torch.inf).amax(1).nan_to_num(neginf=0.0)
    size = (hidden.shape[2],)
    return torch.cat([F.rms_norm(mean, size), F.rms_norm(top, size)], -1)


def torch_moves(after: Tensor, before: Tensor, lengths: Tensor | None = None) -> Tensor:
    """`moves` in torch."""
    moved, size = after - before, after
    if lengths is not None:
        moved, size = _valid(moved, lengths, 0.0), _valid(size, lengths, 0.0)
    return torch.stack([moved.square().flatten(1).sum(1), size.square().flatten(1).sum(1)])


def _valid(x: Tensor, lengths: Tensor, blank: float) -> Tensor:
    """x `[B, T, D]` with `blank` in the place of what is not within `lengths`."""
    valid = torch.arange(x.shape[1], device=x.device) < lengths[:, None]
    return torch.where(valid[..., None], x, blank)
