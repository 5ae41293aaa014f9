"""What must be right before `bench runtime` reports a speed: streams side by side give what each
gives alone, and signals are what a slow look at the closed window finds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from adaptive_sleep.experiments.bench_workload import (
    Shape,
    even_passes,
    model_of,
    prescribed,
    windows_of,
)
from adaptive_sleep.model import Model
from adaptive_sleep.runtime import Runtime, StepResult
from adaptive_sleep.sleep import ClosedWindow
from adaptive_sleep.streams.errors import AdaptiveSleepError
from adaptive_sleep.streams.events import Piece

SHAPE = Shape(streams=8, window=32, width=64)
TURNS = 2  # windows of each stream; the second one starts from fast weights
BOUND = 1e-5  # relative, norm-wise
Doubles = NDArray[np.float64]
Ran = tuple[Runtime, list[StepResult]]


def check_gate() -> None:
    """Hold a mixed batch to its streams one by one, and its signals to a second look, over full and
    ragged windows.

    Raises AdaptiveSleepError naming the first thing that is off.
    """
    model, passes = model_of(SHAPE), even_passes(SHAPE)
    for ragged in (False, True):
        turns = [windows_of(SHAPE, turn, ragged=ragged) for turn in range(TURNS)]
        mixed = _run(model, passes, turns)
        for result in mixed[1]:
            _check_signals(result, passes)
        for stream in passes:
            own = [[piece for piece in pieces if piece.stream == stream] for pieces in turns]
            _check_alone(stream, mixed, _run(model, passes, own))


def _run(model: Model, passes: dict[str, int], turns: list[list[Piece]]) -> Ran:
    runtime = Runtime(model, prescribed(passes))
    return runtime, [runtime.step(pieces, predictions=True, boundaries=True) for pieces in turns]


def _check_alone(stream: str, mixed: Ran, alone: Ran) -> None:
    """Hold what a stream keeps, and how it was predicted, to what it gives alone."""
    here, there = (each[0].works.arena for each in (mixed, alone))
    for name in mixed[0].works.named("now.", "last_hidden"):
        one, other = here.tensors[name][here.rows[stream]], there.tensors[name][there.rows[stream]]
        _hold(f"{name} of {stream}", one.numpy(), other.numpy())
    for both, own in zip(mixed[1], alone[1], strict=True):
        _hold(f"losses of {stream}", _of(both, stream, "logprob"), _of(own, stream, "logprob"))


def _check_signals(result: StepResult, passes: dict[str, int]) -> None:
    """Hold the signals of one step to what its closed windows and predictions say, in float64."""
    boundary = result.boundaries[0]
    signals = boundary.decision.signals
    for row, stream in enumerate(signals.stream):
        for name, wanted in looked_at(boundary.closed, row).items():
            _hold(f"{name} of {stream}", getattr(signals, name)[row], wanted)
        surprise = -_of(result, stream, "logprob").mean()
        _hold(f"surprise of {stream}", signals.surprise[row], surprise)
        entropy = _of(result, stream, "entropy").mean()
        _hold(f"uncertainty of {stream}", signals.uncertainty[row], entropy)
        _hold(f"passes of {stream}", boundary.decision.passes[row], passes[stream])
    _hold("tokens", signals.tokens, boundary.closed.lengths.numpy())


def looked_at(closed: ClosedWindow, row: int) -> dict[str, Any]:
    """State change and summary `[2d]` of one closed window, worked out in float64."""
    moved = size = 0.0
    for name, after in closed.after.matrices.items():
        now, before = after[row].double(), closed.before.matrices[name][row].double()
        moved += float((now - before).square().sum())
        size += float(now.square().sum())
    hidden = closed.hidden[row, : int(closed.lengths[row])].double().numpy()
    pools = (hidden.mean(0), hidden.max(0))
    least = float(torch.finfo(torch.float32).eps)
    summary = [pool / np.sqrt((pool**2).mean() + least) for pool in pools]
    return {
        "state_change": moved**0.5 / (size**0.5 + 1e-6),
        "summary": np.concatenate(summary),
    }


def _of(result: StepResult, stream: str, field: str) -> Doubles:
    predictions = result.predictions[0]
    found: Doubles = getattr(predictions, field)[predictions.stream == stream]
    return found


def _hold(what: str, found: Any, wanted: Any) -> None:
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    away = float(np.linalg.norm(found - wanted)) / max(float(np.linalg.norm(wanted)), 1e-12)
    if not away < BOUND:
        raise AdaptiveSleepError(
            f"bench runtime: {what} is {away:.1e} off (allowed: {BOUND:.0e}); no ratio is reported"
        )
