"""The data and the standard protocol of ETTh1: which rows are what, and how they are standardised.

The file is that of zhouhaoyi/ETDataset. Each column becomes streams of its own, of one channel.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.events import Events, Piece
from adaptive_sleep.streams.tablefiles import batches, check_columns, numbers

CHANNEL = "value"  # what every stream is made of
DATA = "ADAPTIVE_SLEEP_DATA"  # environment variable: a folder of data sets
_PLACES = ("ETTh1.csv", "data/ett/ETTh1.csv", "../shared/data/ett/ETTh1.csv")
_HOUR = 3600 * 10**9


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Which rows are for what, counted from the first: training ends at `train`, validation at
    `validation`, the test at `test`; `horizon` rows are forecast. The defaults are those of the
    published tables."""

    train: int = 8640
    validation: int = 11520
    test: int = 14400
    horizon: int = 96

    def __post_init__(self) -> None:
        if not 0 < self.train < self.validation < self.test:
            raise InputError(
                f"[protocol] train={self.train}, validation={self.validation}, test={self.test}: "
                "rows, rising"
            )
        for name, first, last in (
            ("validation", self.train, self.validation),
            ("test", self.validation, self.test),
        ):
            if not 1 <= self.horizon <= last - first:
                raise InputError(
                    f"[protocol] horizon={self.horizon}: 1 to {last - first}, the rows of {name}"
                )

    def origins(self, part: str) -> NDArray[np.int64]:
        """The first forecast row of every window of "train", "validation" or "test"; the forecast
        rows all lie in that part, what is read may lie before it."""
        first = {"train": 0, "validation": self.train, "test": self.validation}[part]
        last = {"train": self.train, "validation": self.validation, "test": self.test}[part]
        return np.arange(first, last - self.horizon + 1)


@dataclass(frozen=True, eq=False)
class Table:
    """The rows of the protocol, standardised by the training rows: `values` float64 `[rows, C]`,
    the `names` of the columns, and the SHA-256 of the file that they come from."""

    values: NDArray[np.float64]
    names: tuple[str, ...]
    sha256: str


def find_data(given: Path | None) -> Path:
    """The file: what is given, else `ETTh1.csv` in the folder of the environment variable
    ADAPTIVE_SLEEP_DATA or beside this folder. Raises InputError that says where it was sought."""
    if given is not None:
        if not given.is_file():
            raise InputError(f"--data {given}: no such file; give the path of ETTh1.csv")
        return given
    places = [Path(place) for place in _PLACES]
    if folder := os.environ.get(DATA):
        places = [Path(folder) / "ETTh1.csv", Path(folder) / "ett" / "ETTh1.csv", *places]
    for place in places:
        if place.is_file():
            return place
    raise InputError(
        f"--data: give the path of ETTh1.csv (ETT-small of zhouhaoyi/ETDataset), or set {DATA} to "
        f"its folder; sought: {', '.join(map(str, places))}"
    )


def read_table(path: Path, protocol: Protocol) -> Table:
    """Read and standardise. Raises InputError for too few rows, a missing value, a constant
    column, or no column `date`."""
    names = [name for name in check_columns(path, ["date"]) if name != "date"]
    if not names:
        raise InputError(f"{path}: no column beside 'date'")
    found = [
        np.stack([numbers(batch, name).astype(np.float64) for name in names], 1)
        for batch in batches(path, names)
    ]
    rows = np.concatenate(found) if found else np.zeros((0, len(names)))
    if len(rows) < protocol.test:
        raise InputError(f"{path}: {len(rows)} rows; the protocol needs {protocol.test}")
    rows = rows[: protocol.test]
    if not np.isfinite(rows).all():
        row, column = (int(i) for i in np.argwhere(~np.isfinite(rows))[0])
        raise InputError(
            f"{path}, line {row + 2}, column {names[column]!r}: missing; the protocol has no gaps"
        )
    mean, scale = rows[: protocol.train].mean(0), rows[: protocol.train].std(0)
    if not scale.all():
        column = int(np.argmin(scale))
        raise InputError(f"{path}: column {names[column]!r} is constant in the training rows")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Table((rows - mean) / scale, tuple(names), digest)


@dataclass(frozen=True, eq=False)
class Moment:
    """A step of all streams: the pieces to read, then the forecasts to make, if any: `streams` that
    now stand just before `origins` `[n]`, and what will follow, `truth` `[n, horizon]`."""

    pieces: list[Piece]
    streams: list[str]
    origins: NDArray[np.int64]
    truth: NDArray[np.float64]


def moments(
    table: Table, protocol: Protocol, part: str, *, patch: int, window: int, warm: int
) -> Iterator[Moment]:
    """All windows of a part as a live forecaster meets them: every column is read by `patch`
    streams, each an hour behind the one before, which forecast whenever a patch is complete.

    A stream begins `warm` rows (whole windows) before its first forecast; its state goes on to the
    last. No stream is given a row before it has forecast it. Raises InputError.
    """
    origins = protocol.origins(part)
    if warm % window or window % patch or warm > origins[0]:
        raise InputError(
            f"warm={warm}: whole windows of {window} (of whole patches of {patch}), "
            f"at most the {origins[0]} rows before {part}"
        )
    values = table.values.astype(np.float32)
    cases = [(column, phase) for column in range(len(table.names)) for phase in range(patch)]
    names = {case: f"{table.names[case[0]]}/{case[1]}" for case in cases}
    last = int(origins[-1])
    for number in range((warm + last - int(origins[0])) // patch + 1):
        begin = int(origins[0]) - warm + number * patch
        pieces, found = [], []
        for column, phase in cases:
            rows = slice(begin + phase, begin + phase + patch)
            if number and rows.stop > last:  # no forecast is left to make
                continue
            time = np.arange(rows.start, rows.stop, dtype=np.int64) * _HOUR
            closes = (number + 1) * patch % window == 0
            events = Events(time, values=values[rows, column : column + 1])
            pieces.append(Piece(names[column, phase], events, closes, "length" if closes else ""))
            if rows.stop >= origins[0]:
                found.append((column, phase, rows.stop))
        at = np.array([origin for *_, origin in found], dtype=np.int64)
        truth = [table.values[o : o + protocol.horizon, c] for c, _, o in found]
        streams = [names[c, p] for c, p, _ in found]
        shaped = np.array(truth).reshape(len(found), protocol.horizon)
        yield Moment(pieces, streams, at, shaped)
