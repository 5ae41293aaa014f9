"""Where the public data sets of a probe lie: a folder that is given, or the usual places."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from adaptive_sleep.experiments.etth1_data import DATA
from adaptive_sleep.streams.errors import InputError, nearest

_PLACES = ("data", "../shared/data")


def find_folder(given: Path | None, needed: Sequence[str], *, what: str) -> Path:
    """The folder of data sets that holds every file of `needed`: the one that is given, else that
    of the environment variable ADAPTIVE_SLEEP_DATA, data/ here, or shared/data beside this folder.

    `what` says in words what the files are. Raises InputError that names what is missing and where
    it was sought.
    """
    if given is not None:
        if lacks := _lacks(given, needed):
            raise InputError(f"--data {given}: {_said(given, lacks)}; it is to hold {what}")
        return given
    places = [Path(place) for place in _PLACES]
    if folder := os.environ.get(DATA):
        places.insert(0, Path(folder))
    for place in places:
        if not _lacks(place, needed):
            return place
    raise InputError(
        f"--data: give the folder that holds {what} ({', '.join(needed)}), or set {DATA} to it; "
        f"sought: {', '.join(map(str, places))}"
    )


def _lacks(folder: Path, needed: Sequence[str]) -> list[str]:
    return [name for name in needed if not (folder / name).is_file()]


def _said(folder: Path, lacks: Sequence[str]) -> str:
    if not folder.is_dir():
        return "there is no such folder"
    there = [path.name for path in folder.iterdir()]
    return f"no {', '.join(lacks)} there{nearest(lacks[0].split('/')[0], there)}"
