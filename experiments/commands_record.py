"""`adaptive-sleep record ...`: make a recording from this machine, from files, or of a task.

The work is done in streams/; here are only the options and what is said afterwards.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adaptive_sleep.experiments.console import print_json, progress
from adaptive_sleep.streams.errors import InputError, nearest

if TYPE_CHECKING:
    from adaptive_sleep.streams.tablefiles import TimeUnit
    from adaptive_sleep.streams.tasks.mixed import Mixed
    from adaptive_sleep.streams.tasks.task import Part, Task

app = typer.Typer(
    help="Make a recording: from this machine, text, tables, event logs, arrays or a task.",
    epilog="Example: adaptive-sleep record host --seconds 60 --out my-recording",
    no_args_is_help=True,
    rich_markup_mode=None,
)

HARD = -2.0  # power of the hard bursts of a task
Out = Annotated[Path, typer.Option(help="The folder to write; it must not exist.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Files = Annotated[list[Path], typer.Argument(help="The files, in the order to read them.")]
Time = Annotated[str, typer.Option(help="The column that holds the time.")]
Stream = Annotated[str | None, typer.Option(help="The column that names the stream.")]
Like = Annotated[
    str | None,
    typer.Option(help="An earlier recording, so that its categories keep their tokens."),
]
Channel = Annotated[
    list[str] | None,
    typer.Option("--channel", help="A column to observe (repeat); by default all others."),
]
Action = Annotated[
    list[str] | None, typer.Option("--action", help="A column that is an input only (repeat).")
]
Label = Annotated[
    list[str] | None, typer.Option("--label", help="A column no model may see (repeat).")
]
Format = Annotated[str | None, typer.Option(help="How times are written, e.g. '%Y-%m-%d %H:%M'.")]
Unit = Annotated[str | None, typer.Option(help="Unit of numeric times: s, ms, us or ns.")]


@app.command(
    epilog="Example: adaptive-sleep record host --seconds 600 --out night --label phase=phase.txt"
)
def host(
    out: Out,
    seconds: Annotated[float, typer.Option(help="How long to record.")] = 60.0,
    hz: Annotated[float, typer.Option(help="Samples per second.")] = 4.0,
    stream: Annotated[str, typer.Option(help="The name of the stream.")] = "host",
    label: Annotated[
        list[str] | None,
        typer.Option(help="NAME=FILE: a label channel read from FILE at each sample (repeat)."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Record this machine's telemetry (processor, memory, disk, network, processes).

    Ctrl-C, or SIGTERM, ends the recording early; what was sampled until then is kept and whole.
    """
    from adaptive_sleep.streams.host import record_host

    with progress("recording") as advance:
        record_host(
            out, seconds=seconds, hz=hz, stream=stream, label_files=_label_files(label or []),
            on_progress=lambda done, samples: advance(done, seconds, f"{samples} samples"),
        )  # fmt: skip
    _say(out, as_json)


def _label_files(given: list[str]) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for entry in given:
        name, equals, path = entry.partition("=")
        if not (name and equals and path):
            raise InputError(f"--label {entry!r}: write NAME=FILE, for example phase=phase.txt")
        files[name] = Path(path)
    return files


@app.command(epilog="Example: adaptive-sleep record text book.txt notes.txt --out texts")
def text(files: Files, out: Out, as_json: Json = False) -> None:
    """Record text files: one stream a file, one event a byte."""
    from adaptive_sleep.streams.text import record_text

    record_text(files, out)
    _say(out, as_json)


@app.command(
    epilog="Example: adaptive-sleep record csv plant.csv --time stamp --stream machine --out plant"
)
def csv(
    files: Files,
    time: Time,
    out: Out,
    stream: Stream = None,
    channel: Channel = None,
    action: Action = None,
    label: Label = None,
    time_format: Format = None,
    time_unit: Unit = None,
    as_json: Json = False,
) -> None:
    """Record CSV files with a header: one event a row.

    Values that are empty, NA, N/A, NaN, nan, null, NULL or None are missing, labels too.
    """
    _table(files, out, "csv", time, stream, channel, action, label, time_format, time_unit)
    _say(out, as_json)


@app.command(epilog="Example: adaptive-sleep record parquet plant.parquet --time stamp --out plant")
def parquet(
    files: Files,
    time: Time,
    out: Out,
    stream: Stream = None,
    channel: Channel = None,
    action: Action = None,
    label: Label = None,
    time_format: Format = None,
    time_unit: Unit = None,
    as_json: Json = False,
) -> None:
    """Record Parquet files: one event a row.

    Text that is empty, NA, N/A, NaN, nan, null, NULL or None is missing, in labels too.
    """
    _table(files, out, "parquet", time, stream, channel, action, label, time_format, time_unit)
    _say(out, as_json)


def _table(
    files: list[Path], out: Path, kind: str, time: str, stream: str | None,
    channels: list[str] | None, actions: list[str] | None, labels: list[str] | None,
    time_format: str | None, time_unit: str | None,
) -> None:  # fmt: skip
    from adaptive_sleep.streams.tables import record_table

    suffixes = (".csv", ".tsv") if kind == "csv" else (".parquet", ".pq")
    for file in files:
        if file.suffix.lower() not in suffixes:
            other = "parquet" if kind == "csv" else "csv"
            raise InputError(
                f"{file}: `record {kind}` reads *{' and *'.join(suffixes)}; there is also "
                f"`record {other}`"
            )
    record_table(
        files, out, time=time, stream=stream, channels=channels or None, actions=actions or [],
        labels=labels or [], time_format=time_format, time_unit=_unit(time_unit),
    )  # fmt: skip


def _unit(text: str | None) -> TimeUnit | None:
    """Return a unit of time that was written as text, or None as it is."""
    if text is None:
        return None
    units: dict[str, TimeUnit] = {"s": "s", "ms": "ms", "us": "us", "ns": "ns"}
    if text not in units:
        raise InputError(f"--time-unit {text!r}: write one of {', '.join(units)}")
    return units[text]


@app.command(
    epilog="Example: adaptive-sleep record eventlog log.csv --column activity --time when "
    "--stream case --out log"
)
def eventlog(
    file: Annotated[Path, typer.Argument(help="A CSV or Parquet file, one event a row.")],
    column: Annotated[str, typer.Option(help="The column whose categories are the tokens.")],
    time: Time,
    out: Out,
    stream: Stream = None,
    label: Annotated[str | None, typer.Option(help="A column no model may see.")] = None,
    time_format: Format = None,
    time_unit: Unit = None,
    like: Like = None,
    as_json: Json = False,
) -> None:
    """Record an event log: a column of categories becomes a stream of tokens.

    Labels that are empty, NA, N/A, NaN, nan, null, NULL or None are missing.
    """
    from adaptive_sleep.streams.eventlog import record_eventlog

    record_eventlog(
        file, out, column=column, time=time, stream=stream, label=label,
        time_format=time_format, time_unit=_unit(time_unit), like=like,
    )  # fmt: skip
    _say(out, as_json)


@app.command(epilog="Example: adaptive-sleep record loghub BGL_2k.log_structured.csv --out bgl")
def loghub(
    file: Annotated[Path, typer.Argument(help="A structured log, *.log_structured.csv.")],
    out: Out,
    stream: Stream = None,
    like: Like = None,
    as_json: Json = False,
) -> None:
    """Record a structured log of loghub: EventId as tokens, its alert flag as a label."""
    from adaptive_sleep.streams.eventlog import record_loghub

    record_loghub(file, out, stream=stream, like=like)
    _say(out, as_json)


@app.command(
    epilog="Example: adaptive-sleep record nab nyc_taxi.csv --windows combined_windows.json "
    "--out taxi"
)
def nab(
    files: Files,
    windows: Annotated[Path, typer.Option(help="The JSON file of labelled windows.")],
    out: Out,
    as_json: Json = False,
) -> None:
    """Record files of the Numenta Anomaly Benchmark: a stream a file, labelled windows a label."""
    from adaptive_sleep.streams.nab import record_nab

    record_nab(files, out, windows=windows)
    _say(out, as_json)


@app.command(epilog="Example: adaptive-sleep record arrays omi-1.npz --step-seconds 300 --out omi")
def arrays(
    file: Annotated[Path, typer.Argument(help="A NumPy archive, *.npz.")],
    step_seconds: Annotated[float, typer.Option(help="Seconds from one row to the next.")],
    out: Out,
    part: Annotated[
        list[str] | None,
        typer.Option(help="An array to record (repeat, in order); by default train, then test."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Record telemetry in a NumPy archive: arrays [rows, channels], and NAME_label as a label."""
    from adaptive_sleep.streams.arrays import record_arrays

    record_arrays(file, out, step_seconds=step_seconds, parts=part or ("train", "test"))
    _say(out, as_json)


@app.command(
    epilog="Example: adaptive-sleep record task chain --set paths=2 --samples 256 --out chain"
)
def task(
    name: Annotated[str, typer.Argument(help="The task, e.g. chain or hops.")],
    out: Out,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A parameter of the task, NAME=VALUE.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="How many samples.")] = 256,
    streams: Annotated[int, typer.Option(min=1, help="Streams that they are dealt to.")] = 1,
    part: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    power: Annotated[float, typer.Option(help="Difficulty d is drawn with weight d^-POWER.")] = 0.0,
    bursts: Annotated[
        str, typer.Option(help="EASY,HARD: mean lengths of bursts, easy and hard by turns.")
    ] = "",
    hard_power: Annotated[
        float | None, typer.Option(help="With --bursts, --power in hard ones [default: -2].")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the samples.")] = 0,
    as_json: Json = False,
) -> None:
    """Record samples of a synthetic task; replay them with --gap 0.5.

    What is asked and how hard a window is stand in label channels, which no model sees.
    """
    from adaptive_sleep.streams.tasks.drawing import check_power, power_weights
    from adaptive_sleep.streams.tasks.mixed import Mixed
    from adaptive_sleep.streams.tasks.recorded import record
    from adaptive_sleep.streams.tasks.registry import make_task

    if hard_power is not None and not bursts:
        raise InputError(f"--hard-power {hard_power}: goes with --bursts")
    check_power("--power", power)
    check_power("--hard-power", HARD if hard_power is None else hard_power)
    one = make_task(name, **_settings(settings or []))
    weights = power_weights(one.space.difficulties, power)
    made: Task | Mixed = one
    if bursts:
        hard = power_weights(one.space.difficulties, HARD if hard_power is None else hard_power)
        made = Mixed(((one, 1.0),), weights, hard, _lengths(bursts))
    record(
        made,
        out,
        samples=samples,
        seed=seed,
        part=_part(part),
        streams=streams,
        weights=None if bursts else weights,
    )
    _say(out, as_json)


def _lengths(text: str) -> tuple[float, float]:
    """Two mean lengths. Raises InputError."""
    try:
        easy, hard = map(float, text.split(","))
    except ValueError:
        raise InputError(f"--bursts {text!r}: two mean lengths in samples, e.g. 32,8") from None
    return easy, hard


def _part(text: str) -> Part:
    parts: dict[str, Part] = {"train": "train", "validation": "validation", "test": "test"}
    if text not in parts:
        raise InputError(f"--part {text!r}: one of {', '.join(parts)}{nearest(text, parts)}")
    return parts[text]


def _settings(pairs: list[str]) -> dict[str, Any]:
    """NAME=VALUE pairs, the values as Python literals where they are some."""
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise InputError(f"--set {pair!r}: write NAME=VALUE")
        try:
            found[name] = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            found[name] = value
    return found


def _say(out: Path, as_json: bool) -> None:
    """Say what was recorded."""
    from adaptive_sleep.streams.recording import Recording

    recording = Recording.open(out, verify=False)
    found = {
        "recording": str(out),
        "kind": recording.kind,
        "rows": recording.rows,
        "streams": len(recording.streams),
        "channels": len(recording.channels),
        "backwards": recording.manifest.backwards,
        "sha256": recording.sha256,
    }
    if as_json:
        print_json(found)
        return
    print(
        f"{out}: {recording.rows:,} events in {len(recording.streams):,} stream(s)"
        + (f", {len(recording.channels)} channels" if recording.channels else "")
    )
    if recording.manifest.backwards:
        print(f"{recording.manifest.backwards:,} events have a time before that of the one before")


def add_to(parent: typer.Typer) -> None:
    """Add `record` to the application."""
    parent.add_typer(app, name="record")
