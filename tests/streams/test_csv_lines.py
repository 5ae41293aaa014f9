"""A refusal names the line on which an editor shows the row, whatever stands quoted before it."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptive_sleep.streams.csvfiles import line_of
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.tables import record_frame, record_table


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('t,x,note\n1,1,"two\nlines"\n2,2,b\n3,oops,c\n', 5),
        ('t,x,note\n1,1,"two\n\n""quoted"" lines"\n2,oops,b\n', 5),
        ('t,x,note\n1,oops,"two\nlines"\n', 2),
        ('t,x,"no\nte"\r\n1,1,\r\n2,oops,b', 4),
        ("\n\nt,x\n1,1\n\n2,oops\n", 6),
        ("\ufeff\nt,x\n1,oops\n", 3),
    ],
    ids=["quoted", "blank and quotes", "its own", "header", "blank lines", "mark"],
)
def test_the_line_is_that_of_an_editor(text: str, line: int, tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_bytes(text.encode())
    with pytest.raises(InputError, match=f"line {line}, column 'x': 'oops' is no number"):
        record_table(file, tmp_path / "r", time="t", channels="x", time_unit="s")


CELLS = st.text(st.sampled_from('a",\n\r '), max_size=6)


@settings(max_examples=60)
@given(st.lists(st.lists(CELLS, min_size=2, max_size=2), min_size=1, max_size=6))
def test_rows_begin_where_a_reader_of_csv_says(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]]
) -> None:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows([["t", "x"], *rows])
    file = tmp_path_factory.mktemp("csv") / "t.csv"
    file.write_bytes(text.getvalue().encode())
    begins, lines = list[int](), io.StringIO(text.getvalue(), newline="\n")
    reader = csv.reader(lines)
    while True:
        begins.append(reader.line_num + 1)
        if next(reader, None) is None:
            break
    assert [line_of(file, row) for row in range(len(rows))] == begins[1:-1]


def test_a_frame_has_rows_whatever_its_name(tmp_path: Path) -> None:
    frame = pl.DataFrame({"t": [1, 2], "x": ["1", "oops"]})
    with pytest.raises(InputError, match=r"^t\.csv, row 2, column 'x'"):
        record_frame(frame, tmp_path / "r", time="t", time_unit="s", name="t.csv")
