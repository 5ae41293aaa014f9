"""Times replay from Parquet to trace, many streams side by side, beside an online linear regression
of river's: `adaptive-sleep bench replay`.

Streams are parts of the bundled recording, each from a row of its own. Correctness comes first:
where the trace does not account for every event, or a stream fares otherwise among the others than
alone, there is no speed to report.
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from adaptive_sleep.checkpoint import load_model
from adaptive_sleep.experiments.jobs import apart, one_thread
from adaptive_sleep.experiments.replay import replay
from adaptive_sleep.experiments.runs import open_recording, open_run
from adaptive_sleep.streams.errors import AdaptiveSleepError, InputError
from adaptive_sleep.streams.recording import Recording
from adaptive_sleep.streams.writer import RecordingWriter

BUNDLED = "bundled:telemetry"
POLICY = "state_change"
STREAMS, EVENTS, ROUNDS = 64, 6000, 3
BOUND = 60_000.0  # events per second
CLOSE = 1e-4  # losses of a stream alone and among others, relative: products round differently
STEP_NS = 200_000_000  # between events, as the bundled recording has them
BLOCK = 500  # events of every stream that are written at once

Values = NDArray[np.float64]


def stream_name(i: int) -> str:
    """The name of stream i."""
    return f"stream-{i}"


def write_streams(path: Path, source: Recording, streams: list[int], of: int, events: int) -> None:
    """Write `streams`, named by their places among `of`, each `events` rows of `source` from a row
    of its own, in turn as they would arrive."""
    values = source_values(source)
    first = np.linspace(0, len(values) - events, of).astype(int)
    with RecordingWriter(path, kind="series", channels=source.inputs) as writer:
        for begin in range(0, events, BLOCK):
            rows = np.arange(begin, min(begin + BLOCK, events))
            picked = np.stack([values[first[i] + rows] for i in streams], axis=1)
            writer.append_rows(
                [stream_name(i) for i in streams] * len(rows),
                np.repeat(rows * STEP_NS, len(streams)),
                values=picked.reshape(-1, values.shape[1]),
            )


def source_values(source: Recording) -> Values:
    """`[rows, channels]` of what a model may see."""
    names = [channel.name for channel in source.inputs]
    return source.scan().select(pl.col(names).cast(pl.Float64)).collect().to_numpy()


def replayed(recording: str, out: str) -> dict[str, float]:
    """One replay, for a process of its own: seconds, CPU seconds, and the most bytes that were
    resident (with Python, torch and all that they load)."""
    with one_thread():
        begun, cpu = time.perf_counter(), time.process_time()
        replay(recording, BUNDLED, POLICY, out)
        spent = {"seconds": time.perf_counter() - begun, "cpu": time.process_time() - cpu}
    return spent | {"peak_rss_bytes": float(peak_bytes())}


def peak_bytes() -> int:
    """The most bytes of this process that were resident (Linux; what its parent had does not
    count, as it does in getrusage)."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AdaptiveSleepError("/proc/self/status has no line VmHWM: the peak is not known here")


def check_gate(many: pl.DataFrame, alone: pl.DataFrame, streams: int, events: int) -> None:
    """Hold the trace of many streams to what was recorded, and to a trace of one of them alone.

    Raises AdaptiveSleepError.
    """
    seen = many.group_by("stream").agg(
        pl.len(), pl.col("window").n_unique(), pl.col("tokens").sum(), pl.col("last_time").max()
    )
    windows = set(seen["len"]) | set(seen["window"])
    if len(seen) != streams or len(windows) != 1:
        raise AdaptiveSleepError(
            f"bench replay: {len(seen)} streams of {streams} in the trace, of {sorted(windows)} "
            "windows, where all have as many; no speed is reported"
        )
    if set(seen["tokens"]) != {events} or set(seen["last_time"]) != {(events - 1) * STEP_NS}:
        raise AdaptiveSleepError(
            f"bench replay: the trace does not have the {events} events of every stream; no speed "
            "is reported"
        )
    name = alone["stream"][0]
    beside = many.filter(pl.col("stream") == name).sort("window")
    same = beside["passes"].to_list() == alone["passes"].to_list()
    if not same:
        raise AdaptiveSleepError(
            f"bench replay: {name} has other passes among {streams} streams than alone; no speed "
            "is reported"
        )
    found, wanted = beside["loss"].to_numpy(), alone["loss"].to_numpy()
    off = float(np.max(np.abs(found / wanted - 1)))  # not a number where one of them has none
    if not off < CLOSE:
        raise AdaptiveSleepError(
            f"bench replay: losses of {name} among {streams} streams are {off:.1e} off what they "
            f"are alone (allowed: {CLOSE:.0e}); no speed is reported"
        )


def river_rate(values: Values) -> float | None:
    """Events per second of river's linear regression, from all channels now to the first one's next
    value, predicting and then learning; None where river is not installed.

    Reading and making the dictionaries that river takes is not counted.
    """
    if importlib.util.find_spec("river") is None:
        return None
    model = importlib.import_module("river.linear_model").LinearRegression()
    scaled = np.nan_to_num((values - np.nanmean(values, 0)) / (np.nanstd(values, 0) + 1e-9))
    given = [dict(enumerate(row)) for row in scaled.tolist()]
    begun = time.perf_counter()
    for now, then in itertools.pairwise(given):
        model.predict_one(now)
        model.learn_one(now, then[0])
    return (len(given) - 1) / (time.perf_counter() - begun)


def run_bench(
    streams: int = STREAMS,
    events: int = EVENTS,
    rounds: int = ROUNDS,
    report: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Check that a replay of `streams` streams of `events` events each is right, then time it.

    A replay has a process of its own and one thread; river's regression takes turns with it.
    Returns medians over rounds: `events_per_second` and `river_events_per_second` (None without
    river) by the clock, `events_per_cpu_second`, `ratio` of the first two; `peak_rss_bytes`, the
    most; `streams`, `channels`, `events`, `mean_passes`, `rounds`, `bound`, `threads` and `gate`
    ("passed"). Raises InputError for sizes out of range, AdaptiveSleepError where the gate does not
    pass.
    """
    source = open_recording(BUNDLED)
    least = load_model(BUNDLED).config.window
    if not least <= events <= source.rows:
        raise InputError(
            f"events={events}: {least} (a window) to {source.rows}, as many as {BUNDLED} has"
        )
    if streams < 1 or rounds < 1:
        raise InputError(f"streams={streams}, rounds={rounds}: at least 1 of each")
    say = report or (lambda _: None)
    values = source_values(source)
    found: list[dict[str, float]] = []
    rivers: list[float | None] = []
    with tempfile.TemporaryDirectory() as folder:
        many, alone = Path(folder, "many"), Path(folder, "alone")
        write_streams(many, source, list(range(streams)), streams, events)
        write_streams(alone, source, [streams // 2], streams, events)
        replayed(str(alone), f"{alone}-run")
        for turn in range(rounds):
            out = f"{many}-run-{turn}"
            found.append(apart(replayed, str(many), out))
            trace = open_run(out).trace().collect()
            check_gate(trace, open_run(f"{alone}-run").trace().collect(), streams, events)
            rivers.append(river_rate(values))
            say(f"{streams * events / found[-1]['seconds']:,.0f} events a second")
    rate = [streams * events / each["seconds"] for each in found]
    theirs = [each for each in rivers if each is not None]
    return {
        "gate": "passed",
        "threads": 1,
        "streams": streams,
        "channels": values.shape[1],
        "events": streams * events,
        "mean_passes": trace["passes"].to_numpy().mean().item(),
        "rounds": rounds,
        "events_per_second": statistics.median(rate),
        "events_per_cpu_second": streams * events / statistics.median(e["cpu"] for e in found),
        "river_events_per_second": statistics.median(theirs) if theirs else None,
        "ratio": statistics.median(a / b for a, b in zip(rate, theirs, strict=True))
        if theirs
        else None,
        "bound": BOUND,
        "peak_rss_bytes": int(max(each["peak_rss_bytes"] for each in found)),
    }
