"""The wake pass of a batch of streams: read new positions once, score what was predicted of them.

A function of what goes in; who stores the result, and what is decided from it, is `runtime.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adaptive_sleep.attention import KVCache
from adaptive_sleep.memory import FastWeights
from adaptive_sleep.model import Beside, Model, Pass
from adaptive_sleep.normalise import RunningStats, advance
from adaptive_sleep.packing import Packed
from adaptive_sleep.series import Patches


@dataclass(frozen=True, eq=False)
class Predictions:
    """What was predicted of every event before it was seen, one row an event, in stream order.

    `stream` object `[n]`, `time` int64 `[n]` (ns). Series: `target`, `mean` `[n, C]`, `quantiles`
    `[n, C, Q]`, in the recording's units. Tokens: `token` int64 `[n]`, `logprob` (nats), `entropy`
    (of log vocabulary). Answers, one row an event at which something was asked: `asked` int64
    `[n]`, the right class (-2: not known), `answer` int64 `[n]`, the likeliest, `logprob` of the
    right one (NaN: not known), `entropy` (of log answers).
    """

    stream: NDArray[np.object_]
    time: NDArray[np.int64]
    target: NDArray[np.float64] | None = None
    mean: NDArray[np.float64] | None = None
    quantiles: NDArray[np.float64] | None = None
    token: NDArray[np.int64] | None = None
    logprob: NDArray[np.float64] | None = None
    entropy: NDArray[np.float64] | None = None
    asked: NDArray[np.int64] | None = None
    answer: NDArray[np.int64] | None = None


@dataclass(frozen=True, eq=False)
class Start:
    """Where a batch of streams stands before new positions: shapes `[B, ...]`.

    `last_hidden` `[B, d]` is the hidden state that forecasts the next position, where `has_last`.
    """

    weights: FastWeights
    cache: KVCache
    last_hidden: Tensor
    has_last: Tensor
    stats: RunningStats | None


@dataclass(frozen=True, eq=False)
class Woken:
    """What a wake pass leaves, per stream.

    `loss`, `spread`, `squares` float64 `[B]`: sums over `scored` int64 `[B]` predictions (nats or
    normalised pinball; uncertainty; squared error of the mean, series only).
    """

    embedded: Tensor
    done: Pass
    last_hidden: Tensor
    stats: RunningStats | None
    loss: Tensor
    spread: Tensor
    squares: Tensor
    scored: Tensor
    predictions: Predictions | None


def wake(
    model: Model,
    packed: Packed,
    start: Start,
    reach: int | None,
    streams: list[str] | None = None,
    beside: Beside | None = None,
) -> Woken:
    """Run the blocks once over new positions and score them against the forecasts before them.

    `reach`: positions that a query sees at most (sliding), None for all held. With `streams` given
    the predictions themselves are returned, in units. `beside`: as in `Model.run`.
    """
    if not int(packed.lengths.max()):
        return _untouched(start, packed)
    after: RunningStats | None = None
    each: RunningStats | None = None
    if packed.tokens is not None:
        embedded = model.tokens.embed(packed.tokens)
    else:
        assert packed.values is not None
        assert start.stats is not None
        memory = model.config.norm_memory
        each, after = advance(start.stats, packed.values, packed.events, memory)
        embedded = model.series.embed(Patches(packed.values, packed.events, each))
    embedded = model.placed(embedded, start.cache.lengths)
    given = embedded, packed.lengths, start.weights, start.cache
    done = model.run(*given, reach=reach, beside=beside)
    before = torch.cat([start.last_hidden[:, None], done.hidden[:, :-1]], 1)
    steps = torch.arange(embedded.shape[1])
    scored = (steps < packed.lengths[:, None]) & ((steps > 0) | start.has_last[:, None])
    newest = (packed.lengths - 1).clamp(min=0)[:, None, None].expand(-1, 1, before.shape[2])
    last = torch.where(
        (packed.lengths > 0)[:, None], done.hidden.gather(1, newest)[:, 0], start.last_hidden
    )
    if packed.tokens is not None:
        return _score_tokens(model, packed, embedded, done, before, scored, last, streams)
    assert each is not None
    assert after is not None
    assert start.stats is not None
    known = _before(start.stats, each)
    return _score_series(model, packed, embedded, done, before, scored, last, known, after, streams)


def _untouched(start: Start, packed: Packed) -> Woken:
    """Nothing new for any stream of the batch: no pass, nothing scored."""
    batch, width = start.last_hidden.shape
    nothing = start.last_hidden.new_zeros(batch, 0, width)
    keys = {n: t[:, :0] for n, t in start.cache.keys.items()}
    values = {n: t[:, :0] for n, t in start.cache.values.items()}
    done = Pass(nothing, start.weights, KVCache(keys, values, packed.lengths))
    none = torch.zeros(batch, dtype=torch.float64)
    unscored = torch.zeros_like(packed.lengths)
    return Woken(nothing, done, start.last_hidden, start.stats, none, none, none, unscored, None)


def _score_tokens(
    model: Model,
    packed: Packed,
    embedded: Tensor,
    done: Pass,
    before: Tensor,
    scored: Tensor,
    last: Tensor,
    streams: list[str] | None,
) -> Woken:
    assert packed.tokens is not None
    score = model.tokens.score(before, packed.tokens, scored)
    predictions = None
    if streams is not None:
        there = scored.numpy()
        predictions = Predictions(
            np.repeat(np.array(streams, dtype=object), there.sum(1)),
            packed.times[:, :, 0][there],
            token=packed.tokens.numpy()[there],
            logprob=-score.loss.double().numpy()[there],
            entropy=score.uncertainty.double().numpy()[there],
        )
    loss, spread = score.loss.double().sum(1), score.uncertainty.double().sum(1)
    none = torch.zeros_like(loss)
    return Woken(embedded, done, last, None, loss, spread, none, scored.sum(1), predictions)


def _score_series(
    model: Model,
    packed: Packed,
    embedded: Tensor,
    done: Pass,
    before: Tensor,
    scored: Tensor,
    last: Tensor,
    known: RunningStats,
    after: RunningStats,
    streams: list[str] | None,
) -> Woken:
    assert packed.values is not None
    mean, quantiles = model.series.forecast(before, known)
    # of a longer horizon only the next patch is here to be scored
    mean, quantiles = mean[:, :, : model.config.patch], quantiles[:, :, : model.config.patch]
    targets = torch.where(scored[:, :, None, None], packed.values, torch.nan)
    score = model.series.score(mean, quantiles, known, targets)
    predictions = None
    if streams is not None:
        there = (
            scored[..., None] & (torch.arange(model.config.patch) < packed.events[..., None])
        ).numpy()
        observed = len(model.config.channels)
        predictions = Predictions(
            np.repeat(np.array(streams, dtype=object), there.sum((1, 2))),
            packed.times[there],
            target=packed.values[..., :observed].double().numpy()[there],
            mean=model.series.to_units(mean, known).numpy()[there],
            quantiles=model.series.to_units(quantiles, known).numpy()[there],
        )
    return Woken(
        embedded,
        done,
        last,
        after,
        score.loss.double().sum(1),
        score.uncertainty.double().sum(1),
        score.squares.double().sum(1),
        score.values.long().sum(1),
        predictions,
    )


def _before(start: RunningStats, each: RunningStats) -> RunningStats:
    """The statistics known when each position was forecast: those after the position before it."""
    shifted = {
        name: torch.cat([start.tensors()[name][:, None], tensor[:, :-1]], 1)
        for name, tensor in each.tensors().items()
    }
    shifted["origin"] = each.origin  # one origin for all; the first values of a stream set it
    return RunningStats(**shifted)
