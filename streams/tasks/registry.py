"""Tasks by name: what a recipe or a command line writes, and the presets of the public formats.

What a task is, is in `task`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from ..errors import InputError, nearest
from .chain import Chain
from .depo import Depo
from .distractors import Distractors
from .gsm_symbolic import GsmSymbolic
from .gsm_worded import GsmWorded
from .hops import Hops
from .lead_lag import LeadLag
from .rule110 import Rule110
from .task import Task

_CLASSES = (Hops, Chain, Rule110, LeadLag, Depo, GsmSymbolic, GsmWorded, Distractors)
_DEPO1 = {"max_nodes": 375, "max_hops": 8, "word_tokens": 50, "min_length": 1, "max_length": 2,
          "own_hops": True}  # fmt: skip
_DEPO2 = {"max_nodes": 125, "max_hops": 16, "word_tokens": 3, "min_length": 5, "max_length": 7,
          "own_hops": True}  # fmt: skip
_REAL = {"channels": 8, "levels": 0, "steps": 3, "max_horizon": 4, "noise": 0.02}

# name -> the class, and what a preset fixes unless it is given (the paper's smaller Depo have
# max_nodes 300 and 225, 100 and 75)
_TASKS: Mapping[str, tuple[Callable[..., Task], Mapping[str, Any]]] = {
    **{cls.name: (cls, {}) for cls in _CLASSES},
    "depo1": (Depo, _DEPO1),
    "depo2": (Depo, _DEPO2),
    "depo-small": (Depo, {}),
    "lead_lag_continuous": (LeadLag, _REAL),
}


def task_names() -> tuple[str, ...]:
    """Return the names that `make_task` knows, sorted."""
    return tuple(sorted(_TASKS))


def make_task(name: str, **params: Any) -> Task:
    """Return the task of a name, its parameters as given, else as the class or preset has them.

    Raises InputError for a wrong name or parameter, with the nearest right one, and for whatever
    value the task itself refuses; NumPy's numbers and arrays are taken as Python's.
    """
    known = task_parameters(name)
    cls, preset = _TASKS[name]
    for given in params:
        if given not in known:
            written = ", ".join(f"{key}={value!r}" for key, value in known.items())
            raise InputError(
                f"task {name!r} has no parameter {given!r}{nearest(given, known)}; "
                f"it is written {name}({written})"
            )
    plain = {
        key: value.tolist() if isinstance(value, np.generic | np.ndarray) else value
        for key, value in params.items()
    }
    return cls(**{**preset, **plain})


def task_parameters(name: str) -> dict[str, Any]:
    """Return the parameters of a task, with the values they have if not given.

    Raises InputError for a wrong name, with the nearest right one.
    """
    if name not in _TASKS:
        raise InputError(
            f"there is no task {name!r}{nearest(name, _TASKS)} (known: {', '.join(task_names())})"
        )
    cls, preset = _TASKS[name]
    defaults: Any = cls
    return {field.name: field.default for field in fields(defaults)} | dict(preset)
