"""For the tests of the core: small models, random events and cuts, and a look into a runtime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

import adaptive_sleep as asl

KINDS = ("tokens", "series")
EVICTIONS = ("hard", "sliding")
SECOND = 1_000_000_000
VOCABULARY = 17

# What adds up over streams in a ledger.
FLOPS = ("wake", "sleep", "signals", "policy", "events", "windows", "passes")


def tiny(kind: str = "tokens", **changes: Any) -> asl.ModelConfig:
    """A configuration small enough for a test of milliseconds; `changes` replace its fields."""
    shape: dict[str, Any] = {
        "kind": kind,
        "width": 16,
        "layers": ("deltanet", "attention", "deltanet"),
        "heads": 2,
        "fast_heads": 2,
        "key_dim": 16,
        "value_dim": 8,
        "conv": 3,
        "window": 12,
    }
    if kind == "tokens":
        shape["vocabulary"] = VOCABULARY
    else:
        shape |= {"channels": ("a", "b", "c"), "actions": ("u",), "patch": 4, "norm_memory": 40}
    return asl.ModelConfig(**(shape | changes))


def build(config: asl.ModelConfig, seed: int = 0) -> asl.Model:
    """A model with random weights, also where training starts from zeros or ones."""
    torch.manual_seed(seed)
    model = asl.Model(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "gain" in name or "taps_weight" in name or name.endswith("norm"):
                parameter.add_(0.3 * torch.randn_like(parameter))
            if name.endswith((".bias", "keep_last")) or name == "inject.weight":
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def events(config: asl.ModelConfig, count: int, seed: int = 0, missing: float = 0.15) -> asl.Events:
    """Random events, about a second apart; in a series some values are missing."""
    random = np.random.default_rng(seed)
    time = np.cumsum(random.integers(1, 2 * SECOND, count)).astype(np.int64)
    if config.kind == "tokens":
        return asl.Events(time, tokens=random.integers(0, config.vocabulary, count))
    size = (count, len(config.inputs))
    values = np.cumsum(random.normal(size=size), 0) * 10.0 ** np.arange(-1, size[1] - 1) + 5
    values[random.random(size) < missing] = np.nan
    return asl.Events(time, values=values.astype(np.float32))


def joined(parts: Sequence[asl.Events]) -> asl.Events:
    """Events one after the other."""
    first = parts[0]
    return asl.Events(
        np.concatenate([p.time for p in parts]),
        None if first.values is None else np.concatenate([p.values for p in parts]),
        None if first.tokens is None else np.concatenate([p.tokens for p in parts]),
    )


def cut(
    whole: asl.Events, window: int, places: Sequence[int] = (), stream: str = "s"
) -> list[asl.Piece]:
    """Pieces of `whole`: windows close after every `window` events; `places` cut them further."""
    ends = sorted({*range(window, len(whole), window), *places, len(whole)} - {0})
    starts = [0, *ends[:-1]]
    pieces = []
    for a, b in zip(starts, ends, strict=True):
        closes = b % window == 0
        pieces.append(asl.Piece(stream, whole[a:b], closes, "length" if closes else ""))
    return pieces


def places(count: int) -> st.SearchStrategy[list[int]]:
    """Where `count` events may be cut."""
    return st.lists(st.integers(1, count - 1), max_size=8)


class ByName:
    """Passes by stream (and window): `plan` looks them up, 1 where nothing is said."""

    def __init__(self, passes: dict[str, int | Sequence[int]]) -> None:
        self.passes = passes

    def plan(self, signals: asl.WindowSignals) -> np.ndarray:
        found = []
        for stream, window in zip(signals.stream, signals.window, strict=True):
            rule = self.passes.get(stream, 1)
            found.append(rule if isinstance(rule, int) else rule[window % len(rule)])
        return np.array(found, dtype=np.int64)


class Watching:
    """Wraps a plan and keeps what it was shown."""

    def __init__(self, plan: Callable[[asl.WindowSignals], Any]) -> None:
        self.inner = plan
        self.signals: list[asl.WindowSignals] = []

    def plan(self, signals: asl.WindowSignals) -> Any:
        self.signals.append(signals)
        return self.inner(signals)


def fixed(passes: int) -> Callable[[asl.WindowSignals], int]:
    """A policy of `passes` passes for every window."""
    return lambda _: passes


def row(runtime: asl.Runtime, stream: str) -> dict[str, Tensor]:
    """A copy of everything that a runtime holds of one stream; stale slots are zeroed."""
    arena = runtime._arena
    index = arena.rows[stream]
    found = {name: tensor[index].clone() for name, tensor in arena.tensors.items()}
    for name, tensor in found.items():
        if name.startswith(("keys.", "values.")):
            tensor[int(found["cached"]) :] = 0
        if name in ("embedded", "hidden"):
            tensor[int(found["positions"]) :] = 0
    return found


def everything(runtime: asl.Runtime) -> dict[str, Any]:
    """All that a step may change, in a form that compares with ==."""
    arena = runtime._arena
    state = getattr(runtime.policy, "state_dict", dict)()
    used = len(arena.rows) + 1
    return {
        "tensors": {n: t[:used].numpy().tobytes() for n, t in arena.tensors.items()},
        "streams": dict(arena.rows),
        "ledger": runtime.ledger,
        "steps": runtime.steps,
        "pending": dict(runtime._pending),
        "policy": repr(state),
    }


def run_all(
    runtime: asl.Runtime, pieces: Sequence[asl.Piece], predictions: bool = True
) -> list[asl.StepResult]:
    """Feed pieces of one stream, one a step."""
    return [runtime.step([piece], predictions=predictions) for piece in pieces]


def table(results: Sequence[asl.StepResult]) -> dict[str, np.ndarray]:
    """All predictions of some steps, field by field, in order."""
    parts = [p for r in results for p in r.predictions]
    names = [n for n in parts[0].__dataclass_fields__ if getattr(parts[0], n) is not None]
    return {n: np.concatenate([getattr(p, n) for p in parts]) for n in names}


def distance(one: Any, other: Any) -> float:
    """Relative difference of two arrays, norm-wise; they must miss the same values."""
    one, other = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    assert one.shape == other.shape
    assert np.array_equal(np.isnan(one), np.isnan(other))
    one, other = np.nan_to_num(one), np.nan_to_num(other)
    return float(np.linalg.norm(one - other) / max(np.linalg.norm(other), 1e-9))


def furthest(one: dict[str, Any], other: dict[str, Any], scale: float = 1.0) -> tuple[float, str]:
    """The largest `distance` over the fields of two records of arrays, and where."""
    assert one.keys() == other.keys()
    found = (0.0, "")
    for name, value in one.items():
        if np.asarray(value).dtype != object:
            found = max(found, (distance(value, other[name]) / scale, name))
    return found


def untimed(rows: Sequence[Any]) -> list[Any]:
    """Trace rows without the number of the step, which depends on how events were cut."""
    return [replace(r, step=0) for r in rows]
