"""One recording has one writer at a time: a second is refused at once, and harms nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.events import Channel
from adaptive_sleep.streams.manifest import held
from adaptive_sleep.streams.recording import Recording
from adaptive_sleep.streams.writer import RecordingWriter

X = (Channel("x"),)
TAKEN = "path=.*another process is writing there, or another writer"
SECOND = """
import sys
from adaptive_sleep.streams.events import Channel
from adaptive_sleep.streams.writer import RecordingWriter
RecordingWriter(sys.argv[1], kind="series", channels=[Channel("x")], append=True)
"""

FORKS = """
import os, sys
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.events import Channel
from adaptive_sleep.streams.writer import RecordingWriter

def opened():
    return RecordingWriter(sys.argv[1], kind="series", channels=[Channel("x")], append=True)

writer = opened()
if (child := os.fork()) == 0:  # one that lets go of what it has
    writer._lock.close()
    os._exit(0)
os.waitpid(child, 0)
try:
    opened()
except InputError:
    print("refused")
if os.fork() == 0:  # one that outlives the writer
    sys.stdin.read()
    os._exit(0)
writer.close()
opened().close()
print("opened")
"""


def opened(path: Path, append: bool = True) -> RecordingWriter:
    return RecordingWriter(path, kind="series", channels=X, append=append)


def loads(path: Path) -> list[float]:
    return Recording.open(path).scan().collect()["x"].to_list()


def test_a_second_writer_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "r"
    with opened(path) as writer:
        writer.append("a", 1, values=[1])
        writer.flush()
        with pytest.raises(InputError, match=TAKEN):
            opened(path)
        with pytest.raises(InputError, match="exists already"):
            opened(path, append=False)
        with pytest.warns(UserWarning, match="not closed"):  # a reader is not kept out
            assert loads(path) == [1]
        writer.append("a", 2, values=[2])
    with opened(path) as writer:  # closing let go of it; an appending writer holds it too
        with pytest.raises(InputError, match=TAKEN):
            opened(path)
        writer.append("a", 3, values=[3])
    assert loads(path) == [1, 2, 3]


def test_a_writer_of_another_process_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path / "r") as writer:
        command = [sys.executable, "-c", SECOND, str(tmp_path / "r")]
        done = subprocess.run(command, capture_output=True, text=True)
        assert "InputError: path=" in done.stderr
        writer.append("a", 1, values=[1])
    assert loads(tmp_path / "r") == [1]


def test_a_fork_neither_lets_go_nor_holds_on(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKS, str(tmp_path / "r")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.wait(60) == 0
        process.stdin.close()  # which ends the fork
        assert process.stdout.read() == "refused\nopened\n"


def test_a_folder_that_is_held_is_not_begun(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    with held(tmp_path / "r"), pytest.raises(InputError, match=TAKEN):
        opened(tmp_path / "r")
    assert not list((tmp_path / "r").iterdir())


def test_what_fails_lets_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r"

    def full(*given: object, **named: object) -> None:
        raise OSError(28, "No space left on device")

    def interrupted() -> None:
        with opened(path) as writer:
            writer.append("a", 1, values=[1])
            raise RuntimeError

    with pytest.raises(RuntimeError) as failed:
        interrupted()
    with pytest.raises(InputError, match="cannot append") as refused:
        RecordingWriter(path, kind="series", channels=[Channel("y")], append=True)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"), opened(path):
        patch.setattr(RecordingWriter, "_publish", full)
    with opened(path) as writer:
        writer.append("a", 2, values=[2])
    assert loads(path) == [1, 2]
    del failed, refused  # alive until here: it was not their end that let go
