"""Finding a recipe: by the path of a TOML file, or by the name of one that we ship.

What a recipe says is decoded where it is used.
"""

from __future__ import annotations

from collections.abc import Collection
from importlib import resources
from pathlib import Path
from typing import Any

from adaptive_sleep.config import read_toml
from adaptive_sleep.streams.errors import InputError, nearest

# The commands that take recipes other than of a training, by what only these hold.
_COMMANDS = {
    ("models", "policies"): "compare",
    ("policies",): "demo --recipe",
    ("choices",): "choices",
    ("regimes",): "probe",
    ("protocol",): "reproduce etth1",
}


def find_recipe(where: str | Path) -> Path:
    """Return the path of a recipe; a name without .toml is one of ours.

    Raises InputError if there is no such file or name, with the nearest name.
    """
    if str(where).endswith(".toml"):
        path = Path(where)
        if not path.is_file():
            raise InputError(f"recipe={str(where)!r}: there is no such file")
        return path
    names = shipped_recipes()
    if str(where) not in names:
        known = ", ".join(names) or "none are shipped"
        raise InputError(
            f"recipe={str(where)!r}: no such recipe{nearest(str(where), names)} ({known}; "
            "or give the path of a file named *.toml)"
        )
    return _folder() / f"{where}.toml"


def command_of(fields: Collection[str]) -> str:
    """The command that takes a recipe with these fields and tables at its top; "train" where they
    are of no other."""
    fits = (command for held, command in _COMMANDS.items() if set(held) <= set(fields))
    return next(fits, "train")


def find_trained(
    where: str | Path, asker: str, *, recordings: bool = True
) -> tuple[Path, dict[str, Any]]:
    """A recipe of a training, of a task or (with `recordings`) of a recording, for the command
    `asker`: its path, and what it says undecoded.

    Raises InputError as `find_recipe`, and for a recipe that another command takes.
    """
    path = find_recipe(where)
    said = read_toml(path)
    command = command_of(said)
    if command != "train" or ("data" in said and not recordings):
        takes = "a task or of a recording" if recordings else "a task"
        raise InputError(
            f"{where} is a recipe of `adaptive-sleep {command}`; {asker} takes one of {takes}"
        )
    return path, said


def shipped_recipes() -> list[str]:
    """Names of the recipes that we ship."""
    return sorted(path.stem for path in _folder().glob("*.toml"))


def _folder() -> Path:
    return Path(str(resources.files("adaptive_sleep.experiments"))) / "recipes"
