"""Where live events come from: this machine's telemetry, or NDJSON lines.

Each source is an iterator of LiveEvents that ends when told to, and gives None now and then while
nothing comes; what becomes of them is in live.py.
"""

from __future__ import annotations

import math
import os
import re
import select
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
from numpy.typing import NDArray

from adaptive_sleep.config import ModelConfig
from adaptive_sleep.packing import column_order
from adaptive_sleep.streams.errors import InputError, nearest
from adaptive_sleep.streams.events import Channel
from adaptive_sleep.streams.host import HOST_CHANNELS, HostSampler
from adaptive_sleep.streams.rows import MOST_NS

SOURCES = ("host", "-")
LOOK_SECONDS = 0.1  # how often a quiet source gives None, and looks whether to stop
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FRACTION = re.compile(r".{11}[^.,+-]*[.,]([0-9]+)")  # of the second: after a date, before a zone


@dataclass(frozen=True, eq=False)
class LiveEvent:
    """One event of one stream: `time` ns UTC; `values` `[C]` in the model's order, or `token`."""

    stream: str
    time: int
    values: NDArray[np.float32] | None = None
    token: int | None = None


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    """One line of NDJSON."""

    time: str | int
    stream: str = ""
    values: dict[str, float | None] | None = None
    token: int | None = None
    category: str | None = None


def open_source(
    name: str,
    config: ModelConfig,
    stop: threading.Event,
    hz: float = 4.0,
    categories: Sequence[str] = (),
) -> Iterator[LiveEvent | None]:
    """The events of "host" (this machine, `hz` samples per second) or "-" (NDJSON on stdin).

    `categories`: what the tokens stand for of a model that was trained on an event log. Ends soon
    after `stop` is set. Raises InputError for another name, or a model that does not fit.
    """
    if name == "host":
        return host_events(config, stop, hz)
    if name == "-":
        lines = _lines(sys.stdin.fileno(), stop)
        return ndjson_events(lines, config, place="stdin", categories=categories)
    raise InputError(
        f"source={name!r}: 'host' (this machine) or '-' (NDJSON on stdin){nearest(name, SOURCES)}"
    )


def event_channels(config: ModelConfig) -> tuple[Channel, ...]:
    """The channels that LiveEvents for this model have, as a recording of them names them."""
    units = {channel.name: channel.unit for channel in HOST_CHANNELS}
    return (
        *(Channel(name, "observed", units.get(name, "")) for name in config.channels),
        *(Channel(name, "action") for name in config.actions),
    )


def host_events(
    config: ModelConfig, stop: threading.Event, hz: float
) -> Iterator[LiveEvent | None]:
    """This machine's telemetry at a steady clock; a sample that comes late is not made up."""
    if not 0.0 < hz <= 100.0:
        raise InputError(f"hz={hz}: above 0 and up to 100 samples per second")
    if config.kind != "series":
        raise InputError("source='host': telemetry is a series, but the model reads tokens")
    order = column_order(config, [channel.name for channel in HOST_CHANNELS])
    return _samples(slice(None) if order is None else order, stop, hz)


def _samples(
    order: NDArray[np.int64] | slice, stop: threading.Event, hz: float
) -> Iterator[LiveEvent | None]:
    sampler = HostSampler()
    sampler.sample()  # rates need a sample before
    start, tick = time.monotonic(), 1
    while not stop.wait(min(max(0.0, start + tick / hz - time.monotonic()), LOOK_SECONDS)):
        if time.monotonic() < start + tick / hz:
            yield None
            continue
        at, values = sampler.sample()
        yield LiveEvent("host", at, np.ascontiguousarray(values[order]))
        tick = max(tick + 1, math.ceil((time.monotonic() - start) * hz))


def ndjson_events(
    lines: Iterable[bytes | str | None],
    config: ModelConfig,
    *,
    place: str = "input",
    categories: Sequence[str] = (),
) -> Iterator[LiveEvent | None]:
    """Events from lines such as `{"stream": "a", "time": "2026-01-01T00:00:00Z", "values": {...}}`.

    `stream` is `place` where it is left out; `time` is ISO 8601 (no zone means UTC) or ns since
    1970; `values` by channel, absent or null = missing; a token model has `"token": 7` instead, or
    `"category": "login"`, one of the `categories` that its tokens stand for. Empty lines are
    skipped, and None (no line for now) is given on.
    Raises InputError naming `place`, line and field.
    """
    decoder = msgspec.json.Decoder(_Line)
    order = {name: i for i, name in enumerate(config.inputs)}
    tokens = {name: i for i, name in enumerate(categories)}
    number = 0
    for text in lines:
        if text is None:
            yield None
            continue
        number += 1
        if not text.strip():
            continue
        try:
            line = decoder.decode(text)
            token = _token(line, config, tokens)
            yield LiveEvent(line.stream or place, _time(line.time), _values(line, order), token)
        except InputError as error:
            raise InputError(f"{place}, line {number}: {error}") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{place}, line {number}: {error}") from None


def _time(given: str | int) -> int:
    found = given if isinstance(given, int) else _written(given)
    if abs(found) > MOST_NS:
        raise InputError(f"time={given!r}: beyond 64 bits of nanoseconds, the years 1678 to 2261")
    return found


def _written(text: str) -> int:
    """ISO 8601 as ns since 1970; datetime reads microseconds and would drop the digits after."""
    fraction = _FRACTION.match(text)
    digits = fraction[1] if fraction else ""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(
            f"time={text!r}: ISO 8601 such as '2026-01-31T12:00:00Z', or whole ns since 1970"
        ) from None
    if len(digits) > 9:
        raise InputError(f"time={text!r}: at most 9 digits of a second, which are nanoseconds")
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000 + int(digits.ljust(9, "0")[6:])


def _values(line: _Line, order: dict[str, int]) -> NDArray[np.float32] | None:
    if not order:
        if line.values is not None:
            raise InputError("values: the model reads tokens; give token")
        return None
    if line.values is None:
        raise InputError(f"values: missing; give a number for any of {', '.join(order)}")
    row = np.full(len(order), np.nan, np.float32)
    for name, value in line.values.items():
        if name not in order:
            raise InputError(f"values: no channel {name!r}{nearest(name, order)}")
        if value is None:
            continue
        if abs(value) > float(np.finfo(np.float32).max):
            raise InputError(f"values: {name}={value} is not finite as float32; null is missing")
        row[order[name]] = value
    return row


def _token(line: _Line, config: ModelConfig, tokens: Mapping[str, int]) -> int | None:
    if config.kind == "series":
        for name in ("token", "category"):
            if getattr(line, name) is not None:
                raise InputError(f"{name}: the model reads channels; give values")
        return None
    if line.category is not None:
        if line.token is not None:
            raise InputError("token, category: give one of the two")
        if line.category not in tokens:
            known = nearest(line.category, tokens) if tokens else "; it knows none, give token"
            raise InputError(f"category={line.category!r}: unknown to the model{known}")
        return tokens[line.category]
    if line.token is None or not 0 <= line.token < config.vocabulary:
        raise InputError(f"token={line.token}: a whole number from 0 to {config.vocabulary - 1}")
    return line.token


def _lines(descriptor: int, stop: threading.Event) -> Iterator[bytes | None]:
    """Lines of a pipe or file, and None now and then while it is quiet, so that it can be left.

    Python's own reader is avoided: a thread that waits inside it cannot be ended.
    """
    rest = b""
    while not stop.is_set():
        if not select.select([descriptor], [], [], LOOK_SECONDS)[0]:
            yield None
            continue
        data = os.read(descriptor, 65_536)
        if not data:
            break
        *whole, rest = (rest + data).split(b"\n")
        yield from whole
    if rest and not stop.is_set():
        yield rest
