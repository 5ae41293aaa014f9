"""Synthetic streams of known regimes: which regime holds in which window is given, or drawn.

A regime is a shape of one window's length on every channel, repeated for as long as it lasts, with
noise that drifts. Every stream draws its own shapes, so that nothing but its past tells them. NumPy
only; nothing is trained or run here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adaptive_sleep.streams.errors import InputError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class RegimeRecipe:
    """What streams of regimes are like. Lengths are in windows.

    A shape is a level and waves of 1 to `waves` periods a window, of random size and phase, wave k
    at 1 / k of the size of the first. The noise is an AR(1) process that starts at 0.
    """

    channels: int = 2
    waves: int = 4
    level: float = 0.5  # standard deviation of a shape's mean; that of its first wave is 1
    noise: float = 0.1  # standard deviation of the noise
    drift: float = 0.6  # its correlation from one event to the next
    longest: int = 2  # a regime lasts 1 to so many windows
    returns: float = 0.5  # chance that an earlier regime follows rather than a new one
    back: int = 4  # which is one of so many that were there last


def check_regimes(recipe: RegimeRecipe) -> None:
    """Refuse streams that cannot be drawn. Raises InputError naming the field."""
    for name in ("channels", "waves", "longest", "back"):
        value = getattr(recipe, name)
        if value < 1:
            raise InputError(f"[regimes] {name}={value}: at least 1")
    for name in ("level", "noise"):
        value = getattr(recipe, name)
        if not 0.0 <= value < float("inf"):
            raise InputError(f"[regimes] {name}={value}: a standard deviation, 0 or more")
    if not 0.0 <= recipe.drift < 1.0:
        raise InputError(f"[regimes] drift={recipe.drift}: 0 to below 1")
    if not 0.0 <= recipe.returns <= 1.0:
        raise InputError(f"[regimes] returns={recipe.returns}: a chance, 0 to 1")


def drawn_plan(recipe: RegimeRecipe, windows: int, random: np.random.Generator) -> IntArray:
    """Regimes by window, int64 `[windows]`, numbered from 0 as they first appear."""
    plan: list[int] = []
    recent: list[int] = []  # the last ones first
    fresh = 0
    while len(plan) < windows:
        known = recent[1 : 1 + recipe.back]  # not the one that has just ended
        if known and random.random() < recipe.returns:
            chosen = known[int(random.integers(len(known)))]
        else:
            chosen, fresh = fresh, fresh + 1
        plan += [chosen] * int(random.integers(1, recipe.longest + 1))
        recent = [chosen, *(other for other in recent if other != chosen)]
    return np.array(plan[:windows], dtype=np.int64)


def shape(recipe: RegimeRecipe, window: int, random: np.random.Generator) -> FloatArray:
    """One regime: its values without noise, `[window, channels]`."""
    turn = 2 * np.pi * np.arange(window)[:, None] / window
    level = recipe.level * random.normal(size=recipe.channels)
    found = np.zeros((window, recipe.channels))
    for k in range(1, recipe.waves + 1):
        cosine, sine = random.normal(size=(2, recipe.channels)) / k
        found += cosine * np.cos(k * turn) + sine * np.sin(k * turn)
    scaled: FloatArray = level + found / found.std(0)
    return scaled


def stream(
    recipe: RegimeRecipe,
    plan: Sequence[int] | IntArray,
    window: int,
    *,
    shapes_seed: Sequence[int],
    noise_seed: Sequence[int],
) -> NDArray[np.float32]:
    """The values of one stream, float32 `[len(plan) * window, channels]`, regimes by window as
    `plan` says.

    Regime r is drawn from `shapes_seed` and r alone, the noise of window w from `noise_seed` and w
    alone: streams of the same seeds are the same wherever their plans are.
    """
    shapes = {
        int(r): shape(recipe, window, np.random.default_rng([*shapes_seed, int(r)]))
        for r in np.unique(np.asarray(plan))
    }
    parts = [
        shapes[int(r)] + _noise(recipe, window, np.random.default_rng([*noise_seed, w]))
        for w, r in enumerate(plan)
    ]
    return np.concatenate(parts).astype(np.float32)


def _noise(recipe: RegimeRecipe, window: int, random: np.random.Generator) -> FloatArray:
    """AR(1) noise of one window, `[window, channels]`, from its stationary distribution."""
    fresh = random.normal(size=(window, recipe.channels)) * recipe.noise
    keep = np.sqrt(1.0 - recipe.drift**2)
    found = np.empty_like(fresh)
    found[0] = fresh[0]
    for t in range(1, window):
        found[t] = recipe.drift * found[t - 1] + keep * fresh[t]
    return found
