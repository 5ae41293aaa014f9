"""Depo: a cycle of words is read as text, edge by edge; asked is the word k words on.

The format is public: Z. Allen-Zhu, "Physics of Language Models: Part 4.1", SSRN 5240330.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .drawing import distinct, draw_difficulties, draw_in_part, permutations, taken
from .task import (
    IntArray,
    Part,
    TaskBatch,
    TaskSpace,
    check_switch,
    check_whole,
    checked_rungs,
)
from .texts import closed_up, cut, even_stops, text_batch

_BEGIN, _SEPARATOR, _ANSWER, _QUERY = 9999, 9700, 9500, 9000  # the public ids; _QUERY + k


@dataclass(frozen=True)
class Depo:
    """Find the word k words on in a cycle of words; the difficulty is k, 1..max_hops.

    A word has `min_length`..`max_length` tokens 1..word_tokens, the last of them shifted by
    `word_tokens`, so that words end themselves. A text begins with 9999, then has every edge in
    random order, as [9700 if `separator`] word word; it is cut evenly into `windows` windows, the
    first of them one token longer where it does not divide. The last window asks
    min(words, `questions`) times: 9000 + k, word, 9500, and the answer, whose tokens are scored.

    In part "train" there are n words, 3..max_nodes, with chances as 1 / (n + sqrt(max_nodes)), and
    k is uniform; else n = max_nodes, and k is a power of two or max_hops. Weights given are obeyed
    in every part. All questions of a sample share one k, which is its difficulty; with `own_hops`
    each draws its own in part "train", as in the public text, and the largest is the difficulty.
    k may exceed n, and wraps. With `rungs`, for words of one token, rung n of a sample asks for the
    word min(k, rungs[n - 1]) words on.

    Our ids: 0 blank, 1..2 word_tokens as they are, and from b = 2 word_tokens on, b + 1: 9999,
    b + 2: 9700, b + 3: 9500, b + 3 + k: 9000 + k; `public_ids` gives the public ones back.
    Raises InputError for bad parameters.
    """

    name: ClassVar[str] = "depo"
    max_nodes: int = 16
    max_hops: int = 8
    word_tokens: int = 8
    min_length: int = 1
    max_length: int = 2
    separator: bool = False
    windows: int = 4
    questions: int = 10
    rungs: Sequence[int] = ()
    own_hops: bool = False

    def __post_init__(self) -> None:
        check_whole("depo", "max_nodes", self.max_nodes, 3, 4096)
        check_whole("depo", "max_hops", self.max_hops, 1, _ANSWER - _QUERY - 1)
        check_whole("depo", "word_tokens", self.word_tokens, 1, _QUERY // 2)
        check_whole("depo", "max_length", self.max_length, 1, 16)
        check_whole("depo", "min_length", self.min_length, 1, self.max_length)
        check_whole("depo", "windows", self.windows, 1, 6 * self.min_length + 1)
        check_switch("depo", "separator", self.separator)
        check_switch("depo", "own_hops", self.own_hops)
        check_whole("depo", "questions", self.questions, 1, 4096)
        object.__setattr__(self, "rungs", checked_rungs("depo", self.rungs, self.max_hops))
        if (
            self.rungs and self.max_length > 1
        ):  # a text shows the tokens of an answer before its last
            raise InputError(
                f"depo: rungs={list(self.rungs)} with max_length={self.max_length}: rungs are for "
                "words of one token; set max_length = 1 or leave them out"
            )
        words = sum(self.word_tokens**n for n in range(self.min_length, self.max_length + 1))
        if words < self.max_nodes or self._base**self.max_length > 2**31:
            raise InputError(
                f"depo: word_tokens={self.word_tokens} makes {words} words of "
                f"{self.min_length}..{self.max_length} tokens: expected at least "
                f"max_nodes={self.max_nodes}, and (2 word_tokens + 1)**max_length at most 2**31"
            )

    @property
    def _base(self) -> int:
        return 2 * self.word_tokens + 1

    @cached_property
    def _ids(self) -> IntArray:
        """The public id of each of ours."""
        queries = np.arange(_QUERY + 1, _QUERY + self.max_hops + 1)
        return np.array([*range(self._base), _BEGIN, _SEPARATOR, _ANSWER, *queries], np.int64)

    @cached_property
    def space(self) -> TaskSpace:
        """The sizes of all that `sample` returns."""
        longest = 1 + self.max_nodes * (self.separator + 2 * self.max_length)
        asked = min(self.questions, self.max_nodes) * (2 + 2 * self.max_length)
        return TaskSpace(
            fields=(len(self._ids),),
            answers=len(self._ids),
            window=max(-(-longest // self.windows), asked),
            windows=self.windows + 1,
            difficulties=tuple(range(1, self.max_hops + 1)),
            questions="text",
        )

    def public_ids(self, tokens: IntArray) -> IntArray:
        """Return the public ids of tokens, of their shape; blank stays 0."""
        return self._ids[self.space.unpack(tokens)[0]]

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
        if weights is None and difficulty is None and part != "train":
            powers = {2**i for i in range(self.max_hops.bit_length())}
            weights = dict.fromkeys(powers | {self.max_hops}, 1.0)
        each = min(self.questions, self.max_nodes) if self.own_hops and part == "train" else 1
        k = draw_difficulties(random, count * each, self.space.difficulties, weights, difficulty)
        hops = k.reshape(count, each)

        def draw(random: np.random.Generator, k: IntArray) -> tuple[IntArray, ...]:
            return self._cycles(random, self._sizes(random, len(k), part))

        _, codes, sizes = draw_in_part(random, part, hops[:, 0], draw, eager=False)
        n = sizes[:, 0]
        words = codes[:, :, None] // self._base ** np.arange(self.max_length) % self._base
        text, lengths = closed_up(self._edges(random, words, n))
        asked, answered, rungs = self._questions(random, words, n, hops)
        read = cut(text, even_stops(lengths, self.windows))
        hardest = np.where(np.arange(each) < n[:, None], hops, 0).max(axis=1)
        return text_batch(read, asked, answered, hardest, rungs)

    def _sizes(self, random: np.random.Generator, rows: int, part: Part) -> IntArray:
        if part != "train":
            return np.full(rows, self.max_nodes, np.int64)
        options = np.arange(3, self.max_nodes + 1)
        chances = 1 / (options + np.sqrt(self.max_nodes))
        sizes: IntArray = random.choice(options, size=rows, p=chances / chances.sum())
        return sizes

    def _cycles(self, random: np.random.Generator, n: IntArray) -> tuple[IntArray, ...]:
        """Edges and words as integers `[R, max_nodes]`, along the cycle, and sizes `[R, 1]`."""

        def draw(rows: int, columns: int) -> IntArray:
            place = np.arange(self.max_length)
            letters = random.integers(1, self._base // 2 + 1, (rows, columns, self.max_length))
            end = random.integers(self.min_length, self.max_length + 1, (rows, columns, 1)) - 1
            letters = np.where(place == end, letters + self.word_tokens, letters * (place < end))
            found: IntArray = (letters * self._base**place).sum(axis=2)
            return found

        codes = distinct(len(n), self.max_nodes, draw)
        codes = taken(codes, permutations(random, len(n), self.max_nodes, n))
        place = np.arange(self.max_nodes)
        there = place < n[:, None]
        after = taken(codes, np.where(place + 1 < n[:, None], place + 1, 0))
        edges = np.where(there, codes * self._base**self.max_length + after, -1)
        return edges, np.where(there, codes, 0), n[:, None]

    def _edges(self, random: np.random.Generator, words: IntArray, n: IntArray) -> IntArray:
        """The text of all edges with blanks in it, `[B, P]`; `words` is `[B, N, max_length]`."""
        rows, nodes = np.arange(len(n))[:, None], self.max_nodes
        order = permutations(random, len(n), nodes, n)
        there = np.arange(nodes) < n[:, None]
        after = np.where(order + 1 < n[:, None], order + 1, 0)
        mark = (there * self.separator * (self._base + 1))[:, :, None]
        pieces = [mark, words[rows, order], words[rows, after] * there[:, :, None]]
        begin = np.full((len(n), 1), self._base)
        return np.concatenate([begin, np.concatenate(pieces, axis=2).reshape(len(n), -1)], axis=1)

    def _questions(
        self, random: np.random.Generator, words: IntArray, n: IntArray, hops: IntArray
    ) -> tuple[IntArray, NDArray[np.bool_], list[IntArray]]:
        """The questions with blanks in them, where they are answers, and the questions with each
        rung's answers instead, all `[B, P]`; `hops` is `[B, 1]`, or of each question `[B, Q]`."""
        rows = np.arange(len(n))[:, None]
        start = permutations(random, len(n), self.max_nodes, n)[:, : self.questions]
        there = (start < n[:, None])[:, :, None]
        query = np.broadcast_to((self._base + 2 + hops)[:, :, None], there.shape)
        pieces = [query, words[rows, start], np.full(there.shape, self._base + 2)]

        def told(hops: IntArray) -> IntArray:
            reached = words[rows, (start + hops) % n[:, None]]
            return (np.concatenate([*pieces, reached], axis=2) * there).reshape(len(n), -1)

        place = np.arange(sum(piece.shape[2] for piece in pieces) + self.max_length)
        answered = np.broadcast_to(
            place >= len(place) - self.max_length, (*start.shape, len(place))
        )
        rungs = [told(np.minimum(hops, level)) for level in self.rungs]
        return told(hops), answered.reshape(len(n), -1), rungs
