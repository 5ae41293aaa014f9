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
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from adaptive_sleep.answering import Carried
from adaptive_sleep.checkpoint import save_model
from adaptive_sleep.curriculum import Place, staged
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
from adaptive_sleep.side_by_side import Share
from adaptive_sleep.streams.errors import InputError, nearest
from adaptive_sleep.streams.manifest import TEMPORARY, held, write_atomically
from adaptive_sleep.streams.tasks.task import Task, checked_seed
from adaptive_sleep.training import parse_passes

Progress = Callable[[float, float | None, str], None]
RECIPE, LOG, STATE, MODEL = "recipe.json", "log.parquet", "state.safetensors", "model.safetensors"


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


@dataclass
class _Loop:
    """What a run holds between steps, and writes at each validation."""

    step: int = 0
    running: float = 0.0
    seconds: float = 0.0
    tokens: int = 0
    flops: float = 0.0
    place: Place = field(default_factory=Place)
    rows: list[dict[str, float]] = field(default_factory=list)


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
    a folder that holds something else, and for one that another process is training in.
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
    with ExitStack() as stack:
        if writes:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(held(folder))
            _claim(folder, described)
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
    loop = _read_state(folder / STATE, model, optimiser)
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
                _write_state(folder / STATE, model, optimiser, loop)
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


def _claim(folder: Path, described: dict[str, Any]) -> None:
    """Name a folder's run, or see that it belongs to this very one. Raises InputError."""
    file = folder / RECIPE
    # through JSON, so that tuples and lists compare as they are written
    wanted = json.loads(json.dumps(described))
    if file.is_file():
        named = json.loads(file.read_text(encoding="utf-8"))
        for name in sorted({*named, *wanted}):
            if named.get(name) != wanted.get(name):
                raise InputError(
                    f"{folder}: was begun with another {name}; name another folder, or take the "
                    f"same one up with {name} as it is in {file}"
                )
        return
    # a run that was killed while it claimed the folder has left no more than that
    if any(path.name != RECIPE + TEMPORARY for path in folder.iterdir()):
        raise InputError(f"{folder}: holds something else; name a new folder")
    write_atomically(file, json.dumps(described, indent=1).encode())


def _read_state(file: Path, model: Model, optimiser: Optimiser) -> _Loop:
    """Take up what was written, or begin."""
    if not file.is_file():
        return _Loop()
    with safe_open(file, framework="pt") as state:
        written = json.loads(state.metadata()["loop"])
        loop = _Loop(**written | {"place": Place(**written["place"])})
        tensors = {name: state.get_tensor(name) for name in state.keys()}  # noqa: SIM118
    weights = {n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")}
    model.load_state_dict(weights)
    optimiser.load({n: t for n, t in tensors.items() if not n.startswith("model.")})
    return loop


def _write_state(file: Path, model: Model, optimiser: Optimiser, loop: _Loop) -> None:
    tensors: dict[str, Tensor] = {f"model.{n}": t for n, t in model.state_dict().items()}
    tensors |= optimiser.tensors()
    whole = {n: t.detach().contiguous() for n, t in tensors.items()}
    write_atomically(file, save(whole, metadata={"loop": json.dumps(asdict(loop))}))


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


def _row(loop: _Loop, found: Accuracy) -> dict[str, float]:
    row = {"step": loop.step, "loss": loop.running, "seconds": loop.seconds, "tokens": loop.tokens}
    row["stage"] = loop.place.stage
    for passes, by_difficulty in found.items():
        row |= {f"N={passes} d={d}": share for d, share in by_difficulty.items()}
    return row


def _note(loop: _Loop, spent: float) -> str:
    return f"loss {loop.running:.4f}, {loop.tokens / spent:,.0f} tokens/s"
