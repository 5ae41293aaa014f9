"""Files of the Numenta Anomaly Benchmark: rows as they stand, labelled windows as a label."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.nab import record_nab
from adaptive_sleep.streams.recording import Recording

CSV = """timestamp,value
2014-03-07 03:00:00,1
2014-03-07 03:05:00,2.5
2014-03-07 03:05:00,
2014-03-07 03:02:00,4
2014-03-07 03:20:00,4
"""
WINDOWS = {
    "folder/a.csv": [
        ["2014-03-07 03:05:00.000000", "2014-03-07 03:10:00.000000"],
        ["2014-03-07 03:20:00.000000", "2014-03-07 03:21:00.000000"],
    ],
    "b.csv": [],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text(CSV)
    (tmp_path / "windows.json").write_text(json.dumps(WINDOWS))
    return tmp_path


def recorded(folder: Path, *names: str) -> Recording:
    files = [folder / name for name in names]
    return Recording.open(record_nab(files, folder / "r", windows=folder / "windows.json"))


def test_rows_are_kept_as_they_stand(folder: Path) -> None:
    """Repeated times, one that steps back, a missing value, a constant run."""
    recording = recorded(folder, "a.csv")
    assert recording.streams == ("a",)
    assert recording.manifest.backwards == 1
    frame = recording.scan().collect()
    assert frame["value"].to_list() == [1, 2.5, None, 4, 4]
    assert frame["time"].dt.minute().to_list() == [0, 5, 5, 2, 20]


def test_labels_are_of_the_windows_and_come_when_these_have_ended(folder: Path) -> None:
    recording = recorded(folder, "a.csv", "b.csv")
    [label] = recording.labels
    assert (label.name, label.categories) == ("anomaly", ("usual", "anomalous"))
    assert label.delay_ns == 5 * 60 * 10**9
    frame = recording.scan().collect()
    assert frame["anomaly"].to_list() == [0, 1, 1, 0, 1] + [0] * 5
    assert [channel.name for channel in recording.inputs] == ["value"]


def test_files_without_a_row_are_refused(folder: Path) -> None:
    for name in ("a.csv", "b.csv"):
        (folder / name).write_text("timestamp,value\n")
    with pytest.raises(InputError, match=r"b\.csv: no rows, so there is nothing to record"):
        recorded(folder, "a.csv", "b.csv")
    assert not (folder / "r").exists()
    (folder / "b.csv").write_text(CSV)
    assert recorded(folder, "a.csv", "b.csv").rows == 5


@pytest.mark.parametrize(
    ("windows", "told"),
    [
        ({"aa.csv": []}, r"a\.csv is not named, did you mean 'aa\.csv'"),
        ({"x/a.csv": [], "y/a.csv": []}, r"a\.csv is named more than once"),
        ({"a.csv": [["2014-03-07 03:05:00", "noon"]]}, "column 'last': 'noon' is no time"),
        ({"a.csv": [["2014-03-07 03:05:00", "2014-03-07 03:04:00"]]}, "ends before it begins"),
        ({"a.csv": [["2014-03-07 03:05:00"]]}, "cannot be read as labelled windows"),
    ],
)
def test_windows_that_do_not_fit_are_refused(folder: Path, windows: dict, told: str) -> None:
    (folder / "windows.json").write_text(json.dumps(windows))
    with pytest.raises(InputError, match=told):
        recorded(folder, "a.csv")
    assert not (folder / "r").exists()


def test_windows_that_are_no_utf8_are_refused(folder: Path) -> None:
    (folder / "windows.json").write_bytes(b'{"\xff": []}')
    with pytest.raises(InputError, match="cannot be read as labelled windows"):
        recorded(folder, "a.csv")


def test_one_file_needs_no_list(folder: Path) -> None:
    path = record_nab(folder / "a.csv", folder / "r", windows=folder / "windows.json")
    assert Recording.open(path).streams == ("a",)


def test_two_files_of_one_name_are_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="two have one name"):
        recorded(folder, "a.csv", "a.csv")


def test_the_benchmark_itself(tmp_path: Path, real: Callable[[str], Path]) -> None:
    """The quirks that its files have: times that do not rise, and two streams that share theirs."""
    source = real("nab")
    files = sorted(source.glob("*.csv"))
    out = record_nab(files, tmp_path / "r", windows=source / "windows.json")
    recording = Recording.open(out)
    rows = dict(zip(recording.streams, recording.manifest.stream_rows, strict=True))
    assert rows["ec2_request_latency_system_failure"] == 4032
    assert rows["machine_temperature_system_failure"] == 22695
    frame = recording.scan().collect()
    steps = {
        name: np.diff(frame.filter(stream=name)["time"].to_physical().to_numpy()) for name in rows
    }
    assert int((steps["ec2_request_latency_system_failure"] <= 0).sum()) == 11
    assert int((steps["machine_temperature_system_failure"] <= 0).sum()) == 1
    backwards = sum(int((step < 0).sum()) for step in steps.values())
    assert recording.manifest.backwards == backwards > 0
    assert 0.05 < frame["anomaly"].mean() < 0.15
