"""A small task on streams that go on, its recipe, and its recording, for tests of baselines."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from adaptive_sleep.config import decode
from adaptive_sleep.experiments.matching import Measure, measured
from adaptive_sleep.learning import TaskRecipe, task_of
from adaptive_sleep.streams.recording import Recording
from adaptive_sleep.streams.tasks.recorded import GAP_SECONDS, record

SAMPLES, STREAMS = 12, 2


def small(**tables: Any) -> TaskRecipe:
    """A recipe of the task chain that trains in a moment; `tables` replace fields of its tables."""
    data: dict[str, Any] = {
        "task": {"name": "chain", "nodes": 6, "paths": 2},
        "model": {
            "width": 16,
            "heads": 2,
            "fast_heads": 2,
            "key_dim": 8,
            "value_dim": 8,
            "conv": 0,
            "positions": "learned",
            "sleep_attention": "bidirectional",
        },
        "training": {
            "steps": 4,
            "batch": 4,
            "passes": "1-3",
            "carry_over": 0.5,
            "validate_every": 2,
            "validation": 2,
            "warmup": 1,
        },
        "test": {"passes": [1, 2], "samples": 4, "before": 1},
    }
    return decode(TaskRecipe, {n: {**table, **tables.get(n, {})} for n, table in data.items()})


def recorded(folder: Path, recipe: TaskRecipe) -> Recording:
    """Samples of the recipe's task, on streams that go on."""
    task = task_of(recipe)
    return record(task, folder, samples=SAMPLES, seed=0, part="validation", streams=STREAMS)


def measure_on(recording: Recording) -> Measure:
    """What a setup costs on a recording of a task."""
    return partial(measured, recording=recording, gap_seconds=GAP_SECONDS)
