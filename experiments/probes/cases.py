"""The recordings of the probe `labels`: which rows are for what, and which of them are labelled.

NAB gives no training part: the first 15 to 40 % of a file, up to its first labelled row, are taken.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adaptive_sleep.experiments.runs import open_recording
from adaptive_sleep.streams.arrays import record_arrays
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.manifest import NAME as MANIFEST
from adaptive_sleep.streams.nab import record_nab
from adaptive_sleep.streams.recording import Recording

BoolArray = NDArray[np.bool_]
LEAST, MOST = 0.15, 0.40  # of the rows of a NAB file, before the test part
HELD = 0.3  # of the rows before the test part, the last: validation
NEEDED = ("nab/windows.json", "asd/omi-1.npz")
SETS = "files of NAB with their windows.json in nab/, and omi-1.npz of InterFusion in asd/"
BUNDLED = "telemetry"
_STEP_SECONDS = 300.0  # of omi-1


@dataclass(frozen=True, eq=False)
class Case:
    """One recording of one stream: training rows end at `validation`, the test begins at `test`.

    `flags` `[rows]`: which rows are labelled. `rule` says in words what the label is.
    """

    name: str
    recording: str
    sha256: str
    validation: int
    test: int
    flags: BoolArray
    rule: str


def find_cases(data: Path, out: Path) -> list[Case]:
    """Every NAB file and omi-1 of the folder `data`, recorded anew in `out`, and the bundled
    telemetry. Raises InputError for what cannot be read."""
    files = sorted((data / "nab").glob("*.csv"))
    if not files:
        raise InputError(f"--data {data}: no *.csv in nab/; give files of NAB")
    found = [nab_case(file, data / "nab" / "windows.json", out) for file in files]
    return [*found, arrays_case(data / "asd" / "omi-1.npz", out), bundled_case()]


def nab_case(file: Path, windows: Path, out: Path) -> Case:
    """One file of NAB."""
    folder = _afresh(out / file.stem)
    recording = Recording.open(record_nab([file], folder, windows=windows))
    flags = labelled(recording, "anomaly") == 1
    test = first_part(flags)
    return _case(file.stem, recording, test, flags, "a row in a labelled window of NAB")


def arrays_case(file: Path, out: Path) -> Case:
    """One archive of the arrays train, test and test_label; the test part is the array test."""
    folder = _afresh(out / file.stem)
    recording = Recording.open(record_arrays(file, folder, step_seconds=_STEP_SECONDS))
    found = labelled(recording, "anomaly")
    test = int(np.argmin(np.isnan(found)))
    if not test:
        raise InputError(f"{file}: its array train has labels; it is to come before what has any")
    return _case(file.stem, recording, test, found == 1, "a row labelled as anomalous")


def bundled_case() -> Case:
    """The bundled telemetry, split as its model was trained: the last 30 % are the test part."""
    recording = open_recording(f"bundled:{BUNDLED}")
    phase = labelled(recording, "phase")
    flags = np.diff(phase, prepend=phase[:1]) != 0
    rows = recording.rows
    rule = "the first row of another phase of work"
    return Case(
        BUNDLED, f"bundled:{BUNDLED}", recording.sha256, round(0.6 * rows), round(0.7 * rows),
        flags, rule,
    )  # fmt: skip


def first_part(flags: BoolArray) -> int:
    """How many rows come before the test part: all up to the first labelled one, but no fewer than
    15 % and no more than 40 % of `flags` `[rows]`."""
    rows = len(flags)
    first = int(np.argmax(flags)) if flags.any() else rows
    return min(max(first, round(LEAST * rows)), round(MOST * rows))


def labelled(recording: Recording, label: str) -> NDArray[np.float64]:
    """The codes of a label by row `[rows]`, NaN where there is none. Raises InputError for a
    recording of several streams."""
    if len(recording.streams) != 1:
        raise InputError(f"{recording.path}: {len(recording.streams)} streams; one is needed")
    column = recording.scan().select(label).collect()[label]
    return column.to_numpy().astype(np.float64)


def _case(name: str, recording: Recording, test: int, flags: BoolArray, rule: str) -> Case:
    held = round((1 - HELD) * test)
    return Case(name, str(recording.path), recording.sha256, held, test, flags, rule)


def _afresh(folder: Path) -> Path:
    """A place for a recording; one of an earlier run is made again, for its file may differ."""
    if (folder / MANIFEST).is_file():
        shutil.rmtree(folder)
    return folder
