"""Real numbers beside tokens are read, asked for, learnt and measured; where not, that is said."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import core_cases as cases
import numpy as np
import pytest
import torch

import adaptive_sleep as asl
from adaptive_sleep.answering import Answers, answer, go_on, unread
from adaptive_sleep.config import decode
from adaptive_sleep.curriculum import difficulty_weights
from adaptive_sleep.learning import (
    Optimiser,
    TaskRecipe,
    accuracy,
    config_of,
    gradient,
    read_task_recipe,
    task_of,
)
from adaptive_sleep.side_by_side import Share
from adaptive_sleep.tokens import octaves

REAL: dict[str, Any] = {
    "task": {"name": "lead_lag_continuous", "channels": 5, "max_horizon": 2, "noise": 0.0},
    "model": {
        "width": 32,
        "heads": 2,
        "key_dim": 16,
        "value_dim": 16,
        "conv": 0,
        "positions": "learned",
        "sleep_attention": "bidirectional",
    },
    "training": {"steps": 12, "batch": 8, "validate_every": 5, "validation": 4, "warmup": 3},
    "test": {"passes": [1, 2], "samples": 8, "measure": "r2"},
}
RECIPE = decode(TaskRecipe, REAL)
READING = {"answers": 4, "values": 3, "window": 12}


@pytest.fixture
def model() -> asl.Model:
    torch.manual_seed(0)
    return asl.Model(config_of(RECIPE))


def drawn(count: int = 5) -> Any:
    return task_of(RECIPE).sample(np.random.default_rng(0), count, part="train")


def test_a_number_is_read_as_its_octaves_and_a_blank_as_nothing() -> None:
    found = octaves(torch.tensor([[0.25, math.nan], [-1.0, 3.5]])).view(2, 2, 2, 4)
    for x, row in ((0.25, found[0, 0]), (-1.0, found[1, 0]), (3.5, found[1, 1])):
        wanted = [[f(math.pi * 2**j * x) for j in range(4)] for f in (math.sin, math.cos)]
        torch.testing.assert_close(row, torch.tensor(wanted), atol=1e-5, rtol=0)
    assert not found[0, 1].any()


def test_numbers_are_read_where_they_lie() -> None:
    """On a device that is no CPU: here one that computes nothing."""
    assert octaves(torch.zeros(2, 3, device="meta")).device.type == "meta"


def test_values_add_to_the_embedding_and_blanks_do_not() -> None:
    model = cases.build(cases.tiny(**READING))
    tokens = torch.arange(12).view(2, 6)
    blank = torch.full((2, 6, 3), torch.nan)
    plain = model.tokens.embed(tokens, blank)
    torch.testing.assert_close(plain, model.tokens.table(tokens) * math.sqrt(model.config.width))
    one = blank.clone()
    one[0, 2, 1] = 0.3
    changed = (model.tokens.embed(tokens, one) != plain).any(-1)
    assert torch.nonzero(changed).tolist() == [[0, 2]]


def test_an_embedding_with_values_starts_of_order_one() -> None:
    torch.manual_seed(0)
    face = asl.Model(asl.ModelConfig(kind="tokens", vocabulary=9, **READING)).tokens
    values = 2 * torch.rand(40, 12, 3) - 1
    embedded = face.embed(torch.randint(9, (40, 12)), values).detach()
    assert 0.5 < float(embedded.var()) < 2.5


def test_a_model_without_values_is_what_it_was() -> None:
    config = asl.ModelConfig(kind="tokens", vocabulary=9, answers=4)
    assert "values" not in config.identity()
    assert not any("values" in name for name in asl.Model(config).state_dict())
    reading = dataclasses.replace(config, values=3)
    assert reading.identity() == config.identity() | {"values": 3}


@pytest.mark.parametrize(("values", "given"), [(3, None), (3, 2), (0, 2)])
def test_other_values_than_the_model_reads_are_refused(values: int, given: int | None) -> None:
    model = cases.build(cases.tiny(answers=4, values=values))
    beside = None if given is None else torch.zeros(1, 2, given)
    with pytest.raises(asl.InputError, match=f"values: {given or 0} real .* reads {values}"):
        model.tokens.embed(torch.zeros(1, 2).long(), beside)


def test_the_answers_come_from_the_values_that_were_read(model: asl.Model) -> None:
    batch = drawn()
    (found,) = answer(model, batch, 2)
    assert found.logits.shape == (25, 1)
    assert found.targets.tolist() == batch.targets[1].ravel().tolist()
    read = batch.values[0].copy()
    read[2] = -read[2]  # of one sample
    other = dataclasses.replace(batch, values=(read, batch.values[1]))
    changed = (answer(model, other, 2)[0].logits != found.logits).view(5, 5).any(1)
    assert changed.tolist() == [False, False, True, False, False]


def test_only_what_is_asked_is_answered(model: asl.Model) -> None:
    batch = drawn()
    targets = batch.targets[1].copy()
    targets[:, 1:4] = np.nan
    some = dataclasses.replace(batch, targets=(batch.targets[0], targets))
    (found,), (whole,) = answer(model, some, 1), answer(model, batch, 1)
    torch.testing.assert_close(found.logits, whole.logits.view(5, 5)[:, [0, 4]].reshape(-1, 1))
    assert found.rows.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_the_loss_is_the_mean_squared_error() -> None:
    logits, targets = torch.tensor([[1.0], [2.0]]), torch.tensor([0.0, 4.0], dtype=torch.float64)
    assert float(Answers(logits, targets, torch.zeros(2).long()).loss()) == 2.5


def test_r2_is_what_is_explained_about_the_mean(model: asl.Model) -> None:
    task = task_of(RECIPE)
    found = accuracy(model, task, RECIPE.test, part="validation", samples=30)
    for h in (0, 1, 2):
        random = np.random.default_rng([0, 1, h])  # of accuracy: seed, part, difficulty
        batch = task.sample(random, 30, part="validation", difficulty=h)
        for passes in (1, 2):
            (answers,), _ = go_on(model, batch, passes, unread(model, 30))
            given = answers.logits.detach().double().numpy().reshape(30, 5)
            wanted = batch.targets[1]
            left = ((given - wanted) ** 2).sum() / ((wanted - wanted.mean()) ** 2).sum()
            assert found[passes][h] == pytest.approx(1 - left, rel=1e-6)


def test_difficulties_that_begin_at_nothing_have_finite_weights() -> None:
    weights = difficulty_weights(RECIPE.training, task_of(RECIPE), 0)
    assert weights == {0: 1.0, 1: 0.5, 2: pytest.approx(1 / 3)}


def test_shares_of_a_batch_keep_their_values() -> None:
    batch = drawn(6)
    parts = [Share(rank, 2).of(batch) for rank in range(2)]
    for rank, part in enumerate(parts):
        for window in (0, 1):
            np.testing.assert_array_equal(part.values[window], batch.values[window][rank::2])


def test_real_numbers_are_learnt(model: asl.Model) -> None:
    recipe = dataclasses.replace(RECIPE, training=dataclasses.replace(RECIPE.training, batch=64))
    training = dataclasses.replace(recipe.training, steps=80, warmup=5)
    optimiser = Optimiser(model, training)
    losses = []
    for step in range(80):
        losses.append(gradient(model, task_of(recipe), training, 0, step)[0])
        optimiser.step(step, training.steps)
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:5])
    assert model.tokens.values is not None
    assert model.tokens.values.weight.grad is None  # forgotten after every step


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("test.measure=sample", r"\[test\] measure='sample': .*real numbers, measured as 'r2'"),
        ("test.measure=r3", "measure.*r3"),
        ("task.levels=16", r"noise=0.02"),
        ("model.values=2", r"\[model\] values=2: this task carries 3; leave it out"),
        ("model.answers=4", r"\[model\] answers=4: this task asks for 1; leave it out"),
    ],
)
def test_a_recipe_measures_what_its_task_asks(change: str, told: str) -> None:
    folder = Path(__file__).parents[2] / "experiments" / "recipes"
    with pytest.raises(asl.InputError, match=told):
        read_task_recipe(folder / "lead_lag_continuous.toml", [change])
    assert read_task_recipe(folder / "lead_lag_continuous.toml").test.measure == "r2"
    with pytest.raises(asl.InputError, match=r"\[test\] measure='r2': .*asks for classes"):
        read_task_recipe(folder / "lead_lag.toml", ["test.measure=r2"])


@pytest.mark.parametrize("changes", [{"answers": 1}, {"answers": 4, "values": 2}])
def test_no_stream_carries_real_numbers_and_the_runtime_says_so(changes: dict[str, int]) -> None:
    model = cases.build(cases.tiny(**changes))
    with pytest.raises(asl.InputError, match=r"values=\d, answers=\d: no stream carries"):
        asl.Runtime(model, cases.fixed(1))
