"""Small recordings, a small model and odd policies, for tests that run the runtime."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adaptive_sleep.config import ModelConfig
from adaptive_sleep.model import Model
from adaptive_sleep.signals import SleepProgress, WindowSignals
from adaptive_sleep.streams.events import Channel
from adaptive_sleep.streams.recording import Recording
from adaptive_sleep.streams.tasks.registry import make_task
from adaptive_sleep.streams.writer import RecordingWriter

SECOND = 1_000_000_000
ORIGIN = 1_760_000_000 * SECOND
WINDOW = 8
CHANNELS = ("load", "heat")


def series_model(seed: int = 0, **changes: Any) -> Model:
    """A tiny untrained series model of two channels and one action."""
    torch.manual_seed(seed)
    config = ModelConfig(
        kind="series", channels=CHANNELS, actions=("fan",), patch=2, width=8, heads=2,
        fast_heads=1, key_dim=4, value_dim=4, window=WINDOW, quantiles=(0.1, 0.5, 0.9),
    )  # fmt: skip
    return Model(replace(config, **changes)).eval()


def answering_model(seed: int = 0) -> Model:
    """A tiny untrained model that answers the task hops of 4 nodes, at most 2 hops."""
    torch.manual_seed(seed)
    space = make_task("hops", nodes=4, max_hops=2).space
    config = ModelConfig(
        kind="tokens", vocabulary=space.vocabulary, fields=space.fields, answers=space.answers,
        width=8, heads=2, fast_heads=1, key_dim=4, value_dim=4, window=space.window,
    )  # fmt: skip
    return Model(config).eval()


def token_model(seed: int = 0) -> Model:
    """A tiny untrained token model."""
    torch.manual_seed(seed)
    config = ModelConfig(
        kind="tokens", vocabulary=11, width=8, heads=2, fast_heads=1, key_dim=4, value_dim=4,
        window=WINDOW,
    )  # fmt: skip
    return Model(config).eval()


def make_series(
    path: Path,
    *,
    rows: int = 400,
    streams: int = 3,
    seed: int = 0,
    order: tuple[str, ...] = (*CHANNELS, "fan", "phase"),
    labels: int = 1,
    gap_after: int | None = None,
) -> Recording:
    """A series of interleaved streams at 4 Hz with missing values, and a label in codes 0, 1."""
    rng = np.random.default_rng(seed)
    kinds = {name: Channel(name) for name in CHANNELS}
    kinds |= {"fan": Channel("fan", "action"), "phase": Channel("phase", "label", "", ("x", "y"))}
    columns = {name: rng.normal(size=rows).astype(np.float32) for name in (*CHANNELS, "fan")}
    columns["phase"] = (np.arange(rows) // 7 % 2 * labels).astype(np.float32)
    columns["load"][rng.random(rows) < 0.1] = np.nan
    names = [f"s{index}" for index in range(streams)]
    owners = rng.integers(streams, size=rows)
    with RecordingWriter(path, kind="series", channels=[kinds[name] for name in order]) as writer:
        for row in range(rows):
            late = 3600 * SECOND if gap_after is not None and row >= gap_after else 0
            values = np.array([[columns[name][row] for name in order]], np.float32)
            writer.append(names[owners[row]], ORIGIN + row * SECOND // 4 + late, values=values)
    return Recording.open(path)


def make_tokens(path: Path, *, rows: int = 200, vocabulary: int = 11) -> Recording:
    """Random tokens of one stream."""
    tokens = np.random.default_rng(0).integers(vocabulary, size=rows)
    with RecordingWriter(path, kind="tokens", tokenizer="ids", vocabulary=vocabulary) as writer:
        writer.append("text", ORIGIN + np.arange(rows) * SECOND, tokens=tokens)
    return Recording.open(path)


POLICY = "run_cases:Fragile(at=20)"
SWITCH: dict[str, BaseException | None] = {"raise": None}


@dataclass(frozen=True)
class Fragile:
    """Counts its windows by stream, sleeps by the count, and raises at one if SWITCH says so."""

    at: int = 20
    _seen: dict[str, int] = field(default_factory=dict, init=False, repr=False, compare=False)

    def plan(self, signals: WindowSignals) -> np.ndarray[Any, np.dtype[np.int64]]:
        for stream in signals.stream:
            self._seen[stream] = self._seen.get(stream, 0) + 1
        error = SWITCH["raise"]
        if error is not None and sum(self._seen.values()) >= self.at:
            raise error
        return np.array([1 + self._seen[stream] % 3 for stream in signals.stream], np.int64)

    def keep_going(self, progress: SleepProgress) -> np.ndarray[Any, np.dtype[np.bool_]]:
        return progress.state_change > 1e-3

    def reset(self, seed: int) -> None:
        self._seen.clear()

    def state_dict(self) -> dict[str, Any]:
        return {"seen": dict(self._seen)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._seen.clear()
        self._seen.update(state["seen"])


def contents(folder: Path) -> dict[str, str]:
    """Every file below a folder with its hash, and every folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else "folder"
        for path in sorted(folder.rglob("*"))
    }


def lasting(run: Path) -> dict[str, str]:
    """What two runs of the same thing must have alike, byte for byte: all but wall clock."""
    timed = ("timings.parquet", "commit.json", "run.json")
    return {name: hash_ for name, hash_ in contents(run).items() if Path(name).name not in timed}
