"""The Numenta Anomaly Benchmark: one value a row, and a file of labelled windows of time.

Other tables are in `tables`. Rows stay in the order of the file, also where time steps back.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from .errors import InputError, nearest
from .events import Channel
from .given import Files, file_paths
from .manifest import new_folder
from .tablefiles import Batch, batches, check_columns, times, wide_numbers
from .writer import RecordingWriter

USUAL = ("usual", "anomalous")  # names of the label's codes 0 and 1


def record_nab(
    files: Files,
    out: str | os.PathLike[str],
    *,
    windows: str | os.PathLike[str],
) -> Path:
    """Record one file of `timestamp,value` or several, each a stream of one channel "value", with
    the label "anomaly"; returns the folder.

    `windows` is the benchmark's JSON: a list of [first, last] times (both within) by the name of
    the file, with or without its folder. When a label becomes available is one number in a
    recording: after the longest of these windows, by when each of them has ended. Raises
    InputError, and leaves nothing behind, for a file that is not in `windows`, a damaged one, files
    without a row, or an existing `out`.
    """
    paths = file_paths(files, "table")
    if len({path.stem for path in paths}) < len(paths):
        raise InputError("files: two have one name, and it is what names a stream")
    for path in paths:
        check_columns(path, ["timestamp", "value"])
    found = _labelled(Path(windows), paths)
    longest = max((int(np.ptp(w, axis=1).max(initial=0)) for w in found.values()), default=0)
    layout = (
        Channel("value"),
        Channel("anomaly", "label", "category", categories=USUAL, delay_ns=longest),
    )
    provenance = {
        "source": "record nab",
        "files": ", ".join(path.name for path in paths),
        "windows": Path(windows).name,
        "label": "available after the longest labelled window",
    }
    with (
        new_folder(Path(out)) as folder,
        RecordingWriter(folder, kind="series", channels=layout, provenance=provenance) as writer,
    ):
        rows = 0
        for path in paths:
            for batch in batches(path, ["timestamp", "value"]):
                rows += len(batch.frame)
                at = times(batch, "timestamp", None, None)
                inside = _inside(at, found[path])
                values = np.stack([wide_numbers(batch, "value"), inside.astype(np.float64)], 1)
                writer.append(path.stem, at, values=values)
        if not rows:
            raise InputError(f"{paths[-1]}: no rows, so there is nothing to record")
    return Path(out)


def _inside(at: NDArray[np.int64], windows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of the times `[n]` lie within one of the windows `[w, 2]`."""
    within = (at[:, None] >= windows[:, 0]) & (at[:, None] <= windows[:, 1])
    return np.asarray(within.any(1), dtype=np.bool_)


def _labelled(file: Path, paths: Sequence[Path]) -> dict[Path, NDArray[np.int64]]:
    """The windows `[w, 2]` (ns) of every file. Raises InputError."""
    try:
        known = msgspec.json.decode(file.read_bytes(), type=dict[str, list[tuple[str, str]]])
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(
            f"{file}: cannot be read as labelled windows, {{name: [[first, last], ...]}}: {error}"
        ) from error
    found = {}
    for path in paths:
        keys = [key for key in known if key.split("/")[-1] == path.name]
        if len(keys) != 1:
            names = [key.split("/")[-1] for key in known]
            problem = "named more than once" if keys else f"not named{nearest(path.name, names)}"
            raise InputError(f"{file}: {path.name} is {problem}; every file needs its windows")
        found[path] = _times_of(file, known[keys[0]])
    return found


def _times_of(file: Path, windows: Sequence[tuple[str, str]]) -> NDArray[np.int64]:
    schema = {"first": pl.String, "last": pl.String}
    frame = pl.DataFrame(list(windows), schema=schema, orient="row")
    batch = Batch(file, np.arange(len(frame)), frame)
    both = np.stack([times(batch, name, None, None) for name in schema], 1)
    wrong = np.flatnonzero(both[:, 1] < both[:, 0])
    if len(wrong):
        first, last = windows[int(wrong[0])]
        raise InputError(f"{file}: a window from {first!r} to {last!r} ends before it begins")
    return both
