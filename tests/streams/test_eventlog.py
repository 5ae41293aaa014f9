"""A categorical column becomes tokens, numbered in order of first appearance."""

from __future__ import annotations

from pathlib import Path

import pytest

from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.eventlog import record_eventlog
from adaptive_sleep.streams.recording import Recording

CSV = """t,case,activity,ok
1,c1,open,yes
2,c2,open,no
3,c1,send,
4,c1,close,no
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log.csv"
    path.write_text(CSV)
    return path


def test_categories_are_numbered_as_they_appear(log: Path, tmp_path: Path) -> None:
    record_eventlog(
        log, tmp_path / "r", column="activity", time="t", stream="case", label="ok", time_unit="s"
    )
    recording = Recording.open(tmp_path / "r")
    assert recording.kind == "tokens"
    assert recording.manifest.categories == ("open", "send", "close")
    assert (recording.manifest.tokenizer, recording.manifest.vocabulary) == ("categories", 3)
    [block] = recording.blocks()
    assert block.tokens is not None
    assert block.values is not None
    assert block.tokens.tolist() == [0, 0, 1, 2]
    assert block.stream.tolist() == [0, 1, 0, 0]
    assert block.time.tolist() == [1_000_000_000 * i for i in (1, 2, 3, 4)]
    assert recording.labels[0].categories == ("yes", "no")
    assert recording.scan().collect()["ok"].to_list() == [0, 1, None, 1]


def test_without_a_stream_column_a_file_is_one_stream(log: Path, tmp_path: Path) -> None:
    record_eventlog(log, tmp_path / "r", column="activity", time="t", time_unit="s")
    assert Recording.open(tmp_path / "r").streams == ("log",)


@pytest.mark.parametrize(
    ("change", "options", "told"),
    [
        (("send", ""), {}, "line 4, column 'activity': None is missing"),
        (("3,", "soon,"), {}, "line 4, column 't': 'soon' is no time"),
        (("", ""), {"column": "activty"}, "did you mean 'activity'"),
        (("", ""), {"label": "activity"}, "each has one role"),
        ((CSV, "t,case,activity,ok\n"), {}, "no rows"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_left(
    log: Path, tmp_path: Path, change: tuple[str, str], options: dict, told: str
) -> None:
    log.write_text(CSV.replace(*change, 1) if change[0] else CSV)
    chosen = {"column": "activity", "time": "t", "time_unit": "s"} | options
    with pytest.raises(InputError, match=told):
        record_eventlog(log, tmp_path / "r", **chosen)
    assert [path.name for path in tmp_path.iterdir()] == ["log.csv"]
