"""For tests of models that answer: small tasks, models for them, their windows as pieces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import core_cases as cases
import numpy as np

import adaptive_sleep as asl
from adaptive_sleep.streams.tasks.registry import make_task
from adaptive_sleep.streams.tasks.task import Task, TaskBatch, events

TASKS = {
    "hops": make_task("hops", nodes=8, max_hops=3),  # windows of 9, questions of 8
    "chain": make_task("chain", nodes=8, paths=2, windows=2),  # windows of 4, questions of 8
}
TEXTS = {  # what is asked in them depends on the sample, and so do their lengths
    "depo": make_task("depo-small", max_nodes=5, max_hops=3, word_tokens=4, windows=2),
    "gsm_symbolic": make_task("gsm_symbolic", lines=3, max_op=3, windows=2, name_digits=2),
}
MILLISECOND = 1_000_000


def model_for(task: Task, seed: int = 0, **changes: Any) -> asl.Model:
    """A small model, of random weights, that reads and answers a task."""
    space = task.space
    shape = {
        "vocabulary": space.vocabulary,
        "fields": space.fields,
        "answers": space.answers,
        "questions": space.questions,
        "window": space.window,
        "sleep_attention": "bidirectional",
    }
    return cases.build(cases.tiny(**(shape | changes)), seed)


def draw(task: Task, count: int, seed: int = 0) -> TaskBatch:
    """Samples of a task."""
    return task.sample(np.random.default_rng(seed), count, part="test")


def in_turn(*batches: TaskBatch) -> TaskBatch:
    """Samples that are made of one sample of each batch, one after the other."""
    return TaskBatch(
        tokens=sum((b.tokens for b in batches), ()),
        targets=sum((b.targets for b in batches), ()),
        lengths=sum((b.lengths for b in batches), ()),
        difficulty=batches[0].difficulty,
        diagonal=sum((b.diagonal for b in batches), ()),
        fillers=sum((b.fillers for b in batches), ()),
    )


def windows(batch: TaskBatch, row: int) -> list[asl.Events]:
    """The windows of one sample: events 1 ms apart, windows 1 s."""
    found, start = [], cases.SECOND
    for window in events(batch, row):
        if not len(window.tokens):  # a filler that the sample lacks
            continue
        time = start + MILLISECOND * np.arange(len(window.tokens), dtype=np.int64)
        found.append(asl.Events(time, tokens=window.tokens, targets=window.targets))
        start = int(time[-1]) + cases.SECOND
    return found


def stream(
    batch: TaskBatch, row: int, random: np.random.Generator | None = None
) -> list[asl.Piece]:
    """One sample as the pieces of a stream "s0", "s1", ...: whole windows, or cut at random."""
    name, pieces = f"s{row}", []
    for window in windows(batch, row):
        ends = [len(window)]
        if random is not None:
            ends = sorted({*random.integers(0, len(window) + 1, 3).tolist(), len(window)})
            ends += [len(window)] * int(random.integers(2))  # closed by an empty piece
        start = 0
        for number, end in enumerate(ends, 1):
            closes = number == len(ends)
            cause = "gap" if closes else ""
            pieces.append(asl.Piece(name, window[start:end], closes, cause))
            start = end
    return pieces


def run(
    runtime: asl.Runtime,
    streams: Sequence[Sequence[asl.Piece]],
    random: np.random.Generator | None = None,
) -> list[asl.StepResult]:
    """Feed streams side by side, a piece of each per step, or each at a pace of its own."""
    left = [list(pieces) for pieces in streams]
    results = []
    while any(left):
        some = [own for own in left if own and (random is None or random.random() < 0.7)]
        results.append(runtime.step([own.pop(0) for own in some], predictions=True))
    return results


def rows(results: Sequence[asl.StepResult], name: str | None = None) -> list[Any]:
    """Trace rows of some steps, of one stream if named, without what depends on the cut."""
    found = [row for result in results for row in result.rows]
    return [replace(r, step=0) for r in found if name is None or r.stream == name]


def check_alone(
    model: asl.Model,
    policy: cases.ByName,
    batch: TaskBatch,
    random: np.random.Generator,
    **settings: Any,
) -> None:
    """Every stream of a batch gives side by side with the others what it gives alone, however its
    pieces are cut and whatever the others do; FLOPs add up."""
    count = len(batch)
    runtime = asl.Runtime(model, policy, **settings)
    pieces = [stream(batch, row, random) for row in range(count)]
    table = cases.table(run(runtime, pieces, random))
    total = dict.fromkeys(cases.FLOPS, 0)
    for row in range(count):
        alone = asl.Runtime(model, policy, **settings)
        own = cases.table(run(alone, [stream(batch, row)]))
        mine = {n: v[table["stream"] == f"s{row}"] for n, v in table.items()}
        distance, where = cases.furthest(mine, own)
        assert distance < 1e-5, where
        state = cases.row(alone, f"s{row}")
        for field, tensor in cases.row(runtime, f"s{row}").items():
            assert cases.distance(tensor, state[field]) < 1e-5, field
        for field in cases.FLOPS:
            total[field] += getattr(alone.ledger, field)
    assert {f: getattr(runtime.ledger, f) for f in cases.FLOPS} == total
