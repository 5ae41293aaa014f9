"""What a policy may look at: the records of signals, of progress during a sleep, and of outcomes.

Arrays only, one entry per stream, read-only. How the numbers are measured is the runtime's
business, and what is decided from them is a policy's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from adaptive_sleep.streams.errors import AdaptiveSleepError, InputError

StrArray = NDArray[np.object_]
IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
Rows = IntArray | BoolArray | slice | Sequence[int] | Sequence[bool]


@dataclass(frozen=True, eq=False)
class WindowSignals:
    """Everything known about the windows that close in one step, one entry per stream.

    All arrays are `[streams]` but `summary`, are copied on construction and cannot be written to.
    Nothing is computed for a policy's sake: every signal is measured from work already done.

    stream: name of the stream, str.
    window: index of the window within its stream, from 0.
    tokens: events in the window, >= 1; counted by the cutter.
    scored: predictions made in the window, >= 0; counted by the wake pass.
    uncertainty: mean predictive entropy / log vocabulary (0..1), or the predicted interquantile
        range in units of the stream's scale (>= 0); 0 if nothing was predicted. From the wake pass.
    surprise: mean loss, nats per token or normalised pinball; 0 if nothing was predicted.
        From the wake pass.
    cache_pressure: KV events held / KV budget over all streams, 0..1; the same for every stream.
    state_change: relative change of the fast weights by the wake pass, >= 0 (||S1 - S0|| / ||S1||).
    event_density: events per second of the window / the stream's own running mean, > 0; 1 = usual.
    gap: seconds between the last event before the window and its first; 0 for the first window.
    wake_flops: FLOPs that the wake pass of the window took, from the ledger's formulas.
    pass_flops: FLOPs that one more pass over the window would take, same source.
    price: what a FLOP costs, in units of loss, for policies that trade; 0 = free. From the user.
    budget_left: balance of the stream's sleep budget / its cap, 0..1; 1 where there is no budget.
    max_passes: the most passes that may be planned, >= 1. From the user.
    summary: float32 `[streams, 2d]`, final hidden states of the window, mean- and max-pooled,
        RMS-normalised; what a learned policy reads. From the wake pass.

    Raises InputError if lengths differ, or a value cannot be held by its field's type.
    """

    stream: StrArray
    window: IntArray
    tokens: IntArray
    scored: IntArray
    uncertainty: FloatArray
    surprise: FloatArray
    cache_pressure: FloatArray
    state_change: FloatArray
    event_density: FloatArray
    gap: FloatArray
    wake_flops: IntArray
    pass_flops: IntArray
    price: FloatArray
    budget_left: FloatArray
    max_passes: IntArray
    summary: NDArray[np.float32]

    SCALARS: ClassVar[tuple[str, ...]] = (
        "tokens",
        "scored",
        "uncertainty",
        "surprise",
        "cache_pressure",
        "state_change",
        "event_density",
        "gap",
        "wake_flops",
        "pass_flops",
        "price",
        "budget_left",
        "max_passes",
    )
    """The one-dimensional signals, in field order; `stream` and `window` only name a row."""

    def __post_init__(self) -> None:
        _freeze(self)

    def __len__(self) -> int:
        return len(self.stream)

    def select(self, rows: Rows) -> WindowSignals:
        """Return the given rows (indices, a mask or a slice) as a record of its own."""
        return _select(self, rows)


@dataclass(frozen=True, eq=False)
class SleepProgress:
    """What a sleep has come to after one more pass, one entry per stream that is still asleep.

    stream: name of the stream, str.
    window: index of the window within its stream.
    passes: passes done so far, the wake pass included, >= 2.
    planned: passes that will be run unless it is stopped early, > passes.
    state_change: relative change of the fast weights by the last pass, >= 0.
    hidden_change: relative change of the final hidden states by the last pass, >= 0.
    summary: float32 `[streams, 2d]`, as in WindowSignals, of the last pass.
    flops: sleep FLOPs spent on the window so far, >= 0.

    Raises InputError as WindowSignals does.
    """

    stream: StrArray
    window: IntArray
    passes: IntArray
    planned: IntArray
    state_change: FloatArray
    hidden_change: FloatArray
    summary: NDArray[np.float32]
    flops: IntArray

    def __post_init__(self) -> None:
        _freeze(self)

    def __len__(self) -> int:
        return len(self.stream)

    def select(self, rows: Rows) -> SleepProgress:
        """Return the given rows (indices, a mask or a slice) as a record of its own."""
        return _select(self, rows)


@dataclass(frozen=True, eq=False)
class WindowOutcome:
    """How a stream fared after a window, told at its next scored window, one entry per window.

    stream: name of the stream, str; a stream may occur several times (all its pending windows).
    window: index of the window that was slept on, within its stream.
    passes: passes that were really run on it, the wake pass included, >= 1.
    loss: mean loss of the stream's next scored window, in the unit of `surprise`.
    scored: predictions that this loss is the mean of, >= 1.
    lag: windows between the two, >= 1 (1 = the very next one).

    Raises InputError as WindowSignals does.
    """

    stream: StrArray
    window: IntArray
    passes: IntArray
    loss: FloatArray
    scored: IntArray
    lag: IntArray

    def __post_init__(self) -> None:
        _freeze(self)

    def __len__(self) -> int:
        return len(self.stream)

    def select(self, rows: Rows) -> WindowOutcome:
        """Return the given rows (indices, a mask or a slice) as a record of its own."""
        return _select(self, rows)


Record = WindowSignals | SleepProgress | WindowOutcome
R = TypeVar("R", WindowSignals, SleepProgress, WindowOutcome)

_DTYPES: dict[str, np.dtype[Any]] = {
    "StrArray": np.dtype(object),
    "IntArray": np.dtype(np.int64),
    "FloatArray": np.dtype(np.float64),
    "NDArray[np.float32]": np.dtype(np.float32),
}


def owned(kind: type[R], **columns: NDArray[Any]) -> R:
    """A record of arrays that nobody else holds, of the declared types and one length: what `kind`
    makes of them, but neither checked nor copied."""
    record = object.__new__(kind)
    for values in columns.values():
        values.setflags(write=False)
    vars(record).update(columns)
    return record


def outcomes(
    signals: WindowSignals, pending: Mapping[str, Sequence[tuple[int, int]]]
) -> WindowOutcome:
    """What the scored windows of `signals` tell of the `pending` windows before them: window and
    passes, by stream."""
    told = signals.stream, signals.window, signals.surprise, signals.scored
    rows = [
        (stream, window, passes, loss, scored, now - window)
        for stream, now, loss, scored in zip(*(each.tolist() for each in told), strict=True)
        if scored > 0
        for window, passes in pending.get(stream, ())
    ]
    columns = list(zip(*rows, strict=True)) if rows else [()] * 6
    return WindowOutcome(
        stream=np.array(columns[0], dtype=object),
        window=np.array(columns[1], dtype=np.int64),
        passes=np.array(columns[2], dtype=np.int64),
        loss=np.array(columns[3], dtype=np.float64),
        scored=np.array(columns[4], dtype=np.int64),
        lag=np.array(columns[5], dtype=np.int64),
    )


def check_finite(signals: Record) -> None:
    """Refuse a record with a value that is not finite.

    Raises AdaptiveSleepError naming the stream, the window and the signal of the first such value.
    """
    columns, floats = _columns(signals), _FLOATS[type(signals)]
    blocks = [np.concatenate([columns[name] for name in floats])]
    if "summary" in columns:
        blocks.append(columns["summary"])
    if all(np.count_nonzero(np.isfinite(block)) == block.size for block in blocks):
        return
    for name in (name for name, dtype, _ in _LAYOUT[type(signals)] if dtype.kind == "f"):
        values = columns[name]
        bad = ~np.isfinite(values)
        if not bad.any():
            continue
        row = int(np.argmax(bad.any(axis=1) if values.ndim == 2 else bad))
        value = values[row][bad[row]][0] if values.ndim == 2 else values[row]
        raise AdaptiveSleepError(
            f"stream {signals.stream[row]!r}, window {signals.window[row]}: "
            f"signal {name} is {value}, which is not finite"
        )


# Name, type and axes of the fields of each record; looked up once, for records are made at every
# boundary and after every pass.
_LAYOUT: dict[type, tuple[tuple[str, np.dtype[Any], int], ...]] = {
    kind: tuple(
        (field.name, _DTYPES[str(field.type)], 2 if field.name == "summary" else 1)
        for field in fields(kind)
    )
    for kind in (WindowSignals, SleepProgress, WindowOutcome)
}


_FLOATS: dict[type, tuple[str, ...]] = {
    kind: tuple(name for name, dtype, axes in layout if dtype.kind == "f" and axes == 1)
    for kind, layout in _LAYOUT.items()
}


def _columns(record: Record) -> dict[str, NDArray[Any]]:
    return vars(record)  # frozen, and all that it holds are its fields


def _select(record: R, rows: Rows) -> R:
    index = rows if isinstance(rows, slice) else np.asarray(rows)
    if isinstance(index, np.ndarray) and index.size == 0 and index.dtype.kind != "b":
        index = index.astype(np.int64)
    return type(record)(**{name: values[index] for name, values in _columns(record).items()})


def _freeze(record: Record) -> None:
    """Replace every field by a read-only copy of the declared type, all of one length."""
    columns, streams = _columns(record), -1
    for name, dtype, axes in _LAYOUT[type(record)]:
        values = columns[name] = _copy(record, name, columns[name], dtype)
        values.setflags(write=False)
        streams = len(values) if streams < 0 and values.ndim else streams
        if values.ndim != axes or len(values) != streams:
            count = max(streams, 0)
            want = f"({count}, 2d)" if axes == 2 else f"({count},)"
            raise InputError(
                f"{type(record).__name__}.{name} has shape {values.shape}: expected {want}, "
                f"one entry for each of the {count} streams"
            )


def _copy(record: Record, name: str, given: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    values = np.asarray(given)
    if values.dtype == dtype:
        return values.copy()
    if values.dtype.kind == "b" or (values.size and not _castable(values.dtype, dtype)):
        raise InputError(
            f"{type(record).__name__}.{name} holds {values.dtype}: expected values of type {dtype}"
        )
    return values.astype(dtype, copy=True)


@cache
def _castable(given: np.dtype[Any], dtype: np.dtype[Any]) -> bool:
    """Whether values of a type are taken for those of another."""
    return dtype.kind == "O" or np.can_cast(given, dtype, "same_kind")
