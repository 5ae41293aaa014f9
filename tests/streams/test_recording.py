"""What was written is read back; what is damaged is refused by name, never silently read."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import CHANNELS, write_rows

from adaptive_sleep.streams import recording as recording_module
from adaptive_sleep.streams.errors import AdaptiveSleepError, InputError, IntegrityError
from adaptive_sleep.streams.events import Channel
from adaptive_sleep.streams.recording import Recording
from adaptive_sleep.streams.writer import RecordingWriter


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """A closed recording of 3 shards of 4, 4 and 2 rows."""
    streams = list("ababababab")
    return write_rows(tmp_path / "r", streams, list(range(0, 100, 10)), shard_rows=4)


def parts(path: Path) -> list[Path]:
    return sorted(path.glob("part-*.parquet"))


def test_rows_come_back_in_arrival_order(shards: Path) -> None:
    recording = Recording.open(shards)
    frame = recording.scan().collect()
    assert frame.columns == ["stream", "sequence", "time", "load", "phase", "knob"]
    assert frame["stream"].to_list() == list("ababababab")
    assert frame["sequence"].to_list() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert frame["time"].dtype == pl.Datetime("ns", "UTC")
    assert frame["time"].cast(pl.Int64).to_list() == list(range(0, 100, 10))
    assert frame["load"].to_list() == list(range(10))
    assert (recording.rows, recording.streams) == (10, ("a", "b"))
    assert recording.manifest.stream_rows == (5, 5)
    assert recording.manifest.time_range == (0, 90)
    assert recording.warnings == ()


def test_channels_keep_their_roles(shards: Path) -> None:
    recording = Recording.open(shards)
    assert recording.channels == CHANNELS
    assert [c.name for c in recording.inputs] == ["load", "knob"]
    assert [c.name for c in recording.labels] == ["phase"]


@settings(max_examples=20)
@given(start=st.integers(0, 10), stop=st.integers(0, 12), rows=st.integers(1, 7))
def test_blocks_of_any_size_are_the_rows_asked_for(tmp_path_factory, start, stop, rows) -> None:
    path = tmp_path_factory.mktemp("blocks") / "r"
    recording = Recording.open(write_rows(path, list("ab" * 5), list(range(10)), shard_rows=4))
    found, at = [], start
    for block in recording.blocks(start=start, stop=stop, rows=rows):
        assert block.start == at
        assert len(block) <= rows
        assert block.values is not None
        found += list(
            zip(block.stream, block.sequence, block.time, block.values[:, 0], strict=True)
        )
        at += len(block)
    assert found == [(i % 2, i // 2, i, i) for i in range(start, min(stop, 10))]


def test_nan_is_stored_as_missing_and_read_as_nan(tmp_path: Path) -> None:
    with RecordingWriter(tmp_path / "r", kind="series", channels=[Channel("x")]) as writer:
        writer.append("a", [1, 2], values=[[np.nan], [0.5]])
    recording = Recording.open(tmp_path / "r")
    assert recording.scan().collect()["x"].to_list() == [None, 0.5]
    [block] = recording.blocks()
    assert block.values is not None
    assert np.isnan(block.values[0, 0])
    assert block.values.dtype == np.float32


def test_a_channel_that_looks_like_a_pattern_is_itself(tmp_path: Path) -> None:
    channels = [Channel("*"), Channel("^x.*$"), Channel("x1")]
    with RecordingWriter(tmp_path / "r", kind="series", channels=channels) as writer:
        writer.append("a", [1, 2], values=[[1, 2, 3], [4, 5, 6]])
    [block] = Recording.open(tmp_path / "r").blocks()
    assert block.values.tolist() == [[1, 2, 3], [4, 5, 6]]


def test_tokens_come_back(tmp_path: Path) -> None:
    recording = Recording.open(write_rows(tmp_path / "r", ["a"] * 3, [1, 2, 3], kind="tokens"))
    [block] = recording.blocks()
    assert block.tokens is not None
    assert block.tokens.tolist() == [0, 1, 2]
    assert block.values is None
    assert (recording.manifest.tokenizer, recording.manifest.vocabulary) == ("bytes", 256)


def test_time_that_goes_backwards_keeps_its_order_and_is_counted(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "r", list("abab"), [50, 10, 20, 30])
    recording = Recording.open(path)
    [block] = recording.blocks()
    assert block.time.tolist() == [50, 10, 20, 30]
    assert recording.manifest.backwards == 1  # a: 50, 20; b: 10, 30


def test_the_hash_depends_on_content_alone(tmp_path: Path) -> None:
    one = Recording.open(write_rows(tmp_path / "1", list("aba"), [1, 2, 3])).sha256
    assert one == Recording.open(write_rows(tmp_path / "2", list("aba"), [1, 2, 3])).sha256
    assert one != Recording.open(write_rows(tmp_path / "3", list("aba"), [1, 2, 4])).sha256
    assert one != Recording.open(write_rows(tmp_path / "4", list("aca"), [1, 2, 3])).sha256


def test_an_empty_recording_has_no_blocks(tmp_path: Path) -> None:
    recording = Recording.open(write_rows(tmp_path / "r", [], []))
    assert recording.rows == 0
    assert list(recording.blocks()) == []
    assert recording.scan().collect().is_empty()


# ---- damage ---------------------------------------------------------------------------------


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_flipped_bit_is_an_error_that_names_the_shard(shards: Path, which: int) -> None:
    part = parts(shards)[which]
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)
    with pytest.raises(IntegrityError, match=part.name):
        Recording.open(shards)


def test_a_cut_off_last_shard_is_left_out_and_named(shards: Path) -> None:
    part = parts(shards)[-1]
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.warns(UserWarning, match=part.name):
        recording = Recording.open(shards)
    assert recording.rows == 8
    assert recording.left_out == (part.name,)
    assert part.name in recording.warnings[0]
    assert [len(block) for block in recording.blocks()] == [4, 4]
    assert len(recording.scan().collect()) == 8


@pytest.mark.parametrize("which", [0, 1])
def test_a_cut_off_earlier_shard_is_an_error(shards: Path, which: int) -> None:
    part = parts(shards)[which]
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(IntegrityError, match=part.name):
        Recording.open(shards)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_missing_shard_is_an_error(shards: Path, which: int) -> None:
    part = parts(shards)[which]
    part.unlink()
    with pytest.raises(IntegrityError, match=f"{part.name}: this shard is missing"):
        Recording.open(shards)


def test_a_damaged_shard_that_was_not_verified_is_still_no_silent_read(shards: Path) -> None:
    part = parts(shards)[0]
    part.write_bytes(b"\0" * part.stat().st_size)
    recording = Recording.open(shards, verify=False)
    with pytest.raises(IntegrityError, match=part.name):
        list(recording.blocks())


def changed_manifest(path: Path, **changes: object) -> None:
    file = path / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_newer_schema_asks_for_an_upgrade(shards: Path) -> None:
    changed_manifest(shards, schema=2, anything=1)
    with pytest.raises(IntegrityError, match=r"schema 2 is newer than 1.*upgrade"):
        Recording.open(shards)


def test_an_unknown_field_is_an_error(shards: Path) -> None:
    changed_manifest(shards, colour="red")
    with pytest.raises(IntegrityError, match="colour"):
        Recording.open(shards)


@pytest.mark.parametrize(
    "changes",
    [
        {"rows": 11},
        {"stream_rows": [5, 6]},
        {"streams": ["a"]},
        {"kind": "pictures"},
        {"shards": [{"file": "../x.parquet", "rows": 10, "bytes": 1, "sha256": ""}]},
    ],
)
def test_a_manifest_that_contradicts_itself_is_an_error(shards: Path, changes: dict) -> None:
    changed_manifest(shards, **changes)
    with pytest.raises(IntegrityError, match=r"manifest\.json"):
        Recording.open(shards)


def test_a_manifest_cut_off_is_an_error(shards: Path) -> None:
    file = shards / "manifest.json"
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(IntegrityError, match=r"manifest\.json: damaged"):
        Recording.open(shards)


def test_text_that_is_no_utf8_is_an_error_that_names_the_manifest(shards: Path) -> None:
    file = shards / "manifest.json"
    file.write_bytes(file.read_bytes().replace(b"a test", b"\xe1 test"))
    with pytest.raises(IntegrityError, match=r"manifest\.json: damaged"):
        Recording.open(shards)


@pytest.mark.parametrize("name", ["renamed", "b"], ids=["new", "known"])
def test_a_stream_that_was_renamed_by_hand_is_an_error(tmp_path: Path, name: str) -> None:
    path = write_rows(tmp_path / "r", list("abab"), [1, 2, 3, 4])
    changed_manifest(path, streams=[name, "b"])
    before = (path / "manifest.json").read_bytes()
    told = r"r: holds streams that manifest\.json does not name"
    with pytest.raises(IntegrityError, match=told):
        list(Recording.open(path).blocks())
    with pytest.raises(IntegrityError, match=told):
        RecordingWriter(path, kind="series", channels=CHANNELS, append=True)
    assert (path / "manifest.json").read_bytes() == before


def test_no_recording_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path, tmp_path / "none", tmp_path / "file"):
        with pytest.raises(InputError, match="is no recording"):
            Recording.open(path)


def test_files_of_others_in_the_folder_are_let_be(shards: Path) -> None:
    (shards / "notes.txt").write_text("mine")
    (shards / "part-000099.parquet").write_text("left by a kill")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recording = Recording.open(shards)
    assert recording.orphans == ("part-000099.parquet",)
    assert "part-000099.parquet" in recording.warnings[0]


def test_a_recording_whose_only_shard_is_cut_off_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "R"
    with RecordingWriter(folder, kind="series", channels=[Channel("a")]) as writer:
        writer.append("s", np.arange(5), values=np.zeros((5, 1)))
    part = next(folder.glob("*.parquet"))
    part.write_bytes(part.read_bytes()[:-7])
    with pytest.raises(IntegrityError, match=f"{part.name}, its only shard, is cut off"):
        Recording.open(folder)


def test_a_recording_that_is_written_on_is_opened_again_not_called_damaged(tmp_path: Path) -> None:
    path = tmp_path / "r"
    writer = RecordingWriter(path, kind="series", channels=[Channel("x")])
    for number in range(2):
        writer.append("a", number, values=[number])
        writer.flush()
    with pytest.warns(UserWarning, match="not closed"):
        recording = Recording.open(path)
    blocks = recording.blocks()
    next(blocks)
    writer.close()  # merges both shards
    for read in (lambda: next(blocks), recording.scan, lambda: list(recording.blocks())):
        with pytest.raises(
            AdaptiveSleepError, match=r"r: was being written .*; open it again"
        ) as it:
            read()
        assert not isinstance(it.value, IntegrityError)
    recording = Recording.open(path)
    assert recording.scan().collect()["x"].to_list() == [0, 1]
    blocks = recording.blocks()
    (path / recording.manifest.shards[0].file).unlink()  # nobody's merging
    with pytest.raises(IntegrityError, match="cannot be read"):
        next(blocks)
    with pytest.raises(IntegrityError, match="this shard is missing"):
        Recording.open(path)


def test_shards_that_are_merged_while_they_are_looked_at_are_looked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = RecordingWriter(tmp_path / "r", kind="series", channels=[Channel("x")])
    for number in range(2):
        writer.append("a", number, values=[number])
        writer.flush()
    look = recording_module._whole_shards

    def late(*given: Any) -> Any:
        writer.close()
        return look(*given)

    monkeypatch.setattr(recording_module, "_whole_shards", late)
    assert Recording.open(tmp_path / "r").scan().collect()["x"].to_list() == [0, 1]
