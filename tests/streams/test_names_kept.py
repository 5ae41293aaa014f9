"""Names of streams, labels and categories are what stands in the table, blanks around them too."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.eventlog import record_eventlog
from adaptive_sleep.streams.recording import Recording
from adaptive_sleep.streams.tables import record_frame, record_table

STREAMS = ("pump", "pump ", "\tpump")
FRAME = pl.DataFrame(
    {"t": [1, 2, 3, 4], "x": [0, 1, 2, 3], "s": [*STREAMS, "pump"], "l": ["a", " a", " NA ", "a"]}
)


def written(name: str, folder: Path) -> Path:
    file = folder / name
    FRAME.write_csv(file) if name.endswith(".csv") else FRAME.write_parquet(file)
    return file


@pytest.mark.parametrize("name", ["t.csv", "t.parquet", ""])
def test_streams_and_labels_that_differ_in_blanks_are_two(name: str, tmp_path: Path) -> None:
    out, columns = tmp_path / "r", {"time": "t", "stream": "s", "labels": "l", "time_unit": "s"}
    if name:
        record_table(written(name, tmp_path), out, **columns)  # type: ignore[arg-type]
    else:
        record_frame(FRAME, out, **columns)  # type: ignore[arg-type]
    recording = Recording.open(out)
    assert recording.streams == STREAMS
    assert recording.labels[0].categories == ("a", " a")
    assert recording.scan().collect()["l"].to_list() == [0, 1, None, 0]


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_categories_that_differ_in_blanks_are_two(name: str, tmp_path: Path) -> None:
    file = written(name, tmp_path)
    out = record_eventlog(
        file, tmp_path / "r", column="s", time="t", time_unit="s", label="l", stream=None
    )
    recording = Recording.open(out)
    assert recording.manifest.categories == STREAMS
    assert recording.scan().collect()["token"].to_list() == [0, 1, 2, 0]
    assert recording.labels[0].categories == ("a", " a")
    with pytest.raises(InputError, match="' NA ' is missing"):
        record_eventlog(file, tmp_path / "s", column="l", time="t", time_unit="s")
