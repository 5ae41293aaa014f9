"""Jobs: in this process one by one, or side by side in others, with the same results."""

from __future__ import annotations

import os

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
