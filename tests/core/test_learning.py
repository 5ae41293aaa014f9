"""Learning a task: what is asked, the schedules, exact resume, and that sleep is what pays."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from adaptive_sleep.answering import Answers, answer, fall_asleep, go_on, unread
from adaptive_sleep.config import decode
from adaptive_sleep.curriculum import LearningRecipe
from adaptive_sleep.deltanet import DeltaNet
from adaptive_sleep.learning import (
    Optimiser,
    TaskRecipe,
    TestRecipe,
    _measured,
    accuracy,
    config_of,
    gradient,
    rate_factor,
    read_task_recipe,
    task_of,
)
from adaptive_sleep.ledger import costs
from adaptive_sleep.model import Model
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.tasks.registry import make_task
from adaptive_sleep.task_training import learn

SMALL: dict[str, Any] = {
    "task": {"name": "chain", "nodes": 6, "paths": 2},
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
    "test": {"passes": [1, 2], "samples": 8},
}


def small(**training: Any) -> TaskRecipe:
    return decode(TaskRecipe, {**SMALL, "training": {**SMALL["training"], **training}})


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    return Model(config_of(small()))


def drawn(recipe: TaskRecipe, count: int = 5) -> Any:
    return task_of(recipe).sample(np.random.default_rng(0), count, part="train")


def test_the_answers_come_from_the_fast_weights_alone(model: Model) -> None:
    batch = drawn(small())
    tokens, targets = list(batch.tokens), list(batch.targets)
    found = answer(model, batch, 2)[0].logits
    tokens[0] = np.roll(tokens[0], 1, axis=0)  # another sample's window was read
    other = dataclasses.replace(batch, tokens=tuple(tokens), targets=tuple(targets))
    assert not torch.allclose(found, answer(model, other, 2)[0].logits)
    # asked with nothing but the fast weights, the answers are the same
    words, lengths = (torch.from_numpy(x[0]) for x in (batch.tokens, batch.lengths))
    weights = fall_asleep(model, words, lengths, model.fresh(5), 2)[0][-1]
    questions, lengths = (torch.from_numpy(x[-1]) for x in (batch.tokens, batch.lengths))
    embedded = model.placed(model.tokens.embed(questions), torch.zeros_like(lengths))
    done = model.run(embedded, lengths, weights, seen="diagonal")
    alone = model.tokens.logits(done.hidden.flatten(0, 1))
    torch.testing.assert_close(found, alone)


def test_what_experiments_say_is_filled_in_where_a_recipe_leaves_it_out() -> None:
    bare = dataclasses.replace(small(), model={"width": 32, "heads": 2})
    assert config_of(bare).sleep_attention == "bidirectional"
    assert config_of(dataclasses.replace(bare, eviction="sliding")).sleep_attention == "causal"
    given = dataclasses.replace(bare, model={**bare.model, "sleep_attention": "causal"})
    assert config_of(given).sleep_attention == "causal"


def test_a_folder_from_before_that_default_is_not_taken_up_as_another_model(tmp_path: Path) -> None:
    bare = dataclasses.replace(small(steps=1), model={"width": 32, "heads": 2})
    learn(bare, tmp_path / "run")
    file = tmp_path / "run" / "recipe.json"
    written = json.loads(file.read_text())
    assert written["recipe"]["model"].pop("sleep_attention") == "bidirectional"
    file.write_text(json.dumps(written))  # as it was written while causal was the default
    with pytest.raises(InputError, match=r"sleep_attention is .*, but it was begun without"):
        learn(bare, tmp_path / "run")
    causal = dataclasses.replace(bare, model={**bare.model, "sleep_attention": "causal"})
    learn(causal, tmp_path / "causal")


def test_no_question_sees_another(model: Model) -> None:
    batch = drawn(small())
    whole = answer(model, batch, 2)[0].logits.view(5, 6, -1)
    tokens = batch.tokens[-1].copy()
    tokens[:, :3] = tokens[:, 3:]
    other = dataclasses.replace(batch, tokens=(*batch.tokens[:-1], tokens))
    again = answer(model, other, 2)[0].logits.view(5, 6, -1)
    torch.testing.assert_close(again[:, 3:], whole[:, 3:])


@pytest.mark.parametrize(("passes", "validated"), [("1", {1}), ("1-2", {1, 2}), ("2", {1, 2})])
def test_what_learns_one_pass_is_validated_at_one(
    passes: str, validated: set[int], tmp_path: Path
) -> None:
    log = learn(small(steps=1, passes=passes), tmp_path / "run").log
    assert {int(c[2]) for c in log.columns if c.startswith("N=")} == validated


def test_asking_changes_nothing(model: Model) -> None:
    batch = drawn(small())
    lengths = torch.from_numpy(batch.lengths[0])
    before = fall_asleep(model, torch.from_numpy(batch.tokens[0]), lengths, model.fresh(5), 2)[0][
        -1
    ]
    embedded = model.tokens.embed(torch.from_numpy(batch.tokens[1]))
    done = model.run(embedded, torch.from_numpy(batch.lengths[1]), before, seen="diagonal")
    for (_, a), (_, b) in zip(done.weights, before, strict=True):
        assert torch.equal(a, b)


def test_the_gradient_reaches_the_first_pass_and_recomputing_gives_the_same(model: Model) -> None:
    found = []
    for recompute in (False, True):
        model.zero_grad()
        found_now, _ = go_on(model, drawn(small()), 3, unread(model, 5), recompute=recompute)
        found_now[0].loss().backward()  # type: ignore[no-untyped-call]
        found.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    table = model.tokens.table.weight.grad
    assert table is not None
    assert float(table.abs().sum()) > 0
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


def test_every_pass_can_be_asked(model: Model) -> None:
    batch = drawn(small())
    found, _ = go_on(model, batch, 3, unread(model, 5), lessons="every")
    assert len(found) == 3
    for passes, one in enumerate(found, 1):
        torch.testing.assert_close(one.logits, answer(model, batch, passes)[0].logits)


def test_a_pass_is_asked_for_its_rung(model: Model) -> None:
    batch = drawn(small())
    rung = np.where(batch.targets[1] >= 0, 1, -1)
    found, _ = go_on(
        model, dataclasses.replace(batch, rungs=(rung,)), 2, unread(model, 5), lessons="every"
    )
    assert (found[0].targets == 1).all()
    assert found[1].targets.tolist() == batch.targets[1][batch.targets[1] >= 0].tolist()
    (last,), _ = go_on(model, dataclasses.replace(batch, rungs=(rung, rung)), 2, unread(model, 5))
    assert last.targets.tolist() == batch.targets[1][batch.targets[1] >= 0].tolist()


def test_a_stream_goes_on_from_what_it_read_before(model: Model) -> None:
    batch, other = drawn(small()), task_of(small()).sample(np.random.default_rng(1), 5, part="test")
    _, state = go_on(model, other, 2, unread(model, 5))
    found, _ = go_on(model, batch, 2, state)
    assert not torch.allclose(found[0].logits, answer(model, batch, 2)[0].logits)
    test = dataclasses.replace(small().test, before=1)
    assert set(accuracy(model, task_of(small()), test, part="test", samples=3)) == {1, 2}


def test_a_sliding_window_sees_what_the_windows_before_held() -> None:
    task = make_task("distractors", facts=4, fillers=2, length=3, names=8, values=4)
    made = {"name": "distractors", "facts": 4, "fillers": 2, "length": 3, "names": 8, "values": 4}
    shape = {**SMALL["model"], "positions": "rotary", "sleep_attention": "causal", "window": 12}
    recipe = decode(TaskRecipe, {**SMALL, "task": made, "model": shape, "eviction": "sliding"})
    model = Model(config_of(recipe)).eval()
    batch = task.sample(np.random.default_rng(0), 5, part="train")
    one = dataclasses.replace(  # all of it in one window, so that nothing is ever evicted
        batch,
        tokens=(np.concatenate(batch.tokens[:-1], 1), batch.tokens[-1]),
        targets=(np.concatenate(batch.targets[:-1], 1), batch.targets[-1]),
        lengths=(sum(batch.lengths[:-1]), batch.lengths[-1]),
        diagonal=(False, True),
    )
    with torch.no_grad():
        cut, _ = go_on(model, batch, 1, unread(model, 5, "sliding"))
        whole, _ = go_on(model, one, 1, unread(model, 5, "sliding"))
        evicted, _ = go_on(model, batch, 1, unread(model, 5))
    torch.testing.assert_close(cut[0].logits, whole[0].logits)
    assert not torch.allclose(cut[0].logits, evicted[0].logits, atol=1e-3)


def test_what_slides_far_enough_is_evicted() -> None:
    made = {"name": "distractors", "facts": 4, "fillers": 3, "length": 4, "names": 8, "values": 4}
    shape = {**SMALL["model"], "positions": "none", "sleep_attention": "causal"}
    recipe = decode(TaskRecipe, {**SMALL, "task": made, "model": shape, "eviction": "sliding"})
    model = Model(config_of(recipe)).eval()
    batch = task_of(recipe).sample(np.random.default_rng(0), 5, part="train")
    state = unread(model, 5, "sliding")
    for block in model.blocks:
        if isinstance(block.mixer, DeltaNet):
            torch.nn.init.zeros_(block.mixer.out.weight)  # fast weights tell nothing
    other = dataclasses.replace(batch, tokens=(batch.tokens[0] * 0 + 1, *batch.tokens[1:]))
    with torch.no_grad():
        told, _ = go_on(model, batch, 2, state)
        same, _ = go_on(model, other, 2, state)
    assert model.config.window == 4  # as many as the last filler holds
    torch.testing.assert_close(told[0].logits, same[0].logits, rtol=0, atol=0)


def test_a_share_of_the_streams_goes_on(model: Model) -> None:
    recipe = small(carry_over=1.0)
    task = task_of(recipe)
    loss, *_, left = gradient(model, task, recipe.training, 0, 0)
    again, *_ = gradient(model, task, recipe.training, 0, 1)
    on, *_ = gradient(model, task, recipe.training, 0, 1, left=left)
    assert np.isfinite(loss)
    assert on != again
    assert all(not t.requires_grad for _, t in left.weights)


def test_a_sample_is_right_only_where_all_its_questions_are() -> None:
    logits = torch.eye(3)[torch.tensor([0, 1, 2, 1])]
    found = Answers(logits, torch.tensor([0, 1, 2, 2]), torch.tensor([0, 0, 1, 1]))
    assert found.right(2).tolist() == [True, False]


def test_the_rates_warm_up_and_fall() -> None:
    training = LearningRecipe(steps=100, warmup=10, decay=0.4)
    assert rate_factor(training, 0, 100) == pytest.approx(0.1)
    assert rate_factor(training, 50, 100) == 1.0
    assert rate_factor(training, 80, 100) == pytest.approx(0.5)


def test_a_step_counts_its_tokens_once_and_its_flops_for_every_pass(model: Model) -> None:
    recipe = small(passes="3")
    last = gradient(model, task_of(recipe), recipe.training, 0, 0)
    assert last.tokens == 8 * 12  # 6 edges and 6 questions a sample
    price = costs(model.config)
    sizes, none = np.full(8, 6), np.zeros(8, np.int64)
    read = price.whole(sizes, none, causal=False).sum()
    slept = read + 2 * price.sleep_pass(sizes, causal=False).sum()
    asked = price.questions(sizes, sizes, none).sum()
    assert last.flops == 3 * (slept + asked)  # a gradient costs twice its forward pass
    assert last.last == last.loss
    every = gradient(model, task_of(recipe), small(passes="3", loss="every").training, 0, 0)
    assert every.flops == 3 * (slept + 3 * asked)
    assert every.last != every.loss


def test_parts_are_not_mixed(monkeypatch: pytest.MonkeyPatch, model: Model) -> None:
    seen: list[str] = []
    task = task_of(small())

    class Watched:
        space, name = task.space, task.name

        def sample(self, *args: Any, part: str, **options: Any) -> Any:
            seen.append(part)
            return task.sample(*args, part=part, **options)  # type: ignore[arg-type]

    gradient(model, Watched(), small().training, 0, 0)  # type: ignore[arg-type]
    assert seen == ["train"]
    accuracy(model, Watched(), small().test, part="test", samples=2)  # type: ignore[arg-type]
    assert set(seen[1:]) == {"test"}


def test_a_killed_run_ends_with_the_same_losses_to_the_bit(tmp_path: Path) -> None:
    whole = learn(small(steps=40, validate_every=10, carry_over=0.5), tmp_path / "whole", seed=3)
    code = (
        "import sys, json, time; from adaptive_sleep.config import decode\n"
        "from adaptive_sleep.learning import TaskRecipe\n"
        "from adaptive_sleep.task_training import learn\n"
        "import torch; torch.set_num_threads(int(sys.argv[3]))\n"
        "slow = lambda done, total, note: time.sleep(0.2 if done == 25 else 0)\n"
        "learn(decode(TaskRecipe, json.loads(sys.argv[1])), sys.argv[2], seed=3, on_progress=slow)"
    )
    recipe = json.dumps(dataclasses.asdict(small(steps=40, validate_every=10, carry_over=0.5)))
    folder = tmp_path / "killed"
    command = [sys.executable, "-c", code, recipe, str(folder), str(torch.get_num_threads())]
    process = subprocess.Popen(command)
    state = folder / "state.safetensors"
    deadline = time.monotonic() + 60
    while not state.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (folder / "log.parquet").exists()
    again = learn(small(steps=40, validate_every=10, carry_over=0.5), folder, seed=3)
    assert again.log.drop("seconds").equals(whole.log.drop("seconds"))
    assert again.model.hash == whole.model.hash


def test_a_device_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="device='gpu': 'cpu' or 'cuda'"):
        learn(small(), tmp_path / "run", device="gpu")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="sees no GPU"):
            learn(small(), tmp_path / "run", device="cuda")
    assert not (tmp_path / "run").exists()


@pytest.mark.gpu
def test_a_gpu_finds_what_the_cpu_does(tmp_path: Path) -> None:
    runs = [learn(small(), tmp_path / name, device=name) for name in ("cpu", "cuda")]
    for here, there in zip(*(run.log["loss"] for run in runs), strict=True):
        assert there == pytest.approx(here, rel=1e-3)


def test_a_folder_belongs_to_one_run(tmp_path: Path) -> None:
    learn(small(steps=2), tmp_path / "run", seed=0)
    with pytest.raises(InputError, match="seed is 1, but it was begun with 0"):
        learn(small(steps=2), tmp_path / "run", seed=1)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(InputError, match="holds something else"):
        learn(small(steps=2), tmp_path / "other")
    assert pl.read_parquet(tmp_path / "run" / "log.parquet")["step"].to_list() == [2]


def test_a_folder_is_trained_in_by_one_at_a_time(tmp_path: Path) -> None:
    out = tmp_path / "run"

    def meanwhile(done: float, total: float | None, note: str) -> None:
        with pytest.raises(InputError, match="another process is writing there"):
            learn(small(steps=2), out)
        tried.append(done)

    tried: list[float] = []
    first = learn(small(steps=2), out, on_progress=meanwhile)
    assert tried == [1, 2]
    assert learn(small(steps=2), out).seconds == first.seconds  # let go of


def test_it_learns(model: Model) -> None:
    recipe = small(steps=60, batch=32, warmup=5)
    optimiser = Optimiser(model, recipe.training)
    losses = []
    for step in range(60):
        losses.append(gradient(model, task_of(recipe), recipe.training, 0, step)[0])
        optimiser.step(step, recipe.training.steps)
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:5])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[task]\nname = "hopps"', "did you mean 'hops'"),
        ("[task]\nnodes = 3", r"\[task\] name is missing"),
        ("[task]\nname = 3", r"\[task\] name=3: the name of a task in quotes"),
        ('[task]\nname = "hops"\n[training]\nstep = 3', "did you mean 'steps'"),
        ('[task]\nname = "hops"\n[training]\nseed = 3', "'seed': .* as --seed"),
        (
            '[task]\nname = "hops"\n[training]\neviction = "hard"',
            "'eviction': it belongs to the top",
        ),
        ('[task]\nname = "hops"\n[test]\nsteps = 3', r"'steps': it belongs to \[training\]"),
        ("[training]\npasses = 3", "passes=3: expected `str`.*in quotes"),
        ("[training]\nsteps = 0", r"bad\.toml: \[training\] steps=0"),
        (
            '[task]\nname = "hops"\n[training]\npasses = "4-1"',
            r"bad\.toml: \[training\] passes='4-1': .* backwards",
        ),
        ('[task]\nname = "hops"\n[training]\nramp = 2.0', "a share from 0 to 1"),
        ('[task]\nname = "hops"\n[model]\nwidht = 3', "did you mean 'width'"),
        ('[task]\nname = "depo"\n[model]\nquestions = "alone"', "this task asks 'text'"),
        ('[task]\nname = "hops"\n[model]\nwindow = 3', "window=3: .* windows of 17 events"),
        (
            '[task]\nname = "hops"\n[model]\nfields = [2, 2]\nvocabulary = 4',
            r"fields=\(2, 2\): this task packs \(17, 17, 9\); leave it out",
        ),
        ('[task]\nname = "hops"\n[model]\nfields = []', r"fields=\(\): this task packs"),
        ('[task]\nname = "hops"\n[model]\nvocabulary = 7', "product is vocabulary=7"),
        ("[test]\npasses = []", r"passes=\[\]: numbers from 1 on, one of them at most 4"),
        ("[test]\npasses = [0, 1]", r"passes=\[0, 1\]: numbers from 1"),
        ("[test]\npasses = [5, 6]", r"passes=\[5, 6\]: .* at most 4, which are trained"),
        ("[test]\nsamples = 0", "samples=0: at least 1"),
        ("[test]\nbefore = -1", "before=-1: a number of samples, from 0"),
    ],
)
def test_bad_recipes_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read_task_recipe(path)


def test_the_first_question_of_a_sample_is_measured_alone() -> None:
    """Sample 0 has its first right and its second wrong, sample 1 the other way round."""
    targets = torch.tensor([1, 2, 1, 0])
    logits = torch.nn.functional.one_hot(torch.tensor([1, 0, 0, 0]), 3).float()
    answered = [Answers(logits, targets, torch.tensor([0, 0, 1, 1]))]
    wanted = {"first": 0.5, "question": 0.5, "sample": 0.0}
    for measure, share in wanted.items():
        test = TestRecipe(measure=measure)  # type: ignore[arg-type]
        assert _measured(answered, test, 2) == share
    assert answered[0].first().rows.tolist() == [0, 1]
    assert answered[0].first().targets.tolist() == [1, 1]
    three = Answers(logits, targets, torch.tensor([0, 2, 2, 2]))
    assert _measured([three], TestRecipe(measure="first"), 3) == 0.5  # of samples that are asked


def test_a_folder_called_tilde_is_that_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    learned = learn(small(steps=2, validate_every=1), "~/run")
    assert sorted(path.name for path in (tmp_path / "~" / "run").iterdir()) == [
        "log.parquet", "model.safetensors", "recipe.json", "state.safetensors",
    ]  # fmt: skip
    assert learned.path.is_file()
