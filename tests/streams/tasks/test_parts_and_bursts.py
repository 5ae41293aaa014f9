"""What moves a sample to another part, and what ends a burst, is that alone which is said to."""

from __future__ import annotations

from itertools import islice

import numpy as np
from slow_readers import read

from adaptive_sleep.streams.tasks.chain import Chain
from adaptive_sleep.streams.tasks.gsm_symbolic import GsmSymbolic
from adaptive_sleep.streams.tasks.mixed import Mixed
from adaptive_sleep.streams.tasks.task import events


def test_lines_without_a_value_do_not_move_a_sample_to_another_part():
    task = GsmSymbolic(name_digits=1, lines=4, max_op=2)
    graphs, texts = {}, set()
    for part in ("train", "validation", "test"):
        batch = task.sample(np.random.default_rng(0), 2000, part=part)
        windows = [[w.tokens.tolist() for w in events(batch, row)] for row in range(len(batch))]
        graphs[part] = {read(task, tokens)[0] for tokens in windows}
        texts |= {tuple(tokens[0]) for tokens in windows}
    assert len(texts) > 1.5 * sum(map(len, graphs.values()))  # each graph among several others
    assert sum(map(len, graphs.values())) == len(set.union(*graphs.values()))


def test_a_burst_ends_between_batches_as_it_does_within_one():
    mixed = Mixed(((Chain(), 1.0),), {3: 1.0}, {12: 1.0}, bursts=(1.0, 1e9))
    batches = islice(mixed.stream(0, "train"), 40)
    # an easy burst is always of one sample, and a hard one does not end
    assert [int(batch.difficulty[0]) for batch in batches][1:] == [12] * 39
    mixed = Mixed(((Chain(), 1.0),), {3: 1.0}, {12: 1.0}, bursts=(1e9, 1.0))
    batches = islice(mixed.stream(0, "train"), 40)
    assert [int(batch.difficulty[0]) for batch in batches][1:] == [3] * 39
