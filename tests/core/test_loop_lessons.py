"""A lesson after each loop over questions, as a model that sleeps has one after each pass."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import asked_cases as asked
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adaptive_sleep.answering import go_on, unread
from adaptive_sleep.asking import Lessons
from adaptive_sleep.curriculum import (
    LearningRecipe,
    check_training,
    draw,
    in_loops,
    in_one_pass,
    without_stages,
)
from adaptive_sleep.learning import gradient, read_task_recipe
from adaptive_sleep.ledger import costs
from adaptive_sleep.model import Model
from adaptive_sleep.streams.errors import InputError

TASK, TEXT = asked.TASKS["hops"], asked.TEXTS["depo"]
STAGES = ((1,), (1, 2), (1, 2, 3), (1, 2, 3, 3))


@pytest.mark.parametrize("text", [False, True], ids=["alone", "text"])
def test_every_loop_is_asked_and_the_last_leaves_what_it_did(text: bool) -> None:
    task = TEXT if text else TASK
    model, batch = asked.model_for(task, loops=3), asked.draw(task, 4)
    fewer = [asked.model_for(task, loops=loops) for loops in (1, 2)]
    with torch.no_grad():
        found, left = go_on(model, batch, 1, unread(model, 4), lessons="loops")
        (last,), after = go_on(model, batch, 1, unread(model, 4))
        before = [go_on(less, batch, 1, unread(less, 4))[0][0] for less in fewer]
    for one, same in zip(found, [*before, last], strict=True):
        assert torch.equal(one.targets, same.targets)
        torch.testing.assert_close(one.logits, same.logits)
    torch.testing.assert_close(dict(left.weights), dict(after.weights))


def test_a_loop_is_asked_for_its_rung() -> None:
    model, batch = asked.model_for(TASK, loops=3), asked.draw(TASK, 4)
    rungs = tuple(np.where(batch.targets[-1] >= 0, rung, -1) for rung in (5, 6))
    found, _ = go_on(model, replace(batch, rungs=rungs), 1, unread(model, 4), lessons="loops")
    assert [set(one.targets.tolist()) for one in found[:2]] == [{5}, {6}]
    assert found[2].targets.tolist() == batch.targets[-1][batch.targets[-1] >= 0].tolist()


def test_a_step_teaches_all_loops_and_charges_a_head_for_each() -> None:
    config = asked.model_for(TASK, loops=3).config
    steps, learned = [], []
    kinds: tuple[Lessons, ...] = ("last", "loops")
    for loss in kinds:
        model = Model(config)
        training = LearningRecipe(batch=6, passes="1", loss=loss, clip=1e9)
        steps.append(gradient(model, TASK, training, 0, 0))
        learned.append(model.tokens.answer.grad)
    assert steps[1].flops - steps[0].flops == 3 * 2 * 6 * 8 * costs(config).head
    assert steps[0].last == steps[0].loss
    assert steps[1].last != steps[1].loss
    assert learned[0] is not None
    assert learned[1] is not None
    assert not torch.allclose(learned[0], learned[1])


@given(st.integers(1, 9), st.integers(0, 3), st.booleans())
def test_rungs_are_spread_over_the_loops(loops: int, stage: int, whole: bool) -> None:
    training = LearningRecipe(loss="every", stages=STAGES, whole=whole, carry_over=0.5)
    taught, once = in_loops(training, loops), in_one_pass(training)
    check_training(taught)
    rungs, wanted = taught.stages[stage], STAGES[stage]
    assert len(rungs) == loops
    assert list(rungs) == sorted(rungs)
    assert set(rungs) <= set(wanted)
    assert rungs[-1] == wanted[-1]
    assert loops != len(wanted) or rungs == wanted
    assert loops > 1 or taught == once
    assert replace(taught, loss=once.loss, stages=once.stages) == once
    drawn = draw(replace(TASK, rungs=rungs), taught, np.random.default_rng(0), 0, stage)
    assert (drawn.passes, len(drawn.batch.rungs)) == (1, loops)


def test_four_rungs_over_two_and_three_loops() -> None:
    training = LearningRecipe(loss="every", stages=((2, 4, 6, 8),))
    assert in_loops(training, 2).stages == ((4, 8),)
    assert in_loops(training, 3).stages == ((4, 6, 8),)


def test_without_stages_each_loop_is_asked_for_all_where_each_pass_is() -> None:
    every, last = LearningRecipe(loss="every"), LearningRecipe(ramp=0.5)
    assert in_loops(every, 3) == replace(without_stages(every), loss="loops")
    assert in_loops(every, 1) == without_stages(every)
    assert in_loops(in_loops(every, 2), 3) == in_loops(every, 3)
    assert in_loops(last, 3) == without_stages(last)


def test_what_cannot_be_taught_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"passes='1-4': loss='loops' .* use '1'"):
        check_training(LearningRecipe(loss="loops"))
    recipe = tmp_path / "recipe.toml"
    text = '[task]\nname = "hops"\nnodes = 8\nmax_hops = 4\n[model]\nloops = 3\n'
    text += '[test]\npasses = [1]\n[training]\npasses = "1"\nloss = "loops"\nstages = [[1, 2, 3]'
    recipe.write_text(text + "]\n")
    assert read_task_recipe(recipe).training.loss == "loops"
    recipe.write_text(text + ", [1, 4]]\n")
    with pytest.raises(InputError, match=r"\[1, 4\] is for 2 loops; as many .* loops=3"):
        read_task_recipe(recipe)
