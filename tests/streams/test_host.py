"""The machine's telemetry is sane, keeps a steady clock, and says what it does not know."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from adaptive_sleep.streams import host
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.host import HOST_CHANNELS, HostSampler, record_host
from adaptive_sleep.streams.recording import Recording

NAMES = [channel.name for channel in HOST_CHANNELS]


def test_there_are_at_least_12_channels_all_observed() -> None:
    assert len(set(NAMES)) == len(NAMES) >= 12
    assert {channel.role for channel in HOST_CHANNELS} == {"observed"}


def test_rates_are_missing_at_first_and_fractions_stay_in_range() -> None:
    sampler = HostSampler()
    _, first = sampler.sample()
    assert np.isnan(first[NAMES.index("disk_write")])
    assert np.isnan(first[NAMES.index("cpu_user")])
    time.sleep(0.1)
    time_ns, second = sampler.sample()
    assert abs(time_ns - time.time_ns()) < 5e9
    assert second.shape == (len(NAMES),)
    for channel, value in zip(HOST_CHANNELS, second, strict=True):
        assert np.isnan(value) or value >= 0, channel.name
        if channel.unit == "fraction":
            assert np.isnan(value) or value <= 1, channel.name
    assert second[NAMES.index("processes")] >= 1


def test_a_busy_core_shows() -> None:
    sampler = HostSampler()
    sampler.sample()
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        sum(range(1000))
    _, values = sampler.sample()
    assert values[NAMES.index("cpu_max_core")] > 0.3


def test_a_long_wait_lets_the_recording_be_flushed(monkeypatch) -> None:
    class Counting:
        ticks = 0

        def tick(self) -> None:
            self.ticks += 1

    monkeypatch.setattr(host, "_LOOK_SECONDS", 0.01)
    writer, stop = Counting(), threading.Event()
    until = time.monotonic() + 0.1
    assert host._waited(until, writer, stop)
    assert time.monotonic() >= until
    assert writer.ticks > 0
    stop.set()
    assert not host._waited(until, writer, stop)


def test_a_counter_that_went_back_is_missing(monkeypatch) -> None:
    counters = iter([{"forks": 100.0, "net_sent": 5.0}, {"forks": 3.0, "net_sent": 9.0}])
    monkeypatch.setattr(host, "_counters", lambda: next(counters))
    sampler = HostSampler()
    sampler.sample()
    time.sleep(0.01)
    _, values = sampler.sample()
    assert np.isnan(values[NAMES.index("forks")])
    assert values[NAMES.index("net_sent")] > 0


def test_what_the_platform_lacks_is_missing_not_wrong(monkeypatch) -> None:
    monkeypatch.setattr(psutil, "disk_io_counters", lambda: None)
    monkeypatch.setattr(psutil, "net_io_counters", lambda: None)

    def unreadable(self: Path, *args: object, **options: object) -> str:
        raise FileNotFoundError(self)

    sampler = HostSampler()
    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_text", unreadable)
        sampler.sample()
        time.sleep(0.05)
        _, values = sampler.sample()
    for name in ("disk_read", "disk_write", "net_sent", "net_received", "forks", "memory_dirty"):
        assert np.isnan(values[NAMES.index(name)]), name
    assert not np.isnan(values[NAMES.index("context_switches")])


def test_samples_keep_a_steady_clock(tmp_path: Path) -> None:
    recording = Recording.open(record_host(tmp_path / "r", seconds=2, hz=10))
    frame = recording.scan().collect()
    assert 15 <= recording.rows <= 20
    assert recording.streams == ("host",)
    span = (frame["time"][-1] - frame["time"][0]).total_seconds()
    assert span == pytest.approx(1.9, abs=0.15)
    assert recording.inputs == HOST_CHANNELS
    assert recording.manifest.provenance["hz"] == "10"


def test_late_samples_are_not_made_up(tmp_path: Path) -> None:
    def slow(seconds: float, rows: int) -> None:
        time.sleep(0.15)  # each sample takes 3 ticks of the clock

    recording = Recording.open(record_host(tmp_path / "r", seconds=1, hz=20, on_progress=slow))
    assert recording.rows <= 8


def test_label_files_become_label_channels(tmp_path: Path) -> None:
    phase = tmp_path / "phase"

    def progress(seconds: float, rows: int) -> None:
        if rows == 2:
            phase.write_text("idle\nmore\n")
        if rows == 4:
            phase.write_text("busy")
        if rows == 6:
            phase.write_text("idle")

    made = record_host(
        tmp_path / "r",
        seconds=0.8,
        hz=10,
        label_files={"phase": phase},
        on_progress=progress,
        provenance={"note": "x"},
    )
    recording = Recording.open(made)
    [label] = recording.labels
    assert (label.name, label.categories) == ("phase", ("idle", "busy"))
    codes = recording.scan().collect()["phase"].to_list()
    assert codes[:2] == [None, None]
    assert [code for i, code in enumerate(codes[2:]) if i == 0 or code != codes[1 + i]] == [0, 1, 0]
    assert recording.manifest.provenance["note"] == "x"


def test_it_can_be_stopped_from_another_thread(tmp_path: Path) -> None:
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    recording = Recording.open(record_host(tmp_path / "r", seconds=60, hz=10, stop=stop))
    assert 1 <= recording.rows <= 10
    assert recording.manifest.closed


@pytest.mark.skipif(os.name != "posix", reason="sends a POSIX signal")
def test_an_interrupt_closes_the_recording(tmp_path: Path) -> None:
    code = (
        "import sys; from adaptive_sleep.streams.host import record_host\n"
        "say = lambda seconds, rows: print(rows, flush=True)\n"
        "record_host(sys.argv[1], seconds=60, hz=20, on_progress=say)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "r")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while process.stdout.readline().strip() != "3":
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.stdout.read()
    assert process.wait() == 0
    process.stdout.close()
    recording = Recording.open(tmp_path / "r")  # a warning, if it was not closed, is an error here
    assert recording.rows >= 3


@pytest.mark.parametrize(
    ("seconds", "hz"), [(0, 4), (1, 0), (1, 1000), (float("inf"), 4), (0.1, 4)]
)
def test_rates_that_make_no_sense_are_refused(tmp_path: Path, seconds: float, hz: float) -> None:
    with pytest.raises(InputError, match="seconds="):
        record_host(tmp_path / "r", seconds=seconds, hz=hz)
    assert not (tmp_path / "r").exists()


def test_a_stream_without_a_name_is_refused_and_nothing_is_made(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="stream '': a stream has a name"):
        record_host(tmp_path / "r", seconds=60, stream="")
    assert not (tmp_path / "r").exists()
