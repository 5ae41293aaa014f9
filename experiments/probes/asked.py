"""What is asked of a past window: its mean, slope, extremes, and its values at given offsets.

Windows are taken as the model reads them, in its running scales. Nothing is fitted here.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from adaptive_sleep.config import ModelConfig
from adaptive_sleep.normalise import advance, fresh_stats

FloatArray = NDArray[np.float64]
TARGETS = ("mean", "slope", "highest", "lowest", "value")
OFFSETS = (0.125, 0.375, 0.625, 0.875)  # of a window, at which its value is asked
QUESTIONS = (*TARGETS[:-1], *(f"value@{offset:g}" for offset in OFFSETS))
NEXT = -1  # the age of the window that comes next, which no state has seen


def as_read(values: NDArray[np.float32], config: ModelConfig) -> FloatArray:
    """Streams `[S, T, C]` of whole windows as the model reads them, `[S, W, window, C]`: less the
    running mean, over the running scale, through asinh, as in `SeriesFace.embed`; missing is 0."""
    streams, events, channels = values.shape
    window, patch = config.window, config.patch
    stats = fresh_stats(streams, channels)
    parts = []
    for at in range(0, events, window):
        cut = torch.from_numpy(values[:, at : at + window])
        missing = -cut.shape[1] % patch
        padded = torch.nn.functional.pad(cut, (0, 0, 0, missing), value=float("nan"))
        patches = padded.view(streams, -1, patch, channels)
        counts = torch.full(patches.shape[:2], patch)
        counts[:, -1] -= missing
        each, stats = advance(stats, patches, counts, config.norm_memory)
        location, scale = each.scale()
        z = (patches.double() - location[:, :, None]) / scale[:, :, None]
        z = torch.where(torch.isfinite(patches), torch.asinh(z), 0.0)
        parts.append(z.flatten(1, 2)[:, : cut.shape[1]].numpy())
    return np.stack(parts, 1)


def answers(windows: FloatArray) -> FloatArray:
    """What `QUESTIONS` ask of windows `[S, W, window, C]`: `[S, W, Q, C]`. The slope is that of the
    least-squares line, as the change over the window."""
    length = windows.shape[2]
    time = np.linspace(-0.5, 0.5, length) if length > 1 else np.zeros(1)
    squares = float(np.square(time).sum()) or 1.0
    slope = np.einsum("t,swtc->swc", time, windows) / squares
    offsets = [windows[:, :, int(offset * length)] for offset in OFFSETS]
    found = [windows.mean(2), slope, windows.max(2), windows.min(2), *offsets]
    return np.stack(found, 2)


def aged(found: FloatArray, ages: tuple[int, ...], first: int) -> FloatArray:
    """Answers `[S, W, Q, C]` as they are asked after windows `first` to W - 2: those of the window
    `age` windows before, `[S, n, ages, Q, C]`. Age 0 is the window that has just been evicted."""
    last = found.shape[1] - 1  # the window after the last one asked at is there too
    return np.stack([found[:, first - age : last - age] for age in ages], 2)
