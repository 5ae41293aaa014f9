"""What ships with the package: recordings and checkpoints, found by name as `bundled:NAME`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from adaptive_sleep.streams.errors import InputError, nearest

Shelf = Literal["recordings", "models"]
PREFIX = "bundled:"


def bundled_names(shelf: Shelf) -> tuple[str, ...]:
    """Names on a shelf, sorted."""
    folder = Path(__file__).parent / shelf
    found = folder.iterdir() if folder.is_dir() else ()
    return tuple(
        sorted(p.name.removesuffix(".safetensors") for p in found if p.name[0] not in "._")
    )


def bundled_path(shelf: Shelf, name: str) -> Path:
    """Where a bundled recording (a folder) or model (a file) lies. Raises InputError."""
    names = bundled_names(shelf)
    if name not in names:
        known = ", ".join(names) or "none"
        raise InputError(
            f"bundled:{name}: not among the bundled {shelf} ({known}){nearest(name, names)}"
        )
    return Path(__file__).parent / shelf / (name + (".safetensors" if shelf == "models" else ""))


def locate(shelf: Shelf, where: str | Path) -> Path:
    """A path as it is, or the path of `bundled:NAME`. Raises InputError for an unknown name."""
    text = str(where)
    return (
        bundled_path(shelf, text.removeprefix(PREFIX)) if text.startswith(PREFIX) else Path(where)
    )
