"""Fillers between what a sample says and what it asks: read, slept on, and told apart by no one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import asked_cases as asked
import core_cases as cases
import numpy as np
import pytest
import torch

import adaptive_sleep as asl
from adaptive_sleep.answering import Answers, Carried, answer, fall_asleep, go_on, unread
from adaptive_sleep.asking import Lessons
from adaptive_sleep.curriculum import LearningRecipe
from adaptive_sleep.learning import gradient
from adaptive_sleep.ledger import costs
from adaptive_sleep.model import Model
from adaptive_sleep.side_by_side import Share
from adaptive_sleep.streams.tasks.registry import make_task
from adaptive_sleep.streams.tasks.task import TaskBatch

TASK = make_task("chain", nodes=8, paths=2, delays=[0, 1, 3])
MODEL = asked.model_for(TASK, positions="rotary")
KEPT: list[dict[str, Any]] = [
    {},
    {"eviction": "sliding", "keep": 20},
    {"eviction": "heaviest", "keep": 5},
    {"eviction": "retrieve", "keep": 20},
]


def drawn() -> TaskBatch:
    """Six samples that differ in how many fillers they have."""
    batch = asked.draw(TASK, 6, seed=3)
    assert all(len(set(lengths.tolist())) == 2 for lengths in batch.lengths[1:-1])
    return batch


def only(batch: TaskBatch, windows: slice) -> TaskBatch:
    """Some windows of a batch."""
    return replace(
        batch,
        tokens=batch.tokens[windows],
        targets=batch.targets[windows],
        lengths=batch.lengths[windows],
        diagonal=batch.diagonal[windows],
        fillers=batch.fillers[windows],
    )


def logits(found: list[Answers]) -> torch.Tensor:
    return torch.cat([one.logits for one in found])


@pytest.mark.parametrize("kept", KEPT, ids=str)
def test_a_runtime_answers_as_a_batch_does(kept: dict[str, Any]) -> None:
    """Also what follows: a sample that lacks a filler goes on as if there were none."""
    batch = asked.in_turn(drawn(), asked.draw(TASK, 6, seed=1))
    runtime = asl.Runtime(MODEL, cases.fixed(2), **kept)
    table = cases.table(asked.run(runtime, [asked.stream(batch, row) for row in range(6)]))
    with torch.no_grad():
        found, left = go_on(MODEL, batch, 2, unread(MODEL, 6, **kept))
    for row in range(6):
        mine = table["logprob"][table["stream"] == f"s{row}"]
        rows = [one.logits[one.rows == row].double().log_softmax(-1) for one in found]
        targets = [one.targets[one.rows == row] for one in found]
        right = torch.cat(
            [x.gather(-1, y[:, None])[:, 0] for x, y in zip(rows, targets, strict=True)]
        )
        assert cases.distance(mine, right.numpy()) < 1e-5
        state = cases.row(runtime, f"s{row}")
        if left.held is not None:
            assert int(state["cached"]) == int(left.held.lengths[row])


@pytest.mark.parametrize("kept", KEPT, ids=str)
def test_a_question_of_each_pass_is_asked_behind_fillers_that_are_read_once(
    kept: dict[str, Any],
) -> None:
    batch = drawn()
    first, *_ = batch.tokens
    words, lengths = torch.from_numpy(first), torch.from_numpy(batch.lengths[0])
    with torch.no_grad():
        start = unread(MODEL, 6, **kept)
        found, left = go_on(MODEL, batch, 3, start, lessons="every")
        holds = start.holds
        slept, cache = fall_asleep(
            MODEL, words, lengths, start.weights, 3, held=start.held, reach=holds.reach
        )
        held, rest = holds.after(start.held, cache), only(batch, slice(1, None))
        for one, weights in zip(found, slept, strict=True):
            (wanted,), after = go_on(MODEL, rest, 1, Carried(weights, holds, held))
            torch.testing.assert_close(one.logits, wanted.logits)
    torch.testing.assert_close(dict(left.weights), dict(after.weights))


def test_fillers_are_slept_on_as_often_as_all_else() -> None:
    """They are windows as any other: a batch that does not say which they are answers the same."""
    full = make_task("chain", nodes=8, paths=2, delays=[2])
    batch = asked.draw(full, 4)
    with torch.no_grad():
        one = logits(answer(MODEL, batch, 3))
        other = logits(answer(MODEL, replace(batch, fillers=()), 3))
    torch.testing.assert_close(one, other)


def test_no_delay_is_a_sample_without_fillers() -> None:
    plain, never = (make_task("chain", nodes=8, paths=2, delays=d) for d in ([], [0]))
    assert plain.space == never.space
    one, other = asked.draw(plain, 20), asked.draw(never, 20)
    for mine, theirs in zip(one.tokens, other.tokens, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert not other.fillers


@pytest.mark.parametrize("lessons", ["last", "every"])
def test_a_step_charges_what_it_reads(lessons: Lessons) -> None:
    model = Model(MODEL.config)
    training = LearningRecipe(batch=6, passes="3", loss=lessons)
    step = gradient(model, TASK, training, 0, 0)
    price = costs(model.config)

    def read(lengths: Any) -> int:
        return int(price.whole(lengths, 0 * lengths, causal=False).sum())

    def again(lengths: Any) -> int:
        return int(price.sleep_pass(lengths, causal=False).sum())

    sizes = np.full(6, 8)
    told = read(sizes) + 2 * again(sizes)
    asked_once = int(price.questions(sizes, sizes, 0 * sizes).sum())
    assert step.tokens > 6 * 16
    many = np.full((step.tokens - 6 * 16) // 8, 8)  # what windows cost depends on sizes alone
    filler = 3 * read(many) if lessons == "every" else read(many) + 2 * again(many)
    assert step.flops == 3 * (told + filler + (3 if lessons == "every" else 1) * asked_once)


@pytest.mark.parametrize("changes", [{"conv": 4}, {"memory_tokens": 3}], ids=str)
@pytest.mark.parametrize("lessons", ["last", "every"])
def test_shares_of_a_batch_answer_as_the_whole_does(
    changes: dict[str, int], lessons: Lessons
) -> None:
    """Each sample also where others have fillers that it lacks, with all that a stream carries."""
    model, batch = asked.model_for(TASK, **changes), drawn()
    with torch.no_grad():
        whole, _ = go_on(model, batch, 2, unread(model, 6), lessons=lessons)
        for rank in range(6):
            part, _ = go_on(model, Share(rank, 6).of(batch), 2, unread(model, 1), lessons=lessons)
            for one, all_ in zip(part, whole, strict=True):
                torch.testing.assert_close(one.logits, all_.logits[all_.rows == rank])
