"""What an agent sees of a window: signals as numbers of like size, clipped to a finite box.

The environment shows it while an agent learns, the policy `agent` when it has learned: it must be
the same. The fixed maps are in `features`; here every one is shifted and scaled by what was usual.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adaptive_sleep.policies.features import features
from adaptive_sleep.signals import FloatArray, WindowSignals
from adaptive_sleep.streams.errors import InputError, nearest

CLIP = 10.0
_STILL = 1e-12  # a variance below it is rounding: the signal never changed


@dataclass(frozen=True, eq=False)
class View:
    """clip((x - mean) / scale, -clip, clip) of the named signals, then of the summary.

    x: the `features` of `signals`, in that order, then `summary` numbers of `WindowSignals.summary`
    (its whole width 2d, or 0: it is not looked at). mean, scale: float64 `[width]`, scale > 0.
    model: hash of the one model that the summary is of; empty if any will do. Raises InputError for
    a signal that there is not, a wrong shape, or a number that cannot be.
    """

    signals: tuple[str, ...]
    summary: int
    mean: FloatArray
    scale: FloatArray
    clip: float = CLIP
    model: str = ""

    def __post_init__(self) -> None:
        for name in self.signals:
            if name not in WindowSignals.SCALARS:
                raise InputError(
                    f"signals: there is no signal {name!r}{nearest(name, WindowSignals.SCALARS)}; "
                    f"expected some of {', '.join(WindowSignals.SCALARS)}"
                )
        if self.summary < 0 or self.width < 1:
            raise InputError(
                f"signals={self.signals}, summary={self.summary}: expected at least one signal, "
                "or a summary of at least one number"
            )
        for name in ("mean", "scale"):
            values = getattr(self, name)
            if values.shape != (self.width,) or not np.isfinite(values).all():
                raise InputError(
                    f"{name}: shape {values.shape}, expected ({self.width},) finite numbers, one "
                    f"for each of {len(self.signals)} signals and {self.summary} of the summary"
                )
        if not (self.scale > 0).all() or not 0 < self.clip < np.inf:
            raise InputError(f"scale, clip={self.clip}: expected numbers above 0")

    @property
    def width(self) -> int:
        """Numbers in an observation."""
        return len(self.signals) + self.summary

    def see(self, signals: WindowSignals) -> NDArray[np.float32]:
        """Return what is seen, float32 `[streams, width]`; each row by its own signals alone.

        Raises InputError if the summary of the signals has another width.
        """
        seen = numbers(signals, self.signals, self.summary)
        return np.clip((seen - self.mean) / self.scale, -self.clip, self.clip).astype(np.float32)

    def same(self, other: View) -> bool:
        """Tell whether the other sees the same in everything."""
        return (
            (self.signals, self.summary, self.clip) == (other.signals, other.summary, other.clip)
            and self.model == other.model
            and np.array_equal(self.mean, other.mean)
            and np.array_equal(self.scale, other.scale)
        )


def numbers(signals: WindowSignals, names: Sequence[str], summary: int) -> FloatArray:
    """Return the features of the named signals and the summary, float64 `[streams, width]`.

    Raises InputError if `summary` is neither 0 nor the width of the signals' summary.
    """
    columns = features(signals)[:, [WindowSignals.SCALARS.index(name) for name in names]]
    if not summary:
        return columns
    found = signals.summary.shape[1]
    if found != summary:
        raise InputError(
            f"summary: {found} numbers from this model, expected {summary}; an agent that looks at "
            "the summary works with models of the width that it was trained with"
        )
    return np.concatenate([columns, signals.summary.astype(np.float64)], axis=1)


@dataclass
class Moments:
    """Running mean and variance of `numbers`, row after row (Welford, Technometrics 1962)."""

    signals: tuple[str, ...]
    summary: int
    count: int = 0

    def __post_init__(self) -> None:
        self._mean = np.zeros(len(self.signals) + self.summary)
        self._squares = np.zeros_like(self._mean)

    def add(self, signals: WindowSignals) -> None:
        """Take in every window of the signals."""
        for row in numbers(signals, self.signals, self.summary):
            self.count += 1
            away = row - self._mean
            self._mean = self._mean + away / self.count
            self._squares = self._squares + away * (row - self._mean)

    def view(self, model: str = "") -> View:
        """Return the view that makes what was taken in have mean 0 and mean square 1.

        What never changed keeps its scale, so that a change seen later is seen as it is. `model`:
        hash of the model whose summary it was.
        """
        variance = self._squares / max(self.count, 1)
        still = variance < _STILL
        scale = np.where(still, 1.0, np.sqrt(np.where(still, 1.0, variance)))
        return View(self.signals, self.summary, self._mean.copy(), scale, model=model)
