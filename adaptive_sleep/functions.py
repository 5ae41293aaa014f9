"""Plain functions in the place of a policy: what they are asked, and what a run calls them.

How other policies are named is in `spec`.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from adaptive_sleep.signals import IntArray, WindowSignals
from adaptive_sleep.streams.errors import InputError

# what a policy may have beside `plan`, of which nothing is asked of a function
_BESIDE = ("keep_going", "observe", "reset", "state_dict", "load_state_dict", "flops", "model_hash")


@dataclass(frozen=True)
class FromCallable:
    """A plain function `signals -> passes` in the place of a policy; `spelled` is what it was
    looked up by, "module:name", and empty where it was given."""

    function: Callable[[WindowSignals], int | IntArray]
    spelled: str = field(default="", compare=False)

    def plan(self, signals: WindowSignals) -> int | IntArray:
        """Return what the function returns."""
        return self.function(signals)

    @property
    def place(self) -> str:
        """Where the function says that it was defined."""
        name = getattr(self.function, "__qualname__", type(self.function).__qualname__)
        return f"{getattr(self.function, '__module__', '?')}:{name}"

    def __str__(self) -> str:
        return self.spelled or self.place


def check_plain(function: object) -> None:
    """Refuse a callable object with more of a policy than a function has, which nobody would call.

    Raises InputError naming it.
    """
    if has := [name for name in _BESIDE if hasattr(function, name)]:
        name = getattr(function, "__qualname__", type(function).__qualname__)
        raise InputError(
            f"policy {name} has {', '.join(has)} but no plan, and of a plain function nothing else "
            "is asked; make it a class with plan (of a callable object: name its `__call__` `plan`)"
        )


def function_spec(policy: FromCallable) -> str:
    """Return a spec string that leads back to this very function: "module:name" of where it was
    defined, or what it was looked up by.

    Raises InputError where neither does: for lambdas, closures, partial and callable objects and
    bound methods that were not given as a spec string.
    """
    module, _, path = policy.place.partition(":")
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    # a method of a class is made anew whenever it is looked up
    again = isinstance(found, types.MethodType) and found == policy.function
    if again or found is policy.function:
        return policy.place
    if policy.spelled:
        return policy.spelled
    raise InputError(
        f"policy {policy}: no name leads back to this very function, so no run could name it; "
        "define it at the top level of a module, give the spec string 'module:name' of where it is "
        "kept, or make it a dataclass with plan"
    )
