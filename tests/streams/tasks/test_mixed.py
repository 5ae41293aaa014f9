"""Bursts have their declared lengths, and each state draws from its own weights."""

from __future__ import annotations

import numpy as np
import pytest
from slow_readers import read

from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.tasks.mixed import Mixed
from adaptive_sleep.streams.tasks.registry import make_task
from adaptive_sleep.streams.tasks.task import events

CHAIN = make_task("chain")
EASY, HARD = {3: 1.0, 4: 1.0}, {10: 1.0, 12: 3.0}


def runs(hard: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lengths of the whole bursts, easy ones and hard ones."""
    edges = np.flatnonzero(np.diff(hard.astype(int))) + 1
    lengths, states = np.diff(edges), hard[edges[:-1]]
    return lengths[~states], lengths[states]


def test_bursts_have_the_declared_mean_lengths():
    mixed = Mixed(((CHAIN, 1.0),), EASY, HARD, bursts=(20.0, 5.0))
    hard = mixed.sequence(np.random.default_rng(0), 20_000, "train").difficulty > 5
    easy_runs, hard_runs = runs(hard)
    # a geometric length has about its mean as standard deviation: 800 bursts, 4 deviations
    assert easy_runs.mean() == pytest.approx(20, rel=0.15)
    assert hard_runs.mean() == pytest.approx(5, rel=0.15)
    assert hard.mean() == pytest.approx(0.2, abs=0.03)


def test_bursts_run_on_from_batch_to_batch():
    mixed = Mixed(((CHAIN, 1.0),), EASY, HARD, bursts=(12.0, 6.0))
    source = mixed.stream(1, "train", count=4)
    hard = np.concatenate([next(source).difficulty for _ in range(800)]) > 5
    easy_runs, hard_runs = runs(hard)
    assert easy_runs.mean() == pytest.approx(12, rel=0.2)
    assert hard_runs.mean() == pytest.approx(6, rel=0.2)


def test_each_state_draws_from_its_weights():
    mixed = Mixed(((CHAIN, 1.0),), EASY, HARD)
    drawn = mixed.sequence(np.random.default_rng(2), 5000, "test").difficulty
    assert set(drawn.tolist()) == {3, 4, 10, 12}
    hard = drawn[drawn > 5]
    assert (hard == 12).mean() == pytest.approx(0.75, abs=0.06)


def test_samples_are_whole_and_tasks_come_by_weight():
    one = make_task("depo", max_nodes=4, min_length=2, word_tokens=3)
    other = make_task("depo", max_nodes=9, min_length=2, word_tokens=3)
    mixed = Mixed(((one, 1.0), (other, 3.0)), {1: 1.0}, {8: 1.0}, bursts=(1.0, 1.0))
    batch = mixed.sequence(np.random.default_rng(3), 200, "test")
    assert (np.diff(batch.difficulty) != 0).all()  # bursts of 1: by turns
    sizes = []
    for row in range(200):
        structure, wanted, _ = read(other, [w.tokens.tolist() for w in events(batch, row)])
        assert events(batch, row)[-1].targets.tolist() == wanted
        sizes.append(len(structure))
    assert set(sizes) == {4, 9}
    assert 0.6 < np.mean(np.array(sizes) == 9) < 0.9
    assert mixed.space.window == other.space.window
    assert mixed.space.questions == "text"


def test_the_same_seed_gives_the_same_sequence():
    mixed = Mixed(((CHAIN, 1.0),), EASY, HARD)
    one, other = (mixed.sequence(np.random.default_rng(4), 50, "train") for _ in range(2))
    np.testing.assert_array_equal(one.tokens[0], other.tokens[0])
    np.testing.assert_array_equal(one.difficulty, other.difficulty)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"parts": ()}, "at least 1 task"),
        ({"parts": ((CHAIN, 0.0),)}, "weight 0.0 of chain"),
        ({"parts": ((CHAIN, 1.0), (make_task("hops"), 1.0))}, "mix tasks that share them"),
        ({"easy": {1: 1.0}}, "easy: there is no difficulty 1; there are 3"),
        ({"hard": {3: 0.0}}, "hard=.*at least 1 weight"),
        ({"bursts": (0.5, 2.0)}, "bursts="),
    ],
)
def test_a_wrong_mix_is_refused(change, said):
    right = {"parts": ((CHAIN, 1.0),), "easy": EASY, "hard": HARD}
    with pytest.raises(InputError, match=said):
        Mixed(**{**right, **change})
