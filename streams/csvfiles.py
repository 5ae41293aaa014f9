"""The text of a CSV as it stands: its encoding, its header, its quotes, the lengths of its rows.

Polars tells rows apart by counting quotes, so one that is stray would make it take many rows for
one value. What the values are is in `tablefiles`.
"""

from __future__ import annotations

import codecs
import csv
import itertools
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from .errors import InputError

_CHUNK = 1 << 20
_QUOTE, _LF, _CR = b'"'[0], b"\n"[0], b"\r"[0]
_PACKED = {
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "zip, as spreadsheets are too",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ": "xz",
}
_DOUBLED = 'a value that holds a quote is quoted, and its own quotes are doubled: "5"" pipe"'


def is_csv(file: Path) -> bool:
    """Whether a file's name says that it is comma- or tab-separated."""
    return file.suffix.lower() in (".csv", ".tsv")


def separator(file: Path) -> str:
    """What stands between two values."""
    return "\t" if file.suffix.lower() == ".tsv" else ","


def check_header(file: Path) -> None:
    """Raise InputError for a file that is packed, no UTF-8 or of lines that end in CR alone, or for
    a header that has a name twice."""
    _check_begin(file)
    seen: set[str] = set()
    with file.open(encoding="utf-8-sig", newline="") as lines:
        try:
            rows = csv.reader(lines, delimiter=separator(file))
            header: list[str] = next((row for row in rows if row), [])
        except UnicodeDecodeError as error:
            raise InputError(
                f"{file}: cannot be read as {file.suffix}: {error}; save it as UTF-8"
            ) from None
        except csv.Error as error:
            raise InputError(f"{file}: cannot be read as {file.suffix}: {error}") from None
    for name in header:
        if name in seen:
            raise InputError(f"{file}: two columns are called {name!r}; each needs its own name")
        seen.add(name)


def _check_begin(file: Path) -> None:
    with file.open("rb") as data:
        head = data.read(_CHUNK)
    for magic, name in _PACKED.items():
        if head.startswith(magic):
            raise InputError(f"{file}: is packed ({name}), whatever its name says; unpack it first")
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in head[:4]:
        raise InputError(
            f"{file}: is UTF-16 or UTF-32, not UTF-8; save it as UTF-8, for example with "
            "iconv -f UTF-16 -t UTF-8"
        )
    line = re.sub(rb'"[^"]*"', b"", head).partition(b"\n")[0]
    if b"\r" in line.rstrip(b"\r"):
        raise InputError(
            f"{file}: its lines end in CR alone; end them in LF or CR LF, for example with "
            r"tr '\r' '\n'"
        )


# ---- quotes ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Before:
    """What comes before a place: lines, counted from 1, and separators."""

    lines: int
    separators: int


def check_quotes(file: Path, columns: int) -> None:
    """Raise InputError, naming the first line, unless the quotes of a CSV are those of RFC 4180.

    Warns where all that is quoted in a file of so many `columns` could be rows between two stray
    quotes, which is well-formed too. Lines are those of an editor. Reads the file once, a part at a
    time.
    """
    mark = separator(file).encode()[0]
    passed, inside = _Before(1, 0), False
    opened: _Before | None = None  # where the quoted value begins that is not closed yet
    alike, rows = True, list[tuple[int, int]]()  # the first and last lines of what could be rows
    for text in _windows(file):
        array = np.frombuffer(text, np.uint8)
        at = np.flatnonzero(array[1:-2] == _QUOTE) + 1
        if len(at):
            opens = (np.arange(len(at)) + inside) % 2 == 0
            # A doubled quote closes a value and opens it again at once.
            begins = opens & (array[at - 1] != _QUOTE)
            ends = ~opens & (array[at + 1] != _QUOTE)
            stray = at[(begins & ~_starts(array, at, mark)) | (ends & ~_stops(array, at, mark))]
            begun, ended = at[begins], at[ends]
            if len(stray):
                earlier = begun[begun <= stray[0]]
                began = _upto(passed, array, earlier[-1], mark) if len(earlier) else opened
                assert began is not None
                line = _upto(passed, array, stray[0], mark).lines
                if len(earlier) and earlier[-1] == stray[0]:
                    _refuse(file, line, "a value that does not begin with a quote holds one")
                where = "" if began.lines == line else f" in line {line}"
                _refuse(file, began.lines, f"text follows the quote that closes a value{where}")
            if alike:
                found = _like_rows(passed, array, opened, begun, ended, mark, columns)
                alike = len(found) == len(ended)
                rows += found[: 1 - len(rows)]
            inside = bool((len(at) + inside) % 2)
            if len(begun) and (not len(ended) or ended[-1] < begun[-1]):
                opened = _upto(passed, array, begun[-1], mark)
            elif len(ended):
                opened = None
        passed = _upto(passed, array, len(text) - 2, mark)
    if opened is not None:
        _refuse(file, opened.lines, "the quote that opens a value is never closed")
    if alike and rows:
        warnings.warn(
            f"{file}: the quoted text from line {rows[0][0]} to line {rows[0][1]} is read as one "
            f"value, but looks like rows between two stray quotes; if it is, {_DOUBLED}",
            stacklevel=2,
        )


def _starts(array: NDArray[np.uint8], at: NDArray[np.int64], mark: int) -> NDArray[np.bool_]:
    """Whether a value can begin at `at` `[n]`."""
    before = array[at - 1]
    return np.asarray((before == mark) | (before == _LF))


def _stops(array: NDArray[np.uint8], at: NDArray[np.int64], mark: int) -> NDArray[np.bool_]:
    """Whether a value can end at `at` `[n]`."""
    behind = array[at + 1]
    crlf = (behind == _CR) & (array[at + 2] == _LF)
    return np.asarray((behind == mark) | (behind == _LF) | crlf)


def _upto(passed: _Before, array: NDArray[np.uint8], end: int, mark: int) -> _Before:
    """What comes before place `end` of a window, before which `passed` came."""
    some = array[1:end]
    return _Before(
        passed.lines + int(np.count_nonzero(some == _LF)),
        passed.separators + int(np.count_nonzero(some == mark)),
    )


def _like_rows(
    passed: _Before,
    array: NDArray[np.uint8],
    opened: _Before | None,
    begun: NDArray[np.int64],
    ended: NDArray[np.int64],
    mark: int,
    columns: int,
) -> list[tuple[int, int]]:
    """The first and the last line of each quoted value that ends in a window and has line breaks,
    and as many separators as rows of so many columns have."""
    lines, marks = np.flatnonzero(array[1:] == _LF) + 1, np.flatnonzero(array[1:] == mark) + 1
    first = passed.lines + np.searchsorted(lines, begun)
    before = passed.separators + np.searchsorted(marks, begun)
    if opened is not None:
        first, before = np.append(opened.lines, first), np.append(opened.separators, before)
    last = passed.lines + np.searchsorted(lines, ended)
    within = passed.separators + np.searchsorted(marks, ended) - before[: len(ended)]
    first = first[: len(ended)]
    alike = (last > first) & (within == (last - first) * (columns - 1)) & (columns > 1)
    return list(zip(first[alike].tolist(), last[alike].tolist(), strict=True))


def _windows(file: Path) -> Iterator[bytes]:
    """The bytes of a file in parts of at least 4: each but the first and the last two of a part,
    which stand there to look at, is in one part alone."""
    with file.open("rb") as data:
        begin = data.read(len(codecs.BOM_UTF8))
        text = b"\n" + (b"" if begin == codecs.BOM_UTF8 else begin)
        for chunk in itertools.chain(iter(lambda: data.read(_CHUNK), b""), [b"\n\n"]):
            text += chunk
            if len(text) > 3:
                yield text
                text = text[-3:]


def _refuse(file: Path, line: int, problem: str) -> NoReturn:
    raise InputError(f"{file}, line {line}: {problem}; {_DOUBLED}")


# ---- the lines and the lengths of rows ------------------------------------------------------


def line_of(file: Path, row: int) -> int:
    """The line of an editor on which a row of a CSV begins; 0 is the row behind the header.

    A row ends where as many quotes have closed as opened, so the quotes must be those of RFC 4180.
    Blank lines are rows, but for those before the header.
    """
    quotes, left, number = 0, row + 1, 1
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            before = left == row + 1 and not line.removeprefix(codecs.BOM_UTF8).strip(b"\r\n")
            if quotes % 2 == 0 and not before:
                if left == 0:
                    return number
                left -= 1
            quotes += line.count(b'"')
    return number


def count_fields(file: Path) -> None:
    """Raise InputError for the first row of a CSV that has not as many values as its header.

    Quoted text may hold separators and line breaks. One row is in memory at a time.
    """
    mark = separator(file)
    wanted, number = 0, 1
    with file.open(encoding="utf-8-sig", errors="replace", newline="\n") as lines:
        for line in lines:
            took = 1
            if '"' in line:
                rows = csv.reader(itertools.chain([line], lines), delimiter=mark)
                try:
                    fields = len(next(rows))
                except csv.Error:  # such as a very long value: nobody can tell
                    fields = wanted
                took = rows.line_num
            else:
                fields = line.count(mark) + 1 if line.strip("\r\n") else wanted
            wanted = wanted or fields
            if fields != wanted:
                raise InputError(
                    f"{file}, line {number}: {fields} values, but the header has {wanted}; every "
                    "row needs as many, and a missing one still has its separator"
                )
            number += took
