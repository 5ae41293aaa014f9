"""One self-contained HTML page about one or more runs.

Numbers come from report_data, drawings from report_figures; this file puts them on the page. What
it shares with other pages is in report_page; which page the command makes, in report_given.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptive_sleep.experiments.report_data import (
    Curve,
    Phases,
    ReportRun,
    comparable,
    curve,
    read_phases,
    read_runs,
    shared_facts,
)
from adaptive_sleep.experiments.report_page import Cell, Table, file_to_write, make_page, save_page

if TYPE_CHECKING:
    import plotly.graph_objects as go

COLUMNS = (
    ("run", "The folder of the run"),
    ("loss", "Mean loss per prediction"),
    ("against the first", "Difference of the loss to the first run's"),
    ("mean passes", "Passes per window; 1 is no sleep"),
    ("sleep FLOPs per event", "FLOPs of the sleep passes per event"),
    ("FLOPs per event", "All FLOPs per event, by the ledger"),
    ("wall time", "Seconds of the whole run on the machine that ran it"),
    ("wake p99", "99th percentile of the wake time of a step"),
    ("longest stall", "Longest sleep in one step"),
    ("policy", "The spec string of the policy"),
)


def write_report(
    runs: Sequence[Path], out: Path, *, title: str = "", reading: Sequence[str] = ()
) -> Path:
    """Write one HTML file that shows `runs` and asks no network for anything; return its path.

    The first run is the one that others are compared with. `reading` are sentences for the top.
    Raises InputError for no runs, a folder that is no finished run, or an `out` that is a folder.
    """
    out = file_to_write(out)
    shown = read_runs([Path(run) for run in runs])
    return save_page(render(shown, title=title, reading=reading), out)


def render(runs: Sequence[ReportRun], *, title: str = "", reading: Sequence[str] = ()) -> str:
    """Return the page as text."""
    from adaptive_sleep.experiments import report_figures as draw

    curves = [curve(run) for run in runs]
    alike = comparable(runs)
    phases, phases_missing = read_phases(runs[0]) if alike else (None, "")
    most = max((int(run.trace["passes"].max() or 1) for run in runs), default=1)  # type: ignore[arg-type]
    colours = [draw.colour(index) for index in range(len(runs))]
    cells = [_cells(run, runs[0], alike) for run in runs]
    return make_page(
        "report.html.j2",
        title=title or ("A replay" if len(runs) == 1 else f"{len(runs)} replays"),
        figures=_figures(runs, curves, phases),
        reading=list(reading),
        runs=runs,
        table=Table("runs", COLUMNS, cells, colours, spec=True),
        groups=[(index, run.name, colours[index]) for index, run in enumerate(runs)],
        alike=alike,
        phases=phases,
        phases_missing=phases_missing,
        thinned=any(line.thinned for line in curves),
        constant=draw.drawn_signals(curves)[1],
        pass_colours=[(n, draw.pass_colour(n)) for n in range(1, min(most, 7) + 1)],
        phase_colours=[]
        if phases is None
        else [(name, draw.phase_colour(i)) for i, name in enumerate(phases.names)],
        **_settings(runs),
    )


def _figures(
    runs: Sequence[ReportRun], curves: Sequence[Curve], phases: Phases | None
) -> dict[str, go.Figure]:
    """The figures, each under the id of its place in the template."""
    from adaptive_sleep.experiments import report_figures as draw

    found = {
        "time": draw.time_figure(runs, curves, phases),
        "tradeoff": draw.tradeoff_figure(runs),
        "by_phase": draw.phase_figure(runs, phases) if phases is not None else None,
        "signals": draw.signals_figure(runs, curves, phases),
    }
    return {name: figure for name, figure in found.items() if figure is not None}


def _settings(runs: Sequence[ReportRun]) -> dict[str, Any]:
    shared = shared_facts(runs)
    events = runs[0].summary.events
    lead = {
        "recording": _named(shared, "recording.path", "recording.sha256"),
        "model": _named(shared, "model.path", "model.hash"),
        "events": f"{events:,}" if all(r.summary.events == events for r in runs) else "several",
        "seed": shared.get("seed", "several"),
        "version": shared.get("versions.adaptive-sleep", "several"),
    }
    own = [(run.name, run.own(shared) | {"trace_sha256": run.summary.trace_sha256}) for run in runs]
    return {"lead": lead, "shared": shared, "own": own}


def _named(facts: dict[str, str], path: str, digest: str) -> str:
    """What a thing is called, and the beginning of its hash."""
    if digest not in facts:
        return "several"
    return f"{facts.get(path, 'unnamed')} ({shortened(facts[digest])})"


def shortened(text: str) -> str:
    """Cut hashes to their beginning, which is enough for the eye.

    >>> shortened("sha256='" + "0123456789abcdef" * 4 + "'")
    "sha256='0123456789ab...'"
    """
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{52}\b", r"\1...", text)


def _cells(run: ReportRun, first: ReportRun, alike: bool) -> list[Cell]:
    summary = run.summary
    loss, reference = summary.loss, first.summary.loss
    difference = Cell("", 0.0 if run is first else None)
    if alike and run is not first and loss is not None and reference:
        relative = (loss - reference) / abs(reference)
        difference = Cell(f"{relative:+.2%}", relative)
    return [
        Cell(run.name),
        Cell("none" if loss is None else f"{loss:#.5g}", loss),
        difference,
        Cell(f"{summary.mean_passes:.2f}", summary.mean_passes),
        Cell(quantity(summary.sleep_flops_per_event), summary.sleep_flops_per_event),
        Cell(quantity(summary.flops_per_event), summary.flops_per_event),
        Cell(f"{summary.seconds:.1f} s", summary.seconds),
        Cell(f"{1e3 * summary.wake_p99:.1f} ms", summary.wake_p99),
        Cell(f"{1e3 * summary.longest_stall:.1f} ms", summary.longest_stall),
        Cell(shortened(run.policy)),
    ]


def quantity(value: float) -> str:
    """A count with three figures and a unit: 1.23 M.

    >>> quantity(1234567.0), quantity(0.0), quantity(950.0)
    ('1.23 M', '0', '950')
    """
    if value == 0:
        return "0"
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= 0.9995 * size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}"
