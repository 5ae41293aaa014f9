"""Learning to sleep: a recipe for a task, how a batch becomes a gradient, how well a model does.

Windows go through the model in `answering`; what a step draws and asks is in `curriculum`; the loop
over steps, with its run folder, in `task_training`. What a step draws depends on (seed, step,
stage) alone, so that a run resumes exactly.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from adaptive_sleep.answering import Answers, Carried, go_on, unread
from adaptive_sleep.config import Eviction, ModelConfig, decode, read_toml, type_of
from adaptive_sleep.curriculum import LearningRecipe, check_training, draw, staged
from adaptive_sleep.eviction import holding
from adaptive_sleep.model import Model
from adaptive_sleep.muon import Muon, matrices
from adaptive_sleep.reading_cost import GRADIENT, forward_flops
from adaptive_sleep.side_by_side import Share
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.tasks.registry import make_task
from adaptive_sleep.streams.tasks.task import Part, Task, TaskSpace
from adaptive_sleep.training_recipe import parse_passes

ALONE = Share()
Accuracy = dict[int, dict[int, float]]  # passes -> difficulty -> share that is right, or R2


@dataclass(frozen=True, kw_only=True)
class TestRecipe:
    """How to test: which N, how many samples per difficulty, and what must be right."""

    __test__ = False  # no test class of pytest's

    passes: tuple[int, ...] = (1, 2, 3, 4, 5, 6)
    samples: int = 512
    # right: every question of a sample, each, or its first alone (where later ones follow from the
    # answers before them); "r2", for real numbers: what is explained of them
    measure: Literal["sample", "question", "first", "r2"] = "sample"
    before: int = 0  # other samples that each stream has read before


@dataclass(frozen=True, kw_only=True)
class TaskRecipe:
    """A whole recipe: `[task]` (a name and parameters), `[model]`, `[training]`, `[test]`."""

    task: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    eviction: Eviction = "hard"  # what a boundary drops of the KV; see `eviction`
    keep: int | None = None  # events that outlive a boundary; sliding: by default a window's worth
    training: LearningRecipe = field(default_factory=LearningRecipe)
    test: TestRecipe = field(default_factory=TestRecipe)


def read_task_recipe(path: str | Path, changes: Sequence[str] = ()) -> TaskRecipe:
    """Decode a recipe strictly, with `changes` such as "model.carry=accumulate" made to it first.

    Raises InputError naming the file and the field.
    """
    data = read_toml(path)
    for change in changes:
        _change(data, change)
    recipe = decode(TaskRecipe, data, where=str(path))
    try:
        _check_recipe(recipe)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return recipe


def _check_recipe(recipe: TaskRecipe) -> None:
    check_training(recipe.training)
    _check_test(recipe.test, recipe.training)
    staged(task_of(recipe), recipe.training)
    _check_loops(recipe.training, config_of(recipe).loops)


def _change(data: dict[str, Any], change: str) -> None:
    """Set one field of a recipe, at its top or in a table; a value that is not TOML is taken as a
    word, and so is the 2 of a field that holds words."""
    found = re.fullmatch(r"(?:(\w+)\.)?(\w+)=(.*)", change)
    if found is None:
        raise InputError(
            f"{change!r}: a change is written table.field=value, model.carry=restart, or "
            "field=value at the top, eviction=sliding"
        )
    table, name, value = found.groups(default="")
    held = data.setdefault(table, {}) if table else data
    if not isinstance(held, dict):
        raise InputError(f"{change!r}: {table}={held!r} is no table; write {table}=value")
    try:
        read = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        read = value
    if type_of(TaskRecipe, table, name) is str and not isinstance(read, str):
        read = value
    held[name] = read


def task_of(recipe: TaskRecipe) -> Task:
    """The task of a recipe. Raises InputError."""
    parameters = dict(recipe.task)
    name = parameters.pop("name", None)
    if name is None:
        raise InputError("[task] name is missing: which task to learn, e.g. 'hops'")
    if not isinstance(name, str):
        raise InputError(f"[task] name={name!r}: the name of a task in quotes, e.g. 'hops'")
    return make_task(name, **parameters)


def config_of(recipe: TaskRecipe) -> ModelConfig:
    """The model of a recipe. Where `[model]` leaves it out, what the task fixes is, and what
    experiments say of tasks: under hard eviction sleep that looks both ways, which learned four
    passes where causal sleep learned two (experiments/LOG.md, choices on a small ring)."""
    space = task_of(recipe).space
    filled: dict[str, Any] = {
        "kind": "tokens",
        "vocabulary": space.vocabulary,
        "fields": space.fields,
        "values": space.values,
        "answers": space.answers,
        "questions": space.questions,
        "window": space.window,
        "sleep_attention": "bidirectional" if recipe.eviction == "hard" else "causal",
        **recipe.model,
    }
    config = decode(ModelConfig, filled, where="[model]")
    holding(config, recipe.eviction, recipe.keep)
    for name, verb in (
        ("fields", "packs"),
        ("values", "carries"),
        ("answers", "asks for"),
        ("questions", "asks"),
    ):
        given, wanted = getattr(config, name), getattr(space, name)
        if given != wanted:
            raise InputError(f"[model] {name}={given!r}: this task {verb} {wanted!r}; leave it out")
    if config.window < space.window:
        raise InputError(
            f"[model] window={config.window}: this task has windows of {space.window} events; "
            "at least as many, or leave it out"
        )
    _check_measure(recipe.test, space)
    return config


def check_made_for(
    config: ModelConfig, space: TaskSpace, said: str, task: str = "the task that is run"
) -> None:
    """Refuse a model that reads or answers other numbers than a task shows and asks for; `said`:
    where the model was named. Raises InputError."""
    for name in ("fields", "values", "answers", "questions"):
        has, wanted = getattr(config, name), getattr(space, name)
        if has != wanted:
            raise InputError(f"{said}: was made for {name}={has!r}, but {task} has {wanted!r}")
    if config.window < space.window:
        raise InputError(
            f"{said}: was made for windows of up to window={config.window} events, but {task} has "
            f"{space.window}"
        )


def _check_loops(training: LearningRecipe, loops: int) -> None:
    if training.loss == "loops":
        for stage in training.stages:
            if len(stage) != loops:
                raise InputError(
                    f"[training] stages: {list(stage)} is for {len(stage)} loops; as many rungs as "
                    f"[model] loops={loops}"
                )


def _check_test(test: TestRecipe, training: LearningRecipe) -> None:
    if test.samples < 1:
        raise InputError(f"[test] samples={test.samples}: at least 1")
    if test.before < 0:
        raise InputError(f"[test] before={test.before}: a number of samples, from 0")
    _, most = parse_passes(training.passes)
    if min(test.passes, default=0) < 1 or min(test.passes) > most:
        raise InputError(
            f"[test] passes={list(test.passes)}: numbers from 1 on, one of them at most {most}, "
            f"which are trained (passes={training.passes!r})"
        )


def _check_measure(test: TestRecipe, space: TaskSpace) -> None:
    if (test.measure == "r2") != (space.answers == 1):
        asked, right = (
            ("real numbers", "'r2'")
            if space.answers == 1
            else ("classes", "'sample', 'question' or 'first'")
        )
        raise InputError(
            f"[test] measure={test.measure!r}: this task asks for {asked}, measured as {right}"
        )


def rate_factor(training: LearningRecipe, step: int, end: int) -> float:
    """Share of the rates at a step (from 0) of `end`: linear warm-up, level, then down to zero."""
    left = (end - step) / max(training.decay * training.steps, 1e-9)
    return min(1.0, (step + 1) / max(training.warmup, 1), left)


class Optimiser:
    """Muon for the matrices of blocks, AdamW for all else, under one schedule."""

    def __init__(self, model: Model, training: LearningRecipe) -> None:
        groups = matrices(model)
        cut = {id(p) for group in groups for p in group["params"]}
        rest = [p for p in model.parameters() if id(p) not in cut]
        self.training = training
        self.muon = Muon(groups, lr=training.matrix_rate)
        self.adam = torch.optim.AdamW(
            rest,
            lr=training.rate,
            betas=training.betas,
            weight_decay=training.weight_decay,
            fused=True,
        )

    def step(self, step: int, end: int) -> None:
        """Update at the rates of a step (from 0) of `end`, then forget the gradients."""
        factor = rate_factor(self.training, step, end)
        pairs = ((self.muon, self.training.matrix_rate), (self.adam, self.training.rate))
        for optimiser, rate in pairs:
            for group in optimiser.param_groups:
                group["lr"] = rate * factor
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

    def tensors(self) -> dict[str, Tensor]:
        """All state, by name; `load` takes it back."""
        return {
            f"{kind}.{number}.{name}": tensor
            for kind, optimiser in (("muon", self.muon), ("adam", self.adam))
            for number, state in optimiser.state_dict()["state"].items()
            for name, tensor in state.items()
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what `tensors` gave."""
        for kind, optimiser in (("muon", self.muon), ("adam", self.adam)):
            whole = optimiser.state_dict()
            for full, tensor in tensors.items():
                owner, number, name = full.split(".")
                if owner == kind:
                    whole["state"].setdefault(int(number), {})[name] = tensor
            optimiser.load_state_dict(whole)


class Step(NamedTuple):
    """One step's `loss` (nats a question) and that of the `last` pass, the `tokens` of its batch,
    the `flops` that it took by the ledger's formulas, gradient included, and what the batch
    `left`."""

    loss: float
    last: float
    tokens: int
    flops: float
    left: Carried


def gradient(
    model: Model,
    task: Task,
    training: LearningRecipe,
    seed: int,
    step: int,
    share: Share = ALONE,
    left: Carried | None = None,
    *,
    stage: int = 0,
    eviction: Eviction = "hard",
    keep: int | None = None,
) -> Step:
    """Accumulate the gradient of one step's batch and clip it.

    `task` is that of the `stage` (`staged`). Of several processes each works on its share of the
    batch, and all end with the gradient of the whole. `left` is what the step before left: a share
    `carry_over` of the streams go on from it.

    Raises InputError where the loss is not finite.
    """
    random = np.random.default_rng([seed, step])
    if model.config.dropout:  # what is dropped, too, depends on no step before
        torch.manual_seed(int(np.random.default_rng([seed, step, 1 + share.rank]).integers(2**63)))
    batch, passes, lessons = draw(task, training, random, step, stage)
    mine = share.of(batch)
    start = unread(model, len(mine), eviction, keep)
    if left is not None:
        rows = np.flatnonzero(random.random(len(mine)) < training.carry_over)
        start = left.alone(torch.from_numpy(rows).to(model.device), start.weights)
    found, after = go_on(model, mine, passes, start, lessons=lessons, recompute=training.recompute)
    # shares of a batch need not have as many questions
    counts = torch.tensor([len(a.targets) for a in found], device=model.device)
    losses = torch.stack([a.loss() for a in found]) * share.weights(counts)
    loss = losses.mean()
    loss.backward()
    value, last = share.average(model, torch.stack([loss, losses[-1]]).detach())
    if not np.isfinite(value):
        raise InputError(
            f"[training] rate={training.rate}, matrix_rate={training.matrix_rate}: the loss is "
            f"{value} at step {step}; lower the one that is too high"
        )
    nn.utils.clip_grad_norm_(model.parameters(), training.clip)
    tokens = sum(int(lengths.sum()) for lengths in batch.lengths)
    held = 0.0 if start.held is None else float(start.held.lengths.double().mean())
    flops = GRADIENT * forward_flops(
        model.config, start.holds, batch, passes, lessons=lessons, held=held
    )
    return Step(value, last, tokens, flops, after.detach())


def accuracy(
    model: Model,
    task: Task,
    test: TestRecipe,
    *,
    part: Part,
    samples: int,
    seed: int = 0,
    eviction: Eviction = "hard",
    keep: int | None = None,
) -> Accuracy:
    """Share that is right, by passes and difficulty, on fresh samples of a part (per difficulty);
    of real numbers R2, 1 - SSE / SST about their mean over these samples, which may be negative.

    The samples depend on (seed, part, difficulty) alone, so every model sees the same.
    """
    parts = ("train", "validation", "test")
    found: Accuracy = {n: {} for n in test.passes}
    with torch.no_grad():
        for difficulty in task.space.difficulties:
            random = np.random.default_rng([seed, parts.index(part), difficulty])
            batch = task.sample(random, samples, part=part, difficulty=difficulty)
            others = [task.sample(random, samples, part=part) for _ in range(test.before)]
            for passes in test.passes:
                state = unread(model, samples, eviction, keep)
                for other in others:
                    _, state = go_on(model, other, passes, state)
                answered, _ = go_on(model, batch, passes, state)
                found[passes][difficulty] = _measured(answered, test, samples)
    return found


def _measured(answered: Sequence[Answers], test: TestRecipe, samples: int) -> float:
    """What the measure of a test makes of all answers to `samples` samples."""
    if test.measure == "r2":
        wanted = torch.cat([a.targets for a in answered])
        given = torch.cat([a.logits[:, 0] for a in answered])
        left = (wanted - given).square().sum() / (wanted - wanted.mean()).square().sum()
        return 1.0 - float(left)
    if test.measure == "sample":
        right = torch.stack([a.right(samples) for a in answered]).all(0)
    else:
        these = [answered[0].first()] if test.measure == "first" else answered
        right = torch.cat([a.logits.argmax(-1) == a.targets for a in these])
    return float(right.double().mean())
