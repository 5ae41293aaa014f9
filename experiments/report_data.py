"""What a report shows, read from run folders: summaries, traces and the phases of labels.

Figures and page are made elsewhere; nothing is measured here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from adaptive_sleep.experiments.runs import RunSummary, open_recording, open_run
from adaptive_sleep.streams.errors import AdaptiveSleepError, InputError
from adaptive_sleep.trace import PLANNED

SIGNALS = (
    "uncertainty",
    "surprise",
    "state_change",
    "last_state_change",
    "cache_pressure",
    "event_density",
    "gap",
    "budget_left",
)
MOST_POINTS = 1500  # a line with more points than this is drawn from means over equal spans of time
BINS = 400
MOST_SEGMENTS = 400


@dataclass(frozen=True)
class ReportRun:
    """One finished run: its name on the page, its summary, its settings and its trace."""

    name: str
    policy: str
    summary: RunSummary
    facts: dict[str, str]  # run.json, flattened to dotted names
    trace: pl.DataFrame  # one row per stream and window, in the order of closing
    recording: str
    recording_sha256: str
    rows: tuple[int, int]  # the rows of the recording that were replayed

    @property
    def subject(self) -> tuple[str, ...]:
        """What must be equal for two losses to be comparable: recording, rows, model."""
        start, stop = self.rows
        return (self.recording_sha256, f"{start}:{stop}", self.facts.get("model.hash", ""))

    @property
    def planned(self) -> pl.Series:
        """Passes of the windows that the policy planned for; questions always take one."""
        return self.trace.filter(PLANNED)["passes"]

    def own(self, shared: dict[str, str]) -> dict[str, str]:
        """The settings that are not shared with the other runs of a page."""
        return {name: value for name, value in self.facts.items() if name not in shared}


@dataclass(frozen=True)
class Curve:
    """One run over time, thinned to what a screen can show."""

    time: NDArray[np.int64]  # [n] ns, the beginning of each window or span
    end: NDArray[np.int64]  # [n] ns, its end
    values: dict[str, NDArray[np.float64]]  # column -> [n]; NaN where nothing was scored
    thinned: bool


@dataclass(frozen=True)
class Phases:
    """The label channel of a recording: for people only, no model or policy saw it."""

    channel: str
    names: tuple[str, ...]
    segments: tuple[
        tuple[int, int, str], ...
    ]  # (begin ns, end ns, phase); or empty: too many to draw
    rows: pl.DataFrame  # stream, time (ns), phase (String)


def read_runs(paths: Sequence[Path]) -> list[ReportRun]:
    """Read finished runs, in the order given.

    Raises InputError for no runs, a folder that is no run, or a run that is not finished;
    IntegrityError for a trace that is not what was written.
    """
    if not paths:
        raise InputError("runs=(): a report needs at least one run")
    names = _names(paths)
    return [_read_run(path, name) for path, name in zip(paths, names, strict=True)]


def _read_run(path: Path, name: str) -> ReportRun:
    run = open_run(path)
    if run.summary is None:
        raise InputError(
            f"run={str(path)!r}: the run is not finished; finish it with `replay --resume` first"
        )
    if not run.summary.windows:
        raise InputError(f"run={str(path)!r}: no window closed in it, so there is nothing to draw")
    described: dict[str, Any] = msgspec.to_builtins(run.manifest)
    described.pop("summary", None)
    recording = run.manifest.recording
    return ReportRun(
        name=name,
        policy=run.manifest.policy,
        summary=run.summary,
        facts=flatten(described),
        trace=run.trace().with_columns(pl.col("first_time", "last_time").cast(pl.Int64)).collect(),
        recording=recording.path,
        recording_sha256=recording.sha256,
        rows=(recording.start, recording.stop),
    )


def _names(paths: Sequence[Path]) -> list[str]:
    """Folder names, with as many parents in front as tell those apart that would be the same."""
    resolved = [Path(path).resolve() for path in paths]
    if len(set(resolved)) != len(resolved):
        raise InputError(f"runs={[str(p) for p in paths]}: a run is named twice")
    return [str(Path(*path.parts[-_depth(path, resolved) :])) for path in resolved]


def _depth(path: Path, among: Sequence[Path]) -> int:
    """How many of the last parts of a path tell it from the others."""
    depth = 1
    while sum(other.parts[-depth:] == path.parts[-depth:] for other in among) > 1:
        depth += 1
    return depth


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as dotted names and printable values, empty ones left out."""
    flat: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{key}."))
        elif value is not None and value != "" and value != []:
            flat[f"{prefix}{key}"] = str(value)
    return flat


def shared_facts(runs: Sequence[ReportRun]) -> dict[str, str]:
    """The settings that are the same in every run."""
    first, *others = [run.facts for run in runs]
    return {k: v for k, v in first.items() if all(other.get(k) == v for other in others)}


def comparable(runs: Sequence[ReportRun]) -> bool:
    """Whether all runs are of the same rows of the same recording with the same model."""
    return len({run.subject for run in runs}) == 1


def curve(run: ReportRun) -> Curve:
    """Return the run over time: its windows, or means over spans where they are too many. Passes
    and signals are of windows that the policy planned for."""
    policy = ["passes", *[s for s in SIGNALS if s in run.trace.columns]]
    columns = ["loss", *policy]
    frame = run.trace.with_columns(
        pl.col("loss").cast(pl.Float64),
        *(pl.when(PLANNED).then(name).alias(name) for name in policy),
    )
    thinned = frame["stream"].n_unique() > 1 or len(frame) > MOST_POINTS
    if thinned:
        frame = _binned(frame, columns)
    frame = frame.sort("first_time", maintain_order=True)
    values = {
        name: frame[name].cast(pl.Float64).fill_null(float("nan")).to_numpy() for name in columns
    }
    return Curve(frame["first_time"].to_numpy(), frame["last_time"].to_numpy(), values, thinned)


def _binned(frame: pl.DataFrame, columns: list[str]) -> pl.DataFrame:
    """Means over equal spans of time; the loss weighs each window by its predictions."""
    begin, end = _bound(frame["first_time"].min()), _bound(frame["first_time"].max())
    width = max(1, -(-(end - begin + 1) // BINS))
    scored = pl.when(pl.col("loss").is_not_null()).then(pl.col("scored")).otherwise(0)
    loss = (pl.col("loss") * scored).sum() / scored.sum()
    others = [pl.col(name).mean() for name in columns if name != "loss"]
    return (
        frame.group_by(((pl.col("first_time") - begin) // width).alias("bin"))
        .agg(loss.alias("loss"), *others)
        .with_columns((pl.col("bin") * width + begin).alias("first_time"))
        .with_columns((pl.col("first_time") + width).alias("last_time"))
    )


def running_difference(
    run: ReportRun, reference: ReportRun
) -> tuple[NDArray[np.int64], NDArray[np.float64]] | None:
    """Mean loss so far minus the reference's, at each scored window, or None if windows differ.

    Returns time [n] in ns and difference [n]; both runs must have closed the same windows.
    """
    keys = ["stream", "window", "last_time", "scored"]
    ours, theirs = (r.trace.select(*keys, "loss") for r in (run, reference))
    joined = ours.join(theirs, on=keys, how="inner", suffix="_reference")
    if len(joined) != len(ours) or len(joined) != len(theirs):
        return None
    joined = joined.drop_nulls().sort("last_time", "stream")
    scored = joined["scored"].to_numpy().astype(np.float64)
    if not scored.sum():
        return None
    gained = (joined["loss"] - joined["loss_reference"]).to_numpy() * scored
    difference = np.cumsum(gained) / np.maximum(np.cumsum(scored), 1.0)
    time = joined["last_time"].to_numpy()
    if len(time) > MOST_POINTS:
        kept = np.unique(np.linspace(0, len(time) - 1, MOST_POINTS).astype(np.int64))
        time, difference = time[kept], difference[kept]
    return time, difference


def read_phases(run: ReportRun) -> tuple[Phases | None, str]:
    """Return the phases of the run's recording, or None and, where worth saying, why not."""
    if not run.recording:
        return None, ""  # a live run that recorded nothing
    try:
        recording = open_recording(run.recording, verify=False)
    except (AdaptiveSleepError, OSError):
        return None, "The recording is not where run.json says, so no phases are shown."
    if recording.sha256 != run.recording_sha256:
        return None, "The recording has changed since the run, so no phases are shown."
    labels = [channel for channel in recording.labels if channel.categories]
    if not labels:
        return None, ""
    channel = labels[0]
    start, stop = run.rows
    codes = dict(enumerate(channel.categories))
    rows = (
        recording.scan()
        .slice(start, stop - start)
        .select(
            pl.col("stream").cast(pl.String),
            pl.col("time").cast(pl.Int64),
            pl.col(channel.name).cast(pl.Int64, strict=False).alias("code"),
        )
        .collect()
        .with_columns(pl.col("code").replace_strict(codes, default=None).alias("phase"))
        .drop("code")
    )
    if rows["phase"].null_count() == len(rows):
        return None, ""
    used = set(rows["phase"].drop_nulls().unique())
    names = tuple(name for name in channel.categories if name in used)
    return Phases(channel.name, names, _segments(rows), rows), ""


def _segments(rows: pl.DataFrame) -> tuple[tuple[int, int, str], ...]:
    """Stretches of one phase, for a recording of one stream."""
    if rows["stream"].n_unique() > 1:
        return ()
    stretches = (
        rows.sort("time", maintain_order=True)
        .with_columns(pl.col("phase").rle_id().alias("stretch"))
        .group_by("stretch", maintain_order=True)
        .agg(pl.col("time").min().alias("begin"), pl.col("time").max().alias("end"), "phase")
        .with_columns(pl.col("phase").list.first(), pl.col("begin").shift(-1).alias("next"))
        .with_columns(pl.coalesce("next", "end").alias("end"))
        .drop_nulls("phase")
    )
    if len(stretches) > MOST_SEGMENTS:
        return ()
    return tuple(stretches.select("begin", "end", "phase").iter_rows())


def passes_by_phase(run: ReportRun, phases: Phases) -> pl.DataFrame:
    """Count windows that the policy planned for by phase and passes; a window belongs to the phase
    of most of its events.

    Columns: phase, passes, windows.
    """
    windows = run.trace.select(
        "stream", "window", "passes", pl.col("first_time").alias("time"), PLANNED.alias("planned")
    )
    events = phases.rows.drop_nulls("phase").sort("time")
    held = events.join_asof(
        windows.sort("time"), on="time", by="stream", strategy="backward", check_sortedness=False
    )
    return (
        held.drop_nulls("window")
        .filter("planned")
        .group_by("stream", "window", "passes", "phase")
        .len()
        .sort(["len", "phase"], descending=[True, False])
        .unique(["stream", "window"], keep="first", maintain_order=True)
        .group_by("phase", "passes")
        .len("windows")
        .sort("phase", "passes")
    )


def _bound(value: Any) -> int:
    return int(value or 0)
