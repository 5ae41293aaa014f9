"""What cannot be a row is refused as it comes: no later flush fails for it, no time wraps round."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.events import Channel
from adaptive_sleep.streams.recording import Recording
from adaptive_sleep.streams.writer import RecordingWriter

X = (Channel("x"),)


class Shown(str):
    """Text of another type, whose str() is not its text."""

    def __str__(self) -> str:
        return "shown"


@pytest.mark.parametrize("name", [7, None, b"a", ["a"], "\udcff", ""], ids=ascii)
def test_what_is_no_name_is_refused_and_no_row_is_lost(tmp_path: Path, name: Any) -> None:
    with RecordingWriter(tmp_path / "r", kind="series", channels=X) as writer:
        writer.append("a", 1, values=[7])
        with pytest.raises(InputError, match=r"^stream.* name"):
            writer.append(name, 2, values=[8])
        with pytest.raises(InputError, match=r"^streams?.* name"):
            writer.append_rows(["a", name], [2, 3], values=[[8], [9]])
        writer.append("a", 2, values=[8])
    recording = Recording.open(tmp_path / "r")
    assert recording.streams == ("a",)
    assert recording.scan().collect()["x"].to_list() == [7, 8]


def test_text_of_another_type_is_a_name(tmp_path: Path) -> None:
    with RecordingWriter(tmp_path / "r", kind="series", channels=X) as writer:
        for name in np.array(["a", "b"]):
            writer.append(name, 1, values=[1])
        writer.append(Shown("left"), 1, values=[1])
        writer.append("left", 2, values=[1])
        writer.append_rows(np.array(["a", "c"]), [2, 2], values=[[1], [1]])
        writer.append_rows(pl.Series(["a"], dtype=pl.Categorical), [3], values=[[1]])
    recording = Recording.open(tmp_path / "r")
    assert recording.streams == ("a", "b", "left", "c")
    assert recording.manifest.stream_rows == (3, 1, 2, 1)


@pytest.mark.parametrize(
    "given", [10**19, 2**63, np.array([1, 2**63], np.uint64), 10**20, -(10**20)]
)
def test_a_time_that_int64_cannot_hold_is_refused(tmp_path: Path, given: Any) -> None:
    count = np.size(given)
    with RecordingWriter(tmp_path / "r", kind="series", channels=X) as writer:
        with pytest.raises(InputError, match=r"time_ns.*int64"):
            writer.append("a", given, values=np.zeros((count, 1)))
        writer.append("a", np.uint64(2**63 - 1), values=[1])
        writer.append("a", np.array([5], np.uint64), values=[1])
    assert Recording.open(tmp_path / "r").manifest.time_range == (5, 2**63 - 1)


@pytest.mark.parametrize(
    "given",
    [
        [["abc"]],
        np.array([["1.5"]], object),
        [[1.0], [2.0, 3.0]],
        {"x": 1},
        [[10**400]],
        np.array([[1 + 2j]]),
        np.array([["2024-01-01"]], "datetime64[ns]"),
        np.array([[1]], "timedelta64[s]"),
        [[object()]],
        np.ma.array([[1j]], mask=[[True]]),
    ],
    ids=[
        "text",
        "number as text",
        "ragged",
        "dict",
        "huge",
        "complex",
        "dates",
        "spans",
        "objects",
        "masked",
    ],
)
def test_values_that_are_no_real_numbers_are_refused(tmp_path: Path, given: Any) -> None:
    with RecordingWriter(tmp_path / "r", kind="series", channels=X) as writer:
        writer.append("a", 1, values=[7])
        with pytest.raises(InputError, match=r"^values: .*give \[1, 1\] real numbers"):
            writer.append("a", 2, values=given)
    assert Recording.open(tmp_path / "r").scan().collect()["x"].to_list() == [7]


@pytest.mark.parametrize("given", [[[1], [2, 3]], np.ma.array([1, 2], mask=[False, True])])
def test_times_and_tokens_that_are_no_array_are_refused(tmp_path: Path, given: Any) -> None:
    with RecordingWriter(
        tmp_path / "r", kind="tokens", tokenizer="bytes", vocabulary=256
    ) as writer:
        with pytest.raises(InputError, match=r"^time_ns: .*int64 nanoseconds"):
            writer.append("a", given, tokens=[1, 2])
        with pytest.raises(InputError, match=r"^tokens: .*integers"):
            writer.append("a", [1, 2], tokens=given)
    assert Recording.open(tmp_path / "r").rows == 0


def test_what_is_masked_or_none_is_missing(tmp_path: Path) -> None:
    masked = np.ma.array([[1, 2], [3, 4]], mask=[[False, True], [False, False]])
    with RecordingWriter(tmp_path / "r", kind="series", channels=(*X, Channel("y"))) as writer:
        writer.append("a", np.ma.array([1, 2]), values=masked)
        writer.append("a", [3, 4], values=list(masked))
        writer.append("a", 5, values=[[None, True]])
    frame = Recording.open(tmp_path / "r").scan().collect()
    assert frame["x"].to_list() == [1, 3, 1, 3, None]
    assert frame["y"].to_list() == [None, 4, None, 4, 1]
