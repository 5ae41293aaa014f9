"""Fit the network of `predicted_gain`: torch here, NumPy where it is used.

Which windows are learned from and which say when to stop is decided in fit_gain.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from adaptive_sleep.experiments.gain_cases import Cases, Origin
from adaptive_sleep.policies.agent_network import Network
from adaptive_sleep.policies.gain_file import ACTIVATION
from adaptive_sleep.policies.gain_network import Gain, inputs, savings
from adaptive_sleep.signals import FloatArray

Floats = NDArray[np.float32]
LEAST = 1e-6  # of the mean saving: what is expected where nothing was ever saved


@dataclass(frozen=True)
class Recipe:
    """How it is fitted: two hidden layers of `hidden`; AdamW, its rate falling to nothing over
    `epochs`; after `patience` of them without a better error on the windows held out it ends, and
    the best epoch counts, or the beginning if none is better."""

    hidden: int = 32
    dropout: float = 0.02
    rate: float = 7e-3
    decay: float = 0.01
    batch: int = 128
    epochs: int = 24
    patience: int = 8


@dataclass(frozen=True, eq=False)
class Samples:
    """What is shown `[rows, inputs]`, what it should give, savings in some unit, and which outputs
    count `[rows, K - 1]`: those for no fewer passes than were done. A row a window and pass."""

    x: Floats
    y: Floats
    counts: Floats

    @classmethod
    def of(cls, cases: Cases, unit: float) -> Samples:
        """The samples of some windows, pass by pass."""
        most = cases.most
        x, counts = [], []
        for done in range(1, most):
            passes = np.full(len(cases), done)
            moved = None if done == 1 else cases.hidden_change[:, done - 1]
            change = cases.state_change[:, done - 1]
            x.append(inputs(cases.summary[:, done - 1], passes, change, moved, most))
            counts.append(np.tile(np.arange(1, most) >= done, (len(cases), 1)))
        y = np.tile((savings(cases.cost) / unit).astype(np.float32), (most - 1, 1))
        return cls(np.concatenate(x), y, np.concatenate(counts, dtype=np.float32))

    def mean(self) -> FloatArray:
        """Logarithm of what is saved on average, by output, `[K - 1]`."""
        mean = (self.y * self.counts).sum(0, dtype=np.float64) / self.counts.sum(0)
        logarithm: FloatArray = np.log(np.maximum(mean, LEAST))
        return logarithm

    def error(self, predicted: FloatArray | Floats) -> float:
        """Mean deviance of logarithms of savings, which broadcast to `y`, where outputs count.

        2 (y log(y / p) - y + p) of a saving y that was predicted as p: 0 for the truth.
        """
        y, logarithm = self.y.astype(np.float64), np.asarray(predicted, dtype=np.float64)
        known = np.log(np.where(y > 0, y, 1.0))
        off = 2.0 * (y * (known - logarithm) - y + np.exp(logarithm))
        return float((self.counts * off).sum() / self.counts.sum())


def unit_of(cases: Cases) -> float:
    """The mean saving, in which savings are counted while fitting."""
    return max(float(savings(cases.cost).mean()), 1e-12)


def train(
    fit: Cases, held: Cases, origin: Origin, provenance: Mapping[str, str], seed: int, how: Recipe
) -> Gain:
    """Fit to some windows until others, held out, no longer gain by it.

    What is learned is the expected saving, also where it is rare and large: the quasi-likelihood is
    Poisson's, whose mean is the expectation whatever the distribution.
    """
    unit = unit_of(fit)
    samples, checks = Samples.of(fit, unit), Samples.of(held, unit)
    mean, spread = samples.x.mean(0), samples.x.std(0)
    spread[spread < 1e-6] = 1.0  # tells nothing
    layers = _fit(_normal(samples, mean, spread), _normal(checks, mean, spread), seed, how)
    first, last = layers[0][0].astype(np.float64) / spread, layers[-1]
    layers[0] = first.astype(np.float32), (layers[0][1] - first @ mean).astype(np.float32)
    layers[-1] = last[0], (last[1] + np.log(unit)).astype(np.float32)
    network = Network(tuple(w for w, _ in layers), tuple(b for _, b in layers), ACTIVATION)
    return Gain(
        network=network,
        model_hash=origin.model_hash,
        most=origin.most,
        width=origin.width,
        horizon=origin.horizon,
        provenance=provenance,
    )


def _normal(samples: Samples, mean: Floats, spread: Floats) -> Samples:
    return Samples((samples.x - mean) / spread, samples.y, samples.counts)


def _fit(samples: Samples, checks: Samples, seed: int, how: Recipe) -> list[tuple[Floats, Floats]]:
    """The best layers, weight `[out, in]` and bias, for inputs that are normalised."""
    draw = torch.Generator().manual_seed(seed)
    sizes = [samples.x.shape[1], how.hidden, how.hidden, samples.y.shape[1]]
    layers: list[tuple[Tensor, Tensor]] = []
    for wide, narrow in itertools.pairwise(sizes):
        weight = torch.randn(narrow, wide, generator=draw) * (2.0 / wide) ** 0.5
        layers.append((weight, torch.zeros(narrow)))
    layers[-1] = 0.1 * layers[-1][0], torch.from_numpy(samples.mean().astype(np.float32))
    everything = [it.requires_grad_() for layer in layers for it in layer]
    x, y, counts = (torch.from_numpy(it) for it in (samples.x, samples.y, samples.counts))
    held = torch.from_numpy(checks.x)
    optimiser = torch.optim.AdamW(everything, lr=how.rate, weight_decay=how.decay)
    start = _copied(layers)  # it begins with the mean
    with torch.no_grad():
        least_at_start = checks.error(_run(layers, held).numpy())
    best, least, since = start, float("inf"), 0
    for epoch in range(how.epochs):
        for group in optimiser.param_groups:
            group["lr"] = how.rate * (1.0 - epoch / how.epochs)
        for rows in torch.randperm(len(x), generator=draw).split(how.batch):
            logarithm = _run(layers, x[rows], how.dropout, draw)
            off = counts[rows] * (logarithm.exp() - y[rows] * logarithm)
            optimiser.zero_grad()
            (off.sum() / counts[rows].sum()).backward()
            torch.nn.utils.clip_grad_norm_(everything, 1.0)
            optimiser.step()
        with torch.no_grad():
            error = checks.error(_run(layers, held).numpy())
        since = 0 if error < least else since + 1
        if error < least:
            best, least = _copied(layers), error
        if since == how.patience:
            break
    return start if least_at_start <= least else best


def _run(
    layers: list[tuple[Tensor, Tensor]],
    x: Tensor,
    dropout: float = 0.0,
    draw: torch.Generator | None = None,
) -> Tensor:
    """What the network gives; with `dropout`, so much of what lies between is dropped."""
    for at, (weight, bias) in enumerate(layers):
        x = F.linear(x, weight, bias)
        if at < len(layers) - 1:
            x = F.relu(x)
            if dropout:
                x = x * (torch.rand(x.shape, generator=draw) >= dropout) / (1.0 - dropout)
    return x


def _copied(layers: list[tuple[Tensor, Tensor]]) -> list[tuple[Floats, Floats]]:
    return [(w.detach().numpy().copy(), b.detach().numpy().copy()) for w, b in layers]
