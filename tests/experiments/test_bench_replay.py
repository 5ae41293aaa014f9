"""The replay benchmark reports a speed only where the trace is right, and in keys that stay."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from adaptive_sleep.experiments import bench_replay
from adaptive_sleep.experiments.bench_replay import (
    STEP_NS,
    check_gate,
    river_rate,
    run_bench,
    source_values,
    write_streams,
)
from adaptive_sleep.experiments.cli import main
from adaptive_sleep.experiments.jobs import apart
from adaptive_sleep.experiments.runs import open_recording
from adaptive_sleep.streams.errors import AdaptiveSleepError, InputError
from adaptive_sleep.streams.recording import Recording


def test_the_report_has_its_keys(capsys: pytest.CaptureFixture[str]) -> None:
    """A part window at the end of every stream included."""
    asked = ["bench", "replay", "--streams", "3", "--events", "130", "--rounds", "2", "--json"]
    assert main(asked) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["gate"], found["streams"], found["events"]) == ("passed", 3, 390)
    assert found["channels"] == 16
    assert found["mean_passes"] >= 1
    assert found["events_per_second"] > 0
    assert found["peak_rss_bytes"] > 50e6  # torch alone takes more
    assert (found["ratio"] is None) == (found["river_events_per_second"] is None)


def test_each_stream_is_a_part_of_the_bundled_recording(tmp_path: Path) -> None:
    source = open_recording("bundled:telemetry")
    values = source_values(source)
    write_streams(tmp_path / "r", source, [0, 1, 2], 3, 700)
    written = Recording.open(tmp_path / "r")
    assert written.rows == 2100
    events = written.scan().collect()
    names = [channel.name for channel in source.inputs]
    for i, first in enumerate(np.linspace(0, len(values) - 700, 3).astype(int)):
        mine = events.filter(pl.col("stream").cast(pl.String) == f"stream-{i}")
        np.testing.assert_array_equal(mine.select(names), values[first : first + 700])


def traces() -> tuple[pl.DataFrame, pl.DataFrame]:
    """Of 2 streams of 2 windows, 10 events each; and of the second alone."""
    many = pl.DataFrame(
        {
            "stream": ["stream-0", "stream-1"] * 2,
            "window": [0, 0, 1, 1],
            "passes": [1, 2, 1, 3],
            "loss": [0.5, 0.25, 0.5, 0.125],
            "tokens": [5] * 4,
            "last_time": [4 * STEP_NS] * 2 + [9 * STEP_NS] * 2,
        }
    )
    return many, many.filter(pl.col("stream") == "stream-1")


def test_a_right_trace_passes() -> None:
    check_gate(*traces(), 2, 10)


def test_a_wrong_trace_has_no_speed() -> None:
    many, alone = traces()
    first = pl.col("stream") == "stream-0"
    for wrong, said in (
        (many.filter(~first), "1 streams of 2"),
        (many.filter(~first | (pl.col("window") == 0)), r"of \[1, 2\] windows"),
        (many.with_columns(pl.col("last_time") - STEP_NS), "the 10 events of every stream"),
        (many.with_columns(pl.col("tokens") - 1), "the 10 events of every stream"),
        (many.with_columns(pl.col("passes") + 1), "other passes"),
        (many.with_columns(pl.col("loss") * 1.001), "losses of stream-1 .* are 1"),
        (many.with_columns(pl.when(pl.col("window") == 0).then("loss").alias("loss")), "are nan"),
    ):
        with pytest.raises(AdaptiveSleepError, match=said):
            check_gate(wrong, alone, 2, 10)


def test_bad_sizes_are_refused() -> None:
    with pytest.raises(InputError, match=r"events=99999: 60 \(a window\) to 19188"):
        run_bench(events=99_999)
    with pytest.raises(InputError, match="streams=0"):
        run_bench(streams=0)


def test_without_river_there_is_no_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_replay.importlib.util, "find_spec", lambda _: None)
    assert river_rate(np.zeros((10, 2))) is None


def test_memory_is_the_process_s_own() -> None:
    """What a parent once held does not count."""
    held = np.ones(100_000_000, np.uint8)
    assert bench_replay.peak_bytes() > held.nbytes
    before = bench_replay.peak_bytes()
    del held
    assert apart(bench_replay.peak_bytes) < before
