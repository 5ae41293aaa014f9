"""Jobs: in this process one by one, or side by side in others, with the same results."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from adaptive_sleep.experiments.jobs import one_thread, side_by_side


def _do(number: int, power: int) -> tuple[int, int]:
    return number**power, os.getpid()


@pytest.mark.timeout(400)  # processes that import torch
def test_results_come_by_key_wherever_they_are_worked_out() -> None:
    work = {name: (number, 2) for number, name in enumerate("abc")}
    here = dict(side_by_side(_do, work, 1))
    there = dict(side_by_side(_do, work, 2))
    assert {k: v for k, (v, _) in here.items()} == {k: v for k, (v, _) in there.items()}
    assert {process for _, process in here.values()} == {os.getpid()}
    assert os.getpid() not in {process for _, process in there.values()}


@pytest.mark.timeout(400)  # processes that import torch
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_result_may_make_other_jobs_possible(jobs: int) -> None:
    def then(key: str, result: tuple[int, int]) -> dict[str, tuple[int, int]]:
        return {key * 2: (result[0], 2)} if len(key) < 3 else {}

    found = list(side_by_side(_do, {"a": (2, 1), "b": (3, 1)}, jobs, then=then))
    assert {key: value for key, (value, _) in found} == {
        "a": 2, "aa": 4, "aaaa": 16, "b": 3, "bb": 9, "bbbb": 81
    }  # fmt: skip
    if jobs == 1:
        assert [key for key, _ in found] == ["a", "aa", "aaaa", "b", "bb", "bbbb"]


def test_one_job_may_be_done_otherwise_here() -> None:
    assert dict(side_by_side(_do, {"a": (2, 3)}, 4, here=pow)) == {"a": 8}
    assert dict(side_by_side(_do, {}, 4)) == {}


def test_threads_are_put_back() -> None:
    before = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


SLOW_JOBS = """
import os, sys, time
from pathlib import Path
from adaptive_sleep.experiments.jobs import side_by_side

def wait(name):
    Path(sys.argv[1], name).write_text(str(os.getpid()))
    time.sleep(300)

if __name__ == "__main__":
    list(side_by_side(wait, {"a": ("a",), "b": ("b",)}, 2))
"""


def _note(folder: str, name: str) -> None:
    if name == "bad":
        raise ValueError("no such job")
    time.sleep(1)
    Path(folder, name).touch()


@pytest.mark.timeout(400)  # processes that import torch
def test_after_one_that_fails_no_other_is_begun(tmp_path: Path) -> None:
    work = {name: (str(tmp_path), name) for name in ("bad", *"abcdefgh")}
    with pytest.raises(ValueError, match="no such job"):
        list(side_by_side(_note, work, 2))
    assert len(list(tmp_path.iterdir())) < 6  # those under way, and what had been handed out


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="needs /proc")
@pytest.mark.timeout(400)  # processes that import torch
def test_jobs_end_when_the_process_that_began_them_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "slow_jobs.py"
    script.write_text(SLOW_JOBS, encoding="utf-8")
    parent = subprocess.Popen([sys.executable, str(script), str(tmp_path)])
    try:
        names = [tmp_path / name for name in ("a", "b")]
        _until(lambda: all(name.is_file() and name.read_text() for name in names))
    finally:
        parent.kill()
        parent.wait()
    _until(lambda: not any(_runs(int(name.read_text())) for name in names))


def _until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def _runs(process: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
