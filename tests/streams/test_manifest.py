"""A new folder takes the place of an empty one or of none; what nothing can replace is refused
before the work is done, and leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from adaptive_sleep.streams import manifest
from adaptive_sleep.streams.errors import AdaptiveSleepError, InputError
from adaptive_sleep.streams.manifest import NO_LOCKS, fcntl, held, new_folder
from adaptive_sleep.streams.recording import Recording
from adaptive_sleep.streams.text import record_text

KILLED = """
import os, signal, sys
from pathlib import Path
from adaptive_sleep.streams.events import Channel
from adaptive_sleep.streams.manifest import new_folder
from adaptive_sleep.streams.writer import RecordingWriter

with new_folder(Path(sys.argv[1])) as folder:
    with RecordingWriter(folder, kind="series", channels=[Channel("x")]) as writer:
        writer.append("a", 1, values=[1])
        writer.flush()
        os.kill(os.getpid(), signal.SIGKILL)
"""


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("there", [True, False], ids=["empty", "none"])
def test_a_link_leads_to_the_folder(tmp_path: Path, there: bool) -> None:
    if there:
        (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with new_folder(tmp_path / "link") as folder:
        (folder / "x").touch()
    assert (tmp_path / "link").is_symlink()
    assert names(tmp_path) == ["link", "real", "real/x"]


@pytest.mark.parametrize("given", [".", "../here"])
def test_the_working_folder_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with (
        pytest.raises(InputError, match="the working folder cannot be replaced"),
        new_folder(Path(given)),
    ):
        pytest.fail("nothing is done for it")
    assert names(tmp_path) == ["here"]


def test_what_leads_nowhere_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for out in (tmp_path / "file" / "a" / "r", tmp_path / "loop" / "r"):
        with pytest.raises(InputError, match=str(out)), new_folder(out):
            pytest.fail("nothing is done for it")
    monkeypatch.setattr(os.path, "ismount", lambda path: True)
    (tmp_path / "disk").mkdir()
    with pytest.raises(InputError, match="disk: where a disk"), new_folder(tmp_path / "disk"):
        pytest.fail("nothing is done for it")
    assert names(tmp_path) == ["disk", "file", "loop"]


def test_parents_that_were_made_go_with_what_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()

    def refused() -> None:
        with new_folder(tmp_path / "kept/a/b/r") as folder:
            (folder / "x").touch()
            raise InputError("bad row")

    with pytest.raises(InputError, match="bad row"):
        refused()
    assert names(tmp_path) == ["kept"]
    with new_folder(tmp_path / "kept/a/b/r") as folder:
        (folder / "x").touch()
    assert names(tmp_path) == ["kept", "kept/a", "kept/a/b", "kept/a/b/r", "kept/a/b/r/x"]


def test_a_folder_that_was_filled_meanwhile_is_kept_and_named(tmp_path: Path) -> None:
    def overtaken() -> None:
        with new_folder(tmp_path / "r"):
            (tmp_path / "r").mkdir()
            (tmp_path / "r" / "theirs").touch()

    with pytest.raises(AdaptiveSleepError, match=r"r: cannot be put in place: .*not empty"):
        overtaken()
    assert names(tmp_path) == ["r", "r/theirs"]


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("text")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "r")], check=False)
    assert killed.returncode == -9
    [left] = tmp_path.glob(".r.*.tmp")
    others = [tmp_path / name for name in (".r.x.1.tmp", ".rr.1.tmp", ".r.1.tmp.2.tmp")]
    for other in others:
        other.mkdir()
    (tmp_path / ".r.1.tmp").touch()
    (tmp_path / ".r.2.tmp").symlink_to(others[0])
    record_text(tmp_path / "t.txt", tmp_path / "r")
    assert not left.exists()
    assert all(other.exists() for other in others)
    assert len(list(tmp_path.glob(".r.[12].tmp"))) == 2
    assert Recording.open(tmp_path / "r").rows == 4


def test_what_a_living_writer_has_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Throughout, before and after it is held as a recording."""
    before = tmp_path / ".r.1.tmp"  # as an earlier version holds it
    before.mkdir()
    with held(before), new_folder(tmp_path / "r") as first:
        (first / "x").touch()
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: 7)
            with new_folder(tmp_path / "r"):
                pass
        assert names(first) == ["x"]
        assert before.is_dir()
    assert names(tmp_path) == [".r.1.tmp", "r", "r/x"]


def test_a_folder_that_another_removes_before_it_is_held_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def removed_first(path: Path, *given: Any) -> Any:
        if not asked:
            path.rmdir()
        asked.append(path)
        return held(path, *given)

    monkeypatch.setattr(manifest, "held", removed_first)
    with new_folder(tmp_path / "out") as beside:
        (beside / "kept").write_text("")
    assert len(asked) == 2
    assert names(tmp_path) == ["out", "out/kept"]


def test_two_of_one_process_do_not_share_a_folder(tmp_path: Path) -> None:
    with new_folder(tmp_path / "r") as first:
        with (
            pytest.raises(InputError, match="another writer of this one"),
            new_folder(tmp_path / "r"),
        ):
            pytest.fail("nothing is done for it")
        (first / "x").touch()
    assert names(tmp_path) == ["r", "r/x"]


def test_where_no_lock_can_tell_nothing_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(handle: int, how: int) -> None:
        raise OSError(NO_LOCKS[0], "none here")

    (tmp_path / ".r.1.tmp").mkdir()
    monkeypatch.setattr(fcntl, "flock", none)
    with new_folder(tmp_path / "r") as folder:
        (folder / "x").touch()
    assert names(tmp_path) == [".r.1.tmp", "r", "r/x"]
