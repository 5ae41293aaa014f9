"""What a caller gives as one or as several: files, and names of columns.

What is in them is for the sources to say.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from .errors import InputError

Names = str | Sequence[str]
Files = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def given_path(field: str, given: object) -> Path:
    """The path of a file or a folder; raises InputError, naming `field`, for what is none."""
    if not isinstance(given, str | os.PathLike):
        raise InputError(f"{field}={given!r} ({type(given).__name__}): a path, as text or a Path")
    return Path(given)


def file_paths(files: Files, kind: str) -> list[Path]:
    """The paths of one file or of several; raises InputError, which says of what kind, for none."""
    several = [files] if isinstance(files, str | os.PathLike) else files
    paths = [Path(file) for file in several]
    if not paths:
        raise InputError(f"files: give at least 1 {kind}")
    return paths


def column_names(names: Names) -> list[str]:
    """The names of one column or of several."""
    return [names] if isinstance(names, str) else list(names)
