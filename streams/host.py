"""This machine's telemetry through psutil: the same channels on any machine, in raw units.

Fractions lie in 0..1, rates are per second over the time since the sample before. What a platform
does not tell is missing. Nothing is scaled or smoothed here.
"""

from __future__ import annotations

import contextlib
import math
import os
import platform
import signal
import threading
import time as clock
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray

from .errors import InputError
from .events import Channel, checked_name
from .writer import RecordingWriter

HOST_CHANNELS: tuple[Channel, ...] = (
    Channel("cpu_user", unit="fraction"),
    Channel("cpu_system", unit="fraction"),
    Channel("cpu_iowait", unit="fraction"),
    Channel("cpu_max_core", unit="fraction"),
    Channel("load1_per_core", unit="processes"),
    Channel("memory_used", unit="fraction"),
    Channel("memory_cached", unit="fraction"),
    Channel("memory_dirty", unit="fraction"),
    Channel("disk_read", unit="bytes/s"),
    Channel("disk_write", unit="bytes/s"),
    Channel("net_sent", unit="bytes/s"),
    Channel("net_received", unit="bytes/s"),
    Channel("context_switches", unit="1/s"),
    Channel("interrupts", unit="1/s"),
    Channel("processes", unit="count"),
    Channel("forks", unit="1/s"),
)
_RATES = (
    "disk_read", "disk_write", "net_sent", "net_received", "context_switches", "interrupts",
    "forks",
)  # fmt: skip
_FLUSH_SECONDS = 15.0
_LOOK_SECONDS = 1.0  # how often a long wait is left to see whether a flush is due
_DIGITS = 4


class HostSampler:
    """Reads the machine; rates need two samples, so the first one has them missing."""

    def __init__(self) -> None:
        self._cores: list[dict[str, float]] | None = None
        self._counters: dict[str, float] = {}
        self._at = 0.0

    def sample(self) -> tuple[int, NDArray[np.float32]]:
        """Return the time (ns UTC) and `[C]` values in the order of HOST_CHANNELS, NaN = missing.

        Values carry 4 significant digits and times whole milliseconds: the counters behind them
        tick in hundredths of a second, and more digits would only be noise that fills the disk.
        """
        time_ns, now = clock.time_ns() // 1_000_000 * 1_000_000, clock.monotonic()
        found = self._cpu() | _memory()
        counters = _counters()
        elapsed = now - self._at
        for name in _RATES:
            before, after = self._counters.get(name, math.nan), counters.get(name, math.nan)
            # A counter that went back was reset; a rate from it would be wrong, so it is missing.
            if self._at and elapsed > 0 and after >= before:
                found[name] = (after - before) / elapsed
        self._counters, self._at = counters, now
        values = [found.get(channel.name, math.nan) for channel in HOST_CHANNELS]
        rounded = [float(f"{value:.{_DIGITS}g}") for value in values]
        return time_ns, np.array(rounded, dtype=np.float32)

    def _cpu(self) -> dict[str, float]:
        cores = [dict(core._asdict()) for core in psutil.cpu_times(percpu=True)]
        before, self._cores = self._cores, cores
        found = {"processes": float(len(psutil.pids()))}
        with contextlib.suppress(OSError, AttributeError):
            found["load1_per_core"] = psutil.getloadavg()[0] / max(len(cores), 1)
        if before is None or len(before) != len(cores):
            return found
        deltas = [_delta(old, new) for old, new in zip(before, cores, strict=True)]
        total = sum(map(_total, deltas))
        if total <= 0:
            return found
        for name, fields in (
            ("cpu_user", ("user", "nice")),
            ("cpu_system", ("system", "irq", "softirq")),
            ("cpu_iowait", ("iowait",)),
        ):
            if fields[0] in cores[0]:
                spent = sum(delta.get(key, 0.0) for delta in deltas for key in fields)
                found[name] = min(spent / total, 1.0)
        found["cpu_max_core"] = max(
            1.0 - (delta.get("idle", 0.0) + delta.get("iowait", 0.0)) / _total(delta)
            for delta in deltas
            if _total(delta) > 0
        )
        return found


def _delta(old: dict[str, float], new: dict[str, float]) -> dict[str, float]:
    return {key: max(new[key] - old.get(key, 0.0), 0.0) for key in new}


def _total(delta: dict[str, float]) -> float:
    # Linux counts guest time within user and nice time.
    return sum(value for key, value in delta.items() if not key.startswith("guest"))


def _memory() -> dict[str, float]:
    memory = psutil.virtual_memory()
    found = {"memory_used": (memory.total - memory.available) / memory.total}
    if hasattr(memory, "cached"):
        found["memory_cached"] = memory.cached / memory.total
    with contextlib.suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("Dirty:"):
                found["memory_dirty"] = int(line.split()[1]) * 1024 / memory.total
    return found


def _counters() -> dict[str, float]:
    """Counters that only grow; those that this platform does not tell are not in it."""
    found: dict[str, float] = {}
    disk = psutil.disk_io_counters()
    if disk is not None:
        found |= {"disk_read": disk.read_bytes, "disk_write": disk.write_bytes}
    net = psutil.net_io_counters()
    if net is not None:
        found |= {"net_sent": net.bytes_sent, "net_received": net.bytes_recv}
    try:
        for line in Path("/proc/stat").read_text().splitlines():
            key, _, rest = line.partition(" ")
            if key in ("intr", "ctxt", "processes"):
                name = {"intr": "interrupts", "ctxt": "context_switches", "processes": "forks"}[key]
                found[name] = float(rest.split(" ", 1)[0])
    except OSError:
        stats = psutil.cpu_stats()
        found |= {"context_switches": stats.ctx_switches, "interrupts": stats.interrupts}
    return found


def record_host(
    out: str | os.PathLike[str],
    *,
    seconds: float,
    hz: float = 4.0,
    stream: str = "host",
    label_files: Mapping[str, Path] | None = None,
    provenance: Mapping[str, str] | None = None,
    on_progress: Callable[[float, int], None] | None = None,
    stop: threading.Event | None = None,
) -> Path:
    """Record this machine for `seconds` at `hz` samples per second, and return the folder.

    `label_files` maps a label channel to a file whose first line names the category at each sample.
    `on_progress(seconds_so_far, rows)` is called after each sample. `stop`, and Ctrl-C, end it
    early with all that was sampled. Raises InputError for a bad rate, less time than a sample
    needs, a stream without a name, or an existing folder.
    """
    stream = checked_name(stream)
    if not (0 < hz <= 100) or not (seconds > 0 and math.isfinite(seconds)):
        raise InputError(f"seconds={seconds}, hz={hz}: seconds > 0, and hz above 0 and up to 100")
    if round(seconds * hz) < 1:
        raise InputError(
            f"seconds={seconds}, hz={hz}: no sample falls in; at least {1 / hz:g} seconds"
        )
    files = dict(label_files or {})
    labels = [Channel(name, role="label", unit="category") for name in files]
    waiter = stop or threading.Event()
    with (
        _interrupt_sets(waiter),
        RecordingWriter(
            out,
            kind="series",
            channels=(*HOST_CHANNELS, *labels),
            provenance=_provenance(hz) | dict(provenance or {}),
            flush_seconds=_FLUSH_SECONDS,
        ) as writer,
    ):
        _sample_into(writer, seconds, hz, stream, files, on_progress, waiter)
    return Path(out)


@contextlib.contextmanager
def _interrupt_sets(stop: threading.Event) -> Iterator[None]:
    """Ctrl-C ends the sampling between two samples, never in the midst of writing one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, lambda number, frame: stop.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _sample_into(
    writer: RecordingWriter,
    seconds: float,
    hz: float,
    stream: str,
    files: Mapping[str, Path],
    on_progress: Callable[[float, int], None] | None,
    stop: threading.Event,
) -> None:
    sampler = HostSampler()
    sampler.sample()
    known: dict[str, list[str]] = {name: [] for name in files}
    start = clock.monotonic()
    tick, rows = 1, 0
    while tick <= round(seconds * hz):
        if not _waited(start + tick / hz, writer, stop):
            return
        time_ns, values = sampler.sample()
        codes = [_code(path, known[name]) for name, path in files.items()]
        for name, categories in known.items():
            writer.name_categories(name, categories)
        writer.append(stream, time_ns, values=np.append(values, np.array(codes, np.float32)))
        rows += 1
        if on_progress is not None:
            on_progress(clock.monotonic() - start, rows)
        # Ticks that have passed meanwhile are not made up; the next one keeps the steady clock.
        tick = max(tick + 1, math.ceil((clock.monotonic() - start) * hz))


def _waited(until: float, writer: RecordingWriter, stop: threading.Event) -> bool:
    """Wait, and flush what is due meanwhile; False when told to stop."""
    while not stop.wait(min(max(until - clock.monotonic(), 0.0), _LOOK_SECONDS)):
        if clock.monotonic() >= until:
            return True
        writer.tick()
    return False


def _code(path: Path, categories: list[str]) -> float:
    try:
        name = path.read_text(encoding="utf-8").partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError):
        return math.nan
    if not name:
        return math.nan
    if name not in categories:
        categories.append(name)
    return float(categories.index(name))


def _provenance(hz: float) -> dict[str, str]:
    return {
        "source": "record host",
        "hz": f"{hz:g}",
        "system": f"{platform.system()} {platform.machine()}",
        "cores": str(psutil.cpu_count() or 0),
        "memory_bytes": str(psutil.virtual_memory().total),
        "precision": f"{_DIGITS} significant digits",
    }
