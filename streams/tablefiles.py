"""Reading CSV and Parquet tables in batches, with errors that name file, line, column and value.

What the columns mean is in `tables` and `eventlog`; what a CSV's text must be, in `csvfiles`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

import numpy as np
import polars as pl
from numpy.typing import NDArray
from polars import selectors

from .csvfiles import check_header, check_quotes, count_fields, is_csv, line_of, separator
from .errors import InputError, nearest

TimeUnit = Literal["s", "ms", "us", "ns"]
MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None")
_BATCH_ROWS = 65_536
_MOST_US = np.iinfo(np.int64).max // 1_000 - 1
_NS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
_ISO = ("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d")
_ISO_OFFSET = ("%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%dT%H:%M%#z")
_NANOSECONDS = re.compile("%[-_0]?f")  # what a format has of other libraries, for a fraction
_TOO_FINE = r"\.\d{10}"  # a fraction that nanoseconds cannot hold, which polars cuts off silently


@dataclass(frozen=True)
class Batch:
    """Some rows of a file, and `rows` `[n]`, which of its rows they are, counted from 0; `lined`
    for a CSV, of which messages name the line."""

    file: Path
    rows: NDArray[np.int64]
    frame: pl.DataFrame
    lined: bool = False

    def column(self, name: str) -> pl.Series:
        """One column, nameless: polars would take what * or ^...$ names for many, or for none."""
        return self.frame[name].alias("")

    def refuse(self, row: int, column: str, problem: str) -> NoReturn:
        """Raise InputError about one value; `row` counts within the batch."""
        at = int(self.rows[row])
        place = f"line {line_of(self.file, at)}" if self.lined else f"row {at + 1}"
        value = self.frame[column][row]
        raise InputError(f"{self.file}, {place}, column {column!r}: {value!r} {problem}")


def check_columns(file: Path, wanted: Sequence[str]) -> list[str]:
    """The columns of `file` in order; raises InputError if one of `wanted` is not among them, or
    for a file that cannot be read, or a CSV whose quotes do not close."""
    found = _opened(file)
    check_names(str(file), found, wanted)
    return found


def check_names(table: str, found: Sequence[str], wanted: Sequence[str]) -> None:
    """Raise InputError if one of `wanted` is not among the columns `found` of a table."""
    for column in wanted:
        if column not in found:
            raise InputError(
                f"{table}: no column {column!r}{nearest(column, found)} "
                f"(columns: {', '.join(found)})"
            )


def frame_batches(frame: pl.LazyFrame, name: str, columns: Sequence[str]) -> Iterator[Batch]:
    """The named columns of a frame, batch by batch in order; `name` stands in messages."""
    first = 0
    lazy = frame.select(_named(columns))
    try:
        for part in lazy.collect_batches(chunk_size=_BATCH_ROWS, lazy=True):
            yield Batch(Path(name), np.arange(first, first + len(part)), part)
            first += len(part)
    except pl.exceptions.PolarsError as error:
        raise InputError(f"{name}: cannot be read: {_brief(error)}") from error


def batches(file: Path, columns: Sequence[str]) -> Iterator[Batch]:
    """The named columns of `file`, batch by batch in order; CSV columns are text.

    A CSV row in which nothing stands is passed over, as a blank line is. Raises InputError for a
    file that cannot be read, or a CSV row of more or fewer values than its header.
    """
    lazy = _scan(file)
    if not is_csv(file):
        lazy = lazy.select(
            _named(columns)
        )  # a CSV is read whole: else rows that are too long go unseen
    first, counted = 0, not is_csv(file)
    iterator = iter(lazy.collect_batches(chunk_size=_BATCH_ROWS, lazy=True))
    while True:
        try:
            frame = next(iterator, None)
        except (pl.exceptions.PolarsError, OSError, UnicodeDecodeError) as error:
            if is_csv(file):
                count_fields(file)
            raise InputError(f"{file}: cannot be read: {_brief(error)}") from error
        if frame is None:
            return
        rows = np.arange(first, first + len(frame))
        first += len(frame)
        if is_csv(file):
            filled = frame.select(pl.any_horizontal(pl.all().is_not_null())).to_series()
            frame, rows = frame.filter(filled), rows[filled.to_numpy()]
            # Polars fills up a row that is too short, so its last value is missing.
            if not counted and frame[:, -1].null_count():
                count_fields(file)
                counted = True
        yield Batch(file, rows, frame.select(_named(columns)), is_csv(file))


def numbers(batch: Batch, column: str) -> NDArray[np.float32]:
    """`[n]` float32, NaN where the value is missing; raises InputError for text."""
    return wide_numbers(batch, column).astype(np.float32)


def wide_numbers(batch: Batch, column: str) -> NDArray[np.float64]:
    """`[n]` float64 that float32 can hold, if not exactly; else as `numbers`."""
    series = batch.column(column)
    if series.dtype == pl.String:
        series = _stripped(series)
        parsed = series.cast(pl.Float64, strict=False)
    elif series.dtype.is_numeric() or series.dtype in (pl.Boolean, pl.Null):
        parsed = series.cast(pl.Float64)
    else:
        raise InputError(f"{batch.file}: column {column!r} holds {series.dtype}, not numbers")
    wrong = (series.is_not_null() & parsed.is_null()).arg_true()
    if len(wrong):
        batch.refuse(int(wrong[0]), column, "is no number")
    values = np.asarray(parsed.to_numpy(), np.float64)
    with np.errstate(over="ignore"):
        infinite = np.flatnonzero(np.isinf(values.astype(np.float32)))
    if len(infinite):
        batch.refuse(int(infinite[0]), column, "is no finite float32")
    return values


def names(batch: Batch, column: str) -> pl.Series:
    """`[n]` text as it stands, blanks around it too; null where missing. Raises InputError for what
    cannot be text."""
    series = batch.column(column)
    try:
        text = series.cast(pl.String)
    except pl.exceptions.PolarsError as error:
        raise InputError(
            f"{batch.file}: column {column!r} holds {series.dtype}, not text: {_brief(error)}"
        ) from error
    return text.set(_stripped(text).is_null(), None)


def required_names(batch: Batch, column: str) -> pl.Series:
    """`[n]` text as `names` has it; raises InputError where it is missing, or cannot be text."""
    series = names(batch, column)
    missing = series.is_null().arg_true()
    if len(missing):
        batch.refuse(int(missing[0]), column, "is missing; every row needs one")
    return series


def category_codes(text: pl.Series, known: dict[str, int]) -> NDArray[np.float32]:
    """`[n]` codes as float32, NaN where missing; new categories are added to `known` in order."""
    for name in text.drop_nulls().unique(maintain_order=True).to_list():
        known.setdefault(name, len(known))
    if not known:
        return np.full(len(text), np.nan, np.float32)
    codes = text.replace_strict(known, default=None, return_dtype=pl.Float32)
    return codes.to_numpy().astype(np.float32)


def check_times(time_format: str | None, time_unit: TimeUnit | None) -> None:
    """Raise InputError for a unit that there is not, a format beside one, or one that drops a zone
    that it reads, or takes a fraction of a second for nanoseconds."""
    if time_unit is not None and time_unit not in _NS:
        raise InputError(
            f"time_unit={time_unit!r}: one of {', '.join(_NS)}{nearest(str(time_unit), _NS)}"
        )
    if time_unit is not None and time_format is not None:
        raise InputError(
            f"time_format={time_format!r} and time_unit={time_unit!r}: give one of them, the "
            "format of what is written or the unit of a number"
        )
    if time_format is None:
        return
    form = time_format.replace("%%", "")
    if "%Z" in form:
        raise InputError(
            f"time_format={time_format!r}: %Z reads the name of a zone and drops it; use %z, which "
            "reads an offset such as +0100"
        )
    if _NANOSECONDS.search(form):
        raise InputError(
            f"time_format={time_format!r}: %f would count nanoseconds; for a fraction of a second "
            "write %.f, which reads its point too, or %3f, %6f or %9f for so many digits"
        )


def times(
    batch: Batch, column: str, time_format: str | None, time_unit: TimeUnit | None
) -> NDArray[np.int64]:
    """`[n]` int64 ns UTC; raises InputError for a value that is missing or is no time.

    Text is ISO 8601, or as `time_format` (strftime) says, or a number of `time_unit` since 1970.
    Times without an offset are UTC. A column of times has neither.
    """
    check_times(time_format, time_unit)
    series = batch.column(column)
    if series.dtype in (pl.Categorical, pl.Enum, pl.Null):
        series = series.cast(pl.String)
    if series.dtype == pl.String:
        series = _stripped(series)
    held = f"{batch.file}: the time column {column!r} holds {series.dtype}"
    if isinstance(series.dtype, pl.Datetime | pl.Date):
        if time_format or time_unit:
            field = f"time_unit={time_unit!r}" if time_unit else f"time_format={time_format!r}"
            raise InputError(f"{held}, times already, which {field} cannot change; leave it out")
        parsed = series.cast(pl.Datetime("ns"), strict=False).cast(pl.Int64)
    elif series.dtype != pl.String and not series.dtype.is_numeric():
        raise InputError(f"{held}; times are dates, date-times, text, or numbers of time_unit")
    elif time_unit is not None:
        parsed = _counted(series, time_unit)
    elif series.dtype == pl.String:
        parsed = _written(series, (time_format,)) if time_format else _iso(series)
    else:
        raise InputError(f"{held}; say what it counts with time_unit (s, ms, us or ns since 1970)")
    wrong = parsed.is_null().arg_true()
    if len(wrong):
        told = f"a number of {time_unit}" if time_unit else time_format
        told = told or (
            "ISO 8601, up to 9 digits of a second; else give time_format, or time_unit for a number"
        )
        batch.refuse(int(wrong[0]), column, f"is no time from 1678 to 2261 (expected: {told})")
    return parsed.to_numpy()


def _counted(series: pl.Series, unit: TimeUnit) -> pl.Series:
    # Polars wraps round silently where a product does not fit, so what is too large goes before.
    most = np.iinfo(np.int64).max // _NS[unit] - 1
    if series.dtype.is_integer():
        whole = series.cast(pl.Int64, strict=False)
        return whole.set(~whole.is_between(-most, most), None) * _NS[unit]
    if series.dtype.is_float():
        # Apart, since a float64 of nanoseconds would be 256 ns coarse today.
        found = series.cast(pl.Float64)
        found = found.set(~found.is_finite() | (found.abs() > most), None)
        whole = found.floor()
        fraction = ((found - whole) * _NS[unit]).round()
        return whole.cast(pl.Int64) * _NS[unit] + fraction.cast(pl.Int64)
    exact = series.cast(pl.Decimal(38, 9), strict=False)
    exact = exact.set(~exact.is_between(-most, most), None)
    return (exact * _NS[unit]).cast(pl.Int64, strict=False)


def _iso(series: pl.Series) -> pl.Series:
    text = series.str.replace(" ", "T", literal=True).str.replace(r"[Zz]$", "+00:00")
    return _written(text, (*_ISO, *_ISO_OFFSET))


def _written(text: pl.Series, formats: Sequence[str]) -> pl.Series:
    """Try one format after the other on what the ones before could not read."""
    found = pl.Series(text.name, [None] * len(text), dtype=pl.Int64)
    for form in formats:
        left = found.is_null() & text.is_not_null()
        if not left.any():
            break
        asked = text.set(~left, None)
        if "%.f" in form:
            asked = asked.set(asked.str.contains(_TOO_FINE), None)
        read, coarse = _read(asked, form, "ns"), _read(asked, form, "us")
        # Beyond 1677 and 2262 the nanoseconds wrap round silently; the microseconds do not.
        found = found.zip_with(~left, read.set(~coarse.is_between(-_MOST_US, _MOST_US), None))
    return found


def _read(text: pl.Series, form: str, unit: Literal["ns", "us"]) -> pl.Series:
    """`[n]` int64 since 1970, null for what `form` cannot read. Raises InputError for a `form` that
    gives no time."""
    try:
        found = text.str.to_datetime(form, time_unit=unit, strict=False, exact=True)
    except pl.exceptions.PolarsError as error:
        raise InputError(f"time_format={form!r}: {_brief(error)}") from error
    return found.cast(pl.Int64)


def _stripped(series: pl.Series) -> pl.Series:
    """Text without the blanks around it, null where that leaves what stands for a missing value."""
    text = series.str.strip_chars()
    return text.set(text.is_in(MISSING), None)


def _named(columns: Sequence[str]) -> pl.Expr:
    """Columns of exactly these names, in this order; elsewhere polars takes * and ^...$ for
    patterns."""
    return selectors.by_name(*columns)


def _scan(file: Path) -> pl.LazyFrame:
    file = file.absolute()  # polars would take a leading ~ for the home folder
    if is_csv(file):
        return pl.scan_csv(file, infer_schema=False, separator=separator(file), glob=False)
    return pl.scan_parquet(file, glob=False)


def _opened(file: Path) -> list[str]:
    if not file.is_file():
        raise InputError(f"{file}: no such file")
    if not is_csv(file) and file.suffix.lower() not in (".parquet", ".pq"):
        raise InputError(f"{file}: a table is .csv, .tsv, .parquet or .pq")
    try:
        str(file.absolute()).encode()
    except UnicodeEncodeError:
        raise InputError(
            f"{str(file)!r}: the bytes of its name, or of its folder's, are no UTF-8, as polars "
            "needs; rename it"
        ) from None
    try:
        if is_csv(file):
            check_header(file)
        found = _scan(file).collect_schema().names()
        if is_csv(file):
            check_quotes(file, len(found))
        return found
    except (pl.exceptions.PolarsError, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read as {file.suffix}: {_brief(error)}") from error


def _brief(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
