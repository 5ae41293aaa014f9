"""Further questions of word problems: others that have a value, behind the one that is measured."""

from __future__ import annotations

import numpy as np
import pytest
from test_gsm_worded import Reader

from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.tasks.gsm_worded import GsmWorded

CASES = [
    {},
    {"mode": "reverse"},
    {"modulus": 7, "windows": 2, "layers": 2, "entities": 3, "length": 9, "min_op": 1, "max_op": 5},
]


def rows(task, count=40, seed=0):
    """The windows of each sample, and its last one cut into questions."""
    batch = task.sample(np.random.default_rng(seed), count, part="train")
    for row in range(count):
        *read, asked = (
            tokens[row, : lengths[row]]
            for tokens, lengths in zip(batch.tokens, batch.lengths, strict=True)
        )
        target = batch.targets[-1][row, : len(asked)]
        yield read, asked.reshape(-1, 6), target.reshape(-1, 6)


@pytest.mark.parametrize("params", CASES, ids=str)
@pytest.mark.parametrize("further", [1, 5])
def test_they_are_of_others_and_their_answers_follow(params, further):
    task, plain = GsmWorded(**params, further=further), GsmWorded(**params)
    for (read, asked, target), (before, first, _) in zip(rows(task), rows(plain), strict=True):
        assert all(np.array_equal(one, other) for one, other in zip(read, before, strict=True))
        assert np.array_equal(asked[0], first[0])  # what is measured is as it was
        assert len(asked) <= 1 + further
        phrases = [tuple(question[1:4]) for question in asked.tolist()]
        assert len(set(phrases)) == len(phrases)
        assert np.array_equal(target[:, 4], asked[:, 5])
        assert (np.delete(target, 4, axis=1) == -1).all()
        for question in asked:
            reader = Reader(task, [*read, question])
            unknown = int(task.words[asked[0, 5]]) if task.mode == "reverse" else None
            value = reader.value(reader.asked, unknown)
            assert (value % task.modulus if task.modulus else value) == reader.answer


def test_all_that_have_a_value_can_be_asked():
    task = GsmWorded(length=6, max_op=3, further=5, unsolvable=False)
    assert any(len(asked) == 6 for _, asked, _ in rows(task))
    assert task.space.window >= 36


def test_more_than_there_can_be_is_refused():
    with pytest.raises(InputError, match="further=6"):
        GsmWorded(length=6, max_op=3, further=6)
