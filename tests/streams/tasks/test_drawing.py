"""Draws are as likely as they say: permutations, shares of paths, words, sizes, buckets."""

from __future__ import annotations

from collections import Counter
from itertools import permutations as all_permutations
from itertools import product

import numpy as np
import pytest

from adaptive_sleep.streams.tasks.chain import Chain
from adaptive_sleep.streams.tasks.depo import Depo
from adaptive_sleep.streams.tasks.drawing import buckets, distinct, permutations
from adaptive_sleep.streams.tasks.gsm_symbolic import GsmSymbolic
from adaptive_sleep.streams.tasks.registry import make_task
from adaptive_sleep.streams.tasks.rule110 import RULE, after_one_step


def unlikely(found: Counter, wanted: dict) -> float:
    """How many standard deviations chi-square lies above its mean."""
    assert set(found) <= set(wanted)
    chi = sum((found[key] - count) ** 2 / count for key, count in wanted.items())
    freedom = len(wanted) - 1
    return (chi - freedom) / (2 * freedom) ** 0.5


def test_permutations_are_equally_likely():
    rows = permutations(np.random.default_rng(0), 6000, 4)
    wanted = dict.fromkeys(all_permutations(range(4)), 250.0)
    assert unlikely(Counter(map(tuple, rows.tolist())), wanted) < 4


def test_a_permutation_of_the_first_keeps_the_rest_behind():
    sizes = np.tile([2, 3, 5], 400)
    rows = permutations(np.random.default_rng(0), len(sizes), 5, sizes)
    for row, size in zip(rows.tolist(), sizes.tolist(), strict=True):
        assert sorted(row[:size]) == list(range(size))
        assert row[size:] == list(range(size, 5))
    found = Counter(tuple(row[:3]) for row in rows[1::3].tolist())
    assert unlikely(found, dict.fromkeys(all_permutations(range(3)), 400 / 6)) < 4


def test_distinct_keeps_the_first_of_each():
    drawn = []

    def draw(rows, columns):
        values = np.random.default_rng(len(drawn)).integers(5, size=(rows, columns))
        drawn.append(values)
        return values

    found = distinct(50, 5, draw)
    assert len(drawn) > 1  # 10 draws do not always hold all 5
    for row, values in zip(found.tolist(), np.concatenate(drawn, axis=1).tolist(), strict=True):
        assert row == list(dict.fromkeys(values))[:5]


def test_ways_to_share_nodes_out_are_equally_likely():
    task = Chain(nodes=11, paths=4)
    for hops in (2, 3, 5):
        ways = [
            (hops + 1, *rest)
            for rest in product(range(1, hops + 2), repeat=3)
            if sum(rest) == 10 - hops
        ]
        sizes = task._sizes(np.random.default_rng(0), np.full(200 * len(ways), hops))
        found = Counter(map(tuple, sizes.tolist()))
        assert set(found) == set(ways)
        assert len(ways) == 1 or unlikely(found, dict.fromkeys(ways, 200.0)) < 4


def test_buckets_ignore_order_and_absent_elements_and_are_even():
    rng = np.random.default_rng(0)
    sets = rng.integers(1000, size=(20_000, 5))
    found = buckets(sets)
    np.testing.assert_array_equal(buckets(sets[:, ::-1]), found)
    np.testing.assert_array_equal(buckets(np.insert(sets, 2, -1, axis=1)), found)
    assert unlikely(Counter(found.tolist()), dict.fromkeys(range(10), 2000.0)) < 4


def test_buckets_are_those_of_a_slow_hash_and_stay_what_they_are():
    def mixed(code):
        code = (code ^ code >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        code = (code ^ code >> 27) * 0x94D049BB133111EB % 2**64
        return code ^ code >> 31

    sets = [[0, 1, 2], [3, 4, 5], [6, -1, 8], [2**62, 10, 11]]
    slow = [mixed(sum(mixed(each + 1) for each in one) % 2**64) % 10 for one in sets]
    assert buckets(np.array(sets)).tolist() == slow
    # the parts that runs were trained and tested on must not move
    assert slow == [2, 7, 6, 9]


def test_rule_110_is_the_known_table():
    assert sum(int(bit) << index for index, bit in enumerate(RULE)) == 110
    # from one living cell, grown to the left
    row = np.array([[0, 0, 0, 0, 0, 0, 0, 1]])
    history = []
    for _ in range(6):
        history.append("".join(map(str, row[0].tolist())))
        row = after_one_step(row)
    assert history == ["00000001", "00000011", "00000111", "00001101", "00011111", "00110001"]


def test_depo_sizes_and_hops_are_those_of_the_public_format():
    task = Depo(max_nodes=6, word_tokens=6, max_hops=6)
    random = np.random.default_rng(0)
    sizes = task._sizes(random, 5000, "train")
    chances = {n: 1 / (n + 6**0.5) for n in range(3, 7)}
    wanted = {n: 5000 * chance / sum(chances.values()) for n, chance in chances.items()}
    assert unlikely(Counter(sizes.tolist()), wanted) < 4
    assert set(task._sizes(random, 9, "test").tolist()) == {6}
    assert set(task.sample(random, 300, part="test").difficulty.tolist()) == {1, 2, 4, 6}
    assert set(task.sample(random, 300, part="train").difficulty.tolist()) == {1, 2, 3, 4, 5, 6}
    assert task.sample(random, 9, part="test", difficulty=3).difficulty.tolist() == [3] * 9


def test_depo_questions_draw_their_own_hops_in_the_public_format():
    task = make_task("depo1", max_nodes=12)
    random = np.random.default_rng(0)

    def hops(batch):
        asked = task.public_ids(batch.tokens[-1])
        return [row[(row > 9000) & (row < 9500)] - 9000 for row in asked]

    batch = task.sample(random, 400, part="train")
    drawn = hops(batch)
    wanted = dict.fromkeys(range(1, 9), sum(map(len, drawn)) / 8)
    assert unlikely(Counter(np.concatenate(drawn).tolist()), wanted) < 4
    assert sum(len(set(row.tolist())) > 1 for row in drawn) > 350
    assert [int(row.max()) for row in drawn] == batch.difficulty.tolist()
    easy = hops(task.sample(random, 20, part="train", weights={1: 1.0, 2: 1.0}))
    assert set(np.concatenate(easy).tolist()) == {1, 2}
    for row in hops(task.sample(random, 40, part="test")):
        assert len(set(row.tolist())) == 1


def test_depo_cuts_its_text_evenly():
    batch = Depo().sample(np.random.default_rng(0), 40, part="train")
    lengths = np.stack(batch.lengths[:-1])
    assert (np.diff(lengths, axis=0) <= 0).all()  # the first take what does not divide
    assert (lengths.max(axis=0) - lengths.min(axis=0) <= 1).all()


@pytest.mark.parametrize("windows", [1, 3, 5])
def test_gsm_symbolic_cuts_between_lines(windows):
    task = GsmSymbolic(windows=windows)
    batch = task.sample(np.random.default_rng(0), 10, part="train")
    stops = [(tokens == 16).sum(axis=1) for tokens in batch.tokens[:-1]]
    for row in range(10):
        counts = [int(stop[row]) for stop in stops]
        assert sum(counts) == 16
        assert max(counts) - min(counts) <= 1
