"""No look-ahead over any source: rows of a file after one change no prediction made up to it, from
file over recording and windows to the predictions that a replay writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptive_sleep.config import ModelConfig, decode
from adaptive_sleep.experiments.replay import replay
from adaptive_sleep.model import Model
from adaptive_sleep.streams.arrays import record_arrays
from adaptive_sleep.streams.eventlog import record_eventlog, record_loghub
from adaptive_sleep.streams.nab import record_nab
from adaptive_sleep.streams.recording import Recording
from adaptive_sleep.streams.tables import record_frame, record_table
from adaptive_sleep.training_data import fill_config

ROWS = 60
SHAPE = {"width": 8, "heads": 2, "fast_heads": 1, "key_dim": 4, "value_dim": 4, "window": 7}
FIRST = datetime(2015, 1, 1)
# folder, labels, values -> recording
Make = Callable[[Path, np.random.Generator, np.ndarray], Path]


def times() -> list[datetime]:
    """Gaps, repeats, and one that goes back."""
    steps = np.random.default_rng(7).choice([0, 60, 300, 4000], size=ROWS, p=[0.1, 0.4, 0.4, 0.1])
    steps[20] = -120
    return [FIRST + timedelta(seconds=int(each)) for each in steps.cumsum()]


def table(values: np.ndarray) -> pl.DataFrame:
    """Two channels, one of them with holes and constant for a while."""
    other = np.where(np.arange(ROWS) < 15, 1.0, values[:, 1])
    holes = np.where(np.arange(ROWS) % 5 == 0, np.nan, other)
    named = [f"{each:%Y-%m-%d %H:%M:%S}" for each in times()]
    return pl.DataFrame({"time": named, "a": values[:, 0], "b": holes})


def csv(folder: Path, labels: np.random.Generator, values: np.ndarray) -> Path:
    table(values).write_csv(folder / "t.csv")
    return record_table([folder / "t.csv"], folder / "R", time="time")


def frame(folder: Path, labels: np.random.Generator, values: np.ndarray) -> Path:
    given = table(values).with_columns(l=pl.Series(labels.choice(["x", "y"], size=ROWS)))
    return record_frame(given, folder / "R", time="time", labels=["l"], actions=["b"])


def nab(folder: Path, labels: np.random.Generator, values: np.ndarray) -> Path:
    stamps = table(values)["time"]
    pl.DataFrame({"timestamp": stamps, "value": values[:, 0]}).write_csv(folder / "n.csv")
    first = int(labels.integers(0, ROWS - 5))
    spans = [[f"{stamps[row]}.000000" for row in (first, first + 4)]]
    spans = [sorted(span) for span in spans]
    (folder / "windows.json").write_text(json.dumps({"n.csv": spans}))
    return record_nab([folder / "n.csv"], folder / "R", windows=folder / "windows.json")


def arrays(folder: Path, labels: np.random.Generator, values: np.ndarray) -> Path:
    flags = labels.integers(0, 2, size=ROWS - 20).astype(np.uint8)
    np.savez(folder / "a.npz", train=values[:20], test=values[20:], test_label=flags)
    return record_arrays(folder / "a.npz", folder / "R", step_seconds=300.0)


def log(values: np.ndarray, labels: np.random.Generator) -> pl.DataFrame:
    """Five event types, all of which come first."""
    kinds = [f"E{row if row < 5 else int(abs(values[row, 0]) * 10) % 5}" for row in range(ROWS)]
    seconds = [int(each.timestamp()) for each in times()]
    alert = labels.choice(["-", "FATAL"], size=ROWS)
    return pl.DataFrame({"Label": alert, "Timestamp": seconds, "EventId": kinds})


def loghub(folder: Path, labels: np.random.Generator, values: np.ndarray) -> Path:
    log(values, labels).write_csv(folder / "l.csv")
    return record_loghub(folder / "l.csv", folder / "R")


def eventlog(folder: Path, labels: np.random.Generator, values: np.ndarray) -> Path:
    log(values, labels).write_csv(folder / "l.csv")
    return record_eventlog(
        folder / "l.csv", folder / "R", column="EventId", time="Timestamp", time_unit="s"
    )


def predicted(make: Make, folder: Path, seed: int, values: np.ndarray) -> pl.DataFrame:
    """What a replay of the source writes, in arrival order."""
    folder.mkdir()
    recording = Recording.open(make(folder, np.random.default_rng(seed), values))
    assert recording.rows == ROWS
    torch.manual_seed(0)
    model = Model(decode(ModelConfig, fill_config(dict(SHAPE), recording), where="test")).eval()
    policy = "state_change(tolerance=0.3, max_passes=3)"
    replay(recording, model, policy, folder / "run", predictions=folder / "p.parquet")
    return pl.read_parquet(folder / "p.parquet")


@pytest.mark.filterwarnings("ignore::UserWarning")  # a time that goes back is said
@pytest.mark.timeout(400)
@pytest.mark.parametrize("make", [csv, frame, nab, arrays, loghub, eventlog])
@given(last=st.integers(6, ROWS - 1), seed=st.integers(0, 100))
@settings(max_examples=3)
def test_later_rows_of_a_file_change_no_prediction(
    make: Make, tmp_path_factory: pytest.TempPathFactory, last: int, seed: int
) -> None:
    """Rows 0 .. last - 1 stay; all later values, and all labels, are drawn again."""
    folder = tmp_path_factory.mktemp("source")
    before, other = (
        np.random.default_rng(s).normal(size=(ROWS, 2)).astype(np.float32) for s in (seed, seed + 1)
    )
    after = np.concatenate([before[:last], 3.0 * other[last:]])
    one, two = (
        predicted(make, folder / str(i), seed + i, values)
        for i, values in enumerate((before, after))
    )
    assert len(one) == len(two) == ROWS - 1
    # line i is of event i + 1: what came, and what was predicted of it from events 0 .. i
    assert one[: last - 1].equals(two[: last - 1], null_equal=True)
    ahead = [name for name in one.columns if name.endswith("entropy") or "_" in name]
    assert ahead
    assert one.select(ahead)[:last].equals(two.select(ahead)[:last], null_equal=True)
    assert not one.equals(two)
