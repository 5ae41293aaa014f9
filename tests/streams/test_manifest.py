"""A new folder takes the place of an empty one or of none; what nothing can replace is refused
before the work is done, and leaves nothing behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from adaptive_sleep.streams.errors import AdaptiveSleepError, InputError
from adaptive_sleep.streams.manifest import new_folder


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
