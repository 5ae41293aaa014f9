"""Lead and lag with real values, read from tokens and values alone; and its rungs."""

from __future__ import annotations

import numpy as np
import pytest

from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.tasks.lead_lag import LeadLag
from adaptive_sleep.streams.tasks.mixed import Mixed
from adaptive_sleep.streams.tasks.recorded import record
from adaptive_sleep.streams.tasks.registry import make_task
from adaptive_sleep.streams.tasks.task import events

PARTS = ("train", "validation", "test")
EXACT = make_task("lead_lag_continuous", noise=0.0)


def solved(task, batch, row):
    """Who copies whom by the nearest match, as a dict; the last value h hops on; and by how much
    copies differ from what they copy."""
    read, asked = events(batch, row)
    size = task.max_horizon + 1
    channels, h = [token // size - 1 for token in read.tokens.tolist()], read.tokens[0] % size
    assert sorted(channels) == list(range(task.channels))
    assert asked.tokens.tolist() == [(c + 1) * size + h for c in range(task.channels)]
    assert np.isnan(asked.values).all()
    assert h == batch.difficulty[row]
    rows = {c: values.tolist() for c, values in zip(channels, read.values, strict=True)}
    before, apart = {}, []
    for channel, values in rows.items():
        far = {
            c: sum((a - b) ** 2 for a, b in zip(values[1:], other[:-1], strict=True))
            for c, other in rows.items()
            if c != channel
        }
        before[channel] = min(far, key=far.__getitem__)
        apart += [a - b for a, b in zip(values[1:], rows[before[channel]][:-1], strict=True)]
    wanted = []
    for channel in range(task.channels):
        for _ in range(h):
            channel = before[channel]
        wanted.append(rows[channel][-1])
    return before, wanted, apart


@pytest.mark.parametrize("part", PARTS)
def test_targets_are_what_a_slow_walk_finds(part):
    batch = EXACT.sample(np.random.default_rng(1), 40, part=part)
    assert set(batch.difficulty.tolist()) == {0, 1, 2, 3, 4}
    for row in range(40):
        _, wanted, apart = solved(EXACT, batch, row)
        assert events(batch, row)[-1].targets.tolist() == wanted
        assert not any(apart)


def test_copies_are_noisy_and_the_last_value_is_expected():
    task = make_task("lead_lag_continuous", steps=5)
    batch = task.sample(np.random.default_rng(2), 200, part="train")
    found = [solved(task, batch, row) for row in range(200)]
    right = [(events(batch, row)[-1].targets == one[1]).all() for row, one in enumerate(found)]
    assert np.mean(right) > 0.98  # five steps tell the channels apart in spite of the noise
    apart = np.concatenate([one[2] for one, fits in zip(found, right, strict=True) if fits])
    assert apart.std() == pytest.approx(0.02, rel=0.05)
    assert abs(apart.mean()) < 0.001
    shown = batch.values[0]
    assert -1 <= shown[:, :, 0].min() < -0.95
    assert 0.95 < shown[:, :, 0].max() <= 1


def test_a_batch_of_real_values_is_as_its_space_says():
    batch = EXACT.sample(np.random.default_rng(3), 20, part="train")
    assert (EXACT.space.values, EXACT.space.answers) == (3, 1)
    for values, tokens, targets in zip(batch.values, batch.tokens, batch.targets, strict=True):
        assert (values.dtype, values.shape) == (np.float32, (20, 8, 3))
        assert (targets.dtype, tokens.dtype) == (np.float64, np.int64)
        assert tokens.max() < EXACT.space.vocabulary
    first, last = batch.asked()
    assert not first.any()
    assert last.all()
    assert [window.asked.sum() for window in events(batch)] == [0, 8]
    assert batch.diagonal == (False, True)
    again = EXACT.sample(np.random.default_rng(3), 20, part="train")
    np.testing.assert_array_equal(again.values[0], batch.values[0])
    np.testing.assert_array_equal(again.targets[1], batch.targets[1])


def test_no_cycle_of_real_values_is_in_two_parts():
    task = make_task("lead_lag_continuous", channels=6, noise=0.0)
    seen = {}
    for part in PARTS:
        batch = task.sample(np.random.default_rng(5), 1200, part=part)
        seen[part] = {frozenset(solved(task, batch, row)[0].items()) for row in range(1200)}
    assert not seen["train"] & seen["validation"]
    assert not seen["train"] & seen["test"]
    assert not seen["validation"] & seen["test"]
    assert sum(map(len, seen.values())) > 0.9 * 120


@pytest.mark.parametrize(
    "task", [LeadLag(rungs=[2, 4]), make_task("lead_lag_continuous", rungs=(1, 2, 3))]
)
def test_a_rung_asks_for_fewer_steps_ahead(task):
    hardest = task.max_horizon
    batch = task.sample(np.random.default_rng(6), 30, part="train")
    assert len(batch.rungs) == len(task.rungs)
    plain = {
        h: task.sample(np.random.default_rng(6), 30, part="train", difficulty=h).targets[-1]
        for h in range(hardest + 1)
    }
    fixed = task.sample(np.random.default_rng(6), 30, part="train", difficulty=hardest)
    for level, rung in zip(task.rungs, fixed.rungs, strict=True):
        np.testing.assert_array_equal(rung, plain[level])
    easy = batch.difficulty <= task.rungs[0]
    np.testing.assert_array_equal(batch.rungs[0][easy], batch.targets[-1][easy])


def test_real_values_are_mixed_in_bursts():
    mixed = Mixed(((EXACT, 1.0),), {0: 1.0}, {4: 1.0}, bursts=(2.0, 2.0))
    batch = mixed.sequence(np.random.default_rng(7), 40, "train")
    assert (mixed.space.values, mixed.space.answers) == (3, 1)
    assert set(batch.difficulty.tolist()) == {0, 4}
    for row in range(40):
        assert events(batch, row)[-1].targets.tolist() == solved(EXACT, batch, row)[1]
        assert not events(batch, row)[0].asked.any()


def test_real_values_are_not_recorded(tmp_path):
    with pytest.raises(InputError, match="values=3: a recorded task holds tokens alone"):
        record(EXACT, tmp_path / "r", samples=2, seed=0, part="test")
