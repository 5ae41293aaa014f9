"""Training for a horizon of several patches: after every position a forecast of all of them.

The head gives the whole horizon at once (`ModelConfig.horizon`), so that the targets of a position
lie in this window and the next ones. What a recording is trained on otherwise is `training.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from adaptive_sleep.model import Model
from adaptive_sleep.normalise import RunningStats, advance
from adaptive_sleep.packing import Packed
from adaptive_sleep.recipe_checks import above_zero, at_least_one, check_betas, from_zero
from adaptive_sleep.runtime import Runtime
from adaptive_sleep.series import Patches
from adaptive_sleep.sleep import ClosedWindow, consolidate
from adaptive_sleep.streams.errors import InputError, nearest
from adaptive_sleep.training_data import Batch


@dataclass(frozen=True, kw_only=True)
class HorizonRecipe:
    """How to train on whole horizons. Sizes in windows, rates per step."""

    steps: int = 800
    batch: int = 32  # sequences side by side
    windows: int = 4  # windows in a sequence
    unscored: int = 1  # of these, the first that carry no loss
    passes: str = "1-4"  # N drawn per batch from a range, or one number
    mean_weight: float = 0.2  # weight of the mean's squared error beside the quantiles' loss
    in_units: bool = False  # losses in the recording's units, not in scales of the stream
    learning_rate: float = 1e-3
    skip_rate: float = 1e-3  # of the linear map
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.98)
    warmup: int = 50
    clip: float = 1.0
    average: float = 0.0  # share of the averaged weights that a step keeps; 0 averages nothing
    validate_every: int = 50


def check_horizon(settings: HorizonRecipe) -> None:
    """Refuse numbers that nothing can be trained with. Raises InputError."""
    at_least_one(settings, "steps", "batch", "windows", "validate_every")
    above_zero(settings, "learning_rate", "clip")
    from_zero(settings, "mean_weight", "skip_rate", "weight_decay", "warmup")
    check_betas(settings)
    if not 0 <= settings.unscored < settings.windows:
        raise InputError(
            f"[training] unscored={settings.unscored}: 0 to below windows={settings.windows}"
        )
    if not 0.0 <= settings.average < 1.0:
        raise InputError(f"[training] average={settings.average}: 0 (none) to below 1")


@dataclass(frozen=True, eq=False)
class Horizons:
    """Forecasts of the next A events from T positions of B streams: `mean` `[B, T, A, C]` and
    `quantiles` `[B, T, A, C, Q]` in scales, `stats` the statistics that the scales are of."""

    mean: Tensor
    quantiles: Tensor
    stats: RunningStats


def along(
    model: Model, windows: Sequence[Packed], stats: RunningStats, passes: Tensor
) -> Iterator[Horizons]:
    """Read windows of streams that start with `stats` and no memory, N = `passes` int64 `[B]`
    passes over each; yields what is forecast from all positions of each window in its wake pass.

    Attention drops a window at its end (hard eviction), as a runtime does by default.
    """
    weights = model.fresh(len(passes))
    for packed in windows:
        assert packed.values is not None
        each, stats = advance(stats, packed.values, packed.events, model.config.norm_memory)
        embedded = model.series.embed(Patches(packed.values, packed.events, each))
        embedded = model.placed(embedded, torch.zeros_like(passes))
        done = model.run(embedded, packed.lengths, weights)
        yield Horizons(*model.series.forecast(done.hidden, each), each)
        closed = ClosedWindow(embedded, done.hidden, packed.lengths, weights, done.weights)
        weights = consolidate(model, closed, passes).weights


def targets_after(values: Tensor, patch: int, ahead: int) -> Tensor:
    """The `ahead` events that follow each patch: `[B, n, C]` -> `[B, T, ahead, C]`, for the T
    patches that have so many after them."""
    return values[:, patch:].unfold(1, ahead, patch).transpose(2, 3)


def horizon_loss(
    model: Model, found: Horizons, targets: Tensor, settings: HorizonRecipe
) -> tuple[Tensor, Tensor]:
    """Summed loss of forecasts against `targets` `[B, T, A, C]`, and how many values it is of."""
    face = model.series
    z, seen = face.in_scales(targets, found.stats)
    loss = face.pinball(found.quantiles, z)
    loss = loss + settings.mean_weight * (z - found.mean).square()
    if settings.in_units:
        scale = found.stats.scale()[1][:, :, None, : z.shape[3]].float()
        squared = settings.mean_weight * (z - found.mean).square() * scale * (scale - 1.0)
        loss = loss * scale + squared  # pinball in units, the squared error in their square
    return torch.where(seen, loss, 0.0).sum(), seen.sum()


class HorizonTrainer:
    """AdamW over a model and its linear map, and the running average of its weights."""

    def __init__(self, model: Model, settings: HorizonRecipe) -> None:
        check_horizon(settings)
        self.model, self.settings, self.steps = model, settings, 0
        linear = [p for n, p in model.named_parameters() if n.startswith("face.skip.")]
        rest = [p for n, p in model.named_parameters() if not n.startswith("face.skip.")]
        decayed = [p for p in rest if p.dim() > 1]
        groups = [
            {"params": decayed, "rate": settings.learning_rate},
            {"params": [p for p in rest if p.dim() <= 1], "rate": settings.learning_rate},
            {"params": linear, "rate": settings.skip_rate},
        ]
        for group, decay in zip(groups, (settings.weight_decay, 0.0, 0.0), strict=True):
            group["weight_decay"] = decay
        groups = [group for group in groups if group["params"]]
        self.optimiser = torch.optim.AdamW(groups, lr=0.0, betas=settings.betas)
        self.averaged = {n: t.detach().clone() for n, t in model.state_dict().items()}

    def step(self, batch: Batch, read: int, passes: int) -> float:
        """One update on the first `read` windows of a batch, at N = `passes`; those after them hold
        what is to be forecast. Returns the loss per value. Raises InputError where it is not
        finite."""
        settings, model = self.settings, self.model
        model.train()
        model.forget_hash()
        windows = batch.windows[:read]
        many = torch.full((len(windows[0].lengths),), passes)
        whole = torch.cat(
            [w.values.flatten(1, 2) for w in batch.windows if w.values is not None], 1
        )
        targets = targets_after(whole, model.config.patch, model.series.ahead)
        assert batch.stats is not None
        losses, count, first = [], torch.zeros(()), 0
        for number, found in enumerate(along(model, windows, batch.stats, many)):
            size = found.mean.shape[1]
            if number >= settings.unscored:
                loss, seen = horizon_loss(model, found, targets[:, first : first + size], settings)
                losses.append(loss)
                count = count + seen
            first += size
        mean = torch.stack(losses).sum() / count.clamp(min=1)
        value = float(mean.detach())
        if not math.isfinite(value):
            raise InputError(
                f"learning_rate={settings.learning_rate}: the loss is {value} "
                f"at step {self.steps + 1}"
            )
        self.optimiser.zero_grad(set_to_none=True)
        mean.backward()
        nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        self._update()
        return value

    def _update(self) -> None:
        self.steps += 1
        settings = self.settings
        factor = min(1.0, self.steps / max(settings.warmup, 1))
        factor *= 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * self.steps / settings.steps))
        for group in self.optimiser.param_groups:
            group["lr"] = group["rate"] * factor
        self.optimiser.step()
        # a young average forgets sooner, so that it is not the weights that training began with
        keep = min(settings.average, self.steps / (self.steps + 10))
        with torch.no_grad():
            for name, tensor in self.model.state_dict().items():
                self.averaged[name].lerp_(tensor, 1.0 - keep)


@dataclass(frozen=True, eq=False)
class Ahead:
    """What a runtime forecasts of the next A events of n streams, in the recording's units: `mean`
    `[n, A, C]`, `quantiles` `[n, A, C, Q]`, float64."""

    mean: np.ndarray
    quantiles: np.ndarray


def forecast_ahead(runtime: Runtime, streams: Sequence[str]) -> Ahead:
    """What the head says of the next `horizon` patches of many streams at once, by one product.

    Nothing is fed back and no state changes. The head's FLOPs are in the ledger already, with every
    position read. Raises InputError for a stream that has read nothing, or holds events of a patch
    that is not complete.
    """
    works = runtime.works
    unknown = [s for s in streams if s not in runtime.streams]
    if unknown:
        raise InputError(
            f"stream={unknown[0]!r}: not seen yet{nearest(unknown[0], runtime.streams)}"
        )
    rows = works.arena.gather(works.arena.index(streams), works.small())
    for problem, where in (
        ("nothing has been read yet", rows["has_last"] == 0),
        ("holds events of an unfinished patch; use predict", rows["pending"] > 0),
    ):
        if bool(where.any()):
            raise InputError(f"stream={streams[int(where.int().argmax())]!r}: {problem}")
    sums = {n[len("stats.") :]: t[:, None] for n, t in rows.items() if n.startswith("stats.")}
    stats, face = RunningStats(**sums), runtime.model.series
    with torch.no_grad():
        mean, quantiles = face.forecast(rows["last_hidden"][:, None], stats)
        return Ahead(
            face.to_units(mean, stats)[:, 0].numpy(), face.to_units(quantiles, stats)[:, 0].numpy()
        )
