"""Event logs: a categorical column as tokens, one per row.

Numeric columns are in `tables`; how the files are read is in `tablefiles`.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import polars as pl

from .errors import InputError
from .events import Channel
from .manifest import new_folder, read_manifest
from .tablefiles import (
    TimeUnit,
    batches,
    category_codes,
    check_columns,
    names,
    required_names,
    times,
)
from .writer import RecordingWriter


def record_eventlog(
    file: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    column: str,
    time: str,
    stream: str | None = None,
    label: str | None = None,
    time_format: str | None = None,
    time_unit: TimeUnit | None = None,
    like: str | os.PathLike[str] | None = None,
) -> Path:
    """Record the categories in `column` as tokens, and return the folder.

    Tokens are numbered in the order in which categories first appear, after those of the recording
    `like`, so that a model of that one reads this one too; the manifest names them.
    `time`, `stream`, `time_format`, `time_unit` are as in `record_table`; without `stream` the file
    is one stream, named by its stem. `label` names a column that no model sees. What is missing is
    as there too; names, those of categories too, are taken as they stand. Reads the file twice: the
    vocabulary has to be known first. Raises InputError, and leaves nothing behind, for an unknown
    column, a missing category, a value that is no time, an existing `out`, or a `like` without
    categories.
    """
    path = Path(file)
    used = [name for name in (column, time, stream, label) if name is not None]
    if len(set(used)) != len(used):
        raise InputError(f"columns {', '.join(map(repr, used))}: each has one role")
    check_columns(path, used)
    categories = {name: number for number, name in enumerate(_known(like))}
    empty = True
    for batch in batches(path, [column]):
        for name in required_names(batch, column).unique(maintain_order=True).to_list():
            categories.setdefault(name, len(categories))
            empty = False
    if empty:
        raise InputError(f"{path}: no rows, so there is nothing to record")
    labels: dict[str, int] = {}
    with (
        new_folder(Path(out)) as folder,
        RecordingWriter(
            folder,
            kind="tokens",
            channels=() if label is None else (Channel(label, role="label", unit="category"),),
            tokenizer="categories",
            vocabulary=len(categories),
            categories=list(categories),
            provenance={"source": "record eventlog", "file": path.name, "column": column},
        ) as writer,
    ):
        for batch in batches(path, used):
            tokens = required_names(batch, column).replace_strict(categories, return_dtype=pl.Int64)
            values = None
            if label is not None:
                values = category_codes(names(batch, label), labels)[:, np.newaxis]
            rows = len(batch.frame)
            writer.append_rows(
                required_names(batch, stream) if stream else [path.stem] * rows,
                times(batch, time, time_format, time_unit),
                values=values,
                tokens=tokens.to_numpy(),
            )
        if label is not None:
            writer.name_categories(label, list(labels))
    return Path(out)


def _known(like: str | os.PathLike[str] | None) -> tuple[str, ...]:
    """The categories of an earlier recording, in the order of their tokens."""
    if like is None:
        return ()
    found = read_manifest(Path(like)).categories
    if not found:
        raise InputError(f"like={str(like)!r}: its tokens have no categories; name an event log")
    return found


def record_loghub(
    file: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    stream: str | None = None,
    like: str | os.PathLike[str] | None = None,
) -> Path:
    """Record a structured log of loghub (`*.log_structured.csv`): `EventId` as tokens, at the times
    in `Timestamp` (seconds since 1970), the alert flag `Label` ("-": none) as a label where the log
    has one.

    Times keep the gaps between events, also where they repeat or step back. `stream` names a column
    that tells streams apart, for example `Node`. `like` is as in `record_eventlog`, which records a
    log that writes its time otherwise. Raises InputError as it does.
    """
    path = Path(file)
    found = check_columns(path, ["EventId"])
    if "Timestamp" not in found:
        raise InputError(
            f"{path}: no column 'Timestamp', seconds since 1970 (columns: {', '.join(found)}); "
            "record it as an event log and say which column is the time, and how it is written"
        )
    label = "Label" if "Label" in found else None
    return record_eventlog(
        path, out, column="EventId", time="Timestamp", time_unit="s", stream=stream, label=label,
        like=like,
    )  # fmt: skip
