"""Live input is run as its replay would be, skips sleep first under overload, loses no event."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from run_cases import (
    ORIGIN,
    SECOND,
    SWITCH,
    WINDOW,
    contents,
    series_model,
    token_model,
)

from adaptive_sleep.config import ModelConfig
from adaptive_sleep.experiments.live import LiveSummary, run_live
from adaptive_sleep.experiments.live_event import LiveEvent
from adaptive_sleep.experiments.ndjson import ndjson_events
from adaptive_sleep.experiments.replay import replay
from adaptive_sleep.experiments.runs import open_run
from adaptive_sleep.experiments.sources import _lines, open_source
from adaptive_sleep.experiments.telling import iso
from adaptive_sleep.model import Model
from adaptive_sleep.runtime import Runtime
from adaptive_sleep.streams.errors import InputError, OverloadWarning
from adaptive_sleep.streams.host import HOST_CHANNELS
from adaptive_sleep.streams.recording import Recording


@pytest.fixture(scope="module")
def model() -> Model:
    return series_model()


def some_events(count: int, streams: int = 2, gap_after: int | None = None) -> list[LiveEvent]:
    rng = np.random.default_rng(0)
    owners = rng.integers(streams, size=count)
    return [
        LiveEvent(
            f"s{owners[i]}",
            ORIGIN
            + i * SECOND
            + (3600 * SECOND if gap_after is not None and i >= gap_after else 0),
            rng.normal(size=3).astype(np.float32),
        )
        for i in range(count)
    ]


class Polite:
    """Hands out an event only when all before it have been run; `burst` of them at once."""

    def __init__(self, events: list[LiveEvent], burst: int = 1) -> None:
        self.events, self.burst = events, burst
        self.done = 0
        self.told = threading.Condition()

    def progress(self, events: int, windows: int) -> None:
        with self.told:
            self.done = events
            self.told.notify()

    def __iter__(self) -> Iterator[LiveEvent]:
        for sent, event in enumerate(self.events):
            if sent >= self.burst:
                with self.told:
                    assert self.told.wait_for(lambda sent=sent: self.done >= sent, timeout=30)
            yield event


def live(events: Iterable[LiveEvent], *args: Any, **given: Any) -> LiveSummary:
    if isinstance(events, Polite):
        given["on_progress"] = events.progress
    return run_live(events, *args, **given)


@pytest.mark.parametrize(
    "settings_",
    [{}, {"gap_seconds": 60.0}, {"gap_seconds": 60.0, "kv_budget": 10, "eviction": "sliding"}],
    ids=["plain", "gap", "kv"],
)
def test_live_is_what_a_replay_of_it_is(
    model: Model, tmp_path: Path, settings_: dict[str, Any]
) -> None:
    events = some_events(120, gap_after=50)
    said: list[dict[str, Any]] = []
    summary = live(
        Polite(events), model, "fixed(2)", out=tmp_path / "run", record=tmp_path / "recording",
        emit=said.append, **settings_,
    )  # fmt: skip
    recording = Recording.open(tmp_path / "recording")
    assert recording.rows == summary.run.events == len(events)
    assert summary.overloads == summary.windows_unslept == 0
    assert summary.largest_backlog == 1
    run = open_run(tmp_path / "run")
    assert run.manifest.finished
    assert run.manifest.recording.sha256 == recording.sha256
    trace = run.trace().collect()
    assert summary.run.windows == len(trace)
    assert ("pressure" in set(trace["cause"])) == ("kv_budget" in settings_)
    assert len(said) == len(trace)
    assert [f["window"] for f in said if f["stream"] == "s0"] == sorted(
        trace.filter(pl.col("stream") == "s0")["window"]
    )
    replay(recording, model, "fixed(2)", tmp_path / "replayed", **settings_)
    again = open_run(tmp_path / "replayed").trace().collect()
    exact = ["stream", "window", "cause", "tokens", "scored", "passes", "sleep_flops", "last_time"]
    ours, theirs = (frame.sort("stream", "window") for frame in (trace, again))
    assert ours.select(exact).equals(theirs.select(exact))
    for name in ("loss", "state_change", "uncertainty"):
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4, atol=1e-6)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that takes its time."""
    real = Runtime.step

    def step(self: Runtime, *args: Any, **given: Any) -> Any:
        time.sleep(0.02)
        return real(self, *args, **given)

    monkeypatch.setattr(Runtime, "step", step)


def test_overload_skips_sleep_first_says_so_and_loses_nothing(
    model: Model, tmp_path: Path, slow: None
) -> None:
    burst, calm = 12 * WINDOW, 4 * WINDOW
    source = Polite(some_events(burst + calm, streams=1), burst=burst)
    with pytest.warns(OverloadWarning, match="sleep is skipped"):
        summary = live(
            source, model, "fixed(3)", out=tmp_path / "run", record=tmp_path / "recording"
        )
    assert summary.overloads == 1
    assert summary.largest_backlog > WINDOW
    assert summary.run.events == burst + calm
    recorded = Recording.open(tmp_path / "recording").scan().collect()
    assert recorded["time"].to_physical().to_list() == [e.time for e in source.events]
    trace = open_run(tmp_path / "run").trace().collect()
    assert trace["tokens"].sum() == burst + calm
    assert (trace["planned"] == 3).all()
    skipped = trace["clipped_by"] == "overload"
    assert (trace["passes"] == np.where(skipped, 1, 3)).all()
    assert summary.windows_unslept == skipped.sum() >= 8
    assert not skipped[-4:].any()  # caught up, and sleeping again
    said = json.loads(summary.to_json())
    assert said["overloads"] == 1
    assert {"wake_p50", "wake_p99", "longest_stall"} <= said.keys()
    assert said["longest_stall"] > 0
    assert said["wake_p99"] >= said["wake_p50"] > 0


@pytest.mark.filterwarnings("ignore::adaptive_sleep.streams.errors.OverloadWarning")
def test_it_ends_well_on_ctrl_c(model: Model, tmp_path: Path) -> None:
    events = some_events(21)
    before = signal.getsignal(signal.SIGINT)

    def source() -> Iterator[LiveEvent]:
        yield from events
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)

    summary = run_live(source(), model, "fixed(1)", record=tmp_path / "recording")
    assert summary.run.events == Recording.open(tmp_path / "recording").rows == 21
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.filterwarnings("ignore::adaptive_sleep.streams.errors.OverloadWarning")
def test_a_failure_keeps_what_had_arrived(model: Model, tmp_path: Path) -> None:
    events = some_events(100)
    SWITCH["raise"] = RuntimeError("no")
    try:
        with pytest.raises(RuntimeError, match="no"):
            run_live(
                Polite(events, burst=100), model, "run_cases:Fragile(at=3)", out=tmp_path / "run",
                record=tmp_path / "recording",
            )  # fmt: skip
    finally:
        SWITCH["raise"] = None
    recorded = Recording.open(tmp_path / "recording").scan().collect()
    times = recorded["time"].to_physical().to_list()
    assert len(times) >= 2 * WINDOW
    assert times == [e.time for e in events[: len(times)]]
    assert open_run(tmp_path / "run").summary is None


LINE = {"stream": "a", "time": "2026-01-31T12:00:00Z", "values": {"load": 1.5, "heat": None}}


def lines(count: int) -> list[bytes]:
    return [msgspec.json.encode({**LINE, "time": ORIGIN + i}) for i in range(count)]


def test_a_bad_line_is_named_and_what_came_before_is_kept(model: Model, tmp_path: Path) -> None:
    given_ = [*lines(3), b"", b'{"stream": "a"}', *lines(5)]
    with pytest.raises(InputError, match=r"stdin, line 5: .*time"):
        run_live(
            ndjson_events(given_, model.config, place="stdin"), model, "fixed(1)",
            out=tmp_path / "run", record=tmp_path / "recording",
        )  # fmt: skip
    assert Recording.open(tmp_path / "recording").rows == 3
    summary = open_run(tmp_path / "run").summary
    assert summary is not None
    assert summary.events == 3


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"values": {"lod": 1.0}}, "did you mean 'load'"),
        ({"values": None}, "values: missing"),
        ({"values": {"load": "high"}}, "values"),
        ({"values": {"load": 1e39}}, "float32"),
        ({"time": "yesterday"}, "ISO 8601"),
        ({"time": 2**63}, "time"),
        ({"time": 1.5}, "time"),
        ({"time": "2500-01-01T00:00:00Z"}, "time='2500-01-01T00:00:00Z': beyond 64 bits"),
        ({"time": "1677-09-21T00:12:43.145224192Z"}, "beyond 64 bits"),
        ({"time": "9999-12-31T23:59:59-05:00"}, "beyond 64 bits"),
        ({"time": "2026-01-31T12:00:00.1234567890Z"}, "at most 9 digits"),
        ({"token": 3}, "token: the model reads channels"),
        ({"category": "a"}, "category: the model reads channels"),
        ({"vlaues": {}}, "vlaues"),
    ],
    ids=str,
)
def test_bad_fields_are_named(model: Model, changes: dict[str, Any], named: str) -> None:
    line = msgspec.json.encode({**LINE, **changes})
    with pytest.raises(InputError, match="input, line 1: ") as caught:
        list(ndjson_events([line], model.config))
    assert named in str(caught.value)


def test_lines_are_read_as_they_mean(model: Model) -> None:
    texts = [
        '{"stream": "a", "time": "2026-01-31T12:00:00Z", "values": {"fan": 2, "load": 1.5}}',
        '{"time": "2026-01-31T13:00:00.25+01:00", "values": {}}',
        '{"time": "2026-01-31 12:00:00.5", "values": {"heat": null}}',
        '{"time": 7, "values": {"heat": -1e-3}}',
        '{"time": "2026-01-31T11:00:00.123456789-01:00", "values": {}}',
        '{"time": "20260131T120000,1234567", "values": {}}',
    ]
    found = list(ndjson_events(texts, model.config))
    noon = 1_769_860_800 * SECOND
    assert [e.time for e in found] == [
        noon,
        noon + SECOND // 4,
        noon + SECOND // 2,
        7,
        noon + 123_456_789,
        noon + 123_456_700,
    ]
    assert [e.stream for e in found] == ["a", *["input"] * 5]
    missing = np.nan
    wanted = [[1.5, missing, 2], [missing] * 3, [missing] * 3, [missing, -1e-3, missing]]
    wanted += [[missing] * 3] * 2
    rows = np.stack([e.values for e in found if e.values is not None])
    np.testing.assert_array_equal(rows, np.float32(wanted))


def test_tokens(tmp_path: Path) -> None:
    model = token_model()
    texts = [f'{{"stream": "t", "time": {i}, "token": {i % 11}}}' for i in range(20)]
    said: list[dict[str, Any]] = []
    source = Polite(list(ndjson_events(texts, model.config)))
    summary = live(
        source, model, "fixed(2)", emit=said.append, every=True, horizon=3,
        record=tmp_path / "recording",
    )  # fmt: skip
    assert [f["boundary"] for f in said].count(True) == summary.run.windows == 3
    assert len(said) == 21  # one after each event, and one when the last window is closed
    assert all(len(f["tokens"]) == len(f["logprob"]) == 3 for f in said)
    assert Recording.open(tmp_path / "recording").scan().collect()["token"].to_list() == [
        i % 11 for i in range(20)
    ]
    for wrong in ('{"time": 1, "token": 11}', '{"time": 1}', '{"time": 1, "values": {}}'):
        with pytest.raises(InputError, match=r"line 1: (token|values)"):
            list(ndjson_events([wrong], model.config))


def test_an_event_log_is_read_recorded_and_forecast_by_name(tmp_path: Path) -> None:
    model = token_model()
    model.categories = ("open", "read", "close")  # its vocabulary has more
    texts = [f'{{"time": {i}, "category": "{model.categories[i % 3]}"}}' for i in range(20)]
    source = Polite(list(ndjson_events(texts, model.config, categories=model.categories)))
    said: list[dict[str, Any]] = []
    live(source, model, "fixed(1)", emit=said.append, horizon=2, record=tmp_path / "recording")
    recording = Recording.open(tmp_path / "recording")
    assert recording.manifest.categories == model.categories
    assert recording.streams == ("input",)
    assert recording.scan().collect()["token"].to_list() == [i % 3 for i in range(20)]
    for forecast in said:
        names = [dict(enumerate(model.categories)).get(token) for token in forecast["tokens"]]
        assert forecast["categories"] == names
    replay(tmp_path / "recording", model, "fixed(1)", tmp_path / "run")
    for wrong, told in (
        ('{"time": 1, "category": "raed"}', "did you mean 'read'"),
        ('{"time": 1, "category": "read", "token": 1}', "give one of the two"),
    ):
        with pytest.raises(InputError, match=told):
            list(ndjson_events([wrong], model.config, categories=model.categories))
    with pytest.raises(InputError, match="it knows none, give token"):
        list(ndjson_events(['{"time": 1, "category": "read"}'], model.config))


def test_forecasts_are_json_with_names(model: Model) -> None:
    said: list[dict[str, Any]] = []
    live(Polite(some_events(30, streams=1)), model, "fixed(1)", emit=said.append, horizon=5)
    assert len(said) == 4
    first = json.loads(msgspec.json.encode(said[0]))
    assert first["stream"] == "s0"
    assert first["window"] == 0
    assert first["boundary"] is True
    assert first["time"] == iso(ORIGIN + 7 * SECOND)
    assert set(first["mean"]) == set(first["quantiles"]) == {"load", "heat"}
    assert len(first["mean"]["load"]) == 5
    assert set(first["quantiles"]["heat"]) == {"0.1", "0.5", "0.9"}


def test_refused_input_writes_nothing(model: Model, tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    cases: list[tuple[dict[str, Any], str]] = [
        ({"out": tmp_path / "old"}, "exists already"),
        ({"record": tmp_path / "old"}, "exists already"),
        ({"horizon": 0}, "horizon"),
        ({"source": "hots"}, "host"),
        ({"source": "host"}, "cpu_user|load"),
        ({"policy": "fixd(1)"}, "fixed"),
        ({"window": 0}, "window"),
    ]
    for changes, named in cases:
        given_ = {"source": some_events(3), "model": model, "policy": "fixed(1)"}
        given_ |= {"out": tmp_path / "run", "record": tmp_path / "recording"} | changes
        with pytest.raises(InputError, match=named):
            run_live(**given_)  # type: ignore[arg-type]
        assert contents(tmp_path) == {"old": "folder"}


def test_this_machine(tmp_path: Path) -> None:
    model = series_model(channels=tuple(c.name for c in HOST_CHANNELS), actions=())
    summary = run_live(
        "host", model, "fixed(1)", record=tmp_path / "recording", seconds=0.6, hz=20.0
    )
    recording = Recording.open(tmp_path / "recording")
    assert 3 <= recording.rows == summary.run.events <= 12
    assert recording.inputs[0].unit == "fraction"
    told = recording.scan().select("cpu_user", "memory_used").collect()
    assert told.null_count().row(0) == (0, 0)


def test_a_pipe_is_read_line_by_line_and_left_when_told() -> None:
    reading, writing = os.pipe()
    stop = threading.Event()
    found = _lines(reading, stop)
    os.write(writing, b"one\ntw")
    assert next(found) == b"one"
    os.write(writing, b"o\n\nthree")
    assert next(found) == b"two"
    assert next(found) == b""
    timer = threading.Timer(0.2, stop.set)
    timer.start()
    assert set(found) == {None}  # a quiet pipe does not hold it, and half a line is no line
    os.close(reading)
    os.close(writing)
    timer.join()


def test_the_last_line_needs_no_newline(tmp_path: Path) -> None:
    file = tmp_path / "lines"
    file.write_bytes(b"one\ntwo")
    with file.open("rb") as handle:
        assert list(_lines(handle.fileno(), threading.Event())) == [b"one", b"two"]


def test_a_source_must_fit_the_model() -> None:
    stop = threading.Event()
    with pytest.raises(InputError, match="tokens"):
        open_source("host", token_model().config, stop)
    with pytest.raises(InputError, match="hz"):
        open_source("host", series_model().config, stop, hz=0.0)


@settings(max_examples=50)
@given(st.integers(1 - 2**63, 2**63 - 1))
def test_times_survive_their_text(nanos: int) -> None:
    config = ModelConfig(kind="series", channels=("x",))
    text = f'{{"time": "{iso(nanos)}", "values": {{}}}}'
    assert next(ndjson_events([text], config)).time == nanos
