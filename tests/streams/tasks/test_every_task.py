"""What holds for every task: right answers, parts that do not meet, what the space promises."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from slow_readers import read

from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.tasks.registry import make_task
from adaptive_sleep.streams.tasks.task import events, stream

PARTS = ("train", "validation", "test")

CASES = [
    ("hops", {}),
    ("hops", {"nodes": 8, "windows": 2, "max_hops": 7}),
    ("hops", {"windows": 4, "show": "last", "absent": True}),
    ("hops", {"nodes": 12, "windows": 2, "absent": True}),
    ("chain", {}),
    ("chain", {"nodes": 24, "paths": 4, "longest": 18}),
    ("chain", {"nodes": 32, "windows": 4}),
    ("chain", {"nodes": 13, "paths": 3, "alone": True}),
    ("chain", {"nodes": 9, "paths": 3, "shortest": 2, "longest": 4, "windows": 3}),
    ("chain", {"nodes": 8, "paths": 2, "windows": 2, "delays": [0, 3, 1]}),
    ("hops", {"nodes": 8, "max_hops": 7, "delays": [2]}),
    ("hops", {"nodes": 8, "max_hops": 7, "asks": 3}),
    ("chain", {"nodes": 8, "paths": 2, "delays": [0, 2], "asks": 2}),
    ("rule110", {}),
    ("rule110", {"width": 12, "windows": 2, "max_depth": 9}),
    ("lead_lag", {}),
    ("lead_lag", {"channels": 5, "levels": 5, "steps": 4, "max_horizon": 4}),
    ("depo-small", {}),
    ("depo-small", {"max_nodes": 5, "max_hops": 12, "windows": 7, "separator": True}),
    ("depo1", {"max_nodes": 225}),
    ("depo2", {"max_nodes": 75, "separator": True}),
    ("gsm_symbolic", {}),
    ("gsm_symbolic", {"name_digits": 2, "lines": 11, "windows": 3, "min_op": 9, "max_op": 11}),
    ("distractors", {}),
    ("distractors", {"facts": 12, "windows": 3, "fillers": 1, "names": 13, "length": 5}),
    ("distractors", {"fillers": 0, "values": 2}),
]

# So small that structures come again; and how many there are, where nearly all are seen.
TINY = [
    ("hops", {"nodes": 6, "max_hops": 2}, 120),
    ("chain", {"nodes": 5, "paths": 2, "shortest": 3}, 120),
    ("rule110", {"width": 8, "max_depth": 2}, 256),
    ("lead_lag", {"channels": 6, "levels": 6, "max_horizon": 2}, 120),
    ("depo", {"max_nodes": 3, "word_tokens": 7, "max_length": 1, "max_hops": 2}, 70),
    ("gsm_symbolic", {"name_digits": 1, "lines": 2, "max_op": 2}, None),
    ("distractors", {"facts": 2, "names": 4, "values": 2}, None),
]


def named(case):
    name, params, *_ = case
    return name + "".join(f"-{key}={value}" for key, value in params.items())


def listed(batch, row):
    """The windows of a sample as lists of tokens, and those of its targets."""
    windows = events(batch, row)
    return [w.tokens.tolist() for w in windows], [w.targets.tolist() for w in windows]


@pytest.fixture(params=CASES, ids=named)
def task(request):
    name, params = request.param
    return make_task(name, **params)


@pytest.mark.parametrize("part", PARTS)
def test_targets_are_what_a_slow_walk_finds(task, part):
    count = 2 if task.name == "depo" and task.max_nodes > 50 else 12
    batch = task.sample(np.random.default_rng(1), count, part=part)
    for row in range(count):
        tokens, targets = listed(batch, row)
        _, wanted, difficulty = read(task, tokens)
        assert targets[-1] == wanted
        assert difficulty == batch.difficulty[row]


def test_a_batch_is_as_its_space_says(task):
    space = task.space
    count = 3 if task.name == "depo" else 20
    batch = task.sample(np.random.default_rng(2), count, part="train")
    assert len(batch) == count
    assert len(batch.tokens) == len(batch.targets) == len(batch.lengths) == space.windows
    assert len(batch.diagonal) == space.windows
    asks = getattr(task, "asks", 1)
    assert not any(batch.diagonal[:-asks])
    assert set(batch.diagonal[-asks:]) == {space.questions == "alone"}
    assert set(batch.difficulty.tolist()) <= set(space.difficulties)
    fillers = batch.fillers or (False,) * space.windows
    for tokens, targets, lengths, filler in zip(
        batch.tokens, batch.targets, batch.lengths, fillers, strict=True
    ):
        assert tokens.dtype == targets.dtype == lengths.dtype == np.int64
        assert tokens.shape == targets.shape == (count, lengths.max())
        assert (not filler) <= lengths.min() <= lengths.max() <= space.window
        beyond = np.arange(tokens.shape[1]) >= lengths[:, None]
        assert not tokens[beyond].any()
        assert (targets[beyond] == -1).all()
        assert tokens.min() >= 0
        assert tokens.max() < space.vocabulary
        assert targets.min() >= -1
        assert targets.max() < space.answers
    assert all((targets == -1).all() for targets in batch.targets[:-asks])
    assert all((targets >= 0).any(axis=1).all() for targets in batch.targets[-asks:])


def test_the_same_seed_gives_the_same_samples(task):
    one, other = (stream(task, seed=3, part="validation", count=2) for _ in range(2))
    elsewhere = next(stream(task, seed=4, part="validation", count=2))
    for _ in range(2):
        first, again = next(one), next(other)
        for window in range(task.space.windows):
            np.testing.assert_array_equal(first.tokens[window], again.tokens[window])
            np.testing.assert_array_equal(first.targets[window], again.targets[window])
        np.testing.assert_array_equal(first.difficulty, again.difficulty)
    assert any(
        a.shape != b.shape or (a != b).any()
        for a, b in zip(first.tokens, elsewhere.tokens, strict=True)
    )


@pytest.mark.parametrize("case", TINY, ids=named)
def test_no_structure_is_in_two_parts(case):
    name, params, all_there_are = case
    task = make_task(name, **params)
    seen = {}
    for part in PARTS:
        batch = task.sample(np.random.default_rng(5), 1200, part=part)
        seen[part] = {read(task, listed(batch, row)[0])[0] for row in range(len(batch))}
    assert not seen["train"] & seen["validation"]
    assert not seen["train"] & seen["test"]
    assert not seen["validation"] & seen["test"]
    assert len(seen["train"]) > len(seen["test"]) > 0
    if all_there_are is not None:
        assert sum(map(len, seen.values())) > 0.9 * all_there_are


def test_weights_are_respected():
    task = make_task("chain")
    weights = {3: 1.0, 7: 2.0, 12: 5.0, 4: 0.0}
    for part in PARTS:
        drawn = task.sample(np.random.default_rng(6), 4000, part=part, weights=weights).difficulty
        found = Counter(drawn.tolist())
        assert set(found) == {3, 7, 12}
        wanted = {value: 4000 * weight / 8 for value, weight in weights.items() if weight}
        assert sum((found[d] - wanted[d]) ** 2 / wanted[d] for d in wanted) < 13.8  # 0.1 %


def test_without_weights_all_difficulties_are_equally_likely():
    drawn = make_task("hops").sample(np.random.default_rng(7), 4000, part="train").difficulty
    counts = np.bincount(drawn, minlength=9)[1:]
    assert ((counts - 500) ** 2 / 500).sum() < 24.3  # 0.1 %, 7 degrees of freedom


def test_a_difficulty_can_be_fixed(task):
    last = task.space.difficulties[-1]
    batch = task.sample(np.random.default_rng(8), 2, part="test", difficulty=last)
    assert batch.difficulty.tolist() == [last, last]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"part": "tests"}, "there is no part 'tests', did you mean 'test'"),
        ({"difficulty": 9}, "there is no difficulty 9; there are 1, 2, 3"),
        ({"weights": {0: 1.0}}, "there is no difficulty 0"),
        ({"weights": {1: -1.0}}, r"weights\[1\]=-1.0"),
        ({"weights": {1: float("nan")}}, r"weights\[1\]=nan"),
        ({"weights": {1: 0.0}}, "at least 1 weight must be above 0"),
        ({"weights": {}}, "at least 1 weight must be above 0"),
        ({"weights": {1: 1.0}, "difficulty": 1}, "give one"),
        ({"count": 0}, "count=0"),
    ],
)
def test_a_wrong_draw_is_refused(wrong, said):
    arguments = {"count": 2, "part": "train", **wrong}
    with pytest.raises(InputError, match=said):
        make_task("hops").sample(np.random.default_rng(0), **arguments)


@pytest.mark.parametrize("name", ["hops", "chain", "rule110", "lead_lag"])
def test_questions_are_the_same_whatever_the_answers(name):
    task = make_task(name)
    hardest = task.space.difficulties[-1]
    batch = task.sample(np.random.default_rng(9), 20, part="train", difficulty=hardest)
    assert (batch.tokens[-1] == batch.tokens[-1][0]).all()
    assert (batch.targets[-1] != batch.targets[-1][0]).any()
    assert batch.diagonal[-1]


def test_a_part_without_structures_is_said():
    task = make_task("depo", max_nodes=3, word_tokens=3, max_length=1)  # 2 cycles for 3 parts
    refused = []
    for part in PARTS:
        try:
            task.sample(np.random.default_rng(0), 1, part=part)
        except InputError as error:
            refused.append(str(error))
    assert refused
    assert all("all lie in other parts; make the task larger" in said for said in refused)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("hops", {"nodes": 9, "max_hops": 7, "rungs": [3, 6]}),
        ("hops", {"windows": 2, "rungs": (2, 3, 5, 8)}),
        ("rule110", {"max_depth": 5, "rungs": [2, 4, 5]}),
        ("chain", {"nodes": 12, "paths": 3, "rungs": [1, 4]}),
    ],
)
def test_rungs_ask_for_what_a_slow_walk_finds_after_fewer_steps(name, params):
    task = make_task(name, **params)
    batch = task.sample(np.random.default_rng(3), 16, part="train")
    plain = make_task(name, **{**params, "rungs": ()}).sample(
        np.random.default_rng(3), 16, part="train"
    )
    assert plain.rungs == ()
    assert (plain.targets[-1] == batch.targets[-1]).all()
    assert len(batch.rungs) == len(task.rungs)
    for level, rung in zip(params["rungs"], batch.rungs, strict=True):
        for row in range(16):
            steps = level
            if name != "chain":  # where an end points at itself
                steps = min(int(batch.difficulty[row]), steps)
            assert rung[row].tolist() == stepped(task, batch, row, steps)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("chain", {"least": 5}),
        ("hops", {"least": 4}),
        ("hops", {"windows": 2, "least": 4, "absent": True}),
        ("lead_lag", {"least": 3}),
        ("lead_lag_continuous", {"least": 2}),
    ],
)
def test_only_training_leaves_things_out(name, params):
    task = make_task(name, **params)
    random = np.random.default_rng(5)
    drawn = [task.sample(random, 6, part="train") for _ in range(24)]
    asked = [batch.tokens[-1].shape[1] for batch in drawn]
    most = task.sample(random, 6, part="test").tokens[-1].shape[1]
    assert min(asked) >= params["least"]
    assert max(asked) == most
    assert len(set(asked)) > 4
    assert task.sample(random, 6, part="validation").tokens[-1].shape[1] == most
    fixed = make_task(name, **{**params, "least": 0})
    assert all(fixed.sample(random, 2, part="train").tokens[-1].shape[1] == most for _ in range(9))


@pytest.mark.parametrize("windows", [1, 2])
def test_a_small_cycle_is_followed_as_a_slow_walk_does(windows):
    task = make_task("hops", nodes=12, max_hops=9, windows=windows, least=4)
    random = np.random.default_rng(8)
    for batch in (task.sample(random, 5, part="train") for _ in range(12)):
        for row in range(5):
            edges = task.space.unpack(np.concatenate([w[row] for w in batch.tokens[:-1]]))
            after = {int(s): int(t) for s, t in zip(*edges[:2], strict=True) if s}
            asked = task.space.unpack(batch.tokens[-1][row])[0].tolist()
            assert asked == sorted(after)
            for node, target in zip(asked, batch.targets[-1][row].tolist(), strict=True):
                for _ in range(int(batch.difficulty[row])):
                    node = after[node]
                assert target == node - 1


@pytest.mark.parametrize("windows", [1, 2])
def test_small_paths_are_followed_to_their_ends(windows):
    task = make_task("chain", nodes=12, paths=4, windows=windows, least=4, rungs=(1, 3))
    random = np.random.default_rng(8)
    for batch in (task.sample(random, 5, part="train") for _ in range(12)):
        for row in range(5):
            edges = task.space.unpack(np.concatenate([w[row] for w in batch.tokens[:-1]]))
            after = dict(zip(*(column.tolist() for column in edges), strict=True))
            asked = task.space.unpack(batch.tokens[-1][row])[0].tolist()
            assert asked == sorted(after)
            assert set(after.values()) <= set(after)
            for steps, targets in zip((1, 3, 12), (*batch.rungs, batch.targets[-1]), strict=True):
                for node, target in zip(asked, targets[row].tolist(), strict=True):
                    for _ in range(steps):
                        node = after[node]
                    assert target == node - 1


def test_a_small_panel_is_forecast_as_its_own_copies_say():
    task = make_task("lead_lag", least=3)
    random = np.random.default_rng(9)
    for batch in (task.sample(random, 5, part="train") for _ in range(12)):
        for row in range(5):
            channel, old, new, _ = task.space.unpack(batch.tokens[0][row])
            last = dict(zip(old.tolist(), new.tolist(), strict=True))  # a value, one step on
            value = dict(zip(channel.tolist(), new.tolist(), strict=True))
            asked = task.space.unpack(batch.tokens[-1][row])[0].tolist()
            assert asked == sorted(value)
            for each, target in zip(asked, batch.targets[-1][row].tolist(), strict=True):
                found = value[each]
                for _ in range(int(batch.difficulty[row])):
                    found = last[found]
                assert target == found - 1


def stepped(task, batch, row, steps):
    """The answers after `steps` of what the sample's own windows show."""
    tokens, _ = listed(batch, row)
    columns = task.space.unpack(np.concatenate([np.array(w) for w in tokens[:-1]]))
    if task.name in ("hops", "chain"):
        after = {int(s) - 1: int(t) - 1 for s, t in zip(*columns[:2], strict=True) if s}
        found = list(range(task.nodes))
        for _ in range(steps):
            found = [after[node] for node in found]
        return found
    row_now = [int(value) - 1 for value in columns[0]]
    for _ in range(steps):
        around = zip(row_now[-1:] + row_now[:-1], row_now, row_now[1:] + row_now[:1], strict=True)
        row_now = [int(trio in NEXT_IS_ONE) for trio in around]
    return row_now


NEXT_IS_ONE = {(1, 1, 0), (1, 0, 1), (0, 1, 1), (0, 1, 0), (0, 0, 1)}


def test_paths_are_of_one_length_among_nodes_that_are_alone():
    task = make_task("chain", nodes=13, paths=3, alone=True)
    assert task.space.difficulties == (1, 2, 3)
    batch = task.sample(np.random.default_rng(0), 40, part="test")
    sources, successors = (x - 1 for x in task.space.unpack(batch.tokens[0]))
    for source, successor, hops in zip(sources, successors, batch.difficulty, strict=True):
        after = dict(zip(source.tolist(), successor.tolist(), strict=True))
        starts = set(after) - {to for node, to in after.items() if to != node}
        lengths = []
        for node in starts:
            lengths.append(0)
            while after[node] != node:
                node = after[node]
                lengths[-1] += 1
        assert sorted(lengths) == [0] * (13 - 3 * (hops + 1)) + [hops] * 3
