"""Forecasts between boundaries: one event (or patch) at a time through the one-step form, fed back.

Nothing here changes a stream's state; keeping what was produced is the runtime's business.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adaptive_sleep.arena import Rows
from adaptive_sleep.attention import KVCache, empty_cache
from adaptive_sleep.config import ModelConfig
from adaptive_sleep.memory import FastWeights
from adaptive_sleep.model import Model
from adaptive_sleep.normalise import RunningStats, advance
from adaptive_sleep.series import Patches
from adaptive_sleep.settings import real, whole
from adaptive_sleep.streams.errors import InputError, nearest
from adaptive_sleep.streams.events import Events
from adaptive_sleep.wake import Start

_LATEST = int(np.iinfo(np.int64).max)  # ns, the last time there is


@dataclass(frozen=True, eq=False)
class Forecast:
    """The next `horizon` events of one stream.

    Series, in the recording's units: `mean` `[horizon, C]`, `quantiles` `[horizon, C, Q]` at
    `levels`, over `channels` (NaN for one never observed). Tokens: `tokens` int64 `[horizon]` and
    their `logprob` (nats, under the untempered model).
    """

    channels: tuple[str, ...] = ()
    levels: tuple[float, ...] = ()
    mean: NDArray[np.float64] | None = None
    quantiles: NDArray[np.float64] | None = None
    tokens: NDArray[np.int64] | None = None
    logprob: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        found = self.tokens if self.tokens is not None else self.mean
        return 0 if found is None else len(found)


@dataclass(frozen=True)
class Sampling:
    """How to produce events: see `Runtime.predict`."""

    horizon: int
    temperature: float
    top_k: int | None
    paths: int
    seed: int

    def __post_init__(self) -> None:
        """Take NumPy's numbers as Python's. Raises InputError for what is no number."""
        for name, number in (("horizon", whole), ("top_k", whole), ("paths", whole),
                             ("temperature", real)):  # fmt: skip
            value = number(name, getattr(self, name))
            if value is None and name != "top_k":
                raise InputError(f"{name}=None: a number")
            object.__setattr__(self, name, value)

    def check(self, stream: str, streams: tuple[str, ...], config: ModelConfig) -> None:
        """Refuse what cannot be forecast. Raises InputError."""
        check_forecasts(config)
        if stream not in streams:
            raise InputError(f"stream={stream!r}: not seen yet{nearest(stream, streams)}")
        if self.horizon < 1:
            raise InputError(f"horizon={self.horizon}: at least 1 event")
        if config.kind == "series" and (self.temperature != 0 or self.top_k is not None):
            raise InputError(
                f"temperature={self.temperature}, top_k={self.top_k}: only tokens are sampled by "
                "them; a series is forecast from its quantiles, so leave them out"
            )
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise InputError(f"temperature={self.temperature}: 0 (greedy) or more")
        if self.top_k is not None and not 1 <= self.top_k <= config.vocabulary:
            raise InputError(f"top_k={self.top_k}: 1 to {config.vocabulary} (the vocabulary)")
        if self.paths < 2:
            raise InputError(f"paths={self.paths}: at least 2")


def check_forecasts(config: ModelConfig) -> None:
    """Refuse a model that predicts no next event. Raises InputError."""
    if config.answers:
        raise InputError(
            f"answers={config.answers}: this model answers what is asked in a window, it has no "
            "next event to forecast; use a model with answers = 0"
        )


def as_events(result: Forecast, last: int, columns: Sequence[str]) -> Events:
    """A forecast as events that arrive one nanosecond apart after `last`; a series: the mean.

    Raises InputError where they would arrive later than 64 bits hold.
    """
    if last > _LATEST - len(result):
        raise InputError(
            f"horizon={len(result)}: kept events arrive a nanosecond apart after the last event, "
            f"at {last} ns, and no time lies beyond {_LATEST} ns; give at most {_LATEST - last}, "
            "or keep none"
        )
    times = last + 1 + np.arange(len(result), dtype=np.int64)
    if result.tokens is not None:
        return Events(times, tokens=result.tokens)
    assert result.mean is not None
    values = np.full((len(result), len(columns)), np.nan, dtype=np.float32)
    for i, name in enumerate(result.channels):
        values[:, columns.index(name)] = result.mean[:, i]
    return Events(times, values=values)


class _Cursor:
    """Where a hypothetical continuation stands; `read` takes one more position."""

    def __init__(self, model: Model, start: Start, limits: tuple[int, int | None]) -> None:
        self.model, (self.slots, self.reach) = model, limits
        self.weights: FastWeights = start.weights
        self.cache: KVCache = start.cache
        self.hidden: Tensor = start.last_hidden

    def read(self, embedded: Tensor) -> None:
        """embedded `[B, 1, d]`. A window that is full is evicted, without sleep."""
        full = self.reach is None and int(self.cache.lengths.max()) >= self.slots
        if full:
            self.cache = empty_cache(self.model.config, len(embedded))
        placed = self.model.placed(embedded, self.cache.lengths)
        one = torch.ones(len(embedded), dtype=torch.int64)
        done = self.model.run(placed, one, self.weights, self.cache, reach=self.reach)
        self.cache = self.cache.extended(done.new, self.slots)
        self.weights, self.hidden = done.weights, done.hidden[:, 0]

    def spread(self, copies: int) -> None:
        """Go on as `copies` identical continuations."""
        rows = torch.zeros(copies, dtype=torch.int64)
        self.weights, self.cache = self.weights.select(rows), self.cache.select(rows)
        self.hidden = self.hidden.index_select(0, rows)


def generator(seed: int, stream: str, seen: int) -> np.random.Generator:
    """Randomness keyed by (seed, stream, events seen)."""
    digest = hashlib.sha256(f"{seed}/{seen}/{stream}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))


def forecast(
    model: Model,
    start: Start,
    stream: str,
    state: Rows,
    sampling: Sampling,
    limits: tuple[int, int | None],
) -> Forecast:
    """Forecast one stream from where it stands (`state`: its arena row). Raises InputError."""
    waiting = int(state["pending"][0])
    if not bool(start.has_last[0]) and not waiting:
        raise InputError(f"stream={stream!r}: nothing has been read yet, so nothing is forecast")
    random = generator(sampling.seed, stream, int(state["seen"][0]))
    cursor = _Cursor(model, start, limits)
    if model.config.kind == "tokens":
        return _tokens(model, cursor, sampling, random)
    assert start.stats is not None
    stats = start.stats
    if waiting:  # a forecast starts at the last event: read the unfinished patch, provisionally
        values = state["waiting.values"][:, None]
        events = torch.tensor([[waiting]])
        each, stats = advance(stats, values, events, model.config.norm_memory)
        cursor.read(model.series.embed(Patches(values, events, each)))
    return _series(model, cursor, stats, sampling, random)


def _tokens(
    model: Model, cursor: _Cursor, sampling: Sampling, random: np.random.Generator
) -> Forecast:
    tokens: list[int] = []
    logprob: list[float] = []
    for _ in range(sampling.horizon):
        log_p = model.tokens.logits(cursor.hidden)[0].double().log_softmax(-1).numpy()
        token = _pick(log_p, sampling, random)
        tokens.append(token)
        logprob.append(float(log_p[token]))
        cursor.read(model.tokens.embed(torch.tensor([[token]])))
    return Forecast(tokens=np.array(tokens, dtype=np.int64), logprob=np.array(logprob))


def _pick(log_p: NDArray[np.float64], sampling: Sampling, random: np.random.Generator) -> int:
    if sampling.temperature == 0:
        return int(log_p.argmax())
    with np.errstate(over="ignore"):
        scaled = log_p / sampling.temperature
    if np.isneginf(scaled.max()):  # so cold that float64 holds none of them
        return int(log_p.argmax())
    if sampling.top_k is not None and sampling.top_k < len(scaled):
        bound = np.partition(scaled, -sampling.top_k)[-sampling.top_k]
        scaled = np.where(scaled >= bound, scaled, -np.inf)
    p = np.exp(scaled - scaled.max())
    return int(random.choice(len(p), p=p / p.sum()))


def _series(
    model: Model,
    cursor: _Cursor,
    stats: RunningStats,
    sampling: Sampling,
    random: np.random.Generator,
) -> Forecast:
    """What the head gives at once, then what it gives after that; row 0 feeds the mean back, the
    others are sampled paths.

    Location and scale stay those of the last event.
    """
    config, face = model.config, model.series
    means: list[NDArray[np.float64]] = []
    bands: list[NDArray[np.float64]] = []
    for number in range(-(-sampling.horizon // face.ahead)):
        now = _one_position(stats)
        mean, quantiles = face.forecast(cursor.hidden[:, None], now)
        means.append(face.to_units(mean[:1], now)[0, 0].numpy())
        if number == 0:
            bands.append(face.to_units(quantiles, now)[0, 0].numpy())
            rows = 1 + sampling.paths
            cursor.spread(rows)
            stats = RunningStats(
                **{n: t.expand(rows, *t.shape[1:]) for n, t in stats.tensors().items()}
            )
            now = _one_position(stats)
            mean, quantiles = (x.expand(rows, *x.shape[1:]) for x in (mean, quantiles))
        produced = _draw(mean[:, 0], quantiles[:, 0], face.levels, random)
        units = face.to_units(produced[:, None], now)[:, 0]
        if number > 0:
            bands.append(
                np.quantile(units[1:].numpy(), config.quantiles, axis=0).transpose(1, 2, 0)
            )
        if (number + 1) * face.ahead < sampling.horizon:
            for patch in units.split(config.patch, 1):
                stats = _fed_back(stats, patch)
                cursor.read(face.embed(_patches(stats, patch)))
    cut = slice(sampling.horizon)
    return Forecast(
        config.channels, config.quantiles, np.concatenate(means)[cut], np.concatenate(bands)[cut]
    )


def _one_position(stats: RunningStats) -> RunningStats:
    """Statistics of one position, with an axis for it."""
    return RunningStats(**{n: t[:, None] for n, t in stats.tensors().items()})


def _with_missing(produced: Tensor, inputs: int) -> Tensor:
    """Produced values `[B, P, C]` as a float32 patch of all inputs, actions missing."""
    values = torch.full((*produced.shape[:2], inputs), torch.nan)
    values[..., : produced.shape[2]] = produced.float()
    return values


def _fed_back(stats: RunningStats, produced: Tensor) -> RunningStats:
    """The statistics with the last values replaced by produced ones `[B, P, C]`, in units."""
    last = stats.last.clone()
    last[:, : produced.shape[2]] = produced[:, -1].nan_to_num(0.0)
    recent = stats.recent
    if recent is not None:
        grown = torch.cat([recent, _with_missing(produced, recent.shape[2])], 1)
        recent = grown[:, -recent.shape[1] :]
    return replace(stats, last=last, recent=recent)


def _patches(stats: RunningStats, produced: Tensor) -> Patches:
    """Produced values `[B, P, C]` as one patch that arrives."""
    values = _with_missing(produced, stats.last.shape[1])
    events = torch.full((len(produced), 1), produced.shape[1])
    return Patches(values[:, None], events, _one_position(stats))


def _draw(mean: Tensor, quantiles: Tensor, levels: Tensor, random: np.random.Generator) -> Tensor:
    """Row 0: the mean; other rows: a draw from the predicted quantiles, `[B, P, C]`, in scales.

    One uniform number per path and channel for the whole patch; between levels the quantile
    function is linear, beyond the outermost it goes on with the slope of the last segment.
    """
    rows, _, channels = mean.shape
    u = torch.from_numpy(random.random((rows, 1, channels))).float()
    upper = torch.searchsorted(levels, u).clamp(1, len(levels) - 1)
    low, high = levels[upper - 1], levels[upper]
    index = upper[..., None].expand(*mean.shape, 1)
    top = quantiles.gather(-1, index)[..., 0]
    bottom = quantiles.gather(-1, index - 1)[..., 0]
    drawn = bottom + (top - bottom) * (u - low) / (high - low)
    return torch.cat([mean[:1], drawn[1:]])
