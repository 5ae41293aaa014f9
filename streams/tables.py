"""CSV and Parquet tables as series: which column is the time, a channel, an action or a label.

How the files are read, and what is wrong with a value, is in `tablefiles`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from .errors import InputError
from .events import Channel
from .manifest import new_folder
from .tablefiles import (
    TimeUnit,
    batches,
    category_codes,
    check_columns,
    names,
    numbers,
    required_names,
    times,
)
from .writer import RecordingWriter


def record_table(
    files: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    time: str,
    stream: str | None = None,
    channels: Sequence[str] | None = None,
    actions: Sequence[str] = (),
    labels: Sequence[str] = (),
    time_format: str | None = None,
    time_unit: TimeUnit | None = None,
) -> Path:
    """Record tables (.csv, .tsv, .parquet) as a series, row by row in the order of the files.

    `time` names the column of times: dates, ISO 8601 text, `time_format` (strftime), or numbers of
    `time_unit` since 1970; without an offset they are UTC. `stream` names the column that says
    which stream a row belongs to; without one, every file is a stream, named by its stem.
    `channels` are the observed columns (default: all that are left), `actions` and `labels` have
    their roles; labels are read as categories. Empty values, NA, NaN and null are missing.
    Returns the folder. Raises InputError, and leaves nothing behind, for an unknown column, text in
    a numeric column, a value that is no time, or an existing `out`.
    """
    paths = [Path(file) for file in files]
    if not paths:
        raise InputError("files: give at least 1 table")
    named = [time, *([stream] if stream else []), *(channels or []), *actions, *labels]
    for column in named:
        if named.count(column) > 1:
            raise InputError(f"column {column!r} is given twice; each has one role")
    found = check_columns(paths[0], named)
    observed = list(channels) if channels else [name for name in found if name not in named]
    if not observed:
        raise InputError(f"{paths[0]}: no column is left to observe (columns: {', '.join(found)})")
    used = [*named, *(name for name in observed if name not in named)]
    for path in paths[1:]:
        check_columns(path, used)
    streams = {path: path.stem for path in paths} if stream is None else {}
    if len(set(streams.values())) != len(streams):
        raise InputError("two files have one name, and no column tells their streams apart")

    layout = (
        *(Channel(name) for name in observed),
        *(Channel(name, role="action") for name in actions),
        *(Channel(name, role="label", unit="category") for name in labels),
    )
    codes: dict[str, dict[str, int]] = {name: {} for name in labels}
    with (
        new_folder(Path(out)) as folder,
        RecordingWriter(
            folder,
            kind="series",
            channels=layout,
            provenance=_provenance(paths, time, time_format, time_unit),
        ) as writer,
    ):
        rows = 0
        for path in paths:
            for batch in batches(path, used):
                columns = [numbers(batch, name) for name in (*observed, *actions)]
                columns += [category_codes(names(batch, name), codes[name]) for name in labels]
                count = len(batch.frame)
                rows += count
                writer.append_rows(
                    required_names(batch, stream) if stream else [streams[path]] * count,
                    times(batch, time, time_format, time_unit),
                    values=np.stack(columns, axis=1),
                )
        if not rows:
            raise InputError(f"{paths[-1]}: no rows, so there is nothing to record")
        for name, known in codes.items():
            writer.name_categories(name, list(known))
    return Path(out)


def _provenance(
    paths: Iterable[Path], time: str, time_format: str | None, time_unit: TimeUnit | None
) -> dict[str, str]:
    told = f"{time_unit} since 1970" if time_unit else time_format or "dates or ISO 8601"
    return {
        "source": "record table",
        "files": ", ".join(path.name for path in paths),
        "time": f"column {time!r}: {told}; UTC where no offset is given",
    }
