"""The demo: one recording under several policies, their shuffled controls, a table and a report.

What is run stands in recipes/demo.toml; what the figures mean is in reading.py.
"""

from __future__ import annotations

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

MARKER = "demo.json"
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
    done; nothing is left there if it fails or is interrupted. Raises InputError for a folder that
    holds something else, and for a recipe that is wrong.
    """
    out = Path(out)
    plan = _read_recipe(find_recipe(recipe))
    if out.exists() and not _replaceable(out):
        raise InputError(f"out={str(out)!r}: exists already and is no demo; choose another folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}-"))
    try:
        work.chmod(0o755)
        with one_thread():
            rows = _run_all(plan, work / "runs", on_progress)
        said = tuple(read_rows(rows))
        folders = [work / "runs" / name for row in rows for name in row.runs]
        write_report(folders, work / "report.html", title=_title(plan), reading=said)
        result = DemoResult(rows, said, out / "report.html")
        (work / MARKER).write_bytes(msgspec.json.format(msgspec.json.encode(result_json(result))))
        if out.exists():
            shutil.rmtree(out)
        os.rename(work, out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return result


def _title(plan: DemoRecipe) -> str:
    name = plan.recording.removeprefix("bundled:")
    return f"Does sleeping longer help on {Path(name).name}?"


def _read_recipe(path: Path) -> DemoRecipe:
    plan = decode(DemoRecipe, read_toml(path), where=str(path))
    names = [policy.name for policy in plan.policies]
    if not names or len(set(names)) != len(names):
        raise InputError(f"{path}: policies={names}: at least one, each name once")
    return plan


def _replaceable(out: Path) -> bool:
    return out.is_dir() and ((out / MARKER).is_file() or not any(out.iterdir()))


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
