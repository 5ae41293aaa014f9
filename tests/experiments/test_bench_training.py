"""The training benchmark reports a speed only beside a plain step that finds the same gradients."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from adaptive_sleep.curriculum import LearningRecipe
from adaptive_sleep.experiments import bench_training, plain_step
from adaptive_sleep.experiments.bench_training import (
    Contenders,
    beside,
    interleaved,
    run_bench,
    spread,
)
from adaptive_sleep.experiments.cli import main
from adaptive_sleep.experiments.finding import find_recipe
from adaptive_sleep.kernels import gated_delta_rule_reference
from adaptive_sleep.learning import TaskRecipe, config_of, read_task_recipe
from adaptive_sleep.streams.errors import AdaptiveSleepError, InputError

TINY = TaskRecipe(
    task={"name": "hops", "nodes": 4, "max_hops": 2},
    model={
        "layers": ["attention", "deltanet"],
        "width": 16,
        "heads": 2,
        "fast_heads": 2,
        "key_dim": 8,
        "value_dim": 8,
        "conv": 0,
        "positions": "learned",
        "sleep_attention": "bidirectional",
    },
    training=LearningRecipe(steps=100, batch=4, passes="1-2"),
)


def test_the_shipped_recipe_is_one_that_the_plain_step_knows() -> None:
    recipe = read_task_recipe(find_recipe(bench_training.RECIPE))
    Contenders(replace(recipe, training=replace(recipe.training, batch=2))).check()


@pytest.mark.parametrize("given", [{"loops": 3}, {"memory_tokens": 4}, {"conv": 4}], ids=str)
def test_the_plain_step_refuses_what_it_does_not_know(given: dict[str, int]) -> None:
    config = config_of(replace(TINY, model={**TINY.model, **given}))
    with pytest.raises(InputError, match=f"{next(iter(given))}="):
        plain_step.PlainHybrid(config, "steps")


@pytest.mark.parametrize("loss", ["last", "every"])
def test_the_report_has_its_keys(loss: str) -> None:
    threads = torch.get_num_threads()
    lines: list[str] = []
    recipe = replace(TINY, training=replace(TINY.training, loss=loss))
    found = run_bench(recipe, steps=4, report=lines.append)
    assert found["gate"] == "passed"
    assert found["seconds"] > 0
    assert found["tokens_per_second"] > 0
    assert 0 < found["products_share"] < 1
    assert set(found["plain"]) == {"chunks", "steps"}
    assert found["ratio"] == min(each["ratio"] for each in found["plain"].values())
    assert all(e["ratio_low"] <= e["ratio_median"] for e in found["plain"].values())
    assert set(found["seconds_by_passes"]) <= {"1", "2"}
    assert json.loads(json.dumps(found)) == found
    assert len(lines) == 1
    assert torch.get_num_threads() == threads


def test_a_wrong_gradient_has_no_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = plain_step.rule_by_steps

    def wrong(*inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        o, state = right(*inputs)
        return o, state + 1e-3

    monkeypatch.setitem(plain_step.RULES, "steps", wrong)
    with pytest.raises(AdaptiveSleepError, match=r"N=1, steps.*no speed is reported"):
        run_bench(TINY, steps=1)


@pytest.mark.parametrize("form", ["chunks", "steps"])
@pytest.mark.parametrize("events", [1, 5, 70])
def test_the_plain_rules_are_the_rule(form: plain_step.Form, events: int) -> None:
    rng = torch.Generator().manual_seed(events)
    q, k, v = torch.randn(3, 2, events, 2, 4, generator=rng, dtype=torch.float64)
    k = k / k.norm(dim=-1, keepdim=True)
    g, beta = torch.rand(2, 2, events, 2, generator=rng, dtype=torch.float64)
    state = torch.randn(2, 2, 4, 4, generator=rng, dtype=torch.float64)
    found = plain_step.RULES[form](q, k, v, -g, beta, state)
    wanted = gated_delta_rule_reference(q, k, v, -g, beta, initial_state=state)
    for x, y in zip(found, wanted, strict=True):
        torch.testing.assert_close(x, y)


def test_the_plain_optimiser_makes_the_same_step() -> None:
    contenders = Contenders(TINY)
    for step in range(3):
        contenders.our_step(step)
        contenders.plain_step("chunks", step)
    theirs = contenders.plain["chunks"].state_dict()
    for name, tensor in contenders.model.state_dict().items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-3, atol=1e-4)


def test_a_model_that_it_does_not_know_is_refused() -> None:
    recipe = replace(TINY, model={**TINY.model, "conv": 4})
    with pytest.raises(InputError, match=r"conv=4, but the plain step knows 0 only"):
        Contenders(recipe)


def test_everyone_takes_the_same_steps_in_turn() -> None:
    taken: list[tuple[str, int]] = []
    calls = [lambda n, who=who: taken.append((who, n)) for who in "abc"]
    times = interleaved(calls, [0, 5, 9], 1)
    assert [len(found) for found in times] == [2, 2, 2]
    assert [who for who, _ in taken] == list("abcbcacab")
    assert [n for _, n in taken] == [0, 0, 0, 5, 5, 5, 9, 9, 9]


def test_steps_are_taken_from_the_whole_training() -> None:
    assert spread(100, 4) == [0, 25, 50, 75]


def test_ratios_are_of_pairs() -> None:
    found = beside([1.0, 2.0, 1.0], [2.0, 4.0, 5.0])
    assert found["ratio"] == 11 / 4
    assert found["ratio_median"] == 2
    assert 2 <= found["ratio_low"] <= found["ratio_high"] < 5


def test_the_command_prints_what_was_measured(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = run_bench(TINY, steps=1)
    monkeypatch.setattr(bench_training, "run_bench", lambda **_: found)
    assert main(["bench", "training", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found
    assert main(["bench", "training"]) == 0
    out = capsys.readouterr().out
    assert "rule by chunks" in out
    assert "gate: passed" in out
