"""A policy whose own failures are told apart from those of everything else.

A policy of somebody else's may raise anything, which is no reason to end a study: it ends a trial.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from adaptive_sleep.contract import PolicyError, SleepPolicy, check_memory, label
from adaptive_sleep.fitted import check_fitted
from adaptive_sleep.model import Model
from adaptive_sleep.signals import IntArray, WindowSignals
from adaptive_sleep.spec import format_spec, resolve

CALLS = ("keep_going", "observe", "reset", "state_dict", "load_state_dict", "flops")


class Guarded:
    """Another policy in all it has and answers, under its spec; what its methods raise becomes a
    PolicyError that names policy and method. Interrupts and a want of memory go through."""

    def __init__(self, policy: SleepPolicy) -> None:
        self._policy = policy
        self._adaptive_sleep_spec = format_spec(policy)  # where spec.py looks for it

    def plan(self, signals: WindowSignals) -> int | IntArray:
        """Return the other's plan."""
        answer: int | IntArray = self._call("plan", self._policy.plan, signals)
        return answer

    def __getattr__(self, name: str) -> Any:
        if name == "_policy":  # as what copies or unpickles an object without its fields asks
            raise AttributeError(name)
        found = getattr(self._policy, name)
        return partial(self._call, name, found) if name in CALLS and callable(found) else found

    def __str__(self) -> str:
        return self._adaptive_sleep_spec

    def _call(self, name: str, method: Callable[..., Any], *given: Any) -> Any:
        try:
            return method(*given)
        except (PolicyError, MemoryError):
            raise
        except Exception as error:
            raise PolicyError(
                f"policy {label(self)}: {name} raised {type(error).__name__}: {error}"
            ) from error


def guarded(spec: str, model: Model) -> Guarded:
    """The policy of a spec, guarded. Raises InputError for one that there is not, or that was
    fitted to another model, PolicyError for one whose state could not be put back."""
    policy = resolve(spec)
    check_fitted(policy, model)  # these look at what it wraps, which the guard hides
    check_memory(policy)
    return Guarded(policy)
