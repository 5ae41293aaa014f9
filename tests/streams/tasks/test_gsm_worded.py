"""Word problems read from their tokens alone, sentence by sentence, and solved by substitution.

The reader knows words and sentences only: nothing of how problems are drawn.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.tasks import gsm_worded
from adaptive_sleep.streams.tasks.gsm_worded import NAMES, GsmWorded
from adaptive_sleep.streams.tasks.registry import make_task
from adaptive_sleep.streams.tasks.task import events

PARTS = ("train", "validation", "test")
LAYERS = [line.split() for line in NAMES]
LAYER = {word: number for number, words in enumerate(LAYERS) for word in words}

CASES = [
    {},
    {"windows": 3, "ordered": True, "unsolvable": False, "length": 13},
    {"modulus": 7, "entities": 5, "largest_constant": 6, "max_op": 12},
    {"layers": 2, "entities": 3, "length": 9, "min_op": 1, "max_op": 7, "largest": 30},
    {"layers": 4, "entities": 3, "length": 24, "min_op": 10, "max_op": 20},
]
BOTH = [{**case, "mode": mode} for case in CASES for mode in ("forward", "reverse")]


def named(params):
    return "-".join(f"{key}={value}" for key, value in params.items())


class UnknowableError(Exception):
    """Something that nothing is said of."""


class Reader:
    """What the sentences of one sample say; `values` are what is put for "unknown"."""

    def __init__(self, task, windows):
        texts = [[task.words[token] for token in window] for window in windows]
        assert all(text[-1] == "." for text in texts[:-1])
        self.counts = [text.count(".") for text in texts[:-1]]
        said = " ".join(word for text in texts[:-1] for word in text).removesuffix(" .")
        self.sentences = said.split(" . ")
        self.question = " ".join(texts[-1])
        how, many, *self.asked, mark, answer = self.question.split()
        assert (how, many, mark) == ("how", "many", "?")
        self.asked, self.answer = " ".join(self.asked), int(answer)
        self.right = dict(s.split(" are ") for s in self.sentences if " are " in s)
        self.reached = dict(s.split(" reach ") for s in self.sentences if " reach " in s)
        assert len(self.right) + len(self.reached) == len(self.sentences)  # none said twice
        self.children: dict[str, set[str]] = {}
        for sentence in self.sentences:
            words = sentence.split()
            for place in (i for i, word in enumerate(words) if word == "per"):
                held, holder = words[place - 1], words[place + 1]
                assert LAYER[held] > LAYER[holder]
                if held != LAYERS[LAYER[held]][0]:
                    self.children.setdefault(holder, set()).add(held)

    def total(self, phrase):
        """The children that a total is taken of, and whether it is over more than one layer; None
        for anything but a total."""
        held, _, holder = phrase.split()
        if held != LAYERS[LAYER[held]][0]:
            return None
        return sorted(self.children.get(holder, ())), LAYER[held] > LAYER[holder] + 1

    def follows(self, phrase):
        """What a parameter directly follows from."""
        held, _, holder = phrase.split()
        if total := self.total(phrase):
            children, nested = total
            below = [f"{held} per {child}" for child in children] if nested else []
            return [f"{child} per {holder}" for child in children] + below
        if phrase not in self.right:
            raise UnknowableError(phrase)
        words = self.right[phrase].split()
        return [" ".join(words[i - 1 : i + 2]) for i, word in enumerate(words) if word == "per"]

    def value(self, phrase, unknown=None):
        """What a parameter comes to, with a number in the place of "unknown"."""
        held, _, holder = phrase.split()
        if total := self.total(phrase):
            children, nested = total
            return sum(
                self.value(f"{child} per {holder}", unknown)
                * (self.value(f"{held} per {child}", unknown) if nested else 1)
                for child in children
            )
        if phrase not in self.right:
            raise UnknowableError(phrase)
        value, sign, factor = 0, 1, 1
        words = self.right[phrase].split()
        while words:
            word = words.pop(0)
            if word in ("plus", "minus"):
                sign = 1 if word == "plus" else -1
            elif words and words[0] == "times":
                factor = int(word)
                words.pop(0)
            elif words and words[0] == "per":
                value += sign * factor * self.value(f"{word} per {words[1]}", unknown)
                words = words[2:]
            else:
                value += sign * (unknown if word == "unknown" else int(word))
        return value

    @property
    def last(self):
        """The parameter that needs all others that are needed."""
        return next(iter(self.reached), self.asked)

    def needed(self):
        """All that the last parameter follows from, and itself."""
        found, rest = set(), [self.last]
        while rest:
            phrase = rest.pop()
            if phrase not in found:
                found.add(phrase)
                rest += self.follows(phrase)
        return found

    def operations(self):
        return sum(len(self.follows(phrase)) for phrase in self.needed())

    def arithmetic(self, phrase):
        """The computation without names, and without the order of what is added."""
        parts = [self.arithmetic(part) for part in self.follows(phrase)]
        if total := self.total(phrase):
            half = len(total[0])
            if total[1]:
                parts = [(a, b) for a, b in zip(parts[:half], parts[half:], strict=True)]
            return "nested" if total[1] else "total", *sorted(parts, key=repr)
        said = self.right[phrase].replace("unknown", str(self.answer)).split()
        kept = [word for word in said if word.isdigit() or word in ("minus", "times")]
        return (*kept, *(parts if "minus" in kept else sorted(parts, key=repr)))


def readers(task, batch):
    return [
        Reader(task, [window.tokens.tolist() for window in events(batch, row)])
        for row in range(len(batch))
    ]


def drawn(task, seed, count=40, part="train", **more):
    batch = task.sample(np.random.default_rng(seed), count, part=part, **more)
    return batch, readers(task, batch)


def top(task):
    return task.modulus - 1 if task.modulus else task.largest


def solutions(task, reader):
    """All numbers in the place of "unknown" that lead to what is reached, or what is asked for."""

    def reduced(value):
        return value % task.modulus if task.modulus else value

    if not reader.reached:
        return [reduced(reader.value(reader.asked))]
    ((phrase, reached),) = reader.reached.items()
    # where all is linear, two values give all others; a square would show in the third
    low, middle, high = (reader.value(phrase, unknown) for unknown in range(3))
    if low - 2 * middle + high == 0 and not task.modulus:
        found = [n for n in range(top(task) + 1) if low + n * (middle - low) == int(reached)]
        assert all(reader.value(phrase, n) == int(reached) for n in found)
        return found
    tried = range(top(task) + 1)
    return [n for n in tried if reduced(reader.value(phrase, n)) == int(reached)]


def check(task, batch, found):
    """All that must be true of every sample."""
    for row, reader in enumerate(found):
        assert solutions(task, reader) == [reader.answer]
        assert len(reader.sentences) == task.length
        assert reader.operations() == batch.difficulty[row]
        assert (len(reader.reached), list(reader.right.values()).count("unknown")) == (
            (1, 1) if task.mode == "reverse" else (0, 0)
        )
        if task.mode == "reverse":
            assert reader.right[reader.asked] == "unknown"
            assert reader.asked in reader.needed()
        *unasked, targets = (window.targets.tolist() for window in events(batch, row))
        assert targets == [-1] * 4 + [task.words.index(str(reader.answer)), -1]
        assert all(set(window) == {-1} for window in unasked)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("params", BOTH, ids=named)
def test_a_slow_reader_finds_the_answer_and_the_operations(params, part):
    task = make_task("gsm_worded", **params)
    check(task, *drawn(task, seed=1, count=24, part=part))


@given(data=st.data(), layers=st.integers(2, 4), entities=st.integers(2, 6))
@settings(max_examples=60, deadline=None)
def test_so_it_is_whatever_the_sizes(data, layers, entities):
    mode = data.draw(st.sampled_from(["forward", "reverse"]))
    given = int(mode == "reverse")
    length = data.draw(st.integers(3 + given, min((layers - 1) * entities**2, 40)))
    max_op = data.draw(st.integers(2, min(length - 1 - given, 14)))
    modulus = data.draw(st.sampled_from([0, 0, 5, 12]))
    task = GsmWorded(
        min_op=max_op, max_op=max_op, length=length, layers=layers, entities=entities, mode=mode,
        windows=data.draw(st.integers(1, min(length, 4))), modulus=modulus, largest=200,
        largest_constant=data.draw(st.integers(3, 4)), ordered=data.draw(st.booleans()),
        unsolvable=data.draw(st.booleans()),
    )  # fmt: skip
    check(task, *drawn(task, seed=data.draw(st.integers(0, 10**6)), count=2))


@pytest.mark.parametrize("params", BOTH[:4], ids=named)
def test_every_value_that_can_be_known_is_within_bounds(params):
    task = make_task("gsm_worded", **params)
    unknowable = 0
    for reader in drawn(task, seed=2)[1]:
        for phrase in reader.right:
            try:
                value = reader.value(phrase, reader.answer)
            except UnknowableError:
                unknowable += 1
                continue
            assert 0 <= value <= 1000
    assert (unknowable > 0) == task.unsolvable


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_every_difficulty_can_be_drawn(mode, part):
    task = GsmWorded(mode=mode, min_op=1, max_op=14)
    for op in task.space.difficulties:
        batch, found = drawn(task, seed=op, count=3, part=part, difficulty=op)
        assert [reader.operations() for reader in found] == [op] * 3
        assert batch.difficulty.tolist() == [op] * 3


def test_problems_are_of_every_kind():
    _, found = drawn(GsmWorded(), seed=3, count=300)
    kinds = Counter()
    for reader in found:
        needed = reader.needed()
        kinds["total"] += any(reader.total(phrase) for phrase in needed)
        kinds["nested"] += any((reader.total(phrase) or ((), False))[1] for phrase in needed)
        said = " ".join(reader.right.get(phrase, "") for phrase in needed)
        kinds.update(word for word in ("plus", "minus", "times") if word in said)
        edges = [part for phrase in needed for part in reader.follows(phrase)]
        kinds["shared"] += len(edges) > len(set(edges))
        kinds["asked total"] += bool(reader.total(reader.asked))
    assert set(kinds) == {"total", "nested", "plus", "minus", "times", "shared", "asked total"}
    assert min(kinds.values()) > 30  # a tenth
    answers = Counter(reader.answer for reader in found)
    assert max(answers.values()) < 60  # no guess is right in more than a fifth


def test_the_same_seed_gives_the_same_samples():
    task = GsmWorded()
    one, again, other = (drawn(task, seed)[0] for seed in (4, 4, 5))
    for window in range(2):
        np.testing.assert_array_equal(one.tokens[window], again.tokens[window])
        np.testing.assert_array_equal(one.targets[window], again.targets[window])
    np.testing.assert_array_equal(one.difficulty, again.difficulty)
    assert one.tokens[0].shape != other.tokens[0].shape or (one.tokens[0] != other.tokens[0]).any()


def test_no_arithmetic_is_in_two_parts_whatever_the_names_and_the_mode():
    seen = {part: set() for part in PARTS}
    texts = 0
    for mode in ("forward", "reverse"):
        task = GsmWorded(mode=mode, max_op=2, length=5, layers=2, largest_constant=3)
        for part in PARTS:
            found = drawn(task, seed=6, count=150, part=part)[1]
            seen[part] |= {reader.arithmetic(reader.last) for reader in found}
            texts += len({tuple(sorted(reader.sentences)) for reader in found})
    assert not seen["train"] & seen["validation"]
    assert not seen["train"] & seen["test"]
    assert not seen["validation"] & seen["test"]
    assert len(seen["train"]) > len(seen["test"]) > 0
    assert texts > 10 * sum(map(len, seen.values()))  # each came with many names


@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_the_question_does_not_give_the_answer_away(mode):
    task = GsmWorded(mode=mode, layers=2, entities=2, length=4, max_op=2, min_op=2)
    answers: dict[str, set[int]] = {}
    for reader in drawn(task, seed=7, count=200)[1]:
        asked, _ = reader.question.split(" ? ")
        assert not any(word.isdigit() for word in asked.split())
        assert not reader.right.get(reader.asked, "").isdigit()
        answers.setdefault(asked, set()).add(reader.answer)
    assert min(map(len, answers.values())) > 2


def test_sentences_follow_what_they_rest_on_only_where_they_are_ordered():
    def early(reader):
        """How many sentences rest on one that comes later."""
        place = {phrase: number for number, phrase in enumerate(reader.right)}

        def rests(phrase):
            if phrase in place:
                return [place[phrase]]
            below = reader.follows(phrase) if reader.total(phrase) else []
            return [number for part in below for number in rests(part)]

        return sum(
            any(number > place[phrase] for part in reader.follows(phrase) for number in rests(part))
            for phrase in reader.right
        )

    for mode in ("forward", "reverse"):
        ordered = drawn(GsmWorded(ordered=True, mode=mode), seed=8)[1]
        assert sum(map(early, ordered)) == 0
        assert sum(map(early, drawn(GsmWorded(mode=mode), seed=8)[1])) > 100
    for reader in ordered:  # what is reached is said after what reaches it
        place = {sentence.partition(" are ")[0]: n for n, sentence in enumerate(reader.sentences)}
        stated = [place[phrase] for phrase in reader.needed() if phrase in place]
        assert max(stated) < place[f"{reader.last} reach {reader.reached[reader.last]}"]


def test_windows_are_cut_between_sentences():
    for reader in drawn(GsmWorded(windows=3, length=14), seed=9)[1]:
        assert reader.counts == [5, 5, 4]


def test_tokens_are_words_and_read_as_text():
    task = GsmWorded(entities=2, length=8, max_op=4, largest=20)
    assert task.words[:3] == ("", "0", "1")
    assert task.words[task.space.answers - 1] == "20"
    assert len(set(task.words)) == len(task.words) == task.space.vocabulary
    word = {name: token for token, name in enumerate(task.words)}
    text = "plum per crate are 2 times good per basket . how_many container per harbor ? 7"
    tokens = [word[w.replace("_", " ")] for w in text.split()]
    said = "plums per crate are 2 times goods per basket. how many containers per harbor? 7"
    assert task.readable(np.array([*tokens, 0])) == said


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"mode": "revers"}, "mode='revers': expected 'forward' or 'reverse', did you mean 'rev"),
        ({"ordered": 1}, "ordered=1: expected true or false"),
        ({"unsolvable": "no"}, "unsolvable='no': expected true or false"),
        ({"layers": 5}, r"layers=5: expected an integer in 2\.\.4"),
        ({"entities": 11}, r"entities=11: expected an integer in 2\.\.10"),
        ({"length": 33}, r"length=33: expected an integer in 2\.\.32"),
        ({"length": 8}, r"max_op=8: expected an integer in 1\.\.7"),
        ({"length": 9, "mode": "reverse"}, r"max_op=8: expected an integer in 1\.\.7"),
        ({"min_op": 9}, r"min_op=9: expected an integer in 1\.\.8"),
        ({"windows": 17}, r"windows=17: expected an integer in 1\.\.16"),
        ({"largest": 3}, r"largest=3: expected an integer in 4\.\.9999"),
        ({"modulus": 2}, r"modulus=2: expected an integer in 3\.\.10000"),
        ({"modulus": 4}, r"largest_constant=4: expected an integer in 2\.\.3"),
        ({"largest_constant": 1}, r"largest_constant=1: expected an integer in 2\.\.1000"),
        ({"lenght": 9}, "no parameter 'lenght', did you mean 'length'"),
    ],
)
def test_a_wrong_parameter_is_named(params, said):
    with pytest.raises(InputError, match=said):
        make_task("gsm_worded", **params)


def test_a_difficulty_that_values_do_not_allow_is_said(monkeypatch):
    monkeypatch.setattr(gsm_worded, "_ATTEMPTS", 3)
    task = GsmWorded(largest=4, min_op=15, max_op=15)
    with pytest.raises(InputError, match="largest=4: 3 problems of difficulty 15 all had larger"):
        drawn(task, seed=0)
    with pytest.raises(InputError, match="there is no difficulty 9"):
        drawn(GsmWorded(), seed=0, difficulty=9)
