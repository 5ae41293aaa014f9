"""Distractors: facts are read, then windows of facts never asked for; asked is what a name has.

For sliding windows: the answer takes one or two look-ups in what has left the window long ago.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from ..errors import InputError
from .drawing import draw_difficulties, draw_in_part, permutations, taken
from .task import IntArray, Part, TaskBatch, TaskSpace, asked_last, check_shared_out, check_whole

_VALUE, _ALIAS, _QUESTION = 1, 2, 3


@dataclass(frozen=True)
class Distractors:
    """Find the value of a name, directly or through an alias; the difficulty is 1 or 2 operations.

    A token packs (kind, name + 1, content). Kind 1 gives a name a value, content = value + 1; kind
    2 makes a name another's alias, content = values + 1 + other name; kind 3 asks, content blank.
    `facts` facts, shuffled, are spread evenly over `windows` windows, then come `fillers` windows
    of `length` distractors, of kind 1, of names that no fact is about. At difficulty 1 all facts
    are values, and a random half of the names is asked; at difficulty 2 half of the names are
    aliases of the other half, which have values, and the aliases are asked.
    Raises InputError for bad parameters.
    """

    name: ClassVar[str] = "distractors"
    facts: int = 8
    fillers: int = 2
    windows: int = 1
    length: int = 16
    names: int = 64
    values: int = 16

    def __post_init__(self) -> None:
        check_whole("distractors", "names", self.names, 4, 65_536)
        check_whole("distractors", "facts", self.facts, 2, self.names - 1)
        if self.facts % 2:
            raise InputError(f"distractors: facts={self.facts}: expected an even number")
        check_shared_out("distractors", "facts", self.facts, self.windows)
        check_whole("distractors", "fillers", self.fillers, 0, 4096)
        check_whole("distractors", "length", self.length, 1, 65_536)
        check_whole("distractors", "values", self.values, 2, 65_536)

    @cached_property
    def space(self) -> TaskSpace:
        """The sizes of all that `sample` returns."""
        share = self.facts // self.windows
        return TaskSpace(
            fields=(4, self.names + 1, 1 + self.values + self.names),
            answers=self.values,
            window=max(share, self.length * (self.fillers > 0), self.facts // 2),
            windows=self.windows + self.fillers + 1,
            difficulties=(1, 2),
        )

    def sample(
        self,
        random: np.random.Generator,
        count: int,
        *,
        part: Part,
        weights: Mapping[int, float] | None = None,
        difficulty: int | None = None,
    ) -> TaskBatch:
        """Draw `count` samples; see `Task.sample`."""
        operations = draw_difficulties(random, count, self.space.difficulties, weights, difficulty)
        _, name, other, value = draw_in_part(random, part, operations, self._facts)
        facts = taken(self._stated(name, other, value), permutations(random, count, self.facts))
        shown = np.split(facts, self.windows, axis=1)
        for _ in range(self.fillers):
            shape = count, self.length
            never = name[:, self.facts :]
            spoken = taken(never, random.integers(never.shape[1], size=shape))
            said = random.integers(self.values, size=shape)
            shown.append(self.space.pack(_VALUE, spoken + 1, said + 1))
        # facts stand in random order, so any half of the names is a random one
        half = self.facts // 2
        questions = self.space.pack(_QUESTION, name[:, :half] + 1, 0)
        return asked_last([*shown, questions], taken(value, other)[:, :half], operations)

    def _facts(self, random: np.random.Generator, operations: IntArray) -> tuple[IntArray, ...]:
        """Facts as integers; all names `[R, names]`, those of facts first; whose value; values.

        But for the names, all are `[R, facts]`, in the order of the names: name i has the value of
        name `other[i]`.
        """
        rows, half = len(operations), self.facts // 2
        name = permutations(random, rows, self.names)
        other = np.tile(np.arange(self.facts), (rows, 1))
        aliased = random.integers(half, self.facts, size=(rows, half))
        other[:, :half] = np.where(operations[:, None] == 2, aliased, other[:, :half])
        value = random.integers(self.values, size=(rows, self.facts))
        return self._stated(name, other, value), name, other, value

    def _stated(self, name: IntArray, other: IntArray, value: IntArray) -> IntArray:
        """The facts as tokens `[R, facts]`, in the order of the names."""
        alias = other != np.arange(self.facts)
        content = np.where(alias, self.values + 1 + taken(name, other), value + 1)
        return self.space.pack(np.where(alias, _ALIAS, _VALUE), name[:, : self.facts] + 1, content)
