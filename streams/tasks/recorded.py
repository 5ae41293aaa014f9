"""A task as a recording: its samples, window after window, in streams that any policy may replay.

What is asked stands in the label channels, whether its questions stand alone or in a text: that a
model knows, not the recording. How a recording is cut into windows is in `cutting`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..cutting import TARGET
from ..errors import InputError
from ..events import Channel
from ..manifest import new_folder
from ..recording import Recording
from ..writer import RecordingWriter
from .mixed import Mixed
from .task import Part, Task, TaskBatch, TaskSpace, WindowEvents, checked_seed, events

CHANNELS = (Channel(TARGET, "label"), Channel("difficulty", "label"))
GAP_SECONDS = 0.5  # of a replay that is to cut this recording at every window
_ORIGIN = 1_700_000_000_000_000_000  # ns
_EVENT = 1_000_000  # ns between two events of a window
_WINDOW = 1_000_000_000  # ns from the last event of windows side by side to the next windows
_MOST_TOKENS = 2**31  # a recording holds tokens in 32 bits
_MOST_ANSWERS = 2**24  # and labels as float32


def record(
    task: Task | Mixed,
    path: str | os.PathLike[str],
    *,
    samples: int,
    seed: int,
    part: Part,
    streams: int = 1,
    weights: Mapping[int, float] | None = None,
) -> Recording:
    """Write `samples` samples of a task as a recording of tokens, and open it.

    They are those of `task.sample(default_rng(seed), samples, ...)`, dealt to `streams` streams as
    `record_batch` does; of a `Mixed` those of its `dealt`, so that difficulty comes in bursts, and
    without `weights`, which it has. Raises InputError for what the task refuses, an existing path,
    and a task that a recording cannot hold.
    """
    _check(task.space, streams)
    seed = checked_seed(seed)
    random = np.random.default_rng(seed)
    if isinstance(task, Mixed):
        if weights is not None:
            raise InputError("weights: a mixed task has its own, easy and hard; leave them out")
        batch = task.dealt(random, samples, part, streams=streams)
    else:
        batch = task.sample(random, samples, part=part, weights=weights)
    return record_batch(
        batch,
        task.space,
        path,
        streams=streams,
        provenance={"source": "task", "task": _written(task), "part": part, "seed": str(seed)},
    )


def record_batch(
    batch: TaskBatch,
    space: TaskSpace,
    path: str | os.PathLike[str],
    *,
    streams: int = 1,
    provenance: Mapping[str, str] | None = None,
) -> Recording:
    """Write the samples of a batch as a recording of tokens, and open it.

    Sample i goes to stream i mod `streams` ("s0", "s1", ...). Events of a window are 1 ms apart;
    windows begin together in all streams, 1 s after the longest of those before, so that a gap of
    `GAP_SECONDS` separates them exactly and a replay closes them in one step. The label
    channels are `target`, missing where nothing is asked, and `difficulty`. Raises InputError for
    an existing path and for samples that a recording cannot hold.
    """
    _check(space, streams)
    clock = _ORIGIN
    with (
        new_folder(Path(path)) as folder,
        RecordingWriter(
            folder,
            kind="tokens",
            channels=CHANNELS,
            tokenizer="task",
            vocabulary=space.vocabulary,
            provenance=provenance,
        ) as writer,
    ):
        for first in range(0, len(batch), streams):
            rows = range(first, min(first + streams, len(batch)))
            dealt = [events(batch, row) for row in rows]
            for windows in zip(*dealt, strict=True):  # side by side, as a step takes them
                for stream, window in enumerate(windows):
                    _append(writer, f"s{stream}", clock, window)
                longest = max(len(window.tokens) for window in windows)
                clock += (longest - 1) * _EVENT + _WINDOW if longest else 0
    return Recording.open(path, verify=False)


def _append(writer: RecordingWriter, stream: str, start: int, window: WindowEvents) -> None:
    """Write one window from the time `start` on."""
    if len(window.tokens):
        time = start + _EVENT * np.arange(len(window.tokens), dtype=np.int64)
        writer.append(stream, time, values=_labels(window), tokens=window.tokens)


def _labels(window: WindowEvents) -> NDArray[np.float32]:
    target = np.where(window.asked, window.targets, np.nan)
    return np.stack([target, np.full(len(target), window.difficulty)], 1).astype(np.float32)


def _check(space: TaskSpace, streams: int) -> None:
    if streams < 1:
        raise InputError(f"streams={streams}: samples are dealt to at least 1")
    if space.values:
        raise InputError(
            f"values={space.values}: a recorded task holds tokens alone; record one without values"
        )
    if space.answers == 1:
        raise InputError("answers=1: a recorded task asks for classes, not for real numbers")
    if space.vocabulary > _MOST_TOKENS or space.answers > _MOST_ANSWERS:
        raise InputError(
            f"vocabulary={space.vocabulary}, answers={space.answers}: a recording holds up to "
            f"{_MOST_TOKENS} tokens and {_MOST_ANSWERS} answers; make the task smaller"
        )


def _written(task: Task | Mixed) -> str:
    """A task as it may be made again: its name and all parameters."""
    made: Any = task
    if not is_dataclass(made):
        return task.name
    given = ", ".join(f"{field.name}={getattr(made, field.name)!r}" for field in fields(made))
    return f"{task.name}({given})"
