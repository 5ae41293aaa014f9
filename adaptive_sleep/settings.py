"""How a runtime cuts memory and compute: settings that are recorded with every run."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from adaptive_sleep.config import Eviction, ModelConfig
from adaptive_sleep.eviction import holding
from adaptive_sleep.streams.errors import InputError


@dataclass(frozen=True, kw_only=True)
class RuntimeSettings:
    """Settings of one runtime.

    `window`: most events in a window; `keep`: events that outlive a boundary, where the eviction
    takes a number (see `eviction`); `kv_budget`: events that attention may hold over all streams
    (None: no bound); `budget`: sleep FLOPs per event (None: no bound), of which a stream may save
    up `burst` windows' worth; `max_passes`: most passes that a policy may plan; `price`: of a
    FLOP, passed on to policies.
    """

    window: int
    eviction: Eviction = "hard"
    keep: int | None = None
    kv_budget: int | None = None
    budget: float | None = None
    burst: float = 4.0
    max_passes: int = 8
    price: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Take NumPy's numbers as Python's. Raises InputError for what is no number."""
        for name in ("window", "keep", "kv_budget", "max_passes", "seed"):
            object.__setattr__(self, name, whole(name, getattr(self, name)))
        for name in ("budget", "burst", "price"):
            object.__setattr__(self, name, real(name, getattr(self, name)))
        for name in ("window", "burst", "max_passes", "price", "seed"):
            if getattr(self, name) is None:
                raise InputError(f"{name}=None: a number (None is for keep, kv_budget and budget)")

    @property
    def budget_cap(self) -> float | None:
        """Sleep FLOPs that a stream may save up; None without a budget."""
        return None if self.budget is None else self.budget * self.burst * self.window


def whole(name: str, value: Any) -> Any:
    """A setting that is a whole number, or None, as a file holds it; raises InputError for others
    (2.0 too, since what is recorded must read back the same)."""
    value = value.item() if isinstance(value, np.generic) else value
    if value is not None and type(value) is not int:
        raise InputError(f"{name}={value!r} ({type(value).__name__}): a whole number")
    return value


def real(name: str, value: Any) -> Any:
    """A setting that is a number, or None, as a file holds it; raises InputError for others."""
    value = value.item() if isinstance(value, np.generic) else value
    if value is not None and type(value) not in (int, float):
        raise InputError(f"{name}={value!r} ({type(value).__name__}): a number")
    return value


def check_settings(settings: RuntimeSettings, config: ModelConfig) -> None:
    """Refuse settings that this model cannot run under. Raises InputError."""
    if not 1 <= settings.window <= config.window:
        raise InputError(
            f"window={settings.window}: 1 to {config.window}, the window the model was made for"
        )
    holding(config, settings.eviction, settings.keep, settings.window)  # refuses what is wrong
    if config.values or config.answers == 1:
        raise InputError(
            f"values={config.values}, answers={config.answers}: no stream carries real numbers "
            "beside tokens yet, so such a model answers samples of its task alone "
            "(adaptive-sleep reproduce)"
        )
    if settings.kv_budget is not None and settings.kv_budget < 1:
        raise InputError(f"kv_budget={settings.kv_budget}: at least 1 event")
    if settings.max_passes < 1:
        raise InputError(f"max_passes={settings.max_passes}: at least 1 (the wake pass)")
    if settings.max_passes > (most := int(np.iinfo(np.int64).max)):
        raise InputError(f"max_passes={settings.max_passes}: at most {most}")
    for name in ("budget", "burst", "price"):
        value = getattr(settings, name)
        if value is not None and not 0 <= value <= sys.float_info.max:
            raise InputError(f"{name}={value}: a finite number, 0 or more")
    if settings.burst == 0:
        raise InputError("burst=0: more than 0 windows' worth")
    if settings.budget_cap is not None and not settings.budget_cap <= sys.float_info.max:
        raise InputError(
            f"budget={settings.budget}, burst={settings.burst}: no float holds what a stream may "
            f"save up in windows of {settings.window}; give less, or budget=None for no bound"
        )
    if settings.seed < 0:
        raise InputError(f"seed={settings.seed}: 0 or more")
