"""The demo: one recording under several policies, their shuffled controls, a table and a report.

What is run stands in recipes/demo.toml; what the figures mean is in reading.py.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from adaptive_sleep.config import decode, read_toml
from adaptive_sleep.contract import PolicyLike
from adaptive_sleep.experiments.controls import shuffled, slept_windows
from adaptive_sleep.experiments.finding import find_recipe
from adaptive_sleep.experiments.jobs import one_thread
from adaptive_sleep.experiments.reading import Row, read_rows
from adaptive_sleep.experiments.replay import Progress, replay
from adaptive_sleep.experiments.report import quantity, write_report
from adaptive_sleep.experiments.runs import open_run
from adaptive_sleep.streams.errors import InputError

MARKER, RUNS, PAGE = "demo.json", "runs", "report.html"  # what a demo writes
DEMOS = {"chain": "demo_chain", "telemetry": "demo"}  # what is shown, and its recipe
COLUMNS = ("policy", "loss", "to the first", "mean passes", "FLOPs / event", "wall time")
RIGHT = "all right"  # the further column of a task whose windows are asked questions


@dataclass(frozen=True)
class DemoPolicy:
    """One policy of the demo: the name of its run and its spec string."""

    name: str
    spec: str


@dataclass(frozen=True)
class DemoRecipe:
    """What the demo runs; `start` and `stop` are fractions of the recording's rows; `gap_seconds`
    without an event close a window."""

    recording: str
    model: str
    policies: tuple[DemoPolicy, ...]
    start: float = 0.0
    stop: float = 1.0
    gap_seconds: float | None = None
    max_passes: int = 4
    seed: int = 0
    control_seeds: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class DemoResult:
    """The rows in the order run, what they say, and where the page is."""

    rows: tuple[Row, ...]
    reading: tuple[str, ...]
    report: Path


def run_demo(
    out: Path,
    *,
    recipe: str | Path = "demo",
    on_progress: Callable[[int, int, str], None] | None = None,
) -> DemoResult:
    """Run the recipe's policies and their shuffled controls into `out`, and write report.html.

    `on_progress(rows done, rows in all, run)`. An earlier demo in `out` is replaced when all is
    done; if it fails or is interrupted, the earlier one is there as it was, and nothing else.
    Raises InputError for a folder that holds something else or cannot be replaced, and for a recipe
    that is wrong.
    """
    out = Path(out)
    plan = _read_recipe(find_recipe(recipe))
    _check_place(out)
    place = out.resolve()
    place.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=place.parent, prefix=f".{place.name}-"))
    try:
        work.chmod(0o755)
        with one_thread():
            rows = _run_all(plan, work / RUNS, on_progress)
        said = tuple(read_rows(rows))
        folders = [work / RUNS / name for row in rows for name in row.runs]
        write_report(folders, work / PAGE, title=_title(plan), reading=said)
        result = DemoResult(rows, said, out / PAGE)
        (work / MARKER).write_bytes(msgspec.json.format(msgspec.json.encode(result_json(result))))
        _replace(place, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return result


def _title(plan: DemoRecipe) -> str:
    name = plan.recording.removeprefix("bundled:")
    return f"Does sleeping longer help on {Path(name).name}?"


def _read_recipe(path: Path) -> DemoRecipe:
    plan = decode(DemoRecipe, read_toml(path), where=str(path))
    names = [policy.name for policy in plan.policies]
    seeds = plan.control_seeds
    if not names or len(set(names)) != len(names):
        raise InputError(f"{path}: policies={names}: at least one, each name once")
    if len(set(seeds)) != len(seeds):
        raise InputError(f"{path}: control_seeds={list(seeds)}: each seed once")
    controls = {
        control: name
        for name in names
        for seed in seeds  # the name of a run, and that of the row of all
        for control in (_control_name(name, seed, len(seeds)), _control_name(name, seed, 1))
    }
    for name in names:
        if name in controls:
            raise InputError(
                f"{path}: name={name!r}: the shuffled control of {controls[name]!r} has this name; "
                "choose another"
            )
        if Path(name).name != name or name in ("", "..") or "\0" in name:
            raise InputError(f"{path}: name={name!r}: the name of a folder, without a path")
    return plan


def _check_place(out: Path) -> None:
    """Refuse what is neither new, nor empty, nor an earlier demo alone, or what cannot be replaced,
    before anything is run. Raises InputError."""
    if out.is_symlink() or os.path.ismount(out) or Path.cwd().is_relative_to(out.resolve()):
        raise InputError(
            f"out={str(out)!r}: a link, a mount, or a folder that one is working in, which cannot "
            "be replaced; choose another folder"
        )
    if not out.exists():
        return
    if not (out.is_dir() and ((out / MARKER).is_file() or not any(out.iterdir()))):
        raise InputError(f"out={str(out)!r}: exists already and is no demo; choose another folder")
    if others := _others(out):
        raise InputError(
            f"out={str(out)!r}: holds {', '.join(others)} beside an earlier demo, which would be "
            "deleted; move what is yours, or choose another folder"
        )


def _others(out: Path) -> list[str]:
    """What lies in the folder of a demo, or beside its runs, and was not written by it."""
    runs = out / RUNS
    written = {out / name for name in (MARKER, RUNS, PAGE)} | {runs / it for it in _runs_of(out)}
    found = [*out.iterdir(), *(runs.iterdir() if runs.is_dir() else ())]
    return sorted(str(path.relative_to(out)) for path in found if path not in written)


def _runs_of(out: Path) -> set[str]:
    """The names of the runs that a demo noted in its folder; none if that cannot be read."""
    try:
        rows = json.loads((out / MARKER).read_bytes())["rows"]
        return {name for row in rows for name in row["runs"]}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _replace(out: Path, new: Path) -> None:
    """Put a folder in the place of an earlier one, which is deleted last: whatever stops this, one
    of the two is there, whole."""
    aside = new.with_name(f"{new.name}-earlier")
    try:
        if out.exists():
            os.rename(out, aside)
        os.rename(new, out)
    finally:
        if out.exists():
            shutil.rmtree(aside, ignore_errors=True)
        elif aside.exists():
            os.rename(aside, out)


def _run_all(
    plan: DemoRecipe, runs: Path, on_progress: Callable[[int, int, str], None] | None
) -> tuple[Row, ...]:
    """Run every policy, then the shuffled controls of those whose passes vary, row by row."""
    seeds = plan.control_seeds
    done, expected = 0, len(plan.policies)
    rows: list[Row] = []

    def run(name: str, policy: str | PolicyLike) -> None:
        nonlocal done

        def tell(progress: Progress) -> None:
            if on_progress is not None:
                share = progress.total * done + progress.rows
                on_progress(share, progress.total * expected, name)

        replay(
            plan.recording, plan.model, policy, runs / name, start=plan.start, stop=plan.stop,
            gap_seconds=plan.gap_seconds, max_passes=plan.max_passes, seed=plan.seed,
            on_progress=tell,
        )  # fmt: skip
        done += 1

    for entry in plan.policies:
        run(entry.name, entry.spec)
        rows.append(_row(entry.name, "", runs, (entry.name,)))
        trace = slept_windows(open_run(runs / entry.name).trace()).collect()
        if trace["passes"].n_unique() > 1 and seeds:
            expected += len(seeds)
            names = tuple(_control_name(entry.name, seed, len(seeds)) for seed in seeds)
            for name, seed in zip(names, seeds, strict=True):
                run(name, shuffled(trace, seed))
            rows.append(_row(f"{entry.name}-shuffled", entry.name, runs, names))
    return tuple(rows)


def _control_name(name: str, seed: int, seeds: int) -> str:
    return f"{name}-shuffled" if seeds == 1 else f"{name}-shuffled-{seed}"


def _row(name: str, control_of: str, runs: Path, names: tuple[str, ...]) -> Row:
    """One row out of one run, or out of the controls of one policy."""
    opened = [open_run(runs / run) for run in names]
    summaries = [run.summary for run in opened if run.summary is not None]
    losses = [summary.loss for summary in summaries if summary.loss is not None]
    if len(losses) != len(names):
        raise InputError(f"{names[0]}: nothing was predicted, so there is nothing to compare")
    planned = slept_windows(opened[0].trace()).select("passes").collect()["passes"]
    right = [_right(run.trace()) for run in opened]

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    return Row(
        name=name,
        policy=opened[0].manifest.policy,
        control_of=control_of,
        runs=names,
        losses=tuple(losses),
        constant=planned.n_unique() == 1,
        mean_passes=mean([summary.mean_passes for summary in summaries]),
        flops_per_event=mean([summary.flops_per_event for summary in summaries]),
        sleep_flops_per_event=mean([summary.sleep_flops_per_event for summary in summaries]),
        seconds=mean([summary.seconds for summary in summaries]),
        right=None if None in right else mean([share for share in right if share is not None]),
    )


def _right(trace: pl.LazyFrame) -> float | None:
    """Share of the windows of questions that are answered right throughout; None without any."""
    asked = trace.filter(pl.col("right").is_not_null() & (pl.col("scored") > 0))
    share: float | None = (
        asked.select((pl.col("right") == pl.col("scored")).mean()).collect().item()
    )
    return share


def table_columns(result: DemoResult) -> list[str]:
    """The heads of the table for a terminal."""
    return [*COLUMNS, *([RIGHT] if result.rows[0].right is not None else [])]


def table_rows(result: DemoResult) -> list[list[str]]:
    """The table for a terminal, in the columns of `table_columns`."""
    first = result.rows[0]
    return [
        [
            row.policy if not row.control_of else "  the same passes, shuffled over the windows",
            f"{row.loss:.5f}",
            "" if row is first else f"{row.relative_to(first):+.2%}",
            f"{row.mean_passes:.2f}",
            quantity(row.flops_per_event),
            f"{row.seconds:.1f} s",
            *([f"{row.right:.1%}"] if row.right is not None else []),
        ]
        for row in result.rows
    ]


def result_json(result: DemoResult) -> dict[str, Any]:
    """The result as one JSON object."""
    first = result.rows[0]
    rows = [
        msgspec.to_builtins(row) | {"loss": row.loss, "relative": row.relative_to(first)}
        for row in result.rows
    ]
    return {"rows": rows, "reading": list(result.reading), "report": str(result.report)}
