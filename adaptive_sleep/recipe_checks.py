"""What the recipes of all trainings are refused for: numbers of `[training]` out of their range."""

from __future__ import annotations

import math
from typing import Any

from adaptive_sleep.streams.errors import InputError


def at_least_one(training: Any, *names: str) -> None:
    """Raise InputError for a count below 1."""
    for name in names:
        if not getattr(training, name) >= 1:
            raise InputError(f"[training] {name}={getattr(training, name)}: at least 1")


def shares(training: Any, *names: str) -> None:
    """Raise InputError for what is no share."""
    for name in names:
        if not 0.0 <= getattr(training, name) <= 1.0:
            raise InputError(f"[training] {name}={getattr(training, name)}: a share from 0 to 1")


def above_zero(training: Any, *names: str) -> None:
    """Raise InputError for a number that is not finite and above 0."""
    for name in names:
        if not 0.0 < getattr(training, name) < math.inf:
            raise InputError(f"[training] {name}={getattr(training, name)}: a number above 0")


def from_zero(training: Any, *names: str) -> None:
    """Raise InputError for a number that is not finite and at least 0."""
    for name in names:
        if not 0.0 <= getattr(training, name) < math.inf:
            raise InputError(f"[training] {name}={getattr(training, name)}: a number from 0 on")


def check_betas(training: Any) -> None:
    """Raise InputError for betas that AdamW cannot take."""
    if not all(0.0 <= beta < 1.0 for beta in training.betas):
        raise InputError(f"[training] betas={list(training.betas)}: two numbers from 0, below 1")
