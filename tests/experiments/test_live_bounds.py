"""A live run holds a bounded number of events, loses none by it, and refuses what cannot be."""

from __future__ import annotations

import threading
import time
from asyncio import CancelledError
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_cases import series_model

from adaptive_sleep.experiments import inbox
from adaptive_sleep.experiments.live import run_live
from adaptive_sleep.experiments.live_event import LiveEvent
from adaptive_sleep.experiments.ndjson import ndjson_events
from adaptive_sleep.experiments.replay import replay
from adaptive_sleep.experiments.runs import open_run
from adaptive_sleep.experiments.sources import host_events
from adaptive_sleep.runtime import Runtime
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.events import Channel, Events, Piece
from adaptive_sleep.streams.host import HOST_CHANNELS
from adaptive_sleep.streams.manifest import read_manifest
from adaptive_sleep.streams.recording import Recording
from adaptive_sleep.streams.writer import RecordingWriter


def test_a_full_inbox_waits_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox, "MOST", 10)
    taken = 0

    def source() -> Iterator[LiveEvent]:
        nonlocal taken
        for taken in range(1, 101):
            yield LiveEvent("a", taken, token=taken)

    box = inbox.Inbox(source(), None, threading.Event())
    time.sleep(0.3)
    assert taken <= 11  # one may be in hand
    seen: list[int] = []
    while box.wait():
        events = box.look({}, 7, 1000)["a"]
        seen += [event.time for event in events]
        box.drop([Piece("a", Events(np.zeros(len(events), np.int64)))])
    assert seen == list(range(1, 101))
    assert box.largest <= 10


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"seconds": -1.0}, "seconds=-1"),
        ({"seconds": float("nan")}, "seconds=nan"),
        ({"seconds": float("inf")}, "seconds=inf: more than 0 and at most 9223372036"),
        ({"seconds": 1e10}, "seconds=10000000000.0: more than 0 and at most"),
        ({"seconds": "5"}, "seconds='5'"),
        ({"horizon": 2.5}, "horizon=2.5"),
        ({"source": "host", "hz": "4"}, "hz='4'"),
        ({"out": "x", "record": "./x"}, "also the folder to record into"),
    ],
)
def test_what_cannot_be_run_is_refused(
    given: dict[str, Any], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=words):
        run_live(**{"source": [], "model": series_model(), "policy": "fixed(1)", **given})
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore::adaptive_sleep.streams.errors.OverloadWarning")
@pytest.mark.parametrize("kv_budget", [None, 6])
def test_no_step_in_time_runs_an_event_twice(kv_budget: int | None, tmp_path: Path) -> None:
    """Steps of more than 292 years do not fit into 64 bits of nanoseconds."""
    ends = (-9 * 10**18, 9 * 10**18)
    events = [LiveEvent("a", ends[i % 2], np.zeros(3, np.float32)) for i in range(45)]
    given: dict[str, Any] = {"gap_seconds": 1.0, "kv_budget": kv_budget, "eviction": "sliding"}
    live = run_live(
        events, series_model(), "fixed(1)", out=tmp_path / "run", record=tmp_path / "R", **given
    )
    assert live.run.events == 45
    replayed = replay(tmp_path / "R", series_model(), "fixed(1)", tmp_path / "replayed", **given)
    assert replayed.events == 45
    assert replayed.windows == live.run.windows


@pytest.mark.parametrize("good", [0, 3])
def test_bad_input_before_the_first_event_leaves_nothing(good: int, tmp_path: Path) -> None:
    def source() -> Iterator[LiveEvent]:
        for time_ns in range(good):
            yield LiveEvent("a", time_ns, values=(0.5, 0.5, 0.5, 0.5)[: len(model.config.inputs)])
        raise InputError("line 1: no JSON")

    model = series_model()
    with pytest.raises(InputError, match="no JSON"):
        run_live(source(), model, "fixed(1)", out=tmp_path / "run", record=tmp_path / "R")
    assert {path.name for path in tmp_path.iterdir()} == ({"run", "R"} if good else set())


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), CancelledError()], ids=repr)
def test_whatever_a_source_raises_is_raised_after_what_came_before(
    error: BaseException, tmp_path: Path
) -> None:
    def source() -> Iterator[LiveEvent]:
        for time_ns in range(6):  # less than a window, so that none is an overload
            yield LiveEvent("a", time_ns, values=(0.5,) * len(model.config.inputs))
        raise error

    model = series_model()
    folders = {"out": tmp_path / "run", "record": tmp_path / "R"}
    with pytest.raises(type(error)) as raised:
        run_live(source(), model, "fixed(1)", **folders)
    assert raised.value is error
    assert open_run(tmp_path / "run").positions[-1].events == 6
    assert Recording.open(tmp_path / "R").rows == 6


def test_a_first_step_that_fails_keeps_what_was_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(*given: Any, **named: Any) -> Any:
        raise RuntimeError("no step")

    monkeypatch.setattr(Runtime, "step", step)
    event = LiveEvent("a", 1, values=np.zeros(3, np.float32))
    with pytest.raises(RuntimeError, match="no step"):
        run_live([event], series_model(), "fixed(1)", out=tmp_path / "run", record=tmp_path / "R")
    assert [path.name for path in tmp_path.iterdir()] == ["R"]
    assert Recording.open(tmp_path / "R").rows == 1


def test_a_quiet_source_lets_the_recording_be_flushed(tmp_path: Path) -> None:
    stop = threading.Event()
    writer = RecordingWriter(
        tmp_path / "R", kind="series", channels=[Channel("x")], flush_seconds=0.2
    )

    def source() -> Iterator[LiveEvent | None]:
        yield LiveEvent("a", 1, values=np.zeros(1, np.float32))
        while not stop.wait(0.02):
            yield None

    box = inbox.Inbox(source(), writer, stop)
    deadline = time.monotonic() + 30
    while not read_manifest(tmp_path / "R").rows and time.monotonic() < deadline:
        time.sleep(0.02)
    assert read_manifest(tmp_path / "R").rows == 1
    box.close()
    assert Recording.open(tmp_path / "R").rows == 1


def test_sources_say_that_nothing_came() -> None:
    host = series_model(channels=tuple(c.name for c in HOST_CHANNELS), actions=())
    stop = threading.Event()
    events = host_events(host.config, stop, hz=0.01)
    assert next(events) is None
    stop.set()
    assert list(events) == []
    series = series_model().config
    lines = ndjson_events([None, '{"time": 1, "values": {}}', None, "{}"], series)
    assert next(lines) is None
    assert next(lines) is not None
    assert next(lines) is None
    with pytest.raises(InputError, match="line 2"):  # lines are counted, not looks
        next(lines)
