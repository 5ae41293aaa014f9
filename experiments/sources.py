"""Where live events come from: this machine's telemetry, or NDJSON lines.

Each source is an iterator of LiveEvents that ends when told to; what becomes of them is in live.py.
"""

from __future__ import annotations

import math
import os
import select
import sys
import threading
import time
from collections.abc import Iterable, Iterator
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

SOURCES = ("host", "-")
LOOK_SECONDS = 0.1  # how often a quiet stdin is left to see whether to stop
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MOST_NS = np.iinfo(np.int64).max


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


def open_source(
    name: str, config: ModelConfig, stop: threading.Event, hz: float = 4.0
) -> Iterator[LiveEvent]:
    """The events of "host" (this machine, `hz` samples per second) or "-" (NDJSON on stdin).

    Ends soon after `stop` is set. Raises InputError for another name, or a model that does not fit.
    """
    if name == "host":
        return host_events(config, stop, hz)
    if name == "-":
        return ndjson_events(_lines(sys.stdin.fileno(), stop), config, place="stdin")
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


def host_events(config: ModelConfig, stop: threading.Event, hz: float) -> Iterator[LiveEvent]:
    """This machine's telemetry at a steady clock; a sample that comes late is not made up."""
    if not 0.0 < hz <= 100.0:
        raise InputError(f"hz={hz}: above 0 and up to 100 samples per second")
    if config.kind != "series":
        raise InputError("source='host': telemetry is a series, but the model reads tokens")
    order = column_order(config, [channel.name for channel in HOST_CHANNELS])
    return _samples(slice(None) if order is None else order, stop, hz)


def _samples(
    order: NDArray[np.int64] | slice, stop: threading.Event, hz: float
) -> Iterator[LiveEvent]:
    sampler = HostSampler()
    sampler.sample()  # rates need a sample before
    start, tick = time.monotonic(), 1
    while not stop.wait(max(0.0, start + tick / hz - time.monotonic())):
        at, values = sampler.sample()
        yield LiveEvent("host", at, np.ascontiguousarray(values[order]))
        tick = max(tick + 1, math.ceil((time.monotonic() - start) * hz))


def ndjson_events(
    lines: Iterable[bytes | str], config: ModelConfig, *, place: str = "input"
) -> Iterator[LiveEvent]:
    """Events from lines such as `{"stream": "a", "time": "2026-01-01T00:00:00Z", "values": {...}}`.

    `time` is ISO 8601 (no zone means UTC) or ns since 1970; `values` by channel, absent or null =
    missing; a token model has `"token": 7` instead. Empty lines are skipped.
    Raises InputError naming `place`, line and field.
    """
    decoder = msgspec.json.Decoder(_Line)
    order = {name: i for i, name in enumerate(config.inputs)}
    for number, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        try:
            line = decoder.decode(text)
            yield LiveEvent(
                line.stream, _time(line.time), _values(line, order), _token(line, config)
            )
        except InputError as error:
            raise InputError(f"{place}, line {number}: {error}") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{place}, line {number}: {error}") from None


def _time(given: str | int) -> int:
    if isinstance(given, int):
        if abs(given) > _MOST_NS:
            raise InputError(f"time={given}: beyond 64 bits of nanoseconds")
        return given
    try:
        moment = datetime.fromisoformat(given)
    except ValueError:
        raise InputError(
            f"time={given!r}: ISO 8601 such as '2026-01-31T12:00:00Z', or whole ns since 1970"
        ) from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000


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


def _token(line: _Line, config: ModelConfig) -> int | None:
    if config.kind == "series":
        if line.token is not None:
            raise InputError("token: the model reads channels; give values")
        return None
    if line.token is None or not 0 <= line.token < config.vocabulary:
        raise InputError(f"token={line.token}: a whole number from 0 to {config.vocabulary - 1}")
    return line.token


def _lines(descriptor: int, stop: threading.Event) -> Iterator[bytes]:
    """Lines of a pipe or file, looking up now and then so that a quiet one can be left.

    Python's own reader is avoided: a thread that waits inside it cannot be ended.
    """
    rest = b""
    while not stop.is_set():
        if not select.select([descriptor], [], [], LOOK_SECONDS)[0]:
            continue
        data = os.read(descriptor, 65_536)
        if not data:
            break
        *whole, rest = (rest + data).split(b"\n")
        yield from whole
    if rest and not stop.is_set():
        yield rest
