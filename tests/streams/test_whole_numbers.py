"""A whole number that float32 rounds is said once for each channel, one that it holds never."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from adaptive_sleep.streams.events import Channel
from adaptive_sleep.streams.tables import record_frame, record_table
from adaptive_sleep.streams.writer import RecordingWriter

CHANNELS = (Channel("a"), Channel("b"))


def said(path: Path, *appends: Any) -> list[str]:
    with (
        warnings.catch_warnings(record=True) as caught,
        RecordingWriter(path, kind="series", channels=CHANNELS) as writer,
    ):
        warnings.simplefilter("always")
        for values in appends:
            writer.append("s", np.arange(len(values)), values=values)
    return [str(entry.message) for entry in caught]


@pytest.mark.parametrize(
    ("number", "kept"),
    [
        (2**24 + 1, 2**24),
        (float(2**24 + 1), 2**24),
        (-(2**24) - 3, -(2**24) - 4),
        (2**53 + 1, 2**53),
        (2**63 - 1, 2**63),
        (np.uint64(2**64 - 1), 2**64),
        (1_700_000_000_123, 1_700_000_038_912),
    ],
)
def test_what_is_rounded_is_said_once(tmp_path: Path, number: Any, kept: int) -> None:
    rows = np.array([[0, 0], [number, 1], [number, 2]], dtype=np.asarray(number).dtype)
    [told] = said(tmp_path / "r", rows[:1], rows, rows)
    assert told.startswith(f"channel 'a': {int(number)} is recorded as {kept}: float32 holds")
    assert told.endswith("subtract an offset from the channel, or record differences")


def test_integers_of_python_are_compared_exactly(tmp_path: Path) -> None:
    rows = np.array([[2**60 + 1, 2**60], [0.5, None]], object)
    rows[1, 1] = np.nan
    [told] = said(tmp_path / "r", rows)
    assert told.startswith(f"channel 'a': {2**60 + 1} is recorded as {2**60}: float32 holds")


def test_each_channel_is_said(tmp_path: Path) -> None:
    told = said(tmp_path / "r", [[2**25 + 1, 0]], [[2**25 + 3, 2**26 + 1]])
    assert [re.findall("channel '(.)': ([0-9]+) ", text) for text in told] == [
        [("a", str(2**25 + 1))],
        [("b", str(2**26 + 1))],
    ]


@pytest.mark.parametrize(
    "values",
    [
        [[2**24, -(2**24)], [2**24 + 2, 2**62]],
        [[16_777_217.5, 1e9 + 0.5], [np.nan, -123_456_789.25]],  # measured, not counted
        [[1.7e30, -3e25]],
        np.float32([[1e20, 123_456_789.0]]),
        [[2.0**63, 2.0**100]],
    ],
)
def test_what_is_exact_or_measured_is_not_said(tmp_path: Path, values: Any) -> None:
    assert not said(tmp_path / "r", values)


def test_what_was_not_recorded_is_said_again(tmp_path: Path) -> None:
    """Where a warning is an error, nothing is added, and the next append warns too."""
    with RecordingWriter(tmp_path / "r", kind="series", channels=CHANNELS) as writer:
        for _ in range(2):
            with pytest.raises(UserWarning, match="channel 'b'"):
                writer.append("s", 1, values=[0, 2**24 + 1])
        assert writer._pending_rows == 0


def test_tables_say_it_too(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("t,x\n1,16777216\n2,16777217\n3,16777219\n")
    with pytest.warns(UserWarning, match="'x': 16777217 is recorded as 16777216") as caught:
        record_table(tmp_path / "t.csv", tmp_path / "r", time="t", time_unit="s")
    assert len(caught) == 1
    frame = pl.DataFrame({"t": [1], "x": [2**53 - 1]})
    with pytest.warns(UserWarning, match=f"'x': {2**53 - 1} is recorded as {2**53}"):
        record_frame(frame, tmp_path / "s", time="t", time_unit="s")
