"""The series face of the model: patches of a numeric stream in, quantiles and a mean out.

Values are normalised by the running statistics of `normalise.py`; blocks are shared with
`tokens.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adaptive_sleep.config import ModelConfig
from adaptive_sleep.normalise import CLIP, RunningStats


@dataclass(frozen=True, eq=False)
class Patches:
    """Events of a batch of streams, cut into patches.

    `values` `[B, T, P, C_in]` (NaN = missing or padding), `events` int64 `[B, T]` (events in each
    patch), `stats` the running statistics after each patch (`[B, T, C_in]`).
    """

    values: Tensor
    events: Tensor
    stats: RunningStats


@dataclass(frozen=True, eq=False)
class SeriesScore:
    """How the next events were predicted, summed over quantiles and channels.

    `loss` `[B, T]`: sum of normalised pinball losses over the observed values of each position's
    target; `values` `[B, T]`: how many values that were; `uncertainty` `[B, T]`: the predicted
    interquantile range (outermost levels) in scales, summed over the same values; `squares`
    `[B, T]`: squared error of the mean, in scales, summed likewise.
    """

    loss: Tensor
    values: Tensor
    uncertainty: Tensor
    squares: Tensor


class SeriesFace(nn.Module):
    """Patch embedding, and a head that predicts the `horizon` patches after a position.

    A configuration with `skip` adds a linear map of the last values of each channel, one map for
    all channels: these are read outside the fast weights.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.patch, self.observed = config.patch, len(config.channels)
        self.ahead = config.patch * config.horizon
        self.inputs = len(config.inputs)
        self.levels: Tensor
        self.register_buffer("levels", torch.tensor(config.quantiles), persistent=False)
        self.read = nn.Linear(2 * self.patch * self.inputs, config.width)
        outputs = len(config.quantiles) + 1
        self.write = nn.Linear(config.width, self.ahead * self.observed * outputs)
        self.skip = nn.Linear(config.skip, self.ahead, bias=False) if config.skip else None
        self.gain = nn.Parameter(torch.ones(config.width))
        # How far a forecast starts from the last value rather than from the running mean.
        self.keep_last = nn.Parameter(torch.zeros(self.observed))

    def embed(self, patches: Patches) -> Tensor:
        """Patches -> `[B, T, d]`; asinh tames heavy tails, a mask tells what is missing."""
        location, scale = patches.stats.scale()
        seen = torch.isfinite(patches.values)
        z = (patches.values.double() - location[:, :, None]) / scale[:, :, None]
        z = torch.where(seen, torch.asinh(z), 0.0).float()
        embedded: Tensor = self.read(torch.cat([z.flatten(2), seen.float().flatten(2)], -1))
        return embedded

    def forecast(self, hidden: Tensor, stats: RunningStats) -> tuple[Tensor, Tensor]:
        """Hidden `[B, T, d]` -> mean `[B, T, A, C]`, quantiles `[B, T, A, C, Q]`, both in scales,
        of the next A = horizon * P events.

        Quantiles rise by construction: the lowest level plus positive steps.
        """
        normal = F.rms_norm(hidden, hidden.shape[-1:], self.gain, eps=1e-6)
        shape = (*hidden.shape[:2], self.ahead, self.observed, len(self.levels) + 1)
        raw = self.write(normal).view(shape)
        base = self.keep_last * self.last_in_scales(stats).clamp(-CLIP, CLIP)
        base = base[:, :, None, :] + self._linear(stats)
        mean = base + raw[..., 0]
        steps = F.softplus(raw[..., 2:])
        low = base + raw[..., 1]
        quantiles = torch.cat([low[..., None], low[..., None] + steps.cumsum(-1)], -1)
        # centre the fan on the base, so that an untrained head is not biased upwards
        return mean, quantiles - steps.sum(-1, keepdim=True) / 2

    def _linear(self, stats: RunningStats) -> Tensor | float:
        """What the linear map adds, in scales, `[B, T, A, C]`; missing values as the mean."""
        if self.skip is None:
            return 0.0
        assert stats.recent is not None
        location, scale = stats.scale()
        z = (stats.recent.double() - location[..., None, :]) / scale[..., None, :]
        z = z[..., : self.observed].nan_to_num(0.0).clamp(-CLIP, CLIP).float()
        added: Tensor = self.skip(z.transpose(-1, -2))
        return added.transpose(-1, -2)

    def last_in_scales(self, stats: RunningStats) -> Tensor:
        """The last observed value of every forecast channel, in scales, float32 `[B, T, C]`."""
        location, scale = stats.scale()
        return ((stats.last - location) / scale)[..., : self.observed].float()

    def score(
        self, mean: Tensor, quantiles: Tensor, stats: RunningStats, targets: Tensor
    ) -> SeriesScore:
        """Compare what `forecast` gave of the next A events with `targets` `[B, T, A, C_in]`.

        Targets are in the recording's units, NaN where missing or absent; `stats` are those at the
        position that forecasts, so that the scale is known when the forecast is made.
        """
        z, seen = self.in_scales(targets, stats)
        pinball = self.pinball(quantiles, z)
        spread = quantiles[..., -1] - quantiles[..., 0]
        observed = seen.float()
        return SeriesScore(
            (pinball * observed).sum((2, 3)),
            observed.sum((2, 3)),
            (spread * observed).sum((2, 3)),
            ((z - mean).square() * observed).sum((2, 3)),
        )

    def in_scales(self, targets: Tensor, stats: RunningStats) -> tuple[Tensor, Tensor]:
        """Targets `[B, T, A, C_in]` in scales, float32 `[B, T, A, C]`, clipped, 0 where nothing can
        be scored; and where something can."""
        location, scale = stats.scale()
        n = self.observed
        z = (targets[..., :n].double() - location[:, :, None, :n]) / scale[:, :, None, :n]
        seen = torch.isfinite(z) & stats.known[:, :, None, :n]
        return torch.where(seen, z, 0.0).float().clamp(-CLIP, CLIP), seen

    def pinball(self, quantiles: Tensor, z: Tensor) -> Tensor:
        """Twice the mean pinball loss over the levels: `[..., Q]` against `[...]`, in scales."""
        error = z[..., None] - quantiles
        return 2 * torch.maximum(self.levels * error, (self.levels - 1) * error).mean(-1)

    def to_units(self, scaled: Tensor, stats: RunningStats) -> Tensor:
        """Scales `[B, T, P, C]` (or with a last axis Q) to the recording's units, float64.

        NaN for a channel that was never observed: it has no units yet.
        """
        location, scale = stats.scale()
        n = self.observed
        location = torch.where(stats.known, location, torch.nan)
        where, size = location[:, :, None, :n], scale[:, :, None, :n]
        if scaled.dim() == 5:
            where, size = where[..., None], size[..., None]
        return scaled.double() * size + where
