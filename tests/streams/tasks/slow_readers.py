"""Each task read from its tokens alone, one sample at a time, and answered by walking.

`read(task, windows)` takes the windows of a sample as lists of tokens and returns what must be
remembered (hashable, whatever the order of reading), the targets of the last window, and the
difficulty as the structure shows it (None where it cannot be seen).
"""

from __future__ import annotations

from typing import Any

from adaptive_sleep.streams.tasks.chain import Chain
from adaptive_sleep.streams.tasks.depo import Depo
from adaptive_sleep.streams.tasks.distractors import Distractors
from adaptive_sleep.streams.tasks.gsm_symbolic import WORDS, GsmSymbolic
from adaptive_sleep.streams.tasks.hops import Hops
from adaptive_sleep.streams.tasks.lead_lag import LeadLag
from adaptive_sleep.streams.tasks.rule110 import Rule110

Answered = tuple[object, list[int], int | None]


def read(task: Any, windows: list[list[int]]) -> Answered:
    readers = {
        Hops: hops, Chain: chain, Rule110: rule110, Depo: depo, GsmSymbolic: gsm_symbolic,
        Distractors: distractors, LeadLag: lead_lag,
    }  # fmt: skip
    for _ in range(1, getattr(task, "asks", 1)):
        *windows, again = windows
        assert again == windows[-1]
    if getattr(task, "delays", ()):
        told, fillers = windows[: task.windows], windows[task.windows : -1]
        share, many = task.nodes // task.windows, sum(map(bool, fillers))
        assert [len(w) for w in fillers] == [share * (n < many) for n in range(len(fillers))]
        assert many in task.delays
        assert not any(values[0] for window in fillers for values in fields(task, window))
        windows = [*told, windows[-1]]
    return readers[type(task)](task, windows)


def fields(task: Any, tokens: list[int]) -> list[list[int]]:
    """The fields of each token, by dividing the sizes out from the right."""
    found = []
    for token in tokens:
        values = []
        for size in reversed(task.space.fields):
            values.insert(0, token % size)
            token //= size
        assert token == 0
        found.append(values)
    return found


def hops(task: Hops, windows: list[list[int]]) -> Answered:
    successor: dict[int, int] = {}
    k = fields(task, windows[-2])[-1][2]
    for number, window in enumerate(windows[:-1]):
        *listed, last = fields(task, window)
        shown = k if task.show == "window" or number == task.windows - 1 else 0
        assert last == [0, 0, shown]
        sources = [source for source, _, _ in listed]
        assert len(set(sources)) == len(sources)
        if task.absent and number:
            assert len(sources) == task.nodes
        edges = {source: after for source, after, _ in listed if after}
        assert len(edges) == task.nodes // task.windows
        assert not edges.keys() & successor.keys()
        assert all(each == shown for _, _, each in listed)
        successor |= edges
    targets = []
    for source, blank, each in fields(task, windows[-1]):
        assert (blank, each) == (0, k)
        for _ in range(k):
            source = successor[source]
        targets.append(source - 1)
    around, node = 1, successor[1]
    while node != 1:
        around, node = around + 1, successor[node]
    assert around == task.nodes  # one cycle
    return frozenset(successor.items()), targets, k


def chain(task: Chain, windows: list[list[int]]) -> Answered:
    edges = [edge for window in windows[:-1] for edge in fields(task, window)]
    successor = dict(map(tuple, edges))
    assert len(edges) == len(successor) == task.nodes
    before = [after for source, after in edges if source != after]
    assert len(set(before)) == len(before)  # paths do not join

    targets, lengths = [], []
    for node, blank in fields(task, windows[-1]):
        assert blank == 0
        length = 0
        while successor[node] != node:
            node, length = successor[node], length + 1
        targets.append(node - 1)
        lengths.append(length)
    left_over = task.nodes - task.paths * (max(lengths) + 1) if task.alone else 0
    assert sum(source == after for source, after in edges) == task.paths + left_over
    return frozenset(successor.items()), targets, max(lengths)


def rule110(task: Rule110, windows: list[list[int]]) -> Answered:
    table = {"111": 0, "110": 1, "101": 1, "100": 0, "011": 1, "010": 1, "001": 1, "000": 0}
    cells = [cell for window in windows[:-1] for cell in fields(task, window)]
    assert [position for _, _, position in cells] == list(range(1, task.width + 1))
    (depth,) = {depth for _, depth, _ in cells}
    ring = [value - 1 for value, _, _ in cells]
    before = tuple(ring)
    for _ in range(depth):
        ring = [
            table[f"{ring[i - 1]}{ring[i]}{ring[(i + 1) % task.width]}"] for i in range(task.width)
        ]
    asked = fields(task, windows[-1])
    assert [question[:2] for question in asked] == [[0, 0]] * task.width
    return before, [ring[position - 1] for _, _, position in asked], depth


def depo(task: Depo, windows: list[list[int]]) -> Answered:
    public = [task.public_ids(window).tolist() for window in windows]
    text = [token for window in public[:-1] for token in window]
    assert text.pop(0) == 9999
    if task.separator:
        assert text.count(9700) * 2 == sum(task.word_tokens < token < 9000 for token in text)
        text = [token for token in text if token != 9700]
    words, word = [], []
    for token in text:
        word.append(token)
        if token > task.word_tokens:  # words end themselves
            words.append(tuple(word))
            word = []
    assert not word
    assert all(task.min_length <= len(word) <= task.max_length for word in words)
    successor = dict(zip(words[::2], words[1::2], strict=True))
    assert len(successor) == len(words) // 2 <= task.max_nodes
    targets, starts, rest = [], [], public[-1]
    hops = []
    while rest:
        at = rest.index(9500)
        k = rest[0] - 9000
        hops.append(k)
        start = node = tuple(rest[1:at])
        for _ in range(k):
            node = successor[node]
        assert tuple(rest[at + 1 : at + 1 + len(node)]) == node
        targets += [-1] * at + [*node, -1]
        starts.append(start)
        rest = rest[at + 1 + len(node) :]
    assert len(set(starts)) == len(starts) == min(len(successor), task.questions)
    assert task.own_hops or len(set(hops)) == 1
    return frozenset(successor.items()), targets, max(hops)


def gsm_symbolic(task: GsmSymbolic, windows: list[list[int]]) -> Answered:
    lines = []
    for window in windows[:-1]:
        text = "".join(WORDS[token] for token in window)
        assert text.endswith(".")
        lines += text[:-1].split(".")
    assert len(lines) == task.lines
    assigned = dict(line.removeprefix("assign").split("=") for line in lines)
    assert len(assigned) == task.lines

    def value(name: str) -> int | None:
        """Follow the assignments; None where they end in a name that has none."""
        added = 0
        while True:
            right = assigned.get(name)
            if right is None:
                return None
            if not right.startswith("V"):
                return int(right) + added
            name = right[: 1 + task.name_digits]
            added += int(right[1 + task.name_digits :] or 0)

    values = {name: value(name) for name in assigned}
    resolved = {name: found for name, found in values.items() if found is not None}
    question = [WORDS[token] for token in windows[-1]]
    at = question.index("answer")
    assert question[0] == "question"
    x = int("".join(question[1:at]))
    names = sorted(name for name, found in resolved.items() if found == x)
    assert names
    answer = [WORDS.index(letter) for letter in "".join(names)] + [WORDS.index("end")]
    assert windows[-1][at + 1 :] == answer
    graph = frozenset((name, assigned[name]) for name in resolved)
    return graph, [-1] * at + answer + [-1], len(resolved)


def lead_lag(task: LeadLag, windows: list[list[int]]) -> Answered:
    read = fields(task, windows[0])
    (h,) = {event[-1] for event in read}
    rows = {channel: levels for channel, *levels, _ in read}
    assert sorted(rows) == list(range(1, task.channels + 1))
    assert all(1 <= level <= task.levels for levels in rows.values() for level in levels)
    before = {}
    for channel, levels in rows.items():
        (before[channel],) = (c for c, other in rows.items() if other[:-1] == levels[1:])
    around, channel = 1, before[1]
    while channel != 1:
        around, channel = around + 1, before[channel]
    assert around == task.channels  # one cycle
    targets = []
    for channel, *blank, each in fields(task, windows[1]):
        assert (blank, each) == ([0] * task.steps, h)
        for _ in range(h):
            channel = before[channel]
        targets.append(rows[channel][-1] - 1)
    return frozenset(before.items()), targets, h


def distractors(task: Distractors, windows: list[list[int]]) -> Answered:
    facts = [fact for window in windows[: task.windows] for fact in fields(task, window)]
    known = {name: (kind, content) for kind, name, content in facts}
    assert len(known) == len(facts) == task.facts
    for window in windows[task.windows : -1]:
        assert len(window) == task.length
        for kind, name, content in fields(task, window):
            assert kind == 1
            assert name not in known
            assert 1 <= content <= task.values
    targets, operations = [], set()
    for kind, name, blank in fields(task, windows[-1]):
        assert (kind, blank) == (3, 0)
        steps = 1
        while known[name][0] == 2:
            name, steps = known[name][1] - task.values, steps + 1
        targets.append(known[name][1] - 1)
        operations.add(steps)
    (difficulty,) = operations
    aliases = sum(kind == 2 for kind, _ in known.values())
    assert aliases == (task.facts // 2 if difficulty == 2 else 0)
    return frozenset(known.items()), targets, difficulty
