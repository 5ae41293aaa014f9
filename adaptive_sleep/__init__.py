"""adaptive-sleep: decide, per window and per stream, how many passes of sleep pay.

The public names, each loaded when it is first used: `import adaptive_sleep as asl`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adaptive_sleep import testing
    from adaptive_sleep.checkpoint import load_model, save_model
    from adaptive_sleep.config import ModelConfig
    from adaptive_sleep.contract import Choice, PolicyError, Range, SleepPolicy, policy
    from adaptive_sleep.experiments.replay import replay
    from adaptive_sleep.forecasting import Forecast
    from adaptive_sleep.ledger import Ledger
    from adaptive_sleep.model import Model
    from adaptive_sleep.runtime import Runtime, StepResult
    from adaptive_sleep.signals import SleepProgress, WindowOutcome, WindowSignals
    from adaptive_sleep.spec import format_spec, parse_spec, resolve
    from adaptive_sleep.streams.errors import AdaptiveSleepError, InputError, IntegrityError
    from adaptive_sleep.streams.events import Channel, Events, Piece
    from adaptive_sleep.streams.recording import Recording
    from adaptive_sleep.streams.writer import RecordingWriter

_PLACES = {
    "AdaptiveSleepError": "streams.errors",
    "Channel": "streams.events",
    "Choice": "contract",
    "Events": "streams.events",
    "Forecast": "forecasting",
    "InputError": "streams.errors",
    "IntegrityError": "streams.errors",
    "Ledger": "ledger",
    "Model": "model",
    "ModelConfig": "config",
    "Piece": "streams.events",
    "PolicyError": "contract",
    "Range": "contract",
    "Recording": "streams.recording",
    "RecordingWriter": "streams.writer",
    "Runtime": "runtime",
    "SleepPolicy": "contract",
    "SleepProgress": "signals",
    "StepResult": "runtime",
    "WindowOutcome": "signals",
    "WindowSignals": "signals",
    "format_spec": "spec",
    "load_model": "checkpoint",
    "parse_spec": "spec",
    "policy": "contract",
    "replay": "experiments.replay",
    "resolve": "spec",
    "save_model": "checkpoint",
}

__all__ = [
    "AdaptiveSleepError",
    "Channel",
    "Choice",
    "Events",
    "Forecast",
    "InputError",
    "IntegrityError",
    "Ledger",
    "Model",
    "ModelConfig",
    "Piece",
    "PolicyError",
    "Range",
    "Recording",
    "RecordingWriter",
    "Runtime",
    "SleepPolicy",
    "SleepProgress",
    "StepResult",
    "WindowOutcome",
    "WindowSignals",
    "format_spec",
    "load_model",
    "parse_spec",
    "policy",
    "replay",
    "resolve",
    "save_model",
    "testing",
]


def __getattr__(name: str) -> object:
    if name == "testing":
        return importlib.import_module("adaptive_sleep.testing")
    if name in _PLACES:
        return getattr(importlib.import_module(f"adaptive_sleep.{_PLACES[name]}"), name)
    raise AttributeError(f"module 'adaptive_sleep' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
