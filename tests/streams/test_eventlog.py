"""A categorical column becomes tokens, numbered in order of first appearance."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.eventlog import record_eventlog, record_loghub
from adaptive_sleep.streams.recording import Recording
from adaptive_sleep.streams.writer import RecordingWriter

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


def test_a_later_log_keeps_the_tokens_of_an_earlier_one(log: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {"column": "activity", "time": "t", "time_unit": "s"}
    record_eventlog(log, tmp_path / "r", **given)
    later = tmp_path / "later.csv"
    later.write_text("t,activity\n5,close\n6,lose\n7,open\n")
    record_eventlog(later, tmp_path / "s", like=tmp_path / "r", **given)
    recording = Recording.open(tmp_path / "s")
    assert recording.manifest.categories == ("open", "send", "close", "lose")
    assert recording.manifest.vocabulary == 4
    assert recording.scan().collect()["token"].to_list() == [2, 3, 0]
    later.write_text("t,activity\n")
    with pytest.raises(InputError, match="no rows"):
        record_eventlog(later, tmp_path / "t", like=tmp_path / "r", **given)
    with RecordingWriter(tmp_path / "bare", kind="tokens", tokenizer="bytes", vocabulary=4):
        pass
    with pytest.raises(InputError, match="its tokens have no categories"):
        record_eventlog(log, tmp_path / "t", like=tmp_path / "bare", **given)


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


LOGHUB = """LineId,Label,Timestamp,Node,Content,EventId,EventTemplate
1,-,1117838570,R02,"a, b",E77,x
2,KERNDTLB,1117838573,R03,c,E3,y
3,-,1117838573,R02,a,E77,x
4,-,1117838571,R02,a,E77,x
"""


def test_a_structured_log_keeps_its_times_and_alerts(tmp_path: Path) -> None:
    """Repeated times, and one that steps back, in arrival order."""
    (tmp_path / "l.csv").write_text(LOGHUB)
    recording = Recording.open(record_loghub(tmp_path / "l.csv", tmp_path / "r"))
    assert recording.manifest.categories == ("E77", "E3")
    assert recording.labels[0].categories == ("-", "KERNDTLB")
    frame = recording.scan().collect()
    assert frame["token"].to_list() == [0, 1, 0, 0]
    assert frame["Label"].to_list() == [0, 1, 0, 0]
    seconds = [t // 10**9 - 1_117_838_570 for t in frame["time"].to_physical()]
    assert seconds == [0, 3, 3, 1]
    assert recording.manifest.backwards == 1
    by_node = Recording.open(record_loghub(tmp_path / "l.csv", tmp_path / "s", stream="Node"))
    assert by_node.streams == ("R02", "R03")


def test_a_structured_log_needs_its_events_and_times(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text(LOGHUB.replace("Timestamp", "When"))
    with pytest.raises(InputError, match="no column 'Timestamp', seconds since 1970"):
        record_loghub(tmp_path / "l.csv", tmp_path / "r")
    (tmp_path / "l.csv").write_text(LOGHUB.replace("EventId", "Event"))
    with pytest.raises(InputError, match="no column 'EventId', did you mean 'Event"):
        record_loghub(tmp_path / "l.csv", tmp_path / "r")


def test_a_supercomputer_log_itself(tmp_path: Path, real: Callable[[str], Path]) -> None:
    file = real("logs/BGL_2k.log_structured.csv")
    recording = Recording.open(record_loghub(file, tmp_path / "r"))
    assert (recording.rows, recording.manifest.vocabulary) == (2000, 120)
    alert = recording.scan().select("Label").collect()["Label"]
    assert int((alert != recording.labels[0].categories.index("-")).sum()) == 143
