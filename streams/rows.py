"""Rows on their way into a recording: checked when they come, turned into columns when flushed.

Where the columns go is in `writer`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from .errors import InputError
from .events import Channel
from .manifest import Kind, Manifest

MOST_NS = int(np.iinfo(np.int64).max)
NEVER = int(np.iinfo(np.int64).min)  # the last time of a stream that has none
BUFFER_BYTES = 128 << 20  # of rows that wait to be written, or to be cut
_WHOLE = 1 << 24  # up to here float32 holds every whole number
_COUNTED = 2.0**64  # what is larger than any integer was measured, and float32 is as fine as it is
_ROW_BYTES = 24  # stream, sequence and time of a row


@dataclass(frozen=True)
class Rows:
    """`[n]` rows in arrival order: `stream` codes and `time` in ns.

    `values` is `[n, C]` float32 (C may be 0), `tokens` `[n]` int64 or None.
    """

    stream: NDArray[np.int64]
    time: NDArray[np.int64]
    values: NDArray[np.float32]
    tokens: NDArray[np.int64] | None

    def __len__(self) -> int:
        return len(self.time)

    def __getitem__(self, rows: slice) -> Rows:
        tokens = None if self.tokens is None else self.tokens[rows]
        return Rows(self.stream[rows], self.time[rows], self.values[rows], tokens)


def joined(parts: Sequence[Rows]) -> Rows:
    """The rows of at least one part, one after the other."""
    if len(parts) == 1:
        return parts[0]
    tokens = [rows.tokens for rows in parts if rows.tokens is not None]
    return Rows(
        np.concatenate([rows.stream for rows in parts]),
        np.concatenate([rows.time for rows in parts]),
        np.concatenate([rows.values for rows in parts]),
        np.concatenate(tokens) if tokens else None,
    )


def numbered(rows: Rows, counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The number `[n]` of each row within its stream, where `counts` `[streams]` came before."""
    order, first = _by_stream(rows)
    sizes = np.diff(first, append=len(rows))
    begin = counts[rows.stream[order[first]]] - first
    found = np.empty(len(rows), np.int64)
    found[order] = np.arange(len(rows)) + np.repeat(begin, sizes)
    return found


def steps_back(rows: Rows, last: NDArray[np.int64]) -> int:
    """How many rows have a time before that of the row before in their stream; `last` `[streams]`
    is the time before the first."""
    order, first = _by_stream(rows)
    times = rows.time[order]
    before = np.roll(times, 1)
    before[first] = last[rows.stream[order[first]]]
    return int(np.count_nonzero(times < before))


def _by_stream(rows: Rows) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The order `[n]` that sorts rows by stream, and where in it each stream begins."""
    order = np.argsort(rows.stream, kind="stable")
    return order, np.unique(rows.stream[order], return_index=True)[1]


def checked_names(streams: Sequence[str] | pl.Series, count: int) -> pl.Series:
    """`[count]` names as text; raises InputError for another number, or what is no text."""
    try:
        named = pl.Series(streams, dtype=pl.String)
    except (TypeError, UnicodeEncodeError, pl.exceptions.PolarsError) as error:
        told = str(error).partition("\n")[0]
        raise InputError(f"streams: a name is a str that UTF-8 can hold ({told})") from None
    if len(named) != count or named.null_count():
        raise InputError(f"streams: give {count} names, one per event, none missing")
    return named


def rows_within(channels: int, most: int) -> int:
    """How many rows of so many channels a buffer holds: `most`, or what fits `BUFFER_BYTES`."""
    return max(1, min(most, BUFFER_BYTES // (4 * channels + _ROW_BYTES)))


def checked_time(time_ns: ArrayLike) -> NDArray[np.int64]:
    """`[n]` int64; raises InputError unless these are integers that fit."""
    time = np.atleast_1d(_array("time_ns", time_ns, "[n] int64 nanoseconds"))
    if time.ndim != 1 or (time.dtype.kind not in "iu" and len(time)):
        raise InputError(f"time_ns: {time.dtype} {list(time.shape)}; give [n] int64 nanoseconds")
    if time.dtype.kind == "u" and len(time) and time.max() > MOST_NS:
        raise InputError(f"time_ns={time.max()}: at most {MOST_NS}, the greatest int64")
    return time.astype(np.int64)


def _array(field: str, given: ArrayLike, wanted: str) -> NDArray[Any]:
    """An array of what was given, without a mask; raises InputError for what is none."""
    if isinstance(given, list | tuple) and any(isinstance(x, np.ma.MaskedArray) for x in given):
        given = np.ma.array(given)  # else what is masked in them would be taken as it stands
    try:
        array: Any = np.asanyarray(given)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"{field}: {error}; give {wanted}") from None
    if not isinstance(array, np.ma.MaskedArray):
        return np.asarray(array)
    if not np.ma.is_masked(array):
        return np.asarray(array.data)
    if field == "values" and array.dtype.kind in "fiub":
        return np.asarray(np.ma.filled(array.astype(np.float64), np.nan))
    raise InputError(f"{field}: some are masked; give {wanted}, each of them there")


def checked_values(
    values: ArrayLike | None,
    count: int,
    channels: Sequence[Channel],
    kind: Kind,
    rounded: set[str],
) -> NDArray[np.float32]:
    """`[count, C]` float32, what is masked as NaN; raises InputError for another shape, what is no
    real number, or an infinite value.

    A recording of tokens may leave its labels out; they are then missing. Warns, and adds to
    `rounded`, for a channel that is not there and has a whole number that float32 rounds.
    """
    width = len(channels)
    wanted = f"[{count}, {width}] real numbers, NaN for missing"
    if values is None:
        if kind == "series":
            raise InputError(f"values: none given; [{count}, {width}] are needed")
        return np.full((count, width), np.nan, np.float32)
    given = _array("values", values, wanted)
    text = given.dtype.kind == "O" and any(isinstance(x, str | bytes) for x in given.flat)
    if given.dtype.kind not in "fiubO" or text:
        raise InputError(f"values: {given.dtype} {list(given.shape)}; give {wanted}")
    try:
        with np.errstate(over="ignore"):  # too large for float32 becomes infinite, refused below
            array = given.astype(np.float64, copy=False).astype(np.float32)
    except (ValueError, TypeError, OverflowError) as error:  # of objects
        raise InputError(f"values: {error}; give {wanted}") from None
    if array.shape != (count, width) and not (count == 1 and array.shape == (width,)):
        raise InputError(
            f"values: shape {list(array.shape)}; {count} events of {width} channels are "
            f"[{count}, {width}]"
        )
    array = array.reshape(count, width)
    bad = np.argwhere(np.isinf(array))
    if len(bad):
        row, column = (int(i) for i in bad[0])
        raise InputError(
            f"values: row {row} of channel {channels[column].name!r} is infinite as float32; "
            "give a finite number, or NaN for missing"
        )
    large = np.abs(array) >= _WHOLE
    if large.any():
        _say_rounded(given.reshape(count, width), array, large, channels, rounded)
    return array


def _say_rounded(
    given: NDArray[Any],
    array: NDArray[np.float32],
    large: NDArray[np.bool_],
    channels: Sequence[Channel],
    rounded: set[str],
) -> None:
    """Warn once for each channel of `given` `[n, C]` in which a whole number differs as float32."""
    for column in np.flatnonzero(large.any(0)).tolist():
        name, rows = channels[column].name, np.flatnonzero(large[:, column])
        if name in rounded:
            continue
        had, kept = given[rows, column], array[rows, column].astype(np.float64)
        if had.dtype.kind in "iu":  # as objects Python compares them, exactly
            wrong = had.astype(object) != kept.astype(object)
        else:
            wide = had.astype(np.float64)
            wrong = (wide != kept) & (wide == np.floor(wide)) & (abs(wide) < _COUNTED)
        if had.dtype.kind == "O":  # the same of Python's own integers, which float64 may round
            pairs = zip(had.tolist(), kept.tolist(), strict=True)
            wrong |= [isinstance(one, int) and one != other for one, other in pairs]
        if wrong.any():
            first = int(np.argmax(wrong))
            warnings.warn(
                f"channel {name!r}: {int(had[first])} is recorded as {int(kept[first])}: float32 "
                f"holds whole numbers up to {_WHOLE}, and some beyond; subtract an offset from the "
                "channel, or record differences",
                stacklevel=5,
            )
            rounded.add(name)


def checked_tokens(
    tokens: ArrayLike | None, count: int, manifest: Manifest
) -> NDArray[np.int64] | None:
    """`[count]` int64 within the vocabulary, None for a series; raises InputError."""
    if manifest.kind == "series":
        if tokens is not None:
            raise InputError("tokens: a series has values, not tokens")
        return None
    if tokens is None:
        raise InputError("tokens: none given; a recording of tokens needs them")
    array = np.atleast_1d(_array("tokens", tokens, f"[{count}] integers"))
    if array.shape != (count,) or (array.dtype.kind not in "iu" and count):
        raise InputError(f"tokens: {array.dtype} {list(array.shape)}; {count} integers are needed")
    wrong = np.flatnonzero((array < 0) | (array >= (manifest.vocabulary or 0)))
    if len(wrong):
        raise InputError(
            f"tokens: {array[wrong[0]]} at row {wrong[0]}; "
            f"allowed are 0..{(manifest.vocabulary or 0) - 1}"
        )
    return array.astype(np.int64)


def columns(
    rows: Rows,
    sequence: NDArray[np.int64],
    streams: Sequence[str],
    channels: Sequence[Channel],
) -> pl.DataFrame:
    """The rows as a shard has them, `sequence` `[n]` within their streams; NaN becomes null."""
    time = pl.Series(rows.time)
    found = {
        "stream": pl.Series(streams, dtype=pl.String).gather(rows.stream),
        "sequence": pl.Series(sequence),
        "time": time.cast(pl.Datetime("ns")).dt.replace_time_zone("UTC"),
    }
    if rows.tokens is not None:
        found["token"] = pl.Series(rows.tokens).cast(pl.Int32)
    for i, channel in enumerate(channels):
        found[channel.name] = pl.Series(np.ascontiguousarray(rows.values[:, i])).fill_nan(None)
    return pl.DataFrame(found)
