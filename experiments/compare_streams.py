"""The streams of a comparison: recordings of a task drawn for each seed and part, or parts of one.

Parts are disjoint: a task keeps its structures apart by hash, a recording by its rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from adaptive_sleep.experiments.comparing import Comparison, RecordedStreams, TaskStreams
from adaptive_sleep.experiments.runs import open_recording
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.manifest import new_folder, read_manifest
from adaptive_sleep.streams.recording import Recording
from adaptive_sleep.streams.tasks.drawing import power_weights
from adaptive_sleep.streams.tasks.mixed import Mixed, in_order
from adaptive_sleep.streams.tasks.recorded import record_batch
from adaptive_sleep.streams.tasks.task import Part, TaskBatch

PARTS: tuple[Part, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class Source:
    """A recording (a path or bundled:NAME) and the fractions of its rows that are run."""

    recording: str
    start: float = 0.0
    stop: float = 1.0

    def open(self) -> Recording:
        """The recording; raises as `Recording.open` does."""
        return open_recording(self.recording)


def source(
    recipe: Comparison, folder: Path, part: Part, seed: int, *, quick: bool = False
) -> Source:
    """What is run of a part for the model of a training seed; "train" is what policies are fitted
    on. A task is recorded in `folder`, unless it is there."""
    if recipe.recording is not None:
        return _part_of(recipe.recording, part)
    assert recipe.task is not None
    task = recipe.task
    mix = [(task.power, _samples(task, part, quick))]
    return _drawn(recipe, folder / part, part, seed, mix)


def changed(
    recipe: Comparison, folder: Path, seed: int, name: str, powers: tuple[float, ...]
) -> Source:
    """A test stream of another mix, or of several mixes one after another."""
    assert recipe.task is not None
    mixes = [(power, recipe.task.samples // len(powers)) for power in powers]
    return _drawn(recipe, folder / name, "test", seed, mixes)


def in_bursts(recipe: Comparison, folder: Path, seed: int) -> Source:
    """A test stream on which the mixes of `switch` come by turns, each stream in its own bursts."""
    assert recipe.task is not None
    assert recipe.changes.switch is not None
    assert recipe.changes.bursts is not None
    task, path, powers = recipe.made_task(), folder / "bursts", recipe.changes.switch
    if not _drawn_before(path):
        easy, hard = (power_weights(task.space.difficulties, power) for power in powers)
        mixed = Mixed(((task, 1.0),), easy, hard, recipe.changes.bursts)
        random = np.random.default_rng([recipe.seed, PARTS.index("test"), seed, len(powers)])
        streams = recipe.task.streams
        batch = mixed.dealt(random, recipe.task.samples, "test", streams=streams)
        _write(recipe, path, batch, "test", seed, powers, streams)
    return Source(str(path))


def pieces(
    recipe: Comparison, folder: Path, seed: int, count: int, *, quick: bool = False
) -> list[Source]:
    """The validation part in `count` recordings: samples of their own of a task, together as many
    and on as many streams as `source` draws, or parts of the rows, of one length, which follow one
    another and are to be read as one stream (tune_reading.py)."""
    if recipe.recording is not None:
        where = recipe.recording
        ends = np.linspace(*where.validation, count + 1).tolist()
        return [Source(where.path, *span) for span in itertools.pairwise(ends)]
    assert recipe.task is not None
    mix = [(recipe.task.power, max(1, _samples(recipe.task, "validation", quick) // count))]
    streams = max(1, recipe.task.streams // count)
    return [
        _drawn(
            recipe, folder / f"validation-{number}-of-{count}", "validation", seed, mix,
            key=(number, count), streams=streams,
        )
        for number in range(count)
    ]  # fmt: skip


def difficulties(where: Source) -> pl.DataFrame:
    """The difficulty of every event of a recorded task: `stream`, `first_time`, `difficulty`."""
    return (
        where.open()
        .scan()
        .select(
            pl.col("stream").cast(pl.String),
            pl.col("time").cast(pl.Int64).alias("first_time"),
            pl.col("difficulty").cast(pl.Int64),
        )
        .collect()
    )


def _part_of(recording: RecordedStreams, part: Part) -> Source:
    spans = {
        "train": recording.fit,
        "validation": recording.validation,
        "test": recording.test,
    }
    span = spans[part]
    assert span is not None
    return Source(recording.path, *span)


def _samples(task: TaskStreams, part: Part, quick: bool) -> int:
    if part == "train":
        return task.quick_fit_samples if quick else task.fit_samples
    return task.quick_samples if quick else task.samples


def _drawn(
    recipe: Comparison,
    path: Path,
    part: Part,
    seed: int,
    mixes: Sequence[tuple[float, int]],
    *,
    key: tuple[int, ...] = (),
    streams: int | None = None,
) -> Source:
    """Record samples of one or more mixes (power, count), one after another on every stream; `key`
    is for drawing others of the same part, `streams` for other than the recipe's."""
    assert recipe.task is not None
    task, where = recipe.made_task(), Source(str(path))
    if _drawn_before(path):
        return where
    batches = []
    for number, (power, count) in enumerate(mixes):
        random = np.random.default_rng([recipe.seed, PARTS.index(part), seed, number, *key])
        weights = power_weights(task.space.difficulties, power)
        batches.append(task.sample(random, count, part=part, weights=weights))
    ends = np.cumsum([len(batch) for batch in batches])
    rows = [np.arange(end - len(b), end) for end, b in zip(ends, batches, strict=True)]
    whole = in_order(rows, batches)
    wide = len(whole) if recipe.task.fresh else streams or recipe.task.streams
    _write(recipe, path, whole, part, seed, [power for power, _ in mixes], wide)
    return where


def _write(
    recipe: Comparison,
    path: Path,
    batch: TaskBatch,
    part: Part,
    seed: int,
    powers: Sequence[float],
    streams: int,
) -> None:
    """Record samples, and say where they come from."""
    assert recipe.task is not None
    task = recipe.made_task()
    provenance = {
        "source": "task",
        "task": f"{task.name}({recipe.task.parameters})",
        "part": part,
        "seed": f"{recipe.seed}, {seed}",
        "mixes": str(list(powers)),
    }
    with new_folder(path) as beside:  # a stream that is there is there as a whole
        record_batch(batch, task.space, beside, streams=streams, provenance=provenance)


def _drawn_before(path: Path) -> bool:
    """Whether a stream is there. Raises InputError for half of one, which an earlier version left
    where it was interrupted."""
    if not path.exists():
        return False
    if not read_manifest(path).closed:
        raise InputError(f"{path}: was interrupted while it was drawn; remove it, and go on")
    return True
