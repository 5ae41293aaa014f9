"""Questions that are put again: answered as before, after each pass too, and leaving nothing."""

from __future__ import annotations

from typing import Any

import asked_cases as asked
import core_cases as cases
import numpy as np
import pytest
import torch

import adaptive_sleep as asl
from adaptive_sleep.answering import go_on, unread
from adaptive_sleep.asking import Lessons
from adaptive_sleep.curriculum import LearningRecipe
from adaptive_sleep.learning import gradient
from adaptive_sleep.ledger import costs
from adaptive_sleep.model import Model
from adaptive_sleep.streams.tasks.registry import make_task

SHAPE: dict[str, Any] = {"nodes": 8, "paths": 2, "delays": [0, 2], "rungs": [1, 2, 3]}
ONCE, THRICE = make_task("chain", **SHAPE), make_task("chain", **SHAPE, asks=3)
CASES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"conv": 4}, {}),
    ({"memory_tokens": 3}, {}),
    ({"positions": "rotary"}, {"eviction": "heaviest", "keep": 20}),
    ({"positions": "rotary"}, {"eviction": "sliding", "keep": 20}),
    ({"positions": "rotary"}, {"eviction": "retrieve", "keep": 40}),
]


@pytest.mark.parametrize("lessons", ["last", "every"])
@pytest.mark.parametrize(("changes", "kept"), CASES, ids=str)
def test_it_is_answered_as_before_and_leaves_nothing(
    changes: dict[str, Any], kept: dict[str, Any], lessons: Lessons
) -> None:
    model = asked.model_for(ONCE, **changes)
    with torch.no_grad():
        once, left = go_on(model, asked.draw(ONCE, 5), 3, unread(model, 5, **kept), lessons=lessons)
        thrice, after = go_on(
            model, asked.draw(THRICE, 5), 3, unread(model, 5, **kept), lessons=lessons
        )
    assert len(once) == (3 if lessons == "every" else 1)
    for one, again in zip(3 * once, thrice, strict=True):
        assert torch.equal(one.targets, again.targets)
        torch.testing.assert_close(one.logits, again.logits)
    torch.testing.assert_close(dict(left.weights), dict(after.weights))
    assert (left.held is None) == (after.held is None) == (not kept)
    if left.held is not None and after.held is not None:
        assert torch.equal(left.held.lengths, after.held.lengths)
        torch.testing.assert_close(left.held.keys, after.held.keys)


def test_a_runtime_answers_as_a_batch_does() -> None:
    model, batch = asked.model_for(THRICE), asked.draw(THRICE, 4)
    runtime = asl.Runtime(model, cases.fixed(2))
    table = cases.table(asked.run(runtime, [asked.stream(batch, row) for row in range(4)]))
    with torch.no_grad():
        found, _ = go_on(model, batch, 2, unread(model, 4))
    for row in range(4):
        mine = table["logprob"][table["stream"] == f"s{row}"]
        rows = [one.logits[one.rows == row].double().log_softmax(-1) for one in found]
        right = [
            x.gather(-1, one.targets[one.rows == row][:, None])[:, 0]
            for x, one in zip(rows, found, strict=True)
        ]
        assert cases.distance(mine, torch.cat(right).numpy()) < 1e-5


@pytest.mark.parametrize("lessons", ["last", "every"])
def test_a_step_charges_each_time(lessons: Lessons) -> None:
    training = LearningRecipe(batch=6, passes="3", loss=lessons)
    steps = [
        gradient(Model(asked.model_for(ONCE).config), task, training, 0, 0)
        for task in (ONCE, THRICE)
    ]
    sizes = np.full(6, 8)
    asking = int(costs(asked.model_for(ONCE).config).questions(sizes, sizes, 0 * sizes).sum())
    assert steps[1].tokens - steps[0].tokens == 2 * 6 * 8
    assert steps[1].flops - steps[0].flops == 3 * 2 * (3 if lessons == "every" else 1) * asking
