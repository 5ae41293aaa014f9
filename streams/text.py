"""Text files as streams of bytes: one stream per file, one token per byte.

Event logs with a categorical column are in `eventlog`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .errors import InputError
from .given import Files, file_paths
from .manifest import new_folder
from .rows import MOST_NS
from .writer import RecordingWriter

_SECOND = 1_000_000_000
_CHUNK = 1 << 20


def record_text(files: Files, out: str | os.PathLike[str]) -> Path:
    """Record the bytes of one file, or of each of several, as a stream of tokens 0..255, and return
    the folder.

    A byte has no time of its own: token i of a stream is given the time 1970-01-01 + i seconds, and
    the provenance says so. Streams are named by their files, with as many parent folders as tell
    them apart. Raises InputError for a file that is missing or empty, or an existing `out`.
    """
    paths = file_paths(files, "text file")
    for path in paths:
        if not path.is_file():
            raise InputError(f"{path}: no such file")
        if path.stat().st_size == 0:
            raise InputError(f"{path}: the file is empty, so there is nothing to record")
        if path.stat().st_size * _SECOND > MOST_NS:
            raise InputError(
                f"{path}: {path.stat().st_size} bytes; at one second a byte, int64 nanoseconds "
                f"hold at most {MOST_NS // _SECOND}; cut it into several files"
            )
    provenance = {
        "source": "record text",
        "time": "synthetic: 1970-01-01 plus one second per token of the stream",
    }
    with (
        new_folder(Path(out)) as folder,
        RecordingWriter(
            folder, kind="tokens", tokenizer="bytes", vocabulary=256, provenance=provenance
        ) as writer,
    ):
        for path, name in zip(paths, _names(paths), strict=True):
            first = 0
            with path.open("rb") as file:
                while data := file.read(_CHUNK):
                    tokens = np.frombuffer(data, np.uint8)
                    index = np.arange(first, first + len(tokens), dtype=np.int64)
                    writer.append(name, index * _SECOND, tokens=tokens)
                    first += len(tokens)
    return Path(out)


def _names(paths: Sequence[Path]) -> list[str]:
    whole = [Path(os.path.abspath(path)).parts for path in paths]  # a link has a name of its own
    for kept in range(1, max(map(len, whole)) + 1):
        names = ["/".join(parts[-kept:]) for parts in whole]
        if len(set(names)) == len(names):
            return names
    raise InputError("files: one file is given twice")
