"""What training asks: stages that end when they are learned, passes, difficulties; exact resume."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from adaptive_sleep.answering import go_on, unread
from adaptive_sleep.config import decode
from adaptive_sleep.curriculum import (
    SHORTEST,
    LearningRecipe,
    Place,
    check_training,
    difficulty_weights,
    draw,
    drawn_passes,
    in_one_pass,
    staged,
    without_stages,
)
from adaptive_sleep.learning import TaskRecipe, config_of, gradient, rate_factor, task_of
from adaptive_sleep.model import Model
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.tasks.registry import make_task
from adaptive_sleep.task_training import learn

STAGES = ((1,), (1, 2), (1, 3))


def test_passes_and_what_is_asked_without_stages() -> None:
    training = LearningRecipe(steps=100, passes="1-4", ramp=0.5)
    random = np.random.default_rng(0)
    assert {drawn_passes(training, random, 0) for _ in range(30)} == {1}
    assert {drawn_passes(training, random, 60) for _ in range(80)} == {1, 2, 3, 4}
    every = dataclasses.replace(training, loss="every")
    assert {drawn_passes(every, random, 60) for _ in range(30)} == {4}
    task = make_task("hops", nodes=8, max_hops=4)
    assert draw(task, training, random, 60).lessons == "last"
    assert draw(task, every, random, 60).lessons == "every"


def test_passes_in_stages() -> None:
    training = LearningRecipe(steps=100, loss="every", stages=STAGES)
    random = np.random.default_rng(0)
    for stage, passes in enumerate((1, 2, 2)):
        assert {drawn_passes(training, random, 10, stage) for _ in range(20)} == {passes}


def test_a_stage_asks_for_its_rungs() -> None:
    task = make_task("hops", nodes=8, max_hops=4)
    training = LearningRecipe(loss="every", stages=STAGES, batch=6)
    tasks = staged(task, training)
    assert staged(task, LearningRecipe()) == [task]
    for stage, (rungs, each) in enumerate(zip(STAGES, tasks, strict=True)):
        batch, passes, lessons = draw(each, training, np.random.default_rng(1), 0, stage)
        assert len(batch.rungs) == len(rungs) == passes
        assert lessons == "every"
    wanted, *_ = draw(tasks[2], training, np.random.default_rng(1), 0, 2)
    alike = draw(tasks[1], training, np.random.default_rng(1), 0, 1).batch
    few = wanted.difficulty <= 3
    assert 0 < few.sum() < 6
    assert (wanted.rungs[1][few] == wanted.targets[1][few]).all()
    assert (wanted.rungs[0] == alike.rungs[0]).all()


def test_a_stage_ends_where_its_running_loss_is_low_but_not_at_once() -> None:
    training = LearningRecipe(loss="every", stages=STAGES, learned=0.1)
    place, steps = Place(), 0
    while place.stage == 0:
        place, steps = place.after(training, 0, 0.01), steps + 1
    assert steps == SHORTEST
    assert place == Place(1)
    place = place.after(training, 0, 2.0)
    assert (place.steps, place.loss) == (1, 2.0)
    steps = 1
    while place.stage == 1:
        place, steps = place.after(training, 0, 0.0), steps + 1
    assert 2.0 * 0.98 ** (steps - 1) < 0.1 <= 2.0 * 0.98 ** (steps - 2)
    for _ in range(1000):
        place = place.after(training, 0, 0.2)
    assert place.stage == 2
    assert Place().after(LearningRecipe(loss="every"), 0, 0.0) == Place()


def test_training_ends_a_while_after_the_last_stage_is_learned() -> None:
    training = LearningRecipe(steps=1000, decay=0.2, loss="every", stages=STAGES)
    place, step = Place(2), 300
    while not place.end:
        assert place.ends(training) == 1000
        place, step = place.after(training, step, 0.01), step + 1
    assert step == 300 + SHORTEST
    assert place.ends(training) == step + 200
    assert place.after(training, step, 9.0) == place
    rates = [rate_factor(training, at, place.end) for at in (step, step + 100, step + 199)]
    assert rates == pytest.approx([1.0, 0.5, 0.005])
    late = Place(2, SHORTEST, 0.0).after(training, 900, 0.0)
    assert late.end == 1000


def test_stages_may_take_longer_and_nothing_else_changes() -> None:
    training = LearningRecipe(steps=1000, decay=0.2, loss="every", stages=STAGES)
    longer = replace(training, longest=3000)
    check_training(longer)
    assert Place(1).ends(longer) == 3000
    for step in (300, 900, 2500):
        end = Place(2, SHORTEST, 0.0).after(longer, step, 0.0).end
        assert end == step + 201  # `decay` is a share of `steps`
        assert rate_factor(longer, step, end) == 1.0
    assert Place(2, SHORTEST, 0.0).after(longer, 2900, 0.0).end == 3000
    assert Place(2, SHORTEST, 0.0).after(replace(training, whole=True), 300, 0.0).end == 1000


def test_a_stage_ends_unlearned_where_patience_does() -> None:
    training = LearningRecipe(steps=1000, patience=0.25, loss="every", stages=STAGES, whole=True)
    check_training(training)
    place, seen = Place(), []
    for step in range(1000):
        place = place.after(training, step, 9.0)
        seen.append(place.stage)
    assert [seen.count(stage) for stage in range(3)] == [249, 250, 501]  # the last is never left
    assert not place.end
    assert place.ends(training) == 1000


def test_one_pass_may_be_asked_for_what_the_last_of_several_is() -> None:
    training = LearningRecipe(
        loss="every", stages=STAGES, longest=9000, power=(1.0, -1.0), carry_over=0.5, carry_from=2
    )
    one = in_one_pass(training)
    check_training(one)
    assert (one.passes, one.stages, one.longest, one.whole) == ("1", ((1,), (2,), (3,)), 0, True)
    assert (one.carry_over, one.carry_from, one.patience, one.decay) == (0.5, 2, 0.25, 0.5)
    assert in_one_pass(replace(training, decay=0.6)).decay == 0.6
    assert in_one_pass(replace(training, stages=((3,),), carry_from=0)).patience == 0.5
    bare = without_stages(training)
    check_training(bare)
    assert (bare.passes, bare.stages, bare.loss, bare.carry_from) == ("1", (), "last", 0)
    task = make_task("hops", nodes=8, max_hops=4)
    assert [t.rungs for t in staged(task, one)] == [(1,), (2,), (3,)]
    assert difficulty_weights(one, task, 0, 1) == difficulty_weights(training, task, 0, 1)


@pytest.mark.parametrize("steps", [40, 999, 3547])
def test_one_pass_is_asked_for_all_in_half_of_the_steps_whatever_it_learns(steps: int) -> None:
    stages = (*STAGES, (1, 2, 3, 3), (1, 2, 3, 4))
    taught = in_one_pass(LearningRecipe(loss="every", stages=stages, steps=steps))
    place, whole = Place(), 0
    for step in range(steps):
        whole += place.stage == len(stages) - 1
        place = place.after(taught, step, 9.0)
    assert abs(whole - steps / 2) <= len(stages)


def test_weights_of_difficulties() -> None:
    training, task = LearningRecipe(steps=100), make_task("hops", nodes=8, max_hops=4)
    first, last = (difficulty_weights(training, task, step) for step in (0, 100))
    assert first[4] / first[2] == pytest.approx(0.5)
    assert last[4] / last[2] == pytest.approx(0.5**0.3)
    training = LearningRecipe(loss="every", stages=STAGES, power=(1.0, -1.0))
    for stage, ratio in enumerate((0.5, 1.0, 2.0)):
        weights = difficulty_weights(training, task, 99, stage)
        assert weights[4] / weights[2] == pytest.approx(ratio)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"stages": STAGES}, r"loss='last': stages ask every pass; use 'every'"),
        ({"stages": STAGES, "loss": "every", "ramp": 0.5}, r"ramp=0.5: stages say how"),
        ({"stages": ((1, 2, 3, 4, 5),), "loss": "every"}, r"\[1, 2, 3, 4, 5\] is for 5 passes; 1"),
        ({"stages": ((),), "loss": "every"}, r"\[\] is for 0 passes"),
        ({"longest": 5000}, r"longest=5000: for stages, at least steps=4000"),
        ({"carry_from": 1}, r"carry_from=1: one of 0 stages, from 0"),
        ({"whole": True}, r"whole=True: for stages; leave it out"),
        ({"patience": 0.5}, r"patience=0.5: for stages; leave it out"),
        ({"patience": 1.5}, r"patience=1.5: a share from 0 to 1"),
        ({"carry_from": 3, "stages": STAGES, "loss": "every"}, r"carry_from=3: one of 3 stages"),
        (
            {"longest": 3000, "stages": STAGES, "loss": "every"},
            r"longest=3000: for stages, at least steps=4000",
        ),
        ({"learned": 0.0}, r"learned=0.0: a number above 0"),
        ({"matrix_rate": -1.0}, r"matrix_rate=-1.0: a number above 0"),
        ({"clip": float("inf")}, r"clip=inf: a number above 0"),
        ({"weight_decay": -0.1}, r"weight_decay=-0.1: a number from 0 on"),
        ({"warmup": -5}, r"warmup=-5: a number from 0 on"),
        ({"betas": (0.9, 1.0)}, r"betas=\[0.9, 1.0\]: two numbers from 0, below 1"),
        ({"decay": 1.5}, r"decay=1.5: a share from 0 to 1"),
        ({"batch": 0}, r"batch=0: at least 1"),
        ({"power": (-3000.0, 0.0)}, r"\[training\] power=-3000.0: a number from -16 to 16"),
        ({"power": (0.0, float("nan"))}, r"\[training\] power=nan: a number from -16 to 16"),
    ],
)
def test_what_cannot_be_trained_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        check_training(LearningRecipe(**given))


def test_a_later_pass_may_be_asked_for_no_more() -> None:
    training = LearningRecipe(loss="every", stages=((1, 3, 3),), batch=6)
    (task,) = staged(make_task("hops", nodes=8, max_hops=4), training)
    _, second, third = draw(task, training, np.random.default_rng(1), 0).batch.rungs
    assert (second == third).all()


def test_rungs_that_are_none_are_refused() -> None:
    training = LearningRecipe(loss="every", stages=((1,), (1, 9)))
    with pytest.raises(InputError, match=r"rungs=9: expected an integer in 1\.\.4"):
        staged(make_task("hops", nodes=8, max_hops=4), training)
    with pytest.raises(InputError, match="rising difficulties of gsm_symbolic, 2 to 6"):
        staged(make_task("gsm_symbolic"), training)
    falling = LearningRecipe(loss="every", stages=((2,), (3, 2)))
    with pytest.raises(InputError, match=r"\[3, 2\]: rising difficulties"):
        staged(make_task("gsm_symbolic"), falling)


def test_real_answers_have_stages_only_with_rungs() -> None:
    real: Any = SimpleNamespace(name="real", space=SimpleNamespace(answers=1, difficulties=(1, 2)))
    with pytest.raises(InputError, match="asks for real numbers and has no rungs"):
        staged(real, LearningRecipe(loss="every", stages=((1,), (1, 2))))


def test_without_rungs_a_stage_asks_about_what_is_no_harder() -> None:
    task = make_task("gsm_symbolic", max_op=5, lines=6, name_digits=1)
    training = LearningRecipe(loss="every", stages=((2,), (2, 4)), batch=40)
    assert staged(task, training) == [task, task]
    assert set(difficulty_weights(training, task, 0, 0)) == {2}
    assert set(difficulty_weights(training, task, 0, 1)) == {2, 3, 4}  # 5 is nobody's yet
    batch, passes, lessons = draw(task, training, np.random.default_rng(2), 0, 1)
    assert (passes, lessons) == (2, "every")
    for level, rung in zip((2, 4), batch.rungs, strict=True):
        asked = batch.difficulty <= level
        assert asked.any()
        assert (rung[asked] == batch.targets[-1][asked]).all()
        assert (rung[~asked] == -1).all()
    assert (batch.difficulty == 3).any()


def test_what_a_rung_leaves_out_is_not_answered() -> None:
    task = make_task("gsm_symbolic", max_op=3, lines=4, name_digits=1)
    training = LearningRecipe(loss="every", stages=((2, 3),), batch=9)
    batch = draw(task, training, np.random.default_rng(3), 0).batch
    torch.manual_seed(0)
    config = config_of(
        decode(
            TaskRecipe,
            {
                "task": {"name": "gsm_symbolic", "max_op": 3, "lines": 4, "name_digits": 1},
                "model": {"width": 16, "heads": 1, "key_dim": 8, "value_dim": 8},
            },
        )
    )
    model = Model(config)
    found, _ = go_on(model, batch, 2, unread(model, len(batch)), lessons="every")
    easy = np.flatnonzero(batch.difficulty == 2)
    assert set(found[0].rows.tolist()) == set(easy.tolist()) != set(range(9))
    assert set(found[1].rows.tolist()) == set(range(9))
    assert torch.isfinite(found[0].loss())
    none = dataclasses.replace(batch, rungs=(np.full_like(batch.targets[-1], -1),))
    (silent, _), _ = go_on(model, none, 2, unread(model, len(batch)), lessons="every")
    assert silent.loss().item() == 0.0


def test_a_run_that_is_taken_up_goes_on_in_its_stage(tmp_path: Path) -> None:
    recipe = decode(
        TaskRecipe,
        {
            "task": {"name": "hops", "nodes": 5, "max_hops": 3, "least": 3},
            "model": {"width": 16, "heads": 1, "key_dim": 8, "value_dim": 8, "conv": 0,
                      "positions": "learned", "sleep_attention": "bidirectional"},
            "training": {"steps": 200, "batch": 4, "validate_every": 65, "validation": 2,
                         "passes": "1-2", "loss": "every", "stages": [[1], [1, 2], [1, 3]],
                         "learned": 50.0, "decay": 0.1},
            "test": {"passes": [1], "samples": 2, "measure": "question"},
        },
    )  # fmt: skip
    whole = learn(recipe, tmp_path / "whole", seed=1)
    assert whole.log["stage"].to_list() == [1, 2, 2]
    assert whole.steps == 3 * SHORTEST + 20  # each stage at its shortest, then a tenth of 200

    def stop(done: float, total: float | None, note: str) -> None:
        if done == 100:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        learn(recipe, tmp_path / "cut", seed=1, on_progress=stop)
    again = learn(recipe, tmp_path / "cut", seed=1)
    assert again.log.drop("seconds").equals(whole.log.drop("seconds"))
    assert (again.tokens, again.flops) == (whole.tokens, whole.flops)
    assert isinstance(again.log, pl.DataFrame)
    assert task_of(recipe).space.difficulties == (1, 2, 3)


def test_samples_are_carried_over_from_a_stage_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = decode(
        TaskRecipe,
        {
            "task": {"name": "hops", "nodes": 4, "max_hops": 2},
            "model": {"width": 16, "heads": 1, "key_dim": 8, "value_dim": 8, "conv": 0,
                      "positions": "learned", "sleep_attention": "bidirectional"},
            "training": {"steps": 110, "batch": 4, "validate_every": 200, "validation": 2,
                         "passes": "1-2", "loss": "every", "stages": [[1], [1, 2]],
                         "learned": 50.0, "decay": 0.01, "carry_over": 0.5, "carry_from": 1},
            "test": {"passes": [1], "samples": 2, "measure": "question"},
        },
    )  # fmt: skip
    seen: list[tuple[int, bool]] = []

    def watched(*given: Any, stage: int, **more: Any) -> Any:
        seen.append((stage, given[6] is not None))
        return gradient(*given, stage=stage, **more)

    monkeypatch.setattr("adaptive_sleep.task_training.gradient", watched)
    learn(recipe, tmp_path / "run")
    assert set(seen) == {(0, False), (1, True)}
