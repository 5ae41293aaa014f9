"""How tasks draw: difficulties by weight, permutations, and structures that keep to their part.

Which part a structure lies in is a hash of what must be remembered, so no structure lies in two.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, nearest
from .task import IntArray, Part

_BUCKETS = 10
_BUCKETS_OF: dict[str, tuple[int, int]] = {"test": (0, 0), "validation": (1, 1), "train": (2, 9)}
_STEEPEST = 16
_ROUNDS = 300  # a part that holds a hundredth of the structures is all but never missed


def draw_difficulties(
    random: np.random.Generator,
    count: int,
    allowed: tuple[int, ...],
    weights: Mapping[int, float] | None = None,
    difficulty: int | None = None,
) -> IntArray:
    """Return `[count]` difficulties: fixed, or drawn by weight, or equally likely.

    Raises InputError for a count below 1, a difficulty that is not allowed, weights that are
    negative or all zero, and for both `weights` and `difficulty`.
    """
    if count < 1:
        raise InputError(f"count={count}: draw at least 1 sample")
    if difficulty is not None:
        if weights is not None:
            raise InputError(f"difficulty={difficulty} fixes what weights would draw; give one")
        check_difficulties("difficulty", [difficulty], allowed)
        return np.full(count, difficulty, np.int64)
    values = np.array(allowed, np.int64)
    if weights is None:
        return values[random.integers(len(values), size=count)]
    check_weights("weights", weights, allowed)
    bounds = np.cumsum([float(weights.get(value, 0.0)) for value in allowed])
    return values[np.searchsorted(bounds / bounds[-1], random.random(count), side="right")]


def check_weights(name: str, weights: Mapping[int, float], allowed: tuple[int, ...]) -> None:
    """Raise InputError unless `weights` are weights of allowed difficulties, not all zero."""
    check_difficulties(name, weights, allowed)
    for value, weight in weights.items():
        if not (math.isfinite(weight) and weight >= 0):
            raise InputError(f"{name}[{value}]={weight}: expected a finite weight of at least 0")
    if not any(weights.values()):
        raise InputError(f"{name}={dict(weights)}: at least 1 weight must be above 0")


def check_power(name: str, power: float) -> None:
    """Raise InputError unless difficulties can be weighted by this power."""
    if not abs(power) <= _STEEPEST:
        raise InputError(f"{name}={power}: a number from -{_STEEPEST} to {_STEEPEST}")


def power_weights(difficulties: Sequence[int], power: float) -> dict[int, float]:
    """Weights of difficulties: d^-power, or (1 + d)^-power where they begin at 0."""
    least = 0 in difficulties
    return {d: float(least + d) ** -power for d in difficulties}


def check_difficulties(
    name: str, given: Sequence[int] | Mapping[int, float], allowed: tuple[int, ...]
) -> None:
    """Raise InputError unless every difficulty given is allowed."""
    for value in given:
        if value not in allowed:
            options = ", ".join(map(str, allowed))
            raise InputError(f"{name}: there is no difficulty {value!r}; there are {options}")


def permutations(
    random: np.random.Generator, rows: int, size: int, sizes: IntArray | None = None
) -> IntArray:
    """Return `[rows, size]` permutations of 0..size-1.

    With `sizes` `[rows]`, the first sizes[r] of row r permute 0..sizes[r]-1; the rest follow.
    """
    if sizes is None:
        return random.permuted(np.broadcast_to(np.arange(size), (rows, size)), axis=1)
    keys = np.where(np.arange(size) < sizes[:, None], random.random((rows, size)), 1.0)
    return np.argsort(keys, axis=1, kind="stable")


def draw_size(random: np.random.Generator, least: int, most: int, multiple: int = 1) -> int:
    """Return a size of least..most, a multiple of `multiple`: `most` once in four times, otherwise
    m with a weight of 1 / (m + sqrt(most)), as Depo draws its sizes."""
    if random.random() < 0.25:
        return most
    sizes = np.arange(most, least - 1, -multiple)
    weights = 1.0 / (sizes + math.sqrt(most))
    return int(random.choice(sizes, p=weights / weights.sum()))


def distinct(rows: int, wanted: int, draw: Callable[[int, int], IntArray]) -> IntArray:
    """Return `[rows, wanted]`: of an endless row of draws, the first that differ from all before.

    `draw(rows, columns)` draws integers of at least 0, `[rows, columns]`; the caller makes sure
    that so many different values can come.
    """
    values = draw(rows, 2 * wanted)
    while True:
        order = np.argsort(values, axis=1, kind="stable")
        ranked = taken(values, order)
        again = placed(np.diff(ranked, axis=1, prepend=-1) == 0, order)
        if again.sum(axis=1).max() <= values.shape[1] - wanted:
            return taken(values, np.argsort(again, axis=1, kind="stable")[:, :wanted])
        values = np.concatenate([values, draw(rows, values.shape[1])], axis=1)


def taken(values: IntArray, places: IntArray) -> IntArray:
    """Return `values` `[R, N]` at `places` `[R, M]` of each row: `[R, M]`."""
    return values[np.arange(len(values))[:, None], places]  # np.take_along_axis is half as fast


def placed(values: IntArray | NDArray[np.bool_], places: IntArray) -> IntArray:
    """Return `[R, N]` with `values` `[R, N]` at `places`, a permutation in each row."""
    found = np.empty_like(places)
    found[np.arange(len(places))[:, None], places] = values
    return found


def buckets(elements: IntArray) -> IntArray:
    """Return the bucket 0..9 `[R]` of sets of integers `[R, E]`; order and -1 do not count."""
    codes = _mixed((elements + 1).view(np.uint64)).sum(axis=1)
    return (_mixed(codes) % np.uint64(_BUCKETS)).astype(np.int64)


def _mixed(codes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Mix in place as splitmix64 ends (Steele, Lea, Flood 2014); 0 stays 0."""
    codes ^= codes >> np.uint64(30)
    codes *= np.uint64(0xBF58476D1CE4E5B9)
    codes ^= codes >> np.uint64(27)
    codes *= np.uint64(0x94D049BB133111EB)
    codes ^= codes >> np.uint64(31)
    return codes


def in_part(elements: IntArray, part: Part) -> NDArray[np.bool_]:
    """Tell which structures `[R, E]`, as sets of integers, lie in the part; raises InputError."""
    if part not in _BUCKETS_OF:
        hint = nearest(str(part), _BUCKETS_OF)
        raise InputError(f"there is no part {part!r}{hint} (there are {', '.join(_BUCKETS_OF)})")
    found = buckets(elements)
    first, last = _BUCKETS_OF[part]
    inside: NDArray[np.bool_] = (found >= first) & (found <= last)
    return inside


def draw_in_part(
    random: np.random.Generator,
    part: Part,
    difficulty: IntArray,
    draw: Callable[[np.random.Generator, IntArray], tuple[IntArray, ...]],
    *,
    eager: bool = True,
) -> tuple[IntArray, ...]:
    """Return a structure of the part for each entry of `difficulty` `[B]`.

    `draw(random, difficulty [R])` returns arrays `[R, ...]`; the first, `[R, E]`, is what must be
    remembered as a set of integers. What lies in another part is drawn again, at the same
    difficulty. `eager` draws several candidates at once: more draws in fewer calls, which is faster
    where structures are small. Raises InputError if so few structures exist that none seems to be
    in the part.
    """
    tries = (4 if eager else 1) if part == "train" else (12 if eager else 4)
    kept: list[IntArray] = []
    pending = np.arange(len(difficulty))
    for _ in range(_ROUNDS):
        arrays = draw(random, np.repeat(difficulty[pending], tries))
        inside = in_part(arrays[0], part).reshape(-1, tries)
        found = inside.any(axis=1)
        chosen = (np.arange(len(pending)) * tries + inside.argmax(axis=1))[found]
        kept = kept or [np.zeros((len(difficulty), *array.shape[1:]), np.int64) for array in arrays]
        for keep, array in zip(kept, arrays, strict=True):
            keep[pending[found]] = array[chosen]
        pending = pending[~found]
        if not len(pending):
            return tuple(kept)
    raise InputError(
        f"part {part!r}: {_ROUNDS * tries} structures of difficulty {difficulty[pending[0]]} all "
        "lie in other parts; make the task larger, so that more structures exist"
    )
