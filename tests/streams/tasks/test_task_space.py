"""Tokens pack fields and give them back, and a task by name is what was asked for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.tasks.depo import Depo
from adaptive_sleep.streams.tasks.hops import Hops
from adaptive_sleep.streams.tasks.registry import make_task, task_names, task_parameters
from adaptive_sleep.streams.tasks.task import TaskBatch, TaskSpace, events


def space(*fields: int) -> TaskSpace:
    return TaskSpace(fields=fields, answers=2, window=4, windows=2, difficulties=(1,))


@given(data=st.data(), fields=st.lists(st.integers(1, 50), min_size=1, max_size=5))
def test_packing_and_unpacking_are_inverse(data, fields):
    one = space(*fields)
    tokens = data.draw(st.lists(st.integers(0, one.vocabulary - 1), max_size=20))
    columns = one.unpack(np.array(tokens, np.int64))
    assert all(
        ((column >= 0) & (column < size)).all()
        for column, size in zip(columns, fields, strict=True)
    )
    assert one.pack(*columns).tolist() == tokens


def test_every_combination_is_a_token_of_its_own():
    columns = np.meshgrid(np.arange(3), np.arange(4), np.arange(2), indexing="ij")
    assert sorted(space(3, 4, 2).pack(*columns).ravel().tolist()) == list(range(24))
    assert space(3, 4, 2).pack(0, 0, 0) == 0
    assert space(3, 4, 2).pack(np.array([[1], [2]]), 0, np.array([0, 1])).shape == (2, 2)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (([0], [4]), "column 1: 4 is not in 0..3"),
        (([-1], [0]), "column 0: -1 is not in 0..2"),
        (([0.0], [0]), "column 0: float64, expected integers"),
        (([0],), "1 columns: give one for each of"),
    ],
)
def test_what_no_token_can_hold_is_refused(columns, said):
    with pytest.raises(InputError, match=said):
        space(3, 4).pack(*columns)


def test_a_token_outside_the_vocabulary_is_refused():
    for token in (-1, 12):
        with pytest.raises(InputError, match=f"tokens: {token} is not in 0..11"):
            space(3, 4).unpack([token])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"fields": ()}, "fields="),
        ({"fields": (2, 0)}, "fields="),
        ({"fields": (2**40, 2**40)}, "fields="),
        ({"answers": 0}, "answers=0"),
        ({"window": 0}, "window=0"),
        ({"values": -1}, "values=-1"),
        ({"windows": 0}, "windows=0"),
        ({"difficulties": ()}, "difficulties="),
        ({"difficulties": (2, 1)}, "difficulties="),
    ],
)
def test_an_impossible_space_is_refused(change, said):
    right = {"fields": (2,), "answers": 1, "window": 1, "windows": 1, "difficulties": (1,)}
    with pytest.raises(InputError, match=said):
        TaskSpace(**{**right, **change})


def test_events_are_a_row_without_its_padding():
    batch = TaskBatch(
        tokens=(np.array([[5, 0], [6, 7]]), np.array([[8], [9]])),
        targets=(np.array([[-1, -1], [-1, -1]]), np.array([[1], [0]])),
        lengths=(np.array([1, 2]), np.array([1, 1])),
        difficulty=np.array([3, 4]),
        diagonal=(False, True),
    )
    for row, wanted in enumerate(([[5], [8]], [[6, 7], [9]])):
        windows = events(batch, row)
        assert [window.tokens.tolist() for window in windows] == wanted
        assert [window.diagonal for window in windows] == [False, True]
        assert [window.difficulty for window in windows] == [3 + row] * 2
    assert events(batch)[1].targets.tolist() == [1]


def test_a_task_is_made_by_its_name():
    assert make_task("hops", nodes=8, max_hops=4) == Hops(nodes=8, max_hops=4)
    assert make_task("depo1", max_nodes=300) == Depo(300, 8, 50, 1, 2, own_hops=True)
    assert make_task("depo2") == Depo(125, 16, 3, 5, 7, own_hops=True)
    assert {make_task(name).name for name in task_names()} == {
        "hops", "chain", "rule110", "lead_lag", "depo", "gsm_symbolic",
        "gsm_worded", "distractors",
    }  # fmt: skip
    assert task_parameters("depo2")["word_tokens"] == 3


def test_the_nearest_right_name_is_proposed():
    with pytest.raises(InputError, match="no task 'hop', did you mean 'hops'"):
        make_task("hop")
    with pytest.raises(InputError, match="no parameter 'node', did you mean 'nodes'"):
        make_task("chain", node=3)


@pytest.mark.parametrize(
    ("name", "params", "said"),
    [
        ("hops", {"nodes": 3}, r"hops: nodes=3: expected an integer in 4\.\."),
        ("hops", {"nodes": "16"}, "nodes='16'"),
        ("hops", {"nodes": True}, "nodes=True"),
        ("hops", {"windows": 3}, "windows=3: expected 1, 2 or 4"),
        ("hops", {"nodes": 6, "windows": 4, "max_hops": 2}, "a divisor of nodes=6"),
        ("hops", {"max_hops": 16}, r"max_hops=16: expected an integer in 1\.\.15"),
        ("hops", {"show": "never"}, "show='never': expected 'window' or 'last'"),
        ("chain", {"paths": 9}, "paths=9"),
        ("chain", {"nodes": 24, "shortest": 3}, r"the longest path has 5\.\.20 edges"),
        ("chain", {"longest": 13}, r"the longest path has 3\.\.12 edges"),
        ("chain", {"shortest": 8, "longest": 7}, "shortest=8 is above longest=7"),
        ("chain", {"windows": 5}, "a divisor of nodes=16"),
        ("chain", {"delays": [0, -1]}, r"delays=-1: expected an integer in 0\.\."),
        ("hops", {"delays": 4}, r"delays=4: expected a list of windows, e\.g\. \[0, 4\]"),
        ("chain", {"asks": 0}, r"asks=0: expected an integer in 1\.\."),
        ("hops", {"asks": True}, "asks=True"),
        ("rule110", {"width": 7}, r"width=7: expected an integer in 8\.\."),
        ("rule110", {"max_depth": 0}, "max_depth=0"),
        ("lead_lag", {"channels": 3}, r"channels=3: expected an integer in 4\.\."),
        (
            "lead_lag",
            {"levels": 11},
            "levels=11: expected 0 .real values., or at least channels=12",
        ),
        ("lead_lag", {"steps": 1}, r"steps=1: expected an integer in 2\.\.9"),
        ("lead_lag", {"max_horizon": 12}, r"max_horizon=12: expected an integer in 1\.\.11"),
        ("lead_lag", {"rungs": [7]}, r"rungs=7: expected an integer in 1\.\.6"),
        ("hops", {"rungs": [4, 2]}, r"rungs=\[4, 2\]: expected rising"),
        ("rule110", {"rungs": 2.5}, r"rungs=2\.5: expected an integer"),
        ("lead_lag", {"noise": 0.1}, "noise=0.1: classes are copied as they are"),
        ("lead_lag_continuous", {"noise": float("nan")}, "noise=nan: expected a number in 0..1"),
        ("lead_lag_continuous", {"noise": "no"}, "noise='no'"),
        ("depo", {"max_nodes": 2}, "max_nodes=2"),
        ("depo", {"max_hops": 500}, "max_hops=500"),
        ("depo", {"word_tokens": 2}, "makes 6 words"),
        ("depo", {"min_length": 3}, r"min_length=3: expected an integer in 1\.\.2"),
        ("depo", {"windows": 8}, r"windows=8: expected an integer in 1\.\.7"),
        ("gsm_symbolic", {"lines": 5}, r"max_op=6: expected an integer in 2\.\.5"),
        ("gsm_symbolic", {"min_op": 7}, "min_op=7"),
        (
            "gsm_symbolic",
            {"name_digits": 1},
            r"lines=16: expected an integer in 2\.\.9",
        ),
        ("distractors", {"facts": 7}, "facts=7: expected an even number"),
        ("distractors", {"facts": 64}, r"facts=64: expected an integer in 2\.\.63"),
        ("distractors", {"windows": 3}, "a divisor of facts=8"),
    ],
)
def test_a_wrong_parameter_is_named(name, params, said):
    with pytest.raises(InputError, match=said):
        make_task(name, **params)


def test_bad_parameters_are_named() -> None:
    with pytest.raises(InputError, match=r"absent='no': expected true or false"):
        make_task("hops", absent="no")
    with pytest.raises(InputError, match=r"separator='no': expected true or false"):
        make_task("depo", separator="no")
    with pytest.raises(InputError, match="did you mean 'hops'"):
        task_parameters("hop")
    with pytest.raises(InputError, match="expected integers"):
        make_task("hops").space.unpack([1.7])


def test_numbers_of_numpy_are_taken_as_pythons():
    assert make_task("chain", nodes=np.int64(16)) == make_task("chain", nodes=16)
    noisy = make_task("lead_lag", levels=0, noise=np.float64(0.02))
    assert type(noisy.noise) is float
    assert make_task("hops", rungs=np.array([1, 2])) == make_task("hops", rungs=(1, 2))
    with pytest.raises(InputError, match=r"nodes=16.0: expected an integer"):
        make_task("chain", nodes=np.float64(16))
