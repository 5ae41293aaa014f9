"""Telemetry in NumPy archives: arrays of readings at a steady step, train before test, and labels.

Tables are in `tables`. Such arrays have no times, so the recording says that its own are made up.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .errors import InputError, nearest
from .events import Channel
from .given import Names, column_names
from .manifest import new_folder
from .nab import USUAL
from .rows import MOST_NS
from .writer import RecordingWriter

_SECOND = 1_000_000_000


def record_arrays(
    file: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    step_seconds: float,
    parts: Names = ("train", "test"),
    suffix: str = "_label",
    channels: Names = (),
) -> Path:
    """Record the arrays `parts` `[n, C]` of an .npz one after the other as one stream, named by the
    file; returns the folder.

    An array named as a part with `suffix` `[n]` holds its labels, 0 or 1: the label "anomaly",
    which is missing where a part has none, and available after the longest run of 1. Row i has the
    time 1970-01-01 plus i steps. `channels` name the C columns (default c0, c1, ...). NaN is
    missing. Raises InputError, and leaves nothing behind, for a missing array, shapes that do not
    fit, a value that is not finite, or an existing `out`.
    """
    path, parts = Path(file), column_names(parts)
    if not (np.isfinite(step_seconds) and 0 < step_seconds * _SECOND < 2**53):
        raise InputError(f"step_seconds={step_seconds}: seconds from one row to the next, above 0")
    step = max(round(step_seconds * _SECOND), 1)
    rows, labels = _read(path, parts, suffix)
    width = rows[0].shape[1]
    names = tuple(column_names(channels)) or tuple(f"c{i}" for i in range(width))
    if len(names) != width:
        raise InputError(f"channels: {len(names)} names, but {path} has {width} columns")
    count = sum(map(len, rows))
    if count * step > MOST_NS:
        raise InputError(
            f"step_seconds={step_seconds}: {count} rows would end after the year 2262, which int64 "
            f"nanoseconds cannot hold; at most {MOST_NS / _SECOND / count:g}"
        )
    layout = [Channel(name) for name in names]
    values = np.concatenate(rows)
    if any(label is not None for label in labels):
        flags = np.concatenate(
            [
                np.full(len(row), np.nan) if label is None else label.astype(np.float64)
                for row, label in zip(rows, labels, strict=True)
            ]
        )
        delay = _longest_run(flags == 1) * step
        layout.append(Channel("anomaly", "label", "category", USUAL, delay))
        values = np.concatenate([values, flags[:, None]], 1)
    ends = np.cumsum([len(row) for row in rows])
    spans = [f"{n} to row {end}" for n, end in zip(parts, ends.tolist(), strict=True)]
    provenance = {
        "source": "record arrays",
        "file": path.name,
        "parts": ", ".join(spans),
        "time": f"synthetic: 1970-01-01 plus {step_seconds:g} s a row",
    }
    with (
        new_folder(Path(out)) as folder,
        RecordingWriter(folder, kind="series", channels=layout, provenance=provenance) as writer,
    ):
        writer.append(path.stem, np.arange(len(values), dtype=np.int64) * step, values=values)
    return Path(out)


def _read(
    path: Path, parts: Sequence[str], suffix: str
) -> tuple[list[NDArray[np.float64]], list[NDArray[np.int64] | None]]:
    """The parts as float64 `[n, C]`, and the labels of each, int64 `[n]`, or None."""
    if not parts:
        raise InputError("parts: name at least 1 array")
    known, found = _archive(path, [*parts, *(part + suffix for part in parts)])
    for part in parts:
        if part not in known:
            raise InputError(
                f"{path}: no array {part!r}{nearest(part, known)} (it has {', '.join(known)})"
            )
    rows = [_numbers(path, part, found[part]) for part in parts]
    labels = [
        _flags(path, part + suffix, found[part + suffix], len(row))
        if part + suffix in found
        else None
        for part, row in zip(parts, rows, strict=True)
    ]
    widths = {row.shape[1] for row in rows}
    if len(widths) > 1:
        raise InputError(f"{path}: parts of {sorted(widths)} columns; they need the same channels")
    if not sum(map(len, rows)):
        raise InputError(f"{path}: no rows, so there is nothing to record")
    return rows, labels


def _archive(path: Path, wanted: Sequence[str]) -> tuple[list[str], dict[str, NDArray[np.generic]]]:
    """The names of all arrays of an archive, and those of `wanted` that it has."""
    try:
        opened = np.load(path, allow_pickle=False)
        if isinstance(opened, np.lib.npyio.NpzFile):
            with opened:
                return opened.files, {n: opened[n] for n in wanted if n in opened.files}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: cannot be read as a NumPy archive: {error}") from error
    raise InputError(f"{path}: one array; an archive (.npz) of named ones is needed")


def _numbers(path: Path, name: str, array: NDArray[np.generic]) -> NDArray[np.float64]:
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or array.dtype.kind not in "fiub" or not array.shape[1]:
        raise InputError(
            f"{path}: array {name!r} is {array.dtype} {list(array.shape)}; numbers [n, C] are read"
        )
    return array.astype(np.float64)


def _flags(path: Path, name: str, array: NDArray[np.generic], rows: int) -> NDArray[np.int64]:
    if array.shape != (rows,) or not np.isin(array, (0, 1)).all():
        raise InputError(
            f"{path}: array {name!r} {list(array.shape)}: labels are [{rows}], each 0 or 1"
        )
    return array.astype(np.int64)


def _longest_run(flags: NDArray[np.bool_]) -> int:
    """How many true values follow one another at most."""
    edges = np.diff(np.concatenate([[0], flags.astype(np.int64), [0]]))
    runs = np.flatnonzero(edges == -1) - np.flatnonzero(edges == 1)
    return int(runs.max(initial=0))
