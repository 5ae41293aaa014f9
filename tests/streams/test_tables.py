"""Tables become recordings row by row; what is wrong is named with its place."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptive_sleep.experiments import commands_record
from adaptive_sleep.streams.errors import AdaptiveSleepError, InputError
from adaptive_sleep.streams.recording import Recording
from adaptive_sleep.streams.tablefiles import MISSING
from adaptive_sleep.streams.tables import record_frame, record_table

CSV = """when,who,load,knob,state,temp
2024-01-01 00:00:00,a,1.5,0,ok,
2024-01-01 00:00:01,b,-2e3,1,ok,7
2024-01-01 00:00:00.5,a,NA,0,bad,8
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "in" / "t.csv"
    path.parent.mkdir()
    path.write_text(CSV)
    return path


def nothing_left(tmp_path: Path) -> bool:
    return [path.name for path in tmp_path.iterdir()] == ["in"]


def test_columns_take_their_roles(table: Path, tmp_path: Path) -> None:
    record_table(
        [table], tmp_path / "r", time="when", stream="who", actions=["knob"], labels=["state"]
    )
    recording = Recording.open(tmp_path / "r")
    assert [(c.name, c.role) for c in recording.channels] == [
        ("load", "observed"), ("temp", "observed"), ("knob", "action"), ("state", "label"),
    ]  # fmt: skip
    assert recording.labels[0].categories == ("ok", "bad")
    frame = recording.scan().collect()
    assert frame["stream"].to_list() == ["a", "b", "a"]
    assert frame["load"].to_list() == [1.5, -2000, None]
    assert frame["temp"].to_list() == [None, 7, 8]
    assert frame["state"].to_list() == [0, 0, 1]
    assert frame["time"][2] == datetime(2024, 1, 1, 0, 0, 0, 500_000, tzinfo=UTC)
    assert recording.manifest.backwards == 0  # per stream: a goes on, b has one row


def test_chosen_channels_leave_the_others_out(table: Path, tmp_path: Path) -> None:
    record_table([table], tmp_path / "r", time="when", channels=["temp"])
    recording = Recording.open(tmp_path / "r")
    assert [channel.name for channel in recording.channels] == ["temp"]
    assert recording.streams == ("t",)
    assert recording.manifest.backwards == 1


def test_parquet_gives_what_csv_gives(table: Path, tmp_path: Path) -> None:
    frame = pl.read_csv(table, try_parse_dates=True, null_values=["NA"])
    frame.write_parquet(table.with_suffix(".parquet"))
    for suffix in (".csv", ".parquet"):
        record_table(
            [table.with_suffix(suffix)],
            tmp_path / suffix,
            time="when",
            stream="who",
            labels=["state"],
        )
    one, two = Recording.open(tmp_path / ".csv"), Recording.open(tmp_path / ".parquet")
    assert one.scan().collect().equals(two.scan().collect())
    assert one.sha256 == two.sha256


@pytest.mark.parametrize("role", ["stream", "labels"])
@pytest.mark.parametrize("names", [[b"a", b"\xff"], [["a"], ["b"]]], ids=["bytes", "lists"])
def test_names_that_are_no_text_are_refused(
    table: Path, tmp_path: Path, names: list[object], role: str
) -> None:
    file = table.with_suffix(".parquet")
    pl.DataFrame({"t": [1, 2], "who": names, "x": [1.0, 2.0]}).write_parquet(file)
    given = {"stream": "who"} if role == "stream" else {"labels": ["who"]}
    with pytest.raises(InputError, match=r"t\.parquet: column 'who' holds \w+.*, not text"):
        record_table([file], tmp_path / "r", time="t", time_unit="s", **given)
    assert nothing_left(tmp_path)


def test_bytes_that_are_text_are_names(tmp_path: Path) -> None:
    frame = pl.DataFrame({"t": [1, 2], "who": [b"a", b"b"], "x": [1.0, 2.0]})
    record_frame(frame, tmp_path / "r", time="t", time_unit="s", stream="who")
    assert Recording.open(tmp_path / "r").streams == ("a", "b")


def test_several_files_are_one_recording(table: Path, tmp_path: Path) -> None:
    other = table.with_name("u.csv")
    other.write_text(CSV.replace("bad", "worse"))
    record_table([table, other], tmp_path / "r", time="when", channels=["load"], labels=["state"])
    recording = Recording.open(tmp_path / "r")
    assert recording.streams == ("t", "u")
    assert recording.labels[0].categories == ("ok", "bad", "worse")
    assert recording.rows == 6


def test_a_column_that_only_a_later_file_has_is_not_left_out(table: Path, tmp_path: Path) -> None:
    for name, columns in (("u.csv", "t,flow"), ("v.csv", "t,flow,pressure")):
        table.with_name(name).write_text(f"{columns}\n1,2{',3' * (columns.count(',') - 1)}\n")
    files, given = [table.with_name("u.csv"), table.with_name("v.csv")], {"time_unit": "s"}
    for several in (files, files[::-1]):
        with pytest.raises(InputError, match=r"(v\.csv: column|u\.csv: no column) 'pressure'"):
            record_table(several, tmp_path / "r", time="t", **given)
    assert nothing_left(tmp_path)
    record_table(files, tmp_path / "r", time="t", channels="flow", **given)
    assert Recording.open(tmp_path / "r").rows == 2


@pytest.mark.parametrize(
    ("written", "options", "wanted_ns"),
    [
        ("2024-05-06T07:08:09Z", {}, 1_714_979_289_000_000_000),
        ("2024-05-06 07:08:09.123456789", {}, 1_714_979_289_123_456_789),
        ("2024-05-06T09:08:09+02:00", {}, 1_714_979_289_000_000_000),
        ("2024-05-06T09:08+02:00", {}, 1_714_979_280_000_000_000),
        ("2024-05-06 07:08Z", {}, 1_714_979_280_000_000_000),
        ("06.05.2024 07:08 %Z", {"time_format": "%d.%m.%Y %H:%M %%Z"}, 1_714_979_280_000_000_000),
        ("2024-05-06 07:08", {}, 1_714_979_280_000_000_000),
        ("2024-05-06", {}, 1_714_953_600_000_000_000),
        ("06/05/2024 07h08", {"time_format": "%d/%m/%Y %Hh%M"}, 1_714_979_280_000_000_000),
        ("2024-05-06 07:08:09.5", {"time_format": "%F %T%.f"}, 1_714_979_289_500_000_000),
        ("2024-05-06 07:08:09;250", {"time_format": "%F %T;%3f"}, 1_714_979_289_250_000_000),
        ("1714979289", {"time_unit": "s"}, 1_714_979_289_000_000_000),
        ("1714979289.25", {"time_unit": "s"}, 1_714_979_289_250_000_000),
        ("1714979289123456789", {"time_unit": "ns"}, 1_714_979_289_123_456_789),
        ("1714979289123", {"time_unit": "ms"}, 1_714_979_289_123_000_000),
    ],
)
def test_times_are_read_to_the_nanosecond(tmp_path: Path, written, options, wanted_ns) -> None:
    (tmp_path / "t.csv").write_text(f"t,x\n{written},1\n")
    record_table([tmp_path / "t.csv"], tmp_path / "r", time="t", **options)
    assert Recording.open(tmp_path / "r").manifest.time_range == (wanted_ns, wanted_ns)


def test_times_of_several_forms_in_one_column(tmp_path: Path) -> None:
    lines = ["2024-05-06", "2024-05-06T00:01", "2024-05-06 00:02:00", "2024-05-06T02:03:00+02:00"]
    (tmp_path / "t.csv").write_text("t,x\n" + "".join(f"{line},1\n" for line in lines))
    record_table([tmp_path / "t.csv"], tmp_path / "r", time="t")
    minutes = Recording.open(tmp_path / "r").scan().collect()["time"].dt.minute().to_list()
    assert minutes == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("change", "options", "told"),
    [
        (("-2e3", "high"), {}, r"t\.csv, line 3, column 'load': 'high' is no number"),
        (("-2e3", "1e39"), {}, r"line 3, column 'load': '1e39' is no finite float32"),
        (("-2e3", "inf"), {}, r"line 3, column 'load': 'inf' is no finite"),
        (("00:00:01", "noon"), {}, r"line 3, column 'when': '2024-01-01 noon' is no time .*ISO"),
        (("2024-01-01 00:00:01", ""), {}, r"line 3, column 'when': None is no time"),
        (("", ""), {"time": "whem"}, r"no column 'whem', did you mean 'when'\? \(columns: when"),
        (("", ""), {"channels": ["laod"]}, "no column 'laod', did you mean 'load'"),
        (("", ""), {"actions": ["load"], "channels": ["load"]}, "'load' is given twice"),
        (("", ""), {"time_unit": "h"}, "time_unit='h'"),
        (("", ""), {"time_format": "%Y"}, r"line 2, column 'when': .* \(expected: %Y\)"),
        ((",b,", ",,"), {"stream": "who"}, "line 3, column 'who': None is missing"),
        ((CSV, "when,who,load,knob,state,temp\n"), {}, "no rows"),
        ((CSV, ""), {}, "cannot be read"),
        (("-2e3,1,ok,7", "1,2,3,4,5,6"), {}, r"t\.csv, line 3: 8 values, but the header has 6"),
        ((",7", ""), {}, r"t\.csv, line 3: 5 values, but the header has 6"),
        (("2024-01-01 00:00:01,b,-2e3,1,ok,7", "x"), {}, "line 3: 1 values, but the header has 6"),
        (("temp", "who"), {}, "two columns are called 'who'"),
        (("", ""), {"time_unit": "m"}, r"time_unit='m': one of s, ms, us, ns, did you mean 'ms'"),
        (("", ""), {"time_unit": "s", "time_format": "%Y"}, "time_unit='s': give one of them"),
        (("", ""), {"time_format": "%Y %Z"}, r"time_format='%Y %Z': .*use %z"),
        (("", ""), {"time_format": "%Y %S.%f"}, r"time_format='%Y %S\.%f': %f would .*%\.f, which"),
        (("", ""), {"time_format": "%Y %S,%-f"}, "%f would count nanoseconds"),
        (("", ""), {"time_format": "%Y-%m-%d %H"}, "time_format='%Y-%m-%d %H': .*hour and minute"),
        (("00:00:01,", "00:00:01.1234567890,"), {}, r"line 3, column 'when'.*up to 9 digits"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_and_nothing_is_left(
    table: Path, tmp_path: Path, change: tuple[str, str], options: dict, told: str
) -> None:
    table.write_text(CSV.replace(*change, 1) if change[0] else CSV)
    chosen = {"time": "when", "channels": ["load"]} | options
    with pytest.raises(InputError, match=told):
        record_table([table], tmp_path / "r", **chosen)
    assert nothing_left(tmp_path)


def test_one_file_and_one_name_need_no_list(table: Path, tmp_path: Path) -> None:
    roles = {"channels": "load", "actions": "knob", "labels": "state"}
    for number, files in enumerate((table, str(table), [table])):
        record_table(files, tmp_path / str(number), time="when", **roles)
    record_frame(pl.read_csv(table), tmp_path / "3", time="when", **roles, name="t")
    found = [Recording.open(tmp_path / str(number)) for number in range(4)]
    assert [channel.name for channel in found[0].channels] == ["load", "knob", "state"]
    assert len({recording.sha256 for recording in found}) == 1


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ""])
def test_a_column_that_looks_like_a_pattern_is_itself(tmp_path: Path, suffix: str) -> None:
    """In a frame too, which has no suffix."""
    table = pl.DataFrame({"t": ["2024-05-06"], "*": [1.0], "^x.*$": [2.0], "x1": [3.0]})
    file, chosen = tmp_path / f"t{suffix}", ["x1", "^x.*$", "*"]
    if suffix:
        table.write_csv(file) if suffix == ".csv" else table.write_parquet(file)
        record_table(file, tmp_path / "r", time="t", channels=chosen)
    else:
        record_frame(table, tmp_path / "r", time="t", channels=chosen)
    recording = Recording.open(tmp_path / "r")
    assert [channel.name for channel in recording.channels] == chosen
    assert [block.values.tolist() for block in recording.blocks()] == [[[3.0, 2.0, 1.0]]]


def test_all_that_stands_for_a_missing_value_is_told(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("t,x,why\n" + "".join(f"2024-05-06,1,{word}\n" for word in (*MISSING, "none")))
    record_table(file, tmp_path / "r", time="t", labels="why")
    frame = Recording.open(tmp_path / "r").scan().collect()
    assert frame["why"].to_list() == [*([None] * len(MISSING)), 0]
    for text in (
        record_table.__doc__,
        commands_record.csv.__doc__,
        commands_record.parquet.__doc__,
    ):
        told = set(re.findall(r"[\w/]+", text or ""))
        assert set(filter(None, MISSING)) <= told


def test_the_line_is_right_far_into_a_file(table: Path, tmp_path: Path) -> None:
    rows = [f"{i},{i}" for i in range(200_000)]
    rows[150_000] = "150000,oops"
    table.write_text("t,x\n" + "\n".join(rows))
    with pytest.raises(InputError, match=r"line 150002, column 'x': 'oops'"):
        record_table([table], tmp_path / "r", time="t", time_unit="s")
    assert nothing_left(tmp_path)


def test_blank_lines_are_passed_over_and_counted(table: Path, tmp_path: Path) -> None:
    table.write_text("t,x\n1,1\n\n2,2\n\n")
    record_table([table], tmp_path / "r", time="t", time_unit="s")
    assert Recording.open(tmp_path / "r").rows == 2
    table.write_text("t,x\n1,1\n\n2,two\n")
    with pytest.raises(InputError, match="line 4, column 'x': 'two'"):
        record_table([table], tmp_path / "s", time="t", time_unit="s")


def test_a_short_row_is_found_among_rows_whose_last_value_is_missing(
    table: Path, tmp_path: Path
) -> None:
    whole = 't,note,x\n1,"a, ""b""\nand c",\n\n2,"5 wide",3\r\n3,,\n'
    table.write_text(whole)
    given = {"time": "t", "time_unit": "s", "channels": ["x"]}
    assert Recording.open(record_table([table], tmp_path / "r", **given)).rows == 3
    table.write_text(whole + "4,5\n")
    with pytest.raises(InputError, match=r"t\.csv, line 7: 2 values, but the header has 3"):
        record_table([table], tmp_path / "s", **given)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("text", [b"t,x\xff\n1,2\n", b"t,x\n1,\xff\n"], ids=["header", "body"])
def test_bytes_that_are_no_utf8_are_refused(table: Path, tmp_path: Path, text: bytes) -> None:
    table.write_bytes(text)
    with pytest.raises(InputError, match=r"t\.csv: cannot be read.*(?i:utf-8)"):
        record_table([table], tmp_path / "r", time="t", time_unit="s")
    assert nothing_left(tmp_path)


def test_a_byte_order_mark_is_no_part_of_a_name(table: Path, tmp_path: Path) -> None:
    table.write_bytes(b'\xef\xbb\xbf"t",x\n1,2\n2,\n')
    record_table([table], tmp_path / "r", time="t", time_unit="s")
    assert Recording.open(tmp_path / "r").rows == 2


def test_numbers_as_times_need_a_unit(table: Path, tmp_path: Path) -> None:
    file = table.with_suffix(".parquet")
    pl.DataFrame({"t": [1, 2], "x": [1.0, 2.0]}).write_parquet(file)
    with pytest.raises(InputError, match="time_unit"):
        record_table([file], tmp_path / "r", time="t")
    record_table([file], tmp_path / "r", time="t", time_unit="ms")
    assert Recording.open(tmp_path / "r").manifest.time_range == (1_000_000, 2_000_000)


def test_a_list_is_no_number(table: Path, tmp_path: Path) -> None:
    file = table.with_suffix(".parquet")
    pl.DataFrame({"t": [1], "x": [[1.0, 2.0]]}).write_parquet(file)
    with pytest.raises(InputError, match=r"column 'x' holds List\(Float64\), not numbers"):
        record_table([file], tmp_path / "r", time="t", time_unit="s")


@pytest.mark.parametrize("name", ["none.csv", "t.xls"])
def test_files_that_are_no_tables_are_refused(table: Path, tmp_path: Path, name: str) -> None:
    (table.parent / "t.xls").write_text("x")
    with pytest.raises(InputError, match=r"no such file|a table is"):
        record_table([table.parent / name], tmp_path / "r", time="t")
    assert nothing_left(tmp_path)


def test_an_existing_folder_is_refused_and_kept(table: Path, tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "mine").write_text("x")
    with pytest.raises(InputError, match="exists already"):
        record_table([table], tmp_path / "r", time="when", channels=["load"])
    assert [path.name for path in (tmp_path / "r").iterdir()] == ["mine"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "r"]


def test_a_damaged_parquet_file_is_refused(table: Path, tmp_path: Path) -> None:
    file = table.with_suffix(".parquet")
    pl.DataFrame({"t": [1], "x": [1.0]}).write_parquet(file)
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(AdaptiveSleepError, match="cannot be read"):
        record_table([file], tmp_path / "r", time="t", time_unit="s")
    assert nothing_left(tmp_path)


@settings(max_examples=25)
@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from("ab"),
            st.integers(0, 10**9),
            st.none() | st.floats(-1e6, 1e6, width=32),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_every_row_comes_back(tmp_path_factory, rows) -> None:
    folder = tmp_path_factory.mktemp("t")
    lines = [f"{s},{t},{'' if x is None else repr(x)}" for s, t, x in rows]
    (folder / "t.csv").write_text("s,t,x\n" + "\n".join(lines))
    record_table([folder / "t.csv"], folder / "r", time="t", stream="s", time_unit="us")
    frame = Recording.open(folder / "r").scan().collect()
    found = zip(frame["stream"], frame["time"].cast(pl.Int64), frame["x"], strict=True)
    assert list(found) == [(s, t * 1000, x) for s, t, x in rows]


@pytest.mark.parametrize("lazy", [False, True])
def test_a_frame_gives_what_its_file_gives(table: Path, tmp_path: Path, lazy: bool) -> None:
    frame = pl.read_csv(table, try_parse_dates=True, null_values=["NA"])
    given = frame.lazy() if lazy else frame
    record_table([table], tmp_path / "r", time="when", stream="who", labels=["state"])
    record_frame(given, tmp_path / "s", time="when", stream="who", labels=["state"])
    one, two = Recording.open(tmp_path / "r"), Recording.open(tmp_path / "s")
    assert one.sha256 == two.sha256
    assert two.manifest.provenance["source"] == "record frame"


def test_a_frame_keeps_what_is_odd(tmp_path: Path) -> None:
    """Times that repeat, step back or leave gaps; channels that are missing or constant."""
    frame = pl.DataFrame(
        {
            "t": [0, 60, 60, 30, 86_400],
            "still": [2.0] * 5,
            "gone": [None] * 5,
            "x": [1, None, 3, 4, 5],
        },
        schema_overrides={"gone": pl.Float64},
    )
    out = record_frame(frame, tmp_path / "r", time="t", time_unit="s", name="pump")
    recording = Recording.open(out)
    assert recording.streams == ("pump",)
    assert recording.manifest.backwards == 1
    found = recording.scan().collect()
    assert found["still"].to_list() == [2.0] * 5
    assert found["gone"].null_count() == 5
    assert found["x"].to_list() == [1, None, 3, 4, 5]
    assert found["time"].cast(pl.Int64).to_list() == [s * 10**9 for s in (0, 60, 60, 30, 86_400)]


def test_what_is_wrong_in_a_frame_is_named(tmp_path: Path) -> None:
    frame = pl.DataFrame({"t": [1, 2], "x": ["1", "two"]})
    with pytest.raises(InputError, match="frame, row 2, column 'x': 'two' is no number"):
        record_frame(frame, tmp_path / "r", time="t", time_unit="s")
    with pytest.raises(InputError, match="frame: no column 'tt', did you mean 't'"):
        record_frame(frame, tmp_path / "r", time="tt")
    with pytest.raises(InputError, match="frame: no rows"):
        record_frame(frame.clear(), tmp_path / "r", time="t", time_unit="s")
    broken = frame.lazy().with_columns(pl.col("x").cast(pl.Float64, strict=True))
    with pytest.raises(InputError, match="frame: cannot be read"):
        record_frame(broken, tmp_path / "r", time="t", time_unit="s")
    assert not list(tmp_path.iterdir())


def test_transformer_temperatures_themselves(tmp_path: Path, real: Callable[[str], Path]) -> None:
    recording = Recording.open(record_table([real("ett/ETTh1.csv")], tmp_path / "r", time="date"))
    assert (recording.rows, recording.streams) == (17_420, ("ETTh1",))
    assert [channel.name for channel in recording.inputs][-1] == "OT"
    assert recording.manifest.backwards == 0
