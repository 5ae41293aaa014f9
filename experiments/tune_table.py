"""The table [tune] of a comparison's recipe, and budgets as they are written: 1.5x, or FLOPs.

What is searched is in tune_space.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from adaptive_sleep.streams.errors import InputError


@dataclass(frozen=True)
class TuneTable:
    """What `adaptive-sleep tune` needs to know besides: all of it has defaults.

    `policies`: specs as `--policy` takes them; none: those of the comparison, with all open that
    they declare. `budget`: FLOPs per event, or as "1.5x" those of the plain hybrid. `trials`: of a
    study that is not quick. `recordings`: that the validation part of each seed is cut into; those
    of a [recording] go on from one another. `windows`: lengths to try, in events (of a
    [recording]). `pass_caps`: what the passes of a window are capped at, to try; none: 2 to
    max_passes.
    """

    policies: tuple[str, ...] = ()
    budget: str = "1.5x"
    trials: int = 100
    recordings: int = 8
    windows: tuple[int, ...] = ()
    pass_caps: tuple[int, ...] = ()


def check_tune(table: TuneTable, max_passes: int, *, task: bool) -> None:
    """Raise InputError for what is wrong in the table; `task`: whether samples of one are run."""
    read_budget(table.budget, "[tune] budget")
    for name in ("trials", "recordings"):
        if getattr(table, name) < 1:
            raise InputError(f"[tune] {name}={getattr(table, name)}: at least 1")
    for name in ("windows", "pass_caps"):
        given = getattr(table, name)
        if len(set(given)) != len(given) or any(value < 1 for value in given):
            raise InputError(f"[tune] {name}={list(given)}: whole numbers from 1 up, each once")
    if table.windows and task:
        raise InputError(
            f"[tune] windows={list(table.windows)}: the windows of a [task] are its own; "
            "leave them out"
        )
    if any(cap > max_passes for cap in table.pass_caps):
        raise InputError(
            f"[tune] pass_caps={list(table.pass_caps)}: at most max_passes={max_passes}"
        )


@dataclass(frozen=True)
class Budget:
    """FLOPs per event, or with `relative` so many times those of the plain hybrid."""

    amount: float
    relative: bool

    def flops(self, plain: float) -> float:
        """FLOPs per event, where the plain hybrid takes `plain`."""
        return self.amount * plain if self.relative else self.amount


def read_budget(text: str, field: str = "budget") -> Budget:
    """Read "1.5x" or "200000". Raises InputError for anything but a positive number."""
    written = text.strip()
    relative = written.endswith(("x", "X"))
    try:
        amount = float(written[:-1] if relative else written)
    except ValueError:
        amount = math.nan
    if not 0 < amount < math.inf:
        raise InputError(
            f"{field}={text!r}: FLOPs per event such as 2e5, or 1.5x the plain hybrid's"
        )
    return Budget(amount, relative)
