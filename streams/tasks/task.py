"""What a task is: windows of packed tokens, and apart from them what is asked at which event.

How samples are drawn is in `drawing`, each task in a file of its own, their names in `registry`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError

IntArray: TypeAlias = NDArray[np.int64]
Targets: TypeAlias = NDArray[np.int64] | NDArray[np.float64]
Values: TypeAlias = NDArray[np.float32]
Part = Literal["train", "validation", "test"]
Questions = Literal["alone", "text"]

_LARGEST = 2**62  # of a vocabulary, so that packing stays within int64


@dataclass(frozen=True)
class TaskSpace:
    """The sizes of a task: what a model must be built for.

    `fields` are the sizes of the fields that a token packs, blank (0) included; the first is the
    most significant; `values` counts the real numbers that an event carries beside its token.
    `answers` counts the classes of a target, 1 for a real number; `window` the most events of a
    window, `windows` the windows of a sample; `difficulties` are all values it takes, rising.
    `questions` says how the last window asks, and those that repeat it: "alone", each event a
    question that sees no other (`TaskBatch.diagonal`), or in a "text", whose events see those
    before them.
    """

    fields: tuple[int, ...]
    answers: int
    window: int
    windows: int
    difficulties: tuple[int, ...]
    questions: Questions = "alone"
    values: int = 0

    def __post_init__(self) -> None:
        if not self.fields or min(self.fields) < 1 or self.vocabulary > _LARGEST:
            raise InputError(
                f"fields={self.fields}: give sizes of at least 1, their product at most 2**62"
            )
        for name in ("answers", "window", "windows"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}: at least 1")
        if self.values < 0:
            raise InputError(f"values={self.values}: real numbers beside a token, 0 or more")
        if not self.difficulties or list(self.difficulties) != sorted(set(self.difficulties)):
            raise InputError(f"difficulties={self.difficulties}: at least 1, rising, none twice")

    @property
    def vocabulary(self) -> int:
        """How many tokens there are."""
        return math.prod(self.fields)

    def pack(self, *columns: ArrayLike) -> IntArray:
        """Return tokens of integer `columns`, one per field, of shapes that broadcast.

        Raises InputError for a wrong number of columns, and for a value outside its field.
        """
        if len(columns) != len(self.fields):
            raise InputError(f"{len(columns)} columns: give one for each of {self.fields}")
        tokens = np.zeros((), np.int64)
        for number, (size, given) in enumerate(zip(self.fields, columns, strict=True)):
            column = np.asarray(given)
            if column.dtype.kind not in "iu":
                raise InputError(f"column {number}: {column.dtype}, expected integers")
            _check_inside(f"column {number}", column, size)
            tokens = tokens * size + column.astype(np.int64, copy=False)
        return tokens

    def unpack(self, tokens: ArrayLike) -> tuple[IntArray, ...]:
        """Return the columns that `tokens` pack, each of their shape.

        Raises InputError for tokens that are no integers, or outside the vocabulary.
        """
        rest = np.asarray(tokens)
        if rest.dtype.kind not in "iu":
            raise InputError(f"tokens: {rest.dtype}, expected integers")
        rest = rest.astype(np.int64, copy=False)
        _check_inside("tokens", rest, self.vocabulary)
        columns: list[IntArray] = []
        for size in reversed(self.fields):
            columns.append(rest % size)
            rest = rest // size
        return tuple(reversed(columns))


def _check_inside(name: str, values: NDArray[np.integer], size: int) -> None:
    if values.size and (values.min() < 0 or values.max() >= size):
        bad = values[(values < 0) | (values >= size)].flat[0]
        raise InputError(f"{name}: {bad} is not in 0..{size - 1}")


@dataclass(frozen=True)
class TaskBatch:
    """`B` samples, window by window; the model reads `tokens` and never sees the rest.

    Per window: `tokens` `[B, L_w]` int64, 0 beyond the lengths; `targets` `[B, L_w]`, what must be
    given at an event after reading it, a class (int64, -1 where nothing is asked) or a real number
    (float64, NaN there); `lengths` `[B]`; and `diagonal`, whether its events are questions that
    must not see each other. `values` are what events carry beside their tokens, `[B, L_w, V]` a
    window, NaN where blank; () for V = 0. `difficulty` `[B]` labels the samples for analysis.
    `rungs`, for training alone, are easier targets of the last window (and of each that repeats
    it), asked where its own are: `rungs[n - 1]` after pass n, () where the task has none.
    `fillers`: which windows hold nothing of the sample, so that what is asked after pass n over
    those before them is asked behind them; () for none. A sample may lack some of them: its length
    there is 0.
    """

    tokens: tuple[IntArray, ...]
    targets: tuple[Targets, ...]
    lengths: tuple[IntArray, ...]
    difficulty: IntArray
    diagonal: tuple[bool, ...]
    rungs: tuple[Targets, ...] = ()
    values: tuple[Values, ...] = ()
    fillers: tuple[bool, ...] = ()

    def __len__(self) -> int:
        return len(self.difficulty)

    def asked(self) -> tuple[NDArray[np.bool_], ...]:
        """Where something is asked, boolean `[B, L_w]` per window."""
        return tuple(
            targets != -1 if targets.dtype.kind == "i" else ~np.isnan(targets)
            for targets in self.targets
        )


class WindowEvents(NamedTuple):
    """One window of one sample without its padding: `tokens`, `targets` and where something is
    `asked`, all `[L]`; `values` `[L, V]`."""

    tokens: IntArray
    targets: Targets
    difficulty: int
    diagonal: bool
    asked: NDArray[np.bool_]
    values: Values


class Task(Protocol):
    """Anything that draws samples of one `TaskSpace`; those we ship are frozen dataclasses."""

    @property
    def name(self) -> str:
        """The name in the registry."""
        ...

    @property
    def space(self) -> TaskSpace:
        """The sizes of all that `sample` returns."""
        ...

    def sample(
        self,
        random: np.random.Generator,
        count: int,
        *,
        part: Part,
        weights: Mapping[int, float] | None = None,
        difficulty: int | None = None,
    ) -> TaskBatch:
        """Draw `count` samples whose structure lies in `part`.

        `weights` are weights of the difficulties (missing = 0), `difficulty` fixes it; without
        both, all are equally likely. Raises InputError for a bad count, part or difficulty.
        """
        ...


def events(batch: TaskBatch, row: int = 0) -> list[WindowEvents]:
    """Return the windows of one sample of a batch, in order, without padding."""
    values = batch.values or tuple(np.empty((*t.shape, 0), np.float32) for t in batch.tokens)
    windows = zip(
        batch.tokens,
        batch.targets,
        batch.asked(),
        values,
        batch.lengths,
        batch.diagonal,
        strict=True,
    )
    return [
        WindowEvents(
            tokens[row, : lengths[row]],
            targets[row, : lengths[row]],
            int(batch.difficulty[row]),
            diagonal,
            asked[row, : lengths[row]],
            carried[row, : lengths[row]],
        )
        for tokens, targets, asked, carried, lengths, diagonal in windows
    ]


def stream(
    task: Task,
    seed: int,
    part: Part,
    *,
    count: int = 1,
    weights: Mapping[int, float] | None = None,
    difficulty: int | None = None,
) -> Iterator[TaskBatch]:
    """Yield batches of `count` samples without end; the same arguments give the same samples.

    Another `count` gives other samples, not the same ones in other batches.
    """
    random = np.random.default_rng(seed)
    while True:
        yield task.sample(random, count, part=part, weights=weights, difficulty=difficulty)


def asked_last(
    windows: Sequence[IntArray],
    targets: Targets,
    difficulty: IntArray,
    rungs: Sequence[Targets] = (),
    values: Sequence[Values] = (),
) -> TaskBatch:
    """Return the batch of full windows `[B, L_w]` of which the last holds independent questions.

    `targets` and each of `rungs` `[B, L]` belong to the last window; in those before it nothing is
    asked. `values` as in `TaskBatch`.
    """
    blank = -1 if targets.dtype.kind == "i" else np.nan
    kind: Any = targets.dtype
    unasked: list[Targets] = [np.full(window.shape, blank, kind) for window in windows[:-1]]
    return TaskBatch(
        tokens=tuple(windows),
        targets=(*unasked, targets),
        lengths=tuple(np.full(len(difficulty), window.shape[1], np.int64) for window in windows),
        difficulty=difficulty,
        diagonal=(*(False for _ in unasked), True),
        rungs=tuple(rungs),
        values=tuple(values),
    )


def check_whole(task: str, name: str, value: object, low: int, high: int) -> None:
    """Raise InputError unless the parameter `name` of `task` is an integer in low..high."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise InputError(f"{task}: {name}={value!r}: expected an integer in {low}..{high}")


def checked_seed(seed: object, name: str = "seed") -> int:
    """Return a seed as Python's integer. Raises InputError for what seeds nothing."""
    found = int(seed) if isinstance(seed, np.integer) else seed
    if type(found) is not int or not 0 <= found < 2**64:
        raise InputError(f"{name}={seed!r}: a whole number from 0, below 2**64")
    return found


def check_switch(task: str, name: str, value: object) -> None:
    """Raise InputError unless the parameter `name` of `task` is true or false."""
    if not isinstance(value, bool):
        raise InputError(f"{task}: {name}={value!r}: expected true or false")


def check_shared_out(task: str, name: str, value: int, windows: int) -> None:
    """Raise InputError unless `windows` windows can share `value` things evenly."""
    check_whole(task, "windows", windows, 1, value)
    if value % windows:
        raise InputError(
            f"{task}: windows={windows}: expected a divisor of {name}={value}, so that each window "
            "holds equally many"
        )


def checked_rungs(task: str, rungs: Sequence[int], hardest: int) -> tuple[int, ...]:
    """Return the difficulties that rung 1, 2, ... of `task` ask for, as a tuple.

    Raises InputError unless they are from 1 to the hardest and none is below the one before.
    """
    found = tuple(rungs) if isinstance(rungs, list | tuple) else (rungs,)
    for value in found:
        check_whole(task, "rungs", value, 1, hardest)
    if list(found) != sorted(found):
        raise InputError(f"{task}: rungs={list(found)}: expected rising difficulties")
    return found
