"""Training a model on a task, in a folder that says what was done and from which it resumes.

    recipe.json          what is trained, and from which seed; a resumed run must say the same
    log.parquet          one row per validation: step, loss, accuracy by passes and difficulty
    state.safetensors    weights, optimiser and step at the last validation
    model.safetensors    the model, when training is done

A killed run goes on from its last validation and ends with the same losses to the bit. What a step
does is in `learning`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
import torch

from adaptive_sleep.answering import Carried
from adaptive_sleep.checkpoint import save_model
from adaptive_sleep.curriculum import staged
from adaptive_sleep.learning import (
    ALONE,
    Accuracy,
    Optimiser,
    TaskRecipe,
    accuracy,
    config_of,
    gradient,
    task_of,
)
from adaptive_sleep.memory import CPU
from adaptive_sleep.model import Model
from adaptive_sleep.precision import check_float32
from adaptive_sleep.side_by_side import Share
from adaptive_sleep.streams.errors import InputError, nearest
from adaptive_sleep.streams.manifest import held
from adaptive_sleep.streams.tasks.task import Task, checked_seed
from adaptive_sleep.training_recipe import parse_passes
from adaptive_sleep.training_state import Loop, claim, read_state, write_state

Progress = Callable[[float, float | None, str], None]
LOG, MODEL = "log.parquet", "model.safetensors"


@dataclass(frozen=True, eq=False)
class Learned:
    """A trained model, the file it lies in, the validations, and what training took: seconds (of
    this process and of those before it), steps, tokens read (each once, however many passes), and
    FLOPs by the ledger's formulas, gradients included."""

    model: Model
    path: Path
    log: pl.DataFrame
    seconds: float
    steps: int
    tokens: int
    flops: float


def learn(
    recipe: TaskRecipe,
    out: str | Path,
    *,
    seed: int = 0,
    share: Share = ALONE,
    device: str = "cpu",
    on_progress: Progress | None = None,
) -> Learned:
    """Train a model on a task; `out` is made, or, where a run of the same recipe and seed was
    killed, taken up again.

    `device` "cuda" trains on a GPU (under torchrun, on the one of this process's local rank). With
    several processes (`share`) each works on its part of every batch, and the first alone
    writes; they must see one file system to resume. Raises InputError for a seed that is none, for
    a folder that holds something else, and for one that another process is training in;
    IntegrityError for one whose files are damaged.
    """
    seed = checked_seed(seed)
    folder, task, where = Path(out), task_of(recipe), device_named(device)
    writes = share.rank == 0
    described = {
        "recipe": _described(recipe),
        "seed": seed,
        "threads": torch.get_num_threads(),
        "processes": share.world,
    }
    if device != "cpu":
        described["device"] = device
    check_float32("train", where.type)
    with ExitStack() as stack:
        if writes:
            _made(folder)
            stack.enter_context(held(folder))
            claim(folder, described)
        share.wait()
        return _learn(recipe, folder, task, seed, share, where, on_progress)


def _learn(
    recipe: TaskRecipe, folder: Path, task: Task, seed: int, share: Share, where: torch.device,
    on_progress: Progress | None,
) -> Learned:  # fmt: skip
    """Train in a folder that is claimed, from where it is."""
    writes = share.rank == 0
    torch.manual_seed(seed)
    tasks = staged(task, recipe.training)
    model = Model(config_of(recipe)).to(where)
    optimiser = Optimiser(model, recipe.training)
    loop = read_state(folder, model, optimiser)
    training, begun = recipe.training, time.perf_counter() - loop.seconds
    model.train()
    left: Carried | None = None
    while loop.step < loop.place.ends(training):
        stage = loop.place.stage
        if stage < training.carry_from:
            left = None
        loss, last, tokens, flops, left = gradient(
            model,
            tasks[stage],
            training,
            seed,
            loop.step,
            share,
            left,
            stage=stage,
            eviction=recipe.eviction,
            keep=recipe.keep,
        )
        optimiser.step(loop.step, loop.place.ends(training))
        loop.running = 0.98 * loop.running + 0.02 * loss if loop.step else loss
        loop.place = loop.place.after(training, loop.step, last)
        loop.step += 1
        loop.tokens += tokens
        loop.flops += flops
        if loop.step % training.validate_every == 0 or loop.step == loop.place.ends(training):
            loop.seconds = time.perf_counter() - begun
            found = _validate(model, recipe)
            loop.rows.append(_row(loop, found))
            left = None  # not written, so that a run that is taken up begins as this one goes on
            if writes:
                write_state(folder, model, optimiser, loop)
        if on_progress is not None:
            spent = max(time.perf_counter() - begun, 1e-9)
            on_progress(loop.step, loop.place.ends(training), _note(loop, spent))
    log = pl.DataFrame(loop.rows)
    model.eval()
    if writes:
        log.write_parquet(folder.absolute() / LOG)  # polars would expand a leading ~
        provenance = {
            "task": json.dumps(recipe.task),
            "seed": str(seed),
            "steps": str(loop.step),
            "tokens": str(loop.tokens),
            "flops": str(loop.flops),
        }
        save_model(model, folder / MODEL, provenance=provenance)
    spent = loop.seconds
    return Learned(model, folder / MODEL, log, spent, loop.step, loop.tokens, loop.flops)


def _made(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(
            f"out={str(folder)!r}: {error.strerror}: a file is there; name a folder"
        ) from error


def device_named(name: str) -> torch.device:
    """The CPU, or the GPU of this process, by "cpu" or "cuda". Raises InputError."""
    if name not in ("cpu", "cuda"):
        raise InputError(f"device={name!r}: 'cpu' or 'cuda'{nearest(name, ('cpu', 'cuda'))}")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("device='cuda': torch sees no GPU here; use 'cpu'")
    return torch.device(name, int(os.environ.get("LOCAL_RANK", "0"))) if name == "cuda" else CPU


def _described(recipe: TaskRecipe) -> dict[str, Any]:
    """A recipe as a run says it; a field that came later only where it is set, so that a run that
    is older can be taken up, and without what says nothing of a whole run."""
    written = asdict(recipe)
    del written["training"]["quick"]
    if (seen := config_of(recipe).sleep_attention) != "causal":  # as it was where none was given
        written["model"]["sleep_attention"] = seen
    if recipe.keep is None:
        del written["keep"]
    for name in ("longest", "whole", "carry_from", "patience"):
        if not written["training"][name]:
            del written["training"][name]
    return written


def _validate(model: Model, recipe: TaskRecipe) -> Accuracy:
    """Accuracy on the part "validation": at the passes of the test, or at one, where training knows
    no more."""
    model.eval()
    samples, test = recipe.training.validation, recipe.test
    if parse_passes(recipe.training.passes) == (1, 1):
        test = replace(test, passes=(1,))
    found = accuracy(
        model,
        task_of(recipe),
        test,
        part="validation",
        samples=samples,
        eviction=recipe.eviction,
        keep=recipe.keep,
    )
    model.train()
    return found


def _row(loop: Loop, found: Accuracy) -> dict[str, float]:
    row = {"step": loop.step, "loss": loop.running, "seconds": loop.seconds, "tokens": loop.tokens}
    row["stage"] = loop.place.stage
    for passes, by_difficulty in found.items():
        row |= {f"N={passes} d={d}": share for d, share in by_difficulty.items()}
    return row


def _note(loop: Loop, spent: float) -> str:
    return f"loss {loop.running:.4f}, {loop.tokens / spent:,.0f} tokens/s"
