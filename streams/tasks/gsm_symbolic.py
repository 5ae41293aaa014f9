"""GSM symbolic: lines that assign variables from others are read; asked is which have a value.

After the symbolic subset of GSM-Infinite (Zhou et al., arXiv 2502.05252), in tokens of our own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .drawing import distinct, draw_difficulties, draw_in_part, permutations, taken
from .task import IntArray, Part, TaskBatch, TaskSpace, check_whole
from .texts import closed_up, text_batch

WORDS = ("", *"0123456789", "V", "assign", "=", "+", "-", ".", "question", "answer", "end")
_V, _ASSIGN, _EQUALS, _PLUS, _MINUS, _STOP, _QUESTION, _ANSWER, _END = range(11, 20)
_ROOTS = 11  # the root's value is 0..10


@dataclass(frozen=True)
class GsmSymbolic:
    """Name the variables that equal x; the difficulty is how many can be resolved, min_op..max_op.

    Of those variables one, the root, has a value 0..10; every other is an earlier one plus -1, 0 or
    1. Lines are "assign V123456 = V654321 + 1." (plus 0 is left out) or "assign V123456 = 7.",
    shuffled. Lines up to `lines` are about variables that hang on a second root, which is never
    assigned, so that they have no value. The lines are spread evenly over `windows` windows, the
    first of them one line longer where they do not divide. The last window is "question x answer",
    the names in rising order, and "end"; what follows "answer" is scored. x is the value of one of
    the variables, each equally likely. Names have `name_digits` digits.

    A token is an index of WORDS; a name is V and its digits, a number its digits, after - if it is
    negative. The lines that can be resolved decide in which part a sample is, the others do not.
    Raises InputError for bad parameters.
    """

    name: ClassVar[str] = "gsm_symbolic"
    min_op: int = 2
    max_op: int = 6
    lines: int = 16
    windows: int = 1
    name_digits: int = 6

    def __post_init__(self) -> None:
        check_whole("gsm_symbolic", "name_digits", self.name_digits, 1, 8)
        check_whole("gsm_symbolic", "lines", self.lines, 2, min(4096, 10**self.name_digits - 1))
        check_whole("gsm_symbolic", "max_op", self.max_op, 2, min(80, self.lines))
        check_whole("gsm_symbolic", "min_op", self.min_op, 2, self.max_op)
        check_whole("gsm_symbolic", "windows", self.windows, 1, self.lines)

    @cached_property
    def space(self) -> TaskSpace:
        """The sizes of all that `sample` returns."""
        longest = 2 * (1 + self.name_digits) + 5  # assign V123456 = V654321 + 1 .
        return TaskSpace(
            fields=(len(WORDS),),
            answers=len(WORDS),
            window=max(
                -(-self.lines // self.windows) * longest,
                5 + self.max_op * (1 + self.name_digits) + 1,
            ),
            windows=self.windows + 1,
            difficulties=tuple(range(self.min_op, self.max_op + 1)),
            questions="text",
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
        op = draw_difficulties(random, count, self.space.difficulties, weights, difficulty)
        _, name, parent, plus = draw_in_part(random, part, op, self._graphs, eager=False)
        lines = self._lines(name, parent, plus, op)
        lines = lines[np.arange(count)[:, None], permutations(random, count, self.lines)]
        windows = [
            closed_up(group.reshape(count, -1))
            for group in np.array_split(lines, self.windows, axis=1)
        ]
        value = plus[:, : self.max_op].copy()
        for number in range(1, self.max_op):
            value[:, number] += value[np.arange(count), np.minimum(parent[:, number], number - 1)]
        asked, answered = self._question(random, name, value, op)
        return text_batch(windows, asked, answered, op)

    def _graphs(self, random: np.random.Generator, op: IntArray) -> tuple[IntArray, ...]:
        """What can be resolved as integers, names, and of each line the parent and the difference.

        Names `[R, lines + 1]`, the last that of the second root; variable i is on line i, those
        below `op` are resolved. For the root, line 0, the difference is its value.
        """
        rows, names = len(op), 10**self.name_digits
        name = distinct(
            rows, self.lines + 1, lambda rows, columns: random.integers(names, size=(rows, columns))
        )
        number = np.arange(self.lines)
        first = np.where(number < op[:, None], 0, op[:, None] - 1)  # op - 1: the second root
        parent = first + random.integers(np.maximum(number - first, 1))
        parent[(number >= op[:, None]) & (parent == first)] = self.lines
        plus = random.integers(-1, 2, size=parent.shape)
        plus[:, 0] = random.integers(_ROOTS, size=rows)
        source = taken(name, parent)
        source[:, 0] = names  # none
        line = (name[:, :-1] * (names + 1) + source) * (_ROOTS + 1) + plus + 1
        return np.where(number < op[:, None], line, -1), name, parent, plus

    def _lines(self, name: IntArray, parent: IntArray, plus: IntArray, op: IntArray) -> IntArray:
        """The lines as tokens with blanks in them, `[B, lines, P]`."""
        subject, source = self._named(name[:, :-1]), self._named(taken(name, parent))
        source[:, 0] = 0
        sign = np.where(plus > 0, _PLUS, np.where(plus < 0, _MINUS, 0))
        unit = np.where(plus == 0, 0, _digit(1))
        # the line of the root ends in its value
        sign[:, 0], unit[:, 0] = (plus[:, 0] // 10) * _digit(1), _digit(plus[:, 0] % 10)

        def column(tokens: ArrayLike) -> IntArray:
            return np.broadcast_to(np.asarray(tokens), plus.shape)[:, :, None]

        pieces = [subject, column(_EQUALS), source, column(sign), column(unit), column(_STOP)]
        return np.concatenate([column(_ASSIGN), *pieces], axis=2)

    def _question(
        self, random: np.random.Generator, name: IntArray, value: IntArray, op: IntArray
    ) -> tuple[IntArray, NDArray[np.bool_]]:
        """The question and its answer, and which of it is answer, both `[B, P]` with blanks."""
        rows = len(op)
        x = value[np.arange(rows), random.integers(op)]
        equal = (value == x[:, None]) & (np.arange(self.max_op) < op[:, None])
        none = 10**self.name_digits
        ordered = np.sort(np.where(equal, name[:, : self.max_op], none), axis=1)
        names = (self._named(ordered) * (ordered < none)[:, :, None]).reshape(rows, -1)
        tens, units = np.divmod(np.abs(x), 10)
        sign, tens = np.where(x < 0, _MINUS, 0), np.where(tens > 0, _digit(tens), 0)
        number = np.stack([sign, tens, _digit(units)], axis=1)
        question, answer, end = (np.full((rows, 1), word) for word in (_QUESTION, _ANSWER, _END))
        asked = np.concatenate([question, number, answer, names, end], axis=1)
        answered = np.broadcast_to(np.arange(asked.shape[1]) >= 5, asked.shape)
        return asked, answered

    def _named(self, name: IntArray) -> IntArray:
        """The tokens of names, `[..., 1 + name_digits]`."""
        digits = _digit(name[..., None] // 10 ** np.arange(self.name_digits)[::-1] % 10)
        return np.concatenate([np.full_like(digits[..., :1], _V), digits], axis=-1)


def readable(tokens: IntArray) -> str:
    """Return tokens `[L]` as text, as "assign V 1 2 = 7 ."; blanks are left out."""
    return " ".join(WORDS[token] for token in tokens.tolist() if token)


def _digit(number: ArrayLike) -> IntArray:
    return np.asarray(number, np.int64) + 1
