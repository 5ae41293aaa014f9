"""A change detector of somebody else's, with a memory that can be saved: the values it was given.

Detectors such as river's (river.drift.ADWIN) cannot be written as JSON. They are functions of what
they were given, so that is what is kept, and a detector is rebuilt by giving it that again.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from adaptive_sleep.streams.errors import InputError, nearest

MEMORY = 1024
"""Values that are kept at most; when so many are, a detector is rebuilt from the later half."""


class Detector(Protocol):
    """The part of river's interface that is used."""

    @property
    def drift_detected(self) -> bool:
        """Whether the last value gave an alarm."""
        ...

    def update(self, x: float) -> object:
        """Take the next value."""
        ...


@dataclass
class Replayed:
    """A detector that is at any time what `make()` becomes when given `values` in order.

    Exact for detectors that draw no random numbers, or draw them from a seed of their own.
    """

    make: Callable[[], Detector]
    values: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._rebuild()

    def update(self, x: float) -> None:
        """Take the next value."""
        if len(self.values) >= MEMORY:
            self.values = self.values[-(MEMORY // 2) :]
            self._rebuild()
        self.values.append(x)
        self.detector.update(x)

    @property
    def drift_detected(self) -> bool:
        """Whether the last value gave an alarm."""
        return bool(self.detector.drift_detected)

    def state_dict(self) -> dict[str, Any]:
        """Return the values since the detector was made, at most `MEMORY`."""
        return {"values": list(self.values)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Make a detector and give it the values that `state_dict` returned."""
        self.values = list(state["values"])
        self._rebuild()

    def _rebuild(self) -> None:
        self.detector = self.make()
        for value in self.values:
            self.detector.update(value)


def factory(field: str, place: str) -> Callable[[], Detector]:
    """Return what "module:Class" (or "module:function") names, called with nothing.

    Makes one to try. Raises InputError, naming the field, if there is no such thing, it cannot be
    called with nothing, or what it makes lacks `update` or `drift_detected`.
    """
    module, colon, name = place.partition(":")
    where = f"{field}={place!r}"
    if not (colon and module and name):
        raise InputError(f'{where}: expected "module:Class", for example "river.drift:ADWIN"')
    try:
        found: Any = importlib.import_module(module)
    except Exception as error:
        raise InputError(
            f"{where}: module {module!r} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    make = getattr(found, name, None)
    if make is None:
        raise InputError(f"{where}: module {module!r} has no {name!r}{nearest(name, dir(found))}")
    try:
        made = make()
    except Exception as error:
        raise InputError(
            f"{where}: it cannot be made with no arguments ({type(error).__name__}: {error}); "
            "name a function that makes it"
        ) from error
    for part in ("update", "drift_detected"):
        if not hasattr(made, part):
            raise InputError(
                f"{where}: what it makes ({type(made).__name__}) has no {part!r}"
                f"{nearest(part, dir(made))}; expected update(x) and drift_detected"
            )
    return make  # type: ignore[no-any-return]
