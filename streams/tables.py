"""Tables as series, from files or Polars: which column is time, channel, action or label.

How the files are read, and what is wrong with a value, is in `tablefiles`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from .errors import InputError
from .events import Channel
from .given import Files, Names, column_names, file_paths
from .manifest import new_folder
from .tablefiles import (
    Batch,
    TimeUnit,
    batches,
    category_codes,
    check_columns,
    check_names,
    frame_batches,
    names,
    required_names,
    times,
    wide_numbers,
)
from .writer import RecordingWriter


@dataclass(frozen=True)
class _Source:
    """One table: its columns, its rows as batches of some columns, the stream that it is."""

    name: str
    found: list[str]
    stream: str
    batches: Callable[[Sequence[str]], Iterator[Batch]]


def record_table(
    files: Files,
    out: str | os.PathLike[str],
    *,
    time: str,
    stream: str | None = None,
    channels: Names | None = None,
    actions: Names = (),
    labels: Names = (),
    time_format: str | None = None,
    time_unit: TimeUnit | None = None,
) -> Path:
    """Record one table or several (.csv, .tsv, .parquet, .pq) as a series, row by row in the order
    of the files.

    `time` names the column of times: dates, ISO 8601 text, `time_format` (strftime), or numbers of
    `time_unit` since 1970; without an offset they are UTC. `stream` names the column that says
    which stream a row belongs to; without one, every file is a stream, named by its stem.
    `channels` are the observed columns (default: all that are left, the same in every file),
    `actions` and `labels` have their roles, each one name or several; labels are read as
    categories. Values that are empty, NA, N/A, NaN, nan, null, NULL or None are missing, labels
    too. Names of streams and labels are taken as they stand: "pump" and "pump " are two. Returns
    the folder. Raises InputError, and leaves nothing behind, for an unknown column,
    text in a numeric column, a value that is no time, a `time_format` that gives none, quotes that
    are not as RFC 4180 has them, or an existing `out`.
    """
    paths = file_paths(files, "table")
    if stream is None and len({path.stem for path in paths}) != len(paths):
        raise InputError("two files have one name, and no column tells their streams apart")
    sources = [
        _Source(str(path), check_columns(path, []), path.stem, partial(batches, path))
        for path in paths
    ]
    files_named = ", ".join(path.name for path in paths)
    return _record(
        sources, Path(out), {"source": "record table", "files": files_named},
        time=time, stream=stream, channels=channels, actions=actions, labels=labels,
        time_format=time_format, time_unit=time_unit,
    )  # fmt: skip


def record_frame(
    frame: pl.DataFrame | pl.LazyFrame,
    out: str | os.PathLike[str],
    *,
    time: str,
    stream: str | None = None,
    name: str = "frame",
    channels: Names | None = None,
    actions: Names = (),
    labels: Names = (),
    time_format: str | None = None,
    time_unit: TimeUnit | None = None,
) -> Path:
    """Record a Polars frame as a series, row by row in its order; a lazy one is read in batches.

    Columns and their roles are as in `record_table`; without `stream` the frame is one stream,
    called `name`. Returns the folder. Raises InputError as `record_table` does, and for what is no
    Polars frame.
    """
    given: object = frame
    if not isinstance(given, pl.DataFrame | pl.LazyFrame):
        raise InputError(
            f"frame: {type(given).__module__}.{type(given).__qualname__}: a polars DataFrame or "
            "LazyFrame; polars.DataFrame makes one of a dict, polars.from_pandas of a pandas frame"
        )
    lazy = frame.lazy()
    found = lazy.collect_schema().names()
    source = _Source(name, found, name, partial(frame_batches, lazy, name))
    return _record(
        [source], Path(out), {"source": "record frame", "frame": name},
        time=time, stream=stream, channels=channels, actions=actions, labels=labels,
        time_format=time_format, time_unit=time_unit,
    )  # fmt: skip


def _record(
    sources: Sequence[_Source], out: Path, provenance: dict[str, str], *,
    time: str, stream: str | None, channels: Names | None, actions: Names,
    labels: Names, time_format: str | None, time_unit: TimeUnit | None,
) -> Path:  # fmt: skip
    """Record tables, row by row, in order."""
    actions, labels = column_names(actions), column_names(labels)
    channels = column_names(channels) if channels else []
    named = [time, *([stream] if stream else []), *channels, *actions, *labels]
    for column in named:
        if named.count(column) > 1:
            raise InputError(f"column {column!r} is given twice; each has one role")
    first, found = sources[0].name, sources[0].found
    check_names(first, found, named)
    observed = channels or [name for name in found if name not in named]
    if not observed:
        raise InputError(f"{first}: no column is left to observe (columns: {', '.join(found)})")
    used = [*named, *(name for name in observed if name not in named)]
    for source in sources[1:]:
        check_names(source.name, source.found, used)
        more = [name for name in source.found if name not in found]
        if more and not channels:
            raise InputError(
                f"{source.name}: column {more[0]!r} is not in {first}, and would be left out; name "
                "the observed columns (channels), or give both files the same"
            )

    layout = (
        *(Channel(name) for name in observed),
        *(Channel(name, role="action") for name in actions),
        *(Channel(name, role="label", unit="category") for name in labels),
    )
    codes: dict[str, dict[str, int]] = {name: {} for name in labels}
    with (
        new_folder(out) as folder,
        RecordingWriter(
            folder,
            kind="series",
            channels=layout,
            provenance=provenance | _told(time, time_format, time_unit),
        ) as writer,
    ):
        rows = 0
        for source in sources:
            for batch in source.batches(used):
                columns = [wide_numbers(batch, name) for name in (*observed, *actions)]
                coded = [category_codes(names(batch, name), codes[name]) for name in labels]
                count = len(batch.frame)
                rows += count
                writer.append_rows(
                    required_names(batch, stream) if stream else [source.stream] * count,
                    times(batch, time, time_format, time_unit),
                    values=np.stack([*columns, *coded], axis=1),
                )
        if not rows:
            raise InputError(f"{sources[-1].name}: no rows, so there is nothing to record")
        for name, known in codes.items():
            writer.name_categories(name, list(known))
    return out


def _told(time: str, time_format: str | None, time_unit: TimeUnit | None) -> dict[str, str]:
    """What the provenance says of times."""
    told = f"{time_unit} since 1970" if time_unit else time_format or "dates or ISO 8601"
    return {"time": f"column {time!r}: {told}; UTC where no offset is given"}
