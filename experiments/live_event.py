"""One event of a live stream, and what may come as one.

Where events come from is in sources.py; the lines that they may be written in are in ndjson.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptive_sleep.config import ModelConfig
from adaptive_sleep.settings import whole
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.rows import MOST_NS

RANGE = "beyond 64 bits of nanoseconds, the years 1678 to 2261"


@dataclass(frozen=True, eq=False)
class LiveEvent:
    """One event of one stream: `time` ns UTC; `values` `[C]` in the model's order, or `token`."""

    stream: str
    time: int
    values: NDArray[np.float32] | None = None
    token: int | None = None


def checked_events(events: Iterable[Any], config: ModelConfig) -> Iterator[LiveEvent | None]:
    """The events as this model reads them, one by one, and None where none came for a while.

    Raises InputError for what is none, naming its number (from 1), field and value.
    """
    number = 0
    for event in events:
        if event is None:
            yield None
            continue
        number += 1
        try:
            yield _checked(event, config)
        except InputError as error:
            raise InputError(f"event {number}: {error}") from None


def _checked(event: Any, config: ModelConfig) -> LiveEvent:
    if not isinstance(event, LiveEvent):
        raise InputError(f"{shown(event)} ({type(event).__name__}): a LiveEvent, or None")
    named = checked_text("stream", event.stream)
    if not named:
        raise InputError("stream='': a stream has a name")
    time = whole("time", event.time)
    if time is None:
        raise InputError("time=None: whole ns since 1970")
    check_time(time, time)
    if config.kind == "tokens":
        if event.values is not None:
            raise InputError("values: the model reads tokens; give token")
        return LiveEvent(named, time, token=checked_token(whole("token", event.token), config))
    if event.token is not None:
        raise InputError(f"token={shown(event.token)}: the model reads channels; give values")
    return LiveEvent(named, time, _values(event.values, config.inputs))


def _values(given: Any, names: tuple[str, ...]) -> NDArray[np.float32]:
    """A copy, since who gives events may use an array again."""
    wanted = f"{len(names)} number(s), of {', '.join(names)}; NaN is missing"
    try:
        masked = isinstance(given, np.ma.MaskedArray) and given.dtype.kind in "iuf"
        found = np.ma.filled(given.astype(np.float64), np.nan) if masked else np.asarray(given)
    except (TypeError, ValueError):
        raise InputError(f"values={shown(given)}: {wanted}") from None
    if found.dtype.kind not in "iuf":
        raise InputError(f"values={shown(given)} ({found.dtype}): {wanted}")
    if found.shape != (len(names),):
        raise InputError(f"values={shown(given)} of shape {list(found.shape)}: {wanted}")
    with np.errstate(over="ignore"):
        values = found.astype(np.float32)
    if len(infinite := np.flatnonzero(np.isinf(values))):
        name, value = names[infinite[0]], found[infinite[0]]
        raise InputError(f"values: {name}={value} is not finite as float32; NaN is missing")
    return values


def checked_token(token: Any, config: ModelConfig) -> int:
    """A token of the model's vocabulary; raises InputError for all else."""
    if type(token) is not int or not 0 <= token < config.vocabulary:
        raise InputError(f"token={shown(token)}: a whole number from 0 to {config.vocabulary - 1}")
    return token


def checked_text(field: str, name: Any) -> str:
    """A text as UTF-8 can hold it; raises InputError for all else."""
    if not isinstance(name, str):
        raise InputError(f"{field}={shown(name)}: a text")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InputError(f"{field}={name!r}: a text that UTF-8 can hold") from None
    return name


def check_time(time: int, given: Any) -> None:
    """Raise InputError for a time that 64 bits do not hold; `given` as it was written."""
    if abs(time) > MOST_NS:
        raise InputError(f"time={shown(given)}: {RANGE}")


def shown(value: Any) -> str:
    """A value for a message, cut where it is long."""
    text = repr(value) if not isinstance(value, np.ndarray) else repr(value.tolist())
    return text if len(text) <= 80 else f"{text[:77]}..."
