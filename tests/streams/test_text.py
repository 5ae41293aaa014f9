"""Text files become streams of bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.recording import Recording
from adaptive_sleep.streams.text import record_text


def bytes_of(recording: Recording, stream: str) -> bytes:
    found = bytearray()
    for block in recording.blocks():
        assert block.tokens is not None
        found += bytes(block.tokens[block.stream == recording.streams.index(stream)].tolist())
    return bytes(found)


def test_every_byte_comes_back(tmp_path: Path) -> None:
    one, two = "Schlaf \u00fcber Nacht\n".encode(), bytes(range(256)) * 5000
    (tmp_path / "one.txt").write_bytes(one)
    (tmp_path / "two.bin").write_bytes(two)
    record_text([tmp_path / "one.txt", tmp_path / "two.bin"], tmp_path / "r")
    recording = Recording.open(tmp_path / "r")
    assert recording.streams == ("one.txt", "two.bin")
    assert bytes_of(recording, "one.txt") == one
    assert bytes_of(recording, "two.bin") == two
    assert (recording.manifest.tokenizer, recording.manifest.vocabulary) == ("bytes", 256)
    assert "synthetic" in recording.manifest.provenance["time"]
    times = recording.scan().collect()["time"].to_physical()
    assert times[:3].to_list() == [0, 1_000_000_000, 2_000_000_000]


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.txt").write_text(folder)
    record_text([tmp_path / "a" / "x.txt", tmp_path / "b" / "x.txt"], tmp_path / "r")
    assert Recording.open(tmp_path / "r").streams == ("a/x.txt", "b/x.txt")


def test_links_are_named_as_they_are_given(tmp_path: Path) -> None:
    (tmp_path / "blob").write_text("x")
    for name in ("one.txt", "two.txt"):
        (tmp_path / name).symlink_to(tmp_path / "blob")
    record_text([tmp_path / "one.txt", tmp_path / "two.txt"], tmp_path / "r")
    assert Recording.open(tmp_path / "r").streams == ("one.txt", "two.txt")


def test_one_file_needs_no_list(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("x")
    for number, given in enumerate((tmp_path / "x.txt", str(tmp_path / "x.txt"))):
        record_text(given, tmp_path / str(number))
        assert Recording.open(tmp_path / str(number)).streams == ("x.txt",)


def test_what_cannot_be_recorded_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "good.txt").write_text("x")
    (tmp_path / "empty.txt").write_text("")
    with (tmp_path / "long.txt").open("wb") as file:
        file.truncate(2**63 // 10**9 + 1)  # a hole, of which nothing is read
    before = sorted(tmp_path.iterdir())
    for files, told in (
        ([], "at least 1"),
        (["good.txt", "none.txt"], "none.txt: no such file"),
        (["good.txt", "empty.txt"], "empty.txt: the file is empty"),
        (["good.txt", "good.txt"], "given twice"),
        (["good.txt", "long.txt"], "long.txt: 9223372037 bytes; .*at most 9223372036"),
    ):
        with pytest.raises(InputError, match=told):
            record_text([tmp_path / name for name in files], tmp_path / "r")
        assert sorted(tmp_path.iterdir()) == before
