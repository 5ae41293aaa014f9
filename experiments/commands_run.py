"""`adaptive-sleep replay`, `counterfactual` and `run`: drive the runtime, from a recording or live.

The work is done in replay.py, counterfactual.py and live.py; here are the options and the result.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from adaptive_sleep.experiments.console import (
    note,
    print_encoded,
    print_facts,
    print_json,
    progress,
    told_when_unread,
)
from adaptive_sleep.streams.errors import InputError, nearest

if TYPE_CHECKING:
    from adaptive_sleep.experiments.counterfactual import Counterfactuals
    from adaptive_sleep.experiments.runs import RunSummary

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Model = Annotated[str, typer.Option(help="The model: a .safetensors file or bundled:NAME.")]
Policy = Annotated[str, typer.Option(help="The policy, as a spec.")]
Window = Annotated[int | None, typer.Option(help="Events per window [default: the model's].")]
Gap = Annotated[float | None, typer.Option(help="Close a window at a gap of so many seconds.")]
Eviction = Annotated[str, typer.Option(help="hard, sliding; with --keep: heaviest, retrieve.")]
Boundary = Annotated[str, typer.Option("--eviction", help="hard or sliding.")]
KvBudget = Annotated[int | None, typer.Option(help="Most events held, over all streams.")]
Budget = Annotated[float | None, typer.Option(help="Sleep FLOPs per event, per stream.")]
Keep = Annotated[
    int | None, typer.Option(help="Events whose keys and values outlive a boundary.", min=1)
]
Burst = Annotated[float, typer.Option(help="Windows' worth of budget that may be saved up.")]
MaxPasses = Annotated[int, typer.Option(help="Most passes over one window.")]
Seed = Annotated[int, typer.Option(help="The seed of the run.")]
Start = Annotated[float, typer.Option(help="Where to begin, a fraction of the rows.")]
Stop = Annotated[float, typer.Option(help="Where to end, a fraction of the rows.")]


def _boundary(eviction: str) -> str:
    """What a boundary may drop where no --keep is taken. Raises InputError."""
    known = ("hard", "sliding")
    if eviction not in known:
        raise InputError(f"--eviction {eviction!r}: hard or sliding{nearest(eviction, known)}")
    return eviction


def replay(
    recording: Annotated[str, typer.Argument(help="The recording: a path or bundled:NAME.")],
    model: Model,
    out: Annotated[Path, typer.Option(help="The folder of the run to write.")],
    policy: Policy = "fixed(1)",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    speed: Annotated[str, typer.Option(help="max, or a factor of real time.")] = "max",
    predictions: Annotated[
        Path | None, typer.Option(help="Also write every prediction to this .parquet or .csv file.")
    ] = None,
    window: Window = None,
    gap: Gap = None,
    eviction: Eviction = "hard",
    keep: Keep = None,
    kv_budget: KvBudget = None,
    budget: Budget = None,
    burst: Burst = 4.0,
    max_passes: MaxPasses = 8,
    seed: Seed = 0,
    start: Start = 0.0,
    stop: Stop = 1.0,
    as_json: Json = False,
) -> None:
    """Run a recording through a model and a policy; write a trace and print its summary.

    A run that was interrupted or killed goes on with --resume and ends in the same trace.
    """
    _check_fractions(start, stop)
    pace = _speed(speed)
    from adaptive_sleep.experiments.replay import replay as run_replay

    try:
        with progress("replaying") as advance:
            summary = run_replay(
                recording, model, policy, out, resume=resume, start=start, stop=stop, window=window,
                gap_seconds=gap, eviction=eviction, keep=keep, kv_budget=kv_budget, budget=budget,
                burst=burst, max_passes=max_passes, seed=seed, speed=pace, predictions=predictions,
                on_progress=lambda at: advance(at.rows, at.total, f"{at.windows:,} windows"),
            )  # fmt: skip
    except KeyboardInterrupt:
        if (out / "run.json").is_file():
            note(f"{out}: what was committed is kept; the same command with --resume goes on")
        raise
    _say(summary, as_json)


def counterfactual(
    recording: Annotated[str, typer.Argument(help="The recording: a path or bundled:NAME.")],
    model: Model,
    out: Annotated[Path, typer.Option(help="The folder to write: run, table and facts.")],
    policy: Policy = "fixed(1)",
    most: Annotated[int, typer.Option(help="Most passes to try at a window.")] = 4,
    horizon: Annotated[int, typer.Option(help="Scored windows that a fork reads on for.")] = 1,
    tolerance: Annotated[
        float, typer.Option(help="Loss above the best that the oracle takes for fewer passes.")
    ] = 0.01,
    window: Window = None,
    gap: Gap = None,
    eviction: Boundary = "hard",
    budget: Budget = None,
    burst: Burst = 4.0,
    max_passes: MaxPasses = 8,
    seed: Seed = 0,
    start: Start = 0.0,
    stop: Stop = 1.0,
    as_json: Json = False,
) -> None:
    """Replay, and ask at every window what 1, 2, ... passes would have cost and saved.

    The run is what replay makes, to the byte. Beside it lies table.parquet, a row for each window
    and number of passes. Printed: the oracle's passes, and what the policy lost against them.
    """
    _check_fractions(start, stop)
    if not tolerance >= 0.0:
        raise InputError(f"--tolerance {tolerance}: a loss from 0 on")
    from adaptive_sleep.experiments.counterfactual import counterfactuals

    with progress("replaying with forks") as advance:
        found = counterfactuals(
            recording, model, policy, out, most=most, horizon=horizon, start=start, stop=stop,
            window=window, gap_seconds=gap, eviction=_boundary(eviction), budget=budget,
            burst=burst, max_passes=max_passes, seed=seed,
            on_progress=lambda at: advance(at.rows, at.total, f"{at.windows:,} windows"),
        )  # fmt: skip
    told = _told(found, out, tolerance)
    if as_json:
        print_json(told)
        return
    print_facts({name.replace("_", " "): _shown(value) for name, value in told.items()})


def _told(found: Counterfactuals, out: Path, tolerance: float) -> dict[str, Any]:
    """The figures of a counterfactual replay; the oracle's only where a window is finished."""
    import polars as pl

    from adaptive_sleep.experiments.counterfactual import RUN, TABLE
    from adaptive_sleep.experiments.oracle import oracle, regret

    table = found.table
    by_passes = table.group_by("passes").agg(pl.col("loss").mean()).sort("passes")
    told: dict[str, Any] = {
        "windows": table.select("stream", "window").n_unique(),
        "unfinished": found.unfinished,
        "loss_by_passes": by_passes["loss"].to_list(),
        "drift": found.drift,
        "forked_flops": found.forked_flops,
        "table": str(out / TABLE),
        "trace_sha256": found.trace_sha256,
    }
    of_oracle = ("oracle_passes", "oracle_loss", "optimistic", "left_out")
    told |= dict.fromkeys((*of_oracle, "regret", "extra_passes", "all_right_lost"))
    if not len(table):
        return told
    halves = table["asked"].null_count() == 0
    best = oracle(table, tolerance=tolerance, halves=halves)
    if not len(best.passes):
        return told
    told |= {"oracle_passes": best.mean_passes, "oracle_loss": best.loss}
    told |= {"optimistic": best.optimistic, "left_out": best.left_out}
    if table["chosen"].max() <= table["passes"].max():  # type: ignore[operator]  # both are numbers
        lost = regret(table, out / RUN, tolerance=tolerance, halves=halves)
        told |= {"regret": lost.loss, "extra_passes": lost.extra_passes}
        told |= {"all_right_lost": lost.all_right}
    return told


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_shown(one) for one in value)
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _check_fractions(start: float, stop: float) -> None:
    for name, value in (("--start", start), ("--stop", stop)):
        if not 0.0 <= value <= 1.0:
            raise InputError(f"{name} {value}: a fraction of the recording, from 0 to 1")


def _speed(text: str) -> Any:
    """Return "max" or a factor above 0."""
    if text == "max":
        return text
    try:
        factor = float(text)
    except ValueError:
        factor = 0.0
    if not 0.0 < factor < float("inf"):
        raise InputError(f"--speed {text!r}: write max, or a factor of real time above 0 such as 1")
    return factor


def _say(summary: RunSummary, as_json: bool) -> None:
    if as_json:
        print_json(msgspec.to_builtins(summary))
        return
    print_facts(_facts(summary))


def _facts(summary: RunSummary) -> dict[str, str]:
    """The figures of a run for a person."""
    return {
        "loss": "nothing was predicted" if summary.loss is None else f"{summary.loss:.6g}",
        "mean passes": f"{summary.mean_passes:.3f}",
        "events": f"{summary.events:,}",
        "windows": f"{summary.windows:,}",
        "FLOPs per event": f"{summary.flops_per_event:,.0f}",
        "of them sleep": f"{summary.sleep_flops_per_event:,.0f}",
        "seconds": f"{summary.seconds:.2f}",
        "wake p50, p99": f"{1e3 * summary.wake_p50:.2f} ms, {1e3 * summary.wake_p99:.2f} ms",
        "longest stall": f"{1e3 * summary.longest_stall:.2f} ms",
        "trace": summary.trace,
        "trace sha256": summary.trace_sha256,
    }


def run(
    source: Annotated[str, typer.Argument(help="host (this machine), or - (NDJSON on stdin).")],
    model: Model,
    policy: Policy = "fixed(1)",
    record: Annotated[
        Path | None, typer.Option(help="Also keep the events in this new recording.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Also keep the run in this new folder.")] = None,
    horizon: Annotated[int, typer.Option(min=1, help="Events that a forecast reaches ahead.")] = 8,
    every: Annotated[
        bool, typer.Option("--every", help="Forecast after each event, not at boundaries only.")
    ] = False,
    seconds: Annotated[float | None, typer.Option(help="Stop after so many seconds.")] = None,
    hz: Annotated[float, typer.Option(help="Samples per second of host.")] = 4.0,
    window: Window = None,
    gap: Gap = None,
    eviction: Boundary = "hard",
    kv_budget: KvBudget = None,
    budget: Budget = None,
    burst: Burst = 4.0,
    max_passes: MaxPasses = 8,
    seed: Seed = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary as one JSON object, no forecasts.")
    ] = False,
) -> None:
    """Run live: forecasts as NDJSON on stdout, the summary on stderr. Ctrl-C, or SIGTERM, ends it
    well.

    On stdin, one event a line: {"stream": "a", "time": "2026-01-31T12:00:00Z", "values":
    {"channel": 1.5}}, or in place of values "token": 17, or "category": "login" where the model was
    trained on an event log; time may also be ns since 1970.
    When events come faster than the model works, sleep is skipped and that is said.
    """
    if source not in ("host", "-"):
        raise InputError(f"SOURCE {source!r}: write host, or - for NDJSON on stdin")
    from adaptive_sleep.experiments.live import run_live

    def emit(forecast: dict[str, Any]) -> None:
        print_encoded(msgspec.json.encode(forecast).decode())

    with told_when_unread(), progress("live") as advance:
        live = run_live(
            source, model, policy, emit=None if as_json else emit, out=out, record=record,
            horizon=horizon, every=every, window=window, gap_seconds=gap,
            eviction=_boundary(eviction), kv_budget=kv_budget, budget=budget, burst=burst,
            max_passes=max_passes, seed=seed, seconds=seconds, hz=hz,
            on_progress=lambda events, windows: advance(0, None, f"{events:,} events"),
        )  # fmt: skip
    if as_json:
        print_json(msgspec.json.decode(live.to_json()))
        return
    lines = {
        **_facts(live.run),
        "overloads": f"{live.overloads} ({live.windows_unslept} windows went without sleep)",
        "largest backlog": f"{live.largest_backlog:,} events",
        "recording": live.recording,
    }
    for name, value in lines.items():
        if value:
            note(f"{name}: {value}")


def add_to(parent: typer.Typer) -> None:
    """Add the commands to the application."""
    parent.command(
        epilog="Example: adaptive-sleep replay bundled:telemetry --model bundled:telemetry "
        "--policy 'surprise(threshold=0.3)' --out run-a"
    )(replay)
    parent.command(
        epilog="Example: adaptive-sleep counterfactual bundled:chain --model bundled:chain "
        "--gap 0.5 --policy 'state_change(tolerance=0.45, max_passes=4)' --most 4 --out what-if"
    )(counterfactual)
    parent.command(
        epilog="Example: adaptive-sleep run host --model bundled:telemetry --policy 'fixed(2)'"
    )(run)
