"""A column that holds no times, or that a unit or a format cannot change, is refused by name."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.recording import Recording
from adaptive_sleep.streams.tables import record_frame, record_table


@pytest.mark.parametrize(
    "text", ["9" * 29, "-" + "9" * 29, "9" * 29 + ".5", "9" * 38, "9" * 60, "9223372036"]
)
def test_a_number_that_is_too_large_is_named_with_its_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.csv").write_text(f"t,x\n1,1\n{text},2\n")
    with pytest.raises(InputError, match=rf"t\.csv, line 3, column 't': '{text}' is no time"):
        record_table(tmp_path / "t.csv", tmp_path / "r", time="t", time_unit="s")


@pytest.mark.parametrize("unit", [None, "s"])
@pytest.mark.parametrize(
    ("column", "held"),
    [
        ([[1], [2]], "List"),
        ([True, False], "Boolean"),
        ([b"1", b"2"], "Binary"),
        ([timedelta(1), timedelta(2)], "Duration"),
        ([{"a": 1}, {"a": 2}], "Struct"),
    ],
)
def test_what_holds_no_times_is_refused(
    tmp_path: Path, column: list[Any], held: str, unit: Any
) -> None:
    pl.DataFrame({"t": column, "x": [1.0, 2.0]}).write_parquet(tmp_path / "t.parquet")
    with pytest.raises(InputError, match=rf"t\.parquet: the time column 't' holds {held}.*; times"):
        record_table(tmp_path / "t.parquet", tmp_path / "r", time="t", time_unit=unit)


@pytest.mark.parametrize("kind", [pl.Categorical(), pl.Enum(["3", "1970-01-01"])], ids=str)
def test_categories_are_text(tmp_path: Path, kind: Any) -> None:
    for text, unit, wanted in (("3", "ms", 3_000_000), ("1970-01-01", None, 0)):
        frame = pl.DataFrame({"t": pl.Series([text]).cast(kind), "x": [1.0]})
        out = record_frame(frame, tmp_path / text, time="t", time_unit=unit)
        assert Recording.open(out).manifest.time_range == (wanted, wanted)


def test_a_column_without_any_time_is_missing_them(tmp_path: Path) -> None:
    frame = pl.DataFrame({"t": [None], "x": [1.0]})
    with pytest.raises(InputError, match="row 1, column 't': None is no time"):
        record_frame(frame, tmp_path / "r", time="t")


@pytest.mark.parametrize("given", [{"time_unit": "ms"}, {"time_format": "%Y"}])
@pytest.mark.parametrize("at", [datetime(2024, 1, 1), date(2024, 1, 1)], ids=["datetime", "date"])
def test_times_take_neither_unit_nor_format(tmp_path: Path, at: Any, given: dict[str, Any]) -> None:
    frame = pl.DataFrame({"t": [at], "x": [1.0]})
    [told] = [f"{name}={value!r}" for name, value in given.items()]
    with pytest.raises(InputError, match=f"'t' holds Date.*times already, which {told} .*leave it"):
        record_frame(frame, tmp_path / "r", time="t", **given)
    assert Recording.open(record_frame(frame, tmp_path / "r", time="t")).rows == 1
