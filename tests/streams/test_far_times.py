"""Times that int64 nanoseconds cannot hold are refused, not wrapped round; odd folder names."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.recording import Recording
from adaptive_sleep.streams.tablefiles import TimeUnit
from adaptive_sleep.streams.tables import record_table


@pytest.mark.parametrize("text", ["3000-01-01", "9999-12-31 23:59:59", "1600-01-01T00:00:00Z"])
def test_a_written_time_that_does_not_fit_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f"when,a\n2024-01-01,1\n{text},2\n")
    with pytest.raises(InputError, match=r"line 3, column 'when'.*is no time"):
        record_table([tmp_path / "t.csv"], tmp_path / "r", time="when")
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("values", "unit"),
    [
        ([0, 99_999_999_999_999], "s"),
        ([0.0, 1e30], "s"),
        ([0.0, float("nan")], "ms"),
        ([0.0, 1e13], "s"),
        ([datetime(2024, 1, 1), datetime(3000, 1, 1)], None),
    ],
)
def test_a_counted_time_that_does_not_fit_is_refused(
    values: list[object], unit: TimeUnit | None, tmp_path: Path
) -> None:
    pl.DataFrame({"when": values, "a": [1.0, 2.0]}).write_parquet(tmp_path / "t.parquet")
    with pytest.raises(InputError, match=r"row 2, column 'when'.*is no time"):
        record_table([tmp_path / "t.parquet"], tmp_path / "r", time="when", time_unit=unit)
    assert not (tmp_path / "r").exists()


def test_times_near_the_ends_are_kept_to_the_nanosecond(tmp_path: Path) -> None:
    written = ["2261-12-31 23:59:59.123456789", "1678-01-01 00:00:00.000000001"]
    (tmp_path / "t.csv").write_text("when,a\n" + "".join(f"{text},1\n" for text in written))
    record_table([tmp_path / "t.csv"], tmp_path / "r", time="when")
    found = Recording.open(tmp_path / "r").scan().collect()["time"].dt.to_string("%F %T%.9f")
    assert found.to_list() == written


def test_a_folder_may_have_brackets_in_its_name(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("when,a\n2024-01-01,1\n2024-01-02,2\n")
    record_table([tmp_path / "t.csv"], tmp_path / "r[1]*", time="when")
    recording = Recording.open(tmp_path / "r[1]*")
    assert recording.scan().collect()["a"].to_list() == [1, 2]
    assert [len(block) for block in recording.blocks()] == [2]
