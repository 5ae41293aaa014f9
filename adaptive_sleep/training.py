"""Training a hybrid that is to sleep on a recording: windows, passes, the loss, and a plain loop.

The gradient runs through every pass and every fast-weight update. Checkpoints are chosen on the
validation range of the recording; the test range is never read here.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from adaptive_sleep.attention import empty_cache
from adaptive_sleep.checkpoint import save_model
from adaptive_sleep.model import Model
from adaptive_sleep.precision import check_float32
from adaptive_sleep.reading_cost import GRADIENT, sequence_flops
from adaptive_sleep.runtime import Runtime
from adaptive_sleep.sleep import ClosedWindow, consolidate
from adaptive_sleep.streams.cutting import Cutter, Windower
from adaptive_sleep.streams.errors import AdaptiveSleepError, InputError, nearest
from adaptive_sleep.streams.recording import Recording
from adaptive_sleep.training_data import (
    Batch,
    StreamData,
    read_streams,
    rows_between,
    sample,
)
from adaptive_sleep.training_recipe import (
    PRESETS,
    Recipe,
    TrainingRecipe,
    check_recipe,
    opened,
    parse_passes,
    read_recipe,
    recorded,
    rows_said,
)
from adaptive_sleep.wake import Start, wake

Progress = Callable[[float, float | None, str], None]


@dataclass(frozen=True)
class Trained:
    """A trained model: its checkpoint, the step that validation chose, and the losses.

    `log` has one entry per validation: step, training loss, and validation loss by passes.
    `tokens` (events) and `flops` are those of all steps, also of those after the chosen one.
    """

    path: Path
    step: int
    validation: dict[int, float]
    log: list[dict[str, float]]
    seconds: float
    tokens: int
    flops: float


@dataclass(frozen=True)
class Taken:
    """One training step: loss per prediction, events read, FLOPs (by the ledger's formulas)."""

    loss: float
    tokens: int
    flops: float


def train_recipe(
    path: str | Path, out: str | Path, *, on_progress: Progress | None = None
) -> Trained:
    """Train what a recipe file says and write the checkpoint `out`. Raises InputError."""
    return train(read_recipe(path), out, on_progress=on_progress)


def train_preset(
    recording: str | Path,
    preset: str | None,
    out: str | Path,
    *,
    on_progress: Progress | None = None,
) -> Trained:
    """Train the preset "series" or "tokens" (None: as its kind is) on a recording of one's own.

    Trains on the first 70 % of the rows and chooses the checkpoint on the next 15 %; the last 15 %
    are not read, and are there to test on. Raises InputError.
    """
    if preset is not None and preset not in PRESETS:
        close = nearest(preset, PRESETS)
        raise InputError(f"preset={preset!r}: one of {', '.join(PRESETS)}{close}")
    kind = recorded(str(recording)).kind
    if preset not in (None, kind):
        raise InputError(f"preset={preset!r}: the recording holds {kind}; use {kind!r}")
    recipe = PRESETS[kind]
    data = replace(recipe.data, recording=str(recording), train=(0.0, 0.7), validation=(0.7, 0.85))
    return train(replace(recipe, data=data), out, on_progress=on_progress)


def train(recipe: Recipe, out: str | Path, *, on_progress: Progress | None = None) -> Trained:
    """Train, keep the weights that validate best, write them to `out` (atomically).

    Raises InputError for a recipe that cannot be trained, naming the field, and a missing folder;
    where training diverges too, once what was best before, if anything, is written beside `out`
    (NAME-diverged, or NAME-diverged-2 and so on).
    """
    begun = time.perf_counter()
    settings = recipe.training
    low, high = parse_passes(settings.passes)
    check_float32("train")
    check_recipe(recipe)
    if not Path(out).parent.is_dir():  # said now, not after minutes of training
        raise InputError(f"{out}: the folder {Path(out).parent} does not exist")
    recording, config = opened(recipe)
    first, last = rows_between(recipe.data.train, recording.rows)
    streams = read_streams(recording, config, first, last)
    torch.manual_seed(settings.seed)
    random = np.random.default_rng(settings.seed)
    model = Model(config)
    optimiser = _optimiser(model, settings)
    best: tuple[float, int, dict[str, Tensor], dict[int, float]] | None = None
    log: list[dict[str, float]] = []
    running, tokens, flops, done = 0.0, 0, 0.0, 0
    diverged: InputError | None = None
    try:
        for step in range(1, settings.steps + 1):
            taken = train_step(model, optimiser, streams, settings, random, (low, high), step)
            tokens, flops, done = tokens + taken.tokens, flops + taken.flops, step
            running = taken.loss if step == 1 else 0.98 * running + 0.02 * taken.loss
            note = f"loss {running:.4f}"
            if step % settings.validate_every == 0 or step == settings.steps:
                found = _validated(model, recording, recipe, sorted({low, high}), step)
                score = float(np.mean(list(found.values())))
                seen = {f"validation@{n}": v for n, v in found.items()}
                log.append({"step": step, "train": running, **seen})
                note += ", validation " + " ".join(f"N={n} {v:.4f}" for n, v in found.items())
                if best is None or score < best[0]:
                    weights = {n: t.detach().clone() for n, t in model.state_dict().items()}
                    best = (score, step, weights, found)
            if on_progress is not None:
                on_progress(step, settings.steps, note)
    except _DivergedError as error:
        if best is None:
            raise
        diverged = error
    assert best is not None
    model.load_state_dict(best[2])
    provenance = {
        **rows_said(recipe, recording),
        "recipe": repr(recipe.training),
        "chosen_step": f"{best[1]} of {settings.steps}, on validation",
        "validation": ", ".join(f"N={n}: {v:.4f}" for n, v in best[3].items()),
        "steps": str(done),
        "tokens": str(tokens),
        "flops": str(flops),
    }
    target = Path(out)
    if diverged is not None:  # not in `out`, where it would pass for a whole training
        target = _beside(target)
    path = save_model(model, target, provenance=provenance)
    if diverged is not None:
        raise InputError(f"{diverged}; what was best before, of step {best[1]}, is in {path}")
    spent = time.perf_counter() - begun
    return Trained(path, best[1], best[3], log, spent, tokens, flops)


def _beside(target: Path) -> Path:
    """NAME-diverged beside a file, or NAME-diverged-2 and so on where that is taken."""
    for number in itertools.count(1):
        ending = "-diverged" if number == 1 else f"-diverged-{number}"
        path = target.with_name(f"{target.stem}{ending}{target.suffix}")
        if not path.exists():
            break
    return path


class _DivergedError(InputError):
    """Training came to weights that are of no use."""


def _validated(
    model: Model, recording: Recording, recipe: Recipe, passes: list[int], step: int
) -> dict[int, float]:
    """As `validate`; raises _DivergedError where the model cannot be run."""
    try:
        found = validate(model, recording, recipe, passes)
    except InputError:  # what is validated on is wrong, not the model
        raise
    except AdaptiveSleepError as error:
        raise _diverged(recipe.training, step, f"a model that cannot be run: {error}") from error
    if not all(map(math.isfinite, found.values())):
        raise _diverged(recipe.training, step, f"a validation loss of {found}")
    return found


def _diverged(settings: TrainingRecipe, step: int, found: str) -> _DivergedError:
    return _DivergedError(
        f"[training] learning_rate={settings.learning_rate}: step {step} came to {found}; lower it"
    )


def _optimiser(model: Model, settings: TrainingRecipe) -> torch.optim.Optimizer:
    """AdamW; vectors and biases are not decayed."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=settings.betas)


def learning_rate(settings: TrainingRecipe, step: int) -> float:
    """Linear warm-up, then a cosine down to a twentieth."""
    if step <= settings.warmup:
        return settings.learning_rate * step / max(settings.warmup, 1)
    done = (step - settings.warmup) / max(settings.steps - settings.warmup, 1)
    return settings.learning_rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done)))


def train_step(
    model: Model,
    optimiser: torch.optim.Optimizer,
    streams: list[StreamData],
    settings: TrainingRecipe,
    random: np.random.Generator,
    passes: tuple[int, int],
    step: int,
) -> Taken:
    """One batch: forward, backward through sleep, update. Raises InputError where it diverges."""
    model.train()
    model.forget_hash()
    for group in optimiser.param_groups:
        group["lr"] = learning_rate(settings, step)
    window = model.config.window
    if random.random() < settings.jitter:
        cut = cut_windows(window)
        window = int(random.integers(cut.start, cut.stop))
    batch = sample(
        streams,
        model.config,
        random,
        batch=settings.batch,
        windows=settings.windows,
        window=window,
        cold=settings.cold,
    )
    count = int(random.integers(passes[0], passes[1] + 1))
    optimiser.zero_grad(set_to_none=True)
    total, scored = backward(model, batch, count, settings)
    if not math.isfinite(total):
        raise _diverged(settings, step, f"a loss of {total}")
    nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
    optimiser.step()
    tokens = sum(int(each.events.sum()) for each in batch.windows)
    lengths = [each.lengths.numpy() for each in batch.windows]
    flops = GRADIENT * sequence_flops(model.config, lengths, count)
    return Taken(total / max(scored, 1), tokens, flops)


def cut_windows(window: int) -> range:
    """The lengths, in events, that the windows of a batch may be cut short to."""
    return range(max(window // 2, 1), window + 1)


def backward(
    model: Model, batch: Batch, passes: int, settings: TrainingRecipe
) -> tuple[float, int]:
    """Accumulate the gradient of the mean loss over a batch; returns summed loss and its count.

    The gradient runs over `bptt` windows, through all passes and fast-weight updates. Nobody sleeps
    on the last window of a sequence: nothing comes after it.
    """
    size = len(batch.windows[0].lengths)
    weights = model.fresh(size)
    hidden = torch.zeros(size, model.config.width)
    has_last = torch.zeros(size, dtype=torch.bool)
    stats = batch.stats
    part: list[Tensor] = []
    total, scored, events = 0.0, 0, sum(int(w.events.sum()) for w in batch.windows)
    channels = max(len(model.config.channels), 1)
    many = torch.full((size,), passes)
    for number, packed in enumerate(batch.windows, 1):
        start = Start(weights, empty_cache(model.config, size), hidden, has_last, stats)
        woken = wake(model, packed, start, None)
        part.append((woken.loss + settings.mean_weight * woken.squares).sum())
        total += float(woken.loss.detach().sum())
        scored += int(woken.scored.sum())
        last = number == len(batch.windows)
        if not last:
            closed = ClosedWindow(
                woken.embedded, woken.done.hidden, packed.lengths, weights, woken.done.weights
            )
            weights = consolidate(model, closed, many).weights
        hidden, stats, has_last = woken.last_hidden, woken.stats, torch.ones_like(has_last)
        if number % settings.bptt == 0 or last:
            (torch.stack(part).sum() / (events * channels)).backward()
            part, weights, hidden = [], weights.detach(), hidden.detach()
    return total, scored


def validate(
    model: Model, recording: Recording, recipe: Recipe, passes: list[int]
) -> dict[int, float]:
    """Mean loss on the validation range under fixed N, for each N, as the runtime measures it.

    Events before the range are read first, unscored, so that state and scales have settled.
    """
    model.forget_hash()
    window = model.config.window
    first, last = rows_between(recipe.data.validation, recording.rows)
    streams = max(len(recording.streams), 1)
    warm = max(first - recipe.training.warm_events * streams, 0)
    columns = [c.name for c in recording.inputs] if recording.kind == "series" else None
    found: dict[int, float] = {}
    for count in passes:
        runtime = Runtime(
            model, lambda signals, count=count: count, columns=columns, max_passes=count
        )
        windower = Windower(window)
        for _, pieces in Cutter(recording, windower, start=warm, stop=first):
            runtime.step(pieces)
        loss, scored = 0.0, 0
        for _, pieces in Cutter(recording, windower, start=first, stop=last):
            for row in runtime.step(pieces).rows:
                if row.loss is not None:
                    loss, scored = loss + row.loss * row.scored, scored + row.scored
        if not scored:
            raise InputError("[data] validation: the range holds nothing to predict")
        found[count] = loss / scored
    model.train()
    return found
