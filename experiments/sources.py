"""Where live events come from: this machine's telemetry, or lines on stdin (see ndjson.py).

Each source is an iterator of LiveEvents that ends when told to, and gives None now and then while
nothing comes; what becomes of them is in live.py.
"""

from __future__ import annotations

import math
import os
import select
import sys
import threading
import time
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from adaptive_sleep.config import ModelConfig
from adaptive_sleep.experiments.live_event import LiveEvent
from adaptive_sleep.experiments.ndjson import ndjson_events
from adaptive_sleep.packing import column_order
from adaptive_sleep.settings import real
from adaptive_sleep.streams.errors import InputError, nearest
from adaptive_sleep.streams.events import Channel
from adaptive_sleep.streams.host import HOST_CHANNELS, HostSampler

SOURCES = ("host", "-")
LOOK_SECONDS = 0.1  # how often a quiet source gives None, and looks whether to stop


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
        lines = _lines(_stdin(), stop)
        return ndjson_events(lines, config, place="stdin", categories=categories)
    raise InputError(
        f"source={name!r}: 'host' (this machine) or '-' (NDJSON on stdin){nearest(name, SOURCES)}"
    )


def _stdin() -> int:
    try:
        return sys.stdin.fileno()
    except (AttributeError, ValueError):  # None where it was closed before Python began
        raise InputError("source='-': stdin is closed; give it lines of NDJSON") from None


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
    if real("hz", hz) is None or not 0.0 < hz <= 100.0:
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
