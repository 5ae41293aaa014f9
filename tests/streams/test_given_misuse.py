"""What a recorder cannot take is named with its value and what is allowed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.tables import record_frame
from adaptive_sleep.streams.writer import RecordingWriter


class DataFrame:
    """Another library's; it has a lazy form too."""

    def lazy(self) -> None:
        raise AttributeError("collect_schema")


@pytest.mark.parametrize("frame", [{"t": [1]}, DataFrame(), None], ids=["dict", "other", "none"])
def test_what_is_no_frame_of_polars_is_named(tmp_path: Path, frame: Any) -> None:
    told = rf"^frame: .*\.{type(frame).__name__}: a polars DataFrame or LazyFrame; .*from_pandas"
    with pytest.raises(InputError, match=told):
        record_frame(frame, tmp_path / "r", time="t")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("below", ["x", "x/y"])
@pytest.mark.parametrize("append", [False, True])
def test_a_recording_below_a_file_is_refused(tmp_path: Path, below: str, append: bool) -> None:
    (tmp_path / "file").write_text("kept")
    path = tmp_path / "file" / below
    with pytest.raises(InputError, match=rf"{below}: cannot be made there: Not a directory"):
        RecordingWriter(path, kind="tokens", tokenizer="ids", vocabulary=3, append=append)
    assert (tmp_path / "file").read_text() == "kept"


def test_a_path_that_is_none_is_named() -> None:
    path: Any = 3
    with pytest.raises(InputError, match=r"^path=3 \(int\): a path"):
        RecordingWriter(path, kind="tokens", tokenizer="ids", vocabulary=3)


def test_a_token_beyond_int64_is_named_as_it_was_given(tmp_path: Path) -> None:
    with RecordingWriter(tmp_path / "r", kind="tokens", tokenizer="ids", vocabulary=3) as writer:
        with pytest.raises(InputError, match=f"^tokens: {2**64 - 1} at row 1; allowed are 0..2"):
            writer.append("a", [1, 2], tokens=np.array([1, 2**64 - 1], np.uint64))
        writer.append("a", [1], tokens=np.array([2], np.uint64))
