"""Causal normalisation: the running mean and scale of every channel of every stream.

Sums decay with the number of events, so that a stream forgets; nothing here looks ahead.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

_FAR = 1e6  # mean squares in a variance, beyond which the sums move to another origin
_LEAST = 1e-30  # events that a channel still counts as, however long it has been silent
CLIP = 10.0  # scales; errors beyond it count as 10 (one spike must not own the loss)


@dataclass(frozen=True, eq=False)
class RunningStats:
    """Decayed sums per stream and channel, float64 `[B, C]`.

    `origin` is the first value seen, or a later mean once the values lie far from that: sums are of
    differences from it, so that large offsets lose no digits. `count`, `total`, `squares` are the
    decayed count, sum and sum of squares; `last` is the last observed value. `recent` float32
    `[B, R, C]`: the values of the last R events, oldest first, NaN where missing or before the
    stream began; None where none are kept.
    """

    origin: Tensor
    count: Tensor
    total: Tensor
    squares: Tensor
    last: Tensor
    recent: Tensor | None = None

    def tensors(self) -> dict[str, Tensor]:
        """The sums by name, and the values that are kept, if any."""
        found = {n: getattr(self, n) for n in self.__dataclass_fields__}
        return {n: t for n, t in found.items() if t is not None}

    @property
    def known(self) -> Tensor:
        """Which channels have been observed at all, bool, same shape."""
        return self.count > 0

    def scale(self) -> tuple[Tensor, Tensor]:
        """Mean and scale (standard deviation, floored) of each channel, float64, same shape.

        The floor is a thousandth of the mean's size plus 1e-6: a constant channel has a scale. A
        channel that was never seen has mean 0: its origin may be set by values still to come.
        """
        count = torch.where(self.known, self.count, 1.0)
        mean = self.total / count
        variance = (self.squares / count - mean.square()).clamp(min=0.0)
        location = torch.where(self.known, self.origin + mean, 0.0)
        return location, torch.maximum(variance.sqrt(), 1e-3 * location.abs() + 1e-6)


def fresh_stats(streams: int, channels: int, recent: int = 0) -> RunningStats:
    """Statistics of streams that have seen nothing and keep their last `recent` values."""
    zero = torch.zeros(streams, channels, dtype=torch.float64)
    kept = torch.full((streams, recent, channels), torch.nan) if recent else None
    return RunningStats(zero, zero, zero, zero, zero, kept)


def advance(
    stats: RunningStats, values: Tensor, events: Tensor, memory: int
) -> tuple[RunningStats, RunningStats]:
    """Run the statistics over patches; return those after each patch and those after the last.

    values: `[B, T, P, C]`, NaN where missing; events: int64 `[B, T]`, events in each patch (0 for
    padding, whose values are all NaN); `memory`: events after which a weight has fallen to 1/e. The
    first result has shape `[B, T, C]`: entry t knows patches 0..t and no later one.
    """
    x = values.double()
    seen = torch.isfinite(x)
    origin = _origins(stats, x, seen)
    shifted = torch.where(seen, x - origin[:, None, None], 0.0)
    sums = torch.stack([seen.double().sum(2), shifted.sum(2), shifted.square().sum(2)])
    # decay from patch i to patch t: exp(-(events in i+1 .. t) / memory)
    clock = events.double().cumsum(1) / memory
    gap = clock[:, :, None] - clock[:, None, :]
    decay = torch.exp(-gap.clamp(min=0)).tril()
    before = torch.stack([stats.count, stats.total, stats.squares])
    # what was seen once counts for something for ever, or a channel long silent would be unknown
    least = torch.where(stats.known, _LEAST / stats.count, 0.0).clamp(max=1.0)
    kept_share = torch.maximum(torch.exp(-clock)[:, :, None], least[:, None])
    carried = before[:, :, None] * kept_share
    # `tril` keeps i <= t; patch t itself has decay 1
    count, total, squares = (decay @ sums + carried).unbind(0)
    last = _last_values(stats.last, x, seen)
    recent = None if stats.recent is None else _recent_values(stats.recent, values, events)
    each = RunningStats(origin[:, None].expand_as(count), count, total, squares, last, recent)
    kept = None if recent is None else recent[:, -1]
    end = RunningStats(origin, count[:, -1], total[:, -1], squares[:, -1], last[:, -1], kept)
    return each, _near(end)


def _near(stats: RunningStats) -> RunningStats:
    """The same statistics, about the mean where the origin lies so far from it that digits of the
    variance would be lost (a first value that was an outlier)."""
    seen = stats.known
    count = torch.where(seen, stats.count, 1.0)
    mean = stats.total / count
    variance = (stats.squares / count - mean.square()).clamp(min=0.0)
    far = seen & (mean.square() > _FAR * variance)
    return replace(
        stats,
        origin=torch.where(far, stats.origin + mean, stats.origin),
        total=torch.where(far, 0.0, stats.total),
        squares=torch.where(far, variance * count, stats.squares),
    )


def _origins(stats: RunningStats, x: Tensor, seen: Tensor) -> Tensor:
    """Keep the origin of a channel once it has been seen; else take its first value here."""
    flat, there = x.flatten(1, 2), seen.flatten(1, 2)
    first = there.to(torch.int8).argmax(1, keepdim=True)
    value = flat.gather(1, first)[:, 0].nan_to_num(0.0)
    return torch.where(stats.count > 0, stats.origin, value)


def _last_values(before: Tensor, x: Tensor, seen: Tensor) -> Tensor:
    """The last observed value of each channel at the end of each patch, `[B, T, C]`."""
    batch, patches, size, channels = x.shape
    flat = torch.cat([before[:, None], x.flatten(1, 2)], 1)
    there = torch.cat([torch.ones_like(before, dtype=torch.bool)[:, None], seen.flatten(1, 2)], 1)
    steps = torch.arange(flat.shape[1])[None, :, None]
    newest = torch.where(there, steps, 0).cummax(1).values
    ends = newest[:, size::size]
    return flat.gather(1, ends).reshape(batch, patches, channels)


def _recent_values(before: Tensor, values: Tensor, events: Tensor) -> Tensor:
    """The values of the last R events at the end of each patch, `[B, T, R, C]`, padding left out.

    before: `[B, R, C]`; values: `[B, T, P, C]`; events: `[B, T]`.
    """
    batch, patches, size, channels = values.shape
    padding = torch.arange(size) >= events[..., None]
    order = padding.flatten(1).to(torch.int8).argsort(dim=1, stable=True)  # events to the front
    flat = values.flatten(1, 2).float()
    flat = flat.gather(1, order[..., None].expand_as(flat))
    joined = torch.cat([before, flat], 1)
    steps = events.cumsum(1)[..., None] + torch.arange(before.shape[1])
    index = steps.flatten(1)[..., None].expand(-1, -1, channels)
    return joined.gather(1, index).view(batch, patches, -1, channels)
