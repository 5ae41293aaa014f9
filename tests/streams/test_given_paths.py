"""A path means what the system takes it for: ~ is a folder of that name, for reader and writer."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from adaptive_sleep.streams.events import Channel
from adaptive_sleep.streams.recording import Recording
from adaptive_sleep.streams.tables import record_table
from adaptive_sleep.streams.writer import RecordingWriter


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def test_a_recording_is_read_where_it_was_written(tmp_path: Path) -> None:
    for append in (False, True):
        with RecordingWriter(
            "~/r", kind="series", channels=[Channel("x")], append=append
        ) as writer:
            for i in range(2):
                writer.append("a", i, values=[i])
                writer.flush()  # so that there is something to merge
    recording = Recording.open("~/r")
    assert recording.scan().collect()["x"].to_list() == [0, 1, 0, 1]
    assert [len(block) for block in recording.blocks()] == [4]
    assert recording.manifest.backwards == 1
    assert not list((tmp_path / "home").iterdir())


@pytest.mark.parametrize("name", ["t.csv", "t.pq"])
def test_a_table_is_read_where_it_lies(name: str) -> None:
    Path("~").mkdir()
    table = pl.DataFrame({"t": ["2024-05-06"], "x": [1.5]})
    with (Path("~") / name).open("wb") as file:
        table.write_csv(file) if name == "t.csv" else table.write_parquet(file)
    record_table([f"~/{name}"], "~/r", time="t")
    assert Recording.open("~/r").scan().collect()["x"].to_list() == [1.5]
