"""A CSV whose quotes, encoding or line ends would lose rows is refused with its line; one that is
as RFC 4180 has it is read as Python's csv reads it."""

from __future__ import annotations

import csv
import gzip
import io
import os
import re
import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptive_sleep.streams import csvfiles
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.recording import Recording
from adaptive_sleep.streams.tablefiles import batches, check_columns
from adaptive_sleep.streams.tables import record_table

GIVEN = {"time": "t", "time_unit": "s", "channels": ["x"]}
STRAY = '"5" pipe"'


def written(path: Path, notes: dict[int, str], *, other: str = '"ok"', last: bool = True) -> Path:
    """20 rows; row i is line i + 2, and its note `other` or that of `notes`."""
    lines = ["t,x,note" if last else "t,note,x"]
    for i in range(20):
        note = notes.get(i, other)
        lines.append(f"{i},{i},{note}" if last else f"{i},{note},{i}")
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("last", [True, False], ids=["last", "within"])
@pytest.mark.parametrize(
    ("notes", "other", "told"),
    [
        ({8: STRAY, 10: STRAY}, '"ok"', "line 10: text follows the quote that closes a value; .*5"),
        ({8: STRAY}, "ok", "line 10: text follows the quote that closes a value;"),
        ({8: '"', 10: '"'}, '"ok"', "line 10: text follows .* closes a value in line 11;"),
        ({8: '5" pipe', 10: '3" pipe'}, "ok", "line 10: a value that does not begin with a quote"),
        ({8: "ok", 9: ' "ok"'}, '"ok"', "line 11: a value that does not begin with a quote holds"),
        ({8: '"pipe 5""'}, "ok", "line 10: the quote that opens a value is never closed;"),
        ({8: '"'}, "ok", "line 10: the quote that opens a value is never closed;"),
        ({8: r'"5\" pipe"', 9: r'"3\" pipe"'}, "ok", "line 10: text follows the quote"),
    ],
)
def test_a_stray_quote_is_refused_with_its_line(
    tmp_path: Path, notes: dict[int, str], other: str, told: str, last: bool
) -> None:
    file = written(tmp_path / "n.csv", notes, other=other, last=last)
    with pytest.raises(InputError, match=r"n\.csv, " + told):
        record_table(file, tmp_path / "r", **GIVEN)
    assert [path.name for path in tmp_path.iterdir()] == ["n.csv"]


@pytest.mark.parametrize("last", [True, False], ids=["last", "within"])
@pytest.mark.parametrize("notes", [{8: '"', 12: '"'}, {8: '"pipe', 12: 'x"'}], ids=["bare", "far"])
def test_rows_between_two_stray_quotes_are_not_lost_in_silence(
    tmp_path: Path, notes: dict[int, str], last: bool
) -> None:
    """It is well-formed, one long value, so it is read as such; but it is said."""
    file = written(tmp_path / "n.csv", notes, other="ok", last=last)
    with pytest.warns(
        UserWarning, match=r"n\.csv: the quoted text from line 10 to line 14 is read"
    ):
        record_table(file, tmp_path / "r", **GIVEN)
    file = written(tmp_path / "m.csv", {8: '"a,\nb,"', 12: '"c\nd"'}, other="ok", last=last)
    assert Recording.open(record_table(file, tmp_path / "s", **GIVEN)).rows == 20


TEXT = st.text(st.sampled_from('ab ,"\n\r\té'), max_size=6)


@settings(max_examples=150)
@given(
    rows=st.lists(st.tuples(TEXT, TEXT), max_size=8),
    ends=st.sampled_from(["\n", "\r\n"]),
    tabs=st.booleans(),
    begin=st.sampled_from(["", "\ufeff"]),
    chunk=st.sampled_from([1, 3, 1 << 20]),
)
def test_what_python_writes_is_read_as_python_reads_it(
    tmp_path_factory, rows, ends: str, tabs: bool, begin: str, chunk: int
) -> None:
    file = tmp_path_factory.mktemp("q") / ("t.tsv" if tabs else "t.csv")
    text = io.StringIO()
    given = {"delimiter": "\t" if tabs else ",", "lineterminator": ends}
    table = [("i", "a, name", "b"), *((f"r{i}", *row) for i, row in enumerate(rows))]
    csv.writer(text, **given, quoting=csv.QUOTE_ALL).writerows(table)
    file.write_bytes((begin + text.getvalue()).encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csvfiles, "_CHUNK", chunk)
        csvfiles.check_quotes(file, 3)
    found = check_columns(file, ["i"])
    assert found == ["i", "a, name", "b"]
    read = [row for batch in batches(file, found) for row in batch.frame.fill_null("").rows()]
    assert read == table[1:]


def refused(text: str) -> int | None:
    """The line in which the value begins whose quotes RFC 4180 does not allow, byte by byte."""
    state, line, began = "start", 1, 1
    for i, c in enumerate(text):
        ends = c in ",\n" or text[i : i + 2] in ("\r\n", "\r")
        if state == "start":
            began = line
            state = {'"': "quoted", ",": "start", "\n": "start"}.get(c, "plain")
        elif state == "plain":
            if c == '"':
                return line
            state = "start" if c in ",\n" else "plain"
        elif state == "quoted":
            state = "closed" if c == '"' else "quoted"
        elif c == '"':
            state = "quoted"
        elif not ends:
            return began
        elif c != "\r":
            state = "start"
        line += c == "\n"
    return began if state == "quoted" else None


@settings(max_examples=400)
@given(text=st.text(st.sampled_from('"",\n\ra'), max_size=12), chunk=st.sampled_from([1, 2, 5]))
def test_quotes_are_checked_as_one_byte_after_the_other(
    tmp_path_factory, text: str, chunk: int
) -> None:
    file = tmp_path_factory.mktemp("q") / "t.csv"
    file.write_bytes(text.encode())
    line = None
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        patch.setattr(csvfiles, "_CHUNK", chunk)
        try:
            csvfiles.check_quotes(file, 3)
        except InputError as error:
            [line] = map(int, re.findall(r"t\.csv, line (\d+):", str(error)))
    assert line == refused(text)


TABLE = "t,x\n1,1\n2,2\n"


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (TABLE.replace("\n", "\r").encode(), "its lines end in CR alone; end them in LF or CR LF"),
        (b'"t","x"\r"1","2"\r', "its lines end in CR alone"),
        (TABLE.encode("utf-16"), "is UTF-16 or UTF-32, not UTF-8; save it as UTF-8"),
        (TABLE.encode("utf-16-le"), "is UTF-16"),
        (TABLE.encode("utf-16-be"), "is UTF-16"),
        (gzip.compress(TABLE.encode()), r"is packed \(gzip\).*unpack it first"),
        (b"PK\x03\x04\x00", r"is packed \(zip, as spreadsheets are"),
        ("t,µ\n1,1\n".encode("latin-1"), "cannot be read as .csv: .*; save it as UTF-8"),
    ],
    ids=["cr", "quoted-cr", "utf-16", "utf-16-le", "utf-16-be", "gzip", "zip", "latin-1"],
)
def test_what_is_no_plain_text_is_named_with_its_repair(
    tmp_path: Path, data: bytes, told: str
) -> None:
    (tmp_path / "t.csv").write_bytes(data)
    with pytest.raises(InputError, match=r"t\.csv: " + told):
        record_table(tmp_path / "t.csv", tmp_path / "r", time="t", time_unit="s")


@pytest.mark.parametrize("name", [b"caf\xe9.csv", b"caf\xe9/t.csv", b"caf\xe9.parquet"])
def test_a_name_that_is_no_utf8_is_refused(tmp_path: Path, name: bytes) -> None:
    file = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    try:
        file.parent.mkdir(exist_ok=True)
        file.write_text(TABLE)
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    with pytest.raises(InputError, match=r"caf\\udce9.*no UTF-8, as polars needs; rename it"):
        record_table(file, tmp_path / "r", time="t", time_unit="s")
