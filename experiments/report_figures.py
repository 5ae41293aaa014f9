"""The four figures of a report, as plotly figures.

They draw what report_data read; colours and sizes live here, the words in the template.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from adaptive_sleep.experiments.report_data import (
    SIGNALS,
    Curve,
    Phases,
    ReportRun,
    passes_by_phase,
    running_difference,
)

RUN_COLOURS = (
    "#4b5563", "#c2410c", "#1d6fb8", "#0f8a6d", "#8b3fa8", "#b8860b", "#d0357f", "#5b6ee1",
)  # fmt: skip
PASS_COLOURS = ("#e6eaef", "#a9c9e3", "#6aa3d0", "#2f77b4", "#16508a", "#0d3563", "#08213f")
PHASE_COLOURS = (
    "#f6d9c4", "#cfe3f4", "#d5ecd6", "#efe0f3", "#f8efc4", "#d3eeec", "#f4d4dd", "#e2e2e2",
)  # fmt: skip
TITLES = {
    "uncertainty": "uncertainty (predicted spread / scale)",
    "surprise": "surprise (mean loss of the window)",
    "state_change": "state change of the wake pass",
    "last_state_change": "state change of the last pass",
    "cache_pressure": "cache pressure (held / budget)",
    "event_density": "event density (relative to the stream's)",
    "gap": "gap before the window (s)",
    "budget_left": "budget left (0 to 1)",
}
LEAST_SPAN = 0.02  # of the loss: an axis that shows less makes nothing look like much
INK, GRID, FONT = "#1f2933", "#e5e9ee", "system-ui, -apple-system, 'Segoe UI', sans-serif"


def colour(index: int) -> str:
    """Return the colour of a run, by its place in the report."""
    return RUN_COLOURS[index % len(RUN_COLOURS)]


def pass_colour(passes: int) -> str:
    """Return the colour of a number of passes: the darker, the longer the sleep."""
    return PASS_COLOURS[min(max(passes, 1), len(PASS_COLOURS)) - 1]


def phase_colour(index: int) -> str:
    """Return the colour of a phase, by its place among the phases."""
    return PHASE_COLOURS[index % len(PHASE_COLOURS)]


def time_figure(
    runs: Sequence[ReportRun], curves: Sequence[Curve], phases: Phases | None
) -> go.Figure:
    """Loss over time; the running difference to the first run; the passes of every run below."""
    differences = [running_difference(run, runs[0]) for run in runs[1:]]
    compared = any(difference is not None for difference in differences)
    strips = 38 * len(runs) + 12
    heights = [250, *([150] if compared else []), strips]
    titles = ["Loss", *(["Mean loss so far, against " + escape(runs[0].name)] if compared else [])]
    figure = make_subplots(
        rows=len(heights), cols=1, shared_xaxes=True, row_heights=heights,
        vertical_spacing=46 / (sum(heights) + 90), subplot_titles=[*titles, "Passes"],
    )  # fmt: skip
    for index, (run, line) in enumerate(zip(runs, curves, strict=True)):
        _line(figure, _moments(line.time), line.values["loss"], index, run.name, row=1)
    for index, difference in enumerate(differences, start=1):
        if difference is not None:
            time, values = difference
            share = values / abs(runs[0].summary.loss or 1.0)
            name = runs[index].name
            _line(figure, _moments(time), share, index, name, row=2, hover="%{y:+.3%}")
    if compared:
        figure.add_hline(y=0, line={"color": colour(0), "width": 1.5}, row=2, col=1)
        figure.update_yaxes(tickformat="+.2~%", row=2, col=1)
    for index, (run, line) in enumerate(zip(runs, curves, strict=True)):
        _strip(figure, run, line, index, row=len(heights))
    axis = {"range": [len(runs) - 0.6, -0.9], "visible": False, "fixedrange": True}
    figure.update_yaxes(axis, row=len(heights), col=1)
    style(figure, height=sum(heights) + 90)
    if phases is not None:
        _shade(figure, phases, rows=len(heights) - 1)
    return figure


def _line(
    figure: go.Figure, x: NDArray[Any], y: NDArray[np.float64], index: int, name: str, *,
    row: int, col: int = 1, hover: str = "%{y:.4g}",
) -> None:  # fmt: skip
    figure.add_trace(
        go.Scatter(
            x=x, y=y, name=name, mode="lines", meta=index, connectgaps=False,
            line={"color": colour(index), "width": 1.6},
            hovertemplate=f"{hover}<extra>{escape(name)}</extra>",
        ),
        row=row, col=col,
    )  # fmt: skip


def _strip(figure: go.Figure, run: ReportRun, line: Curve, index: int, *, row: int) -> None:
    """Draw one run's passes as a coloured strip with its name above it."""
    edges, passes = _edges(line)
    figure.add_trace(
        go.Heatmap(
            x=_moments(edges), y=[index - 0.22, index + 0.26], z=[passes], meta=index,
            name=run.name, colorscale=_pass_scale(), zmin=1, zmax=len(PASS_COLOURS),
            showscale=False,
            hovertemplate=f"%{{z:.3g}} passes<extra>{escape(run.name)}</extra>",
        ),
        row=row, col=1,
    )  # fmt: skip
    axis = "" if row == 1 else str(row)
    figure.add_annotation(
        text=escape(run.name), x=0, xref=f"x{axis} domain", y=index - 0.2, yref=f"y{axis}",
        xanchor="left", yanchor="bottom", showarrow=False,
        font={"size": 11, "color": colour(index)},
    )  # fmt: skip


def _edges(line: Curve) -> tuple[NDArray[np.int64], list[float | None]]:
    """Edges [n+1] and passes [n] of a strip, with empty cells where nothing was recorded."""
    usual = float(np.median(np.maximum(line.end - line.time, 1)))
    edges: list[int] = [int(line.time[0])]
    passes: list[float | None] = []
    for begin, end, count in zip(line.time, line.end, line.values["passes"], strict=True):
        if begin - edges[-1] > usual:
            edges.append(int(begin))
            passes.append(None)
        elif passes:
            edges[-1] = max(int(begin), edges[-2] + 1)
        edges.append(max(int(end), edges[-1] + 1))
        passes.append(None if np.isnan(count) else float(count))
    return np.asarray(edges, dtype=np.int64), passes


def _shade(figure: go.Figure, phases: Phases, *, rows: int) -> None:
    """Shade the phases behind the curves."""
    order = {name: index for index, name in enumerate(phases.names)}
    shapes = []
    for row in range(1, rows + 1):
        axis = "" if row == 1 else str(row)
        for begin, end, name in phases.segments:
            fill = {"fillcolor": phase_colour(order[name]), "opacity": 0.75, "line": {"width": 0}}
            across = {"x0": _moment(begin), "x1": _moment(end), "xref": f"x{axis}"}
            along = {"y0": 0, "y1": 1, "yref": f"y{axis} domain"}
            shapes.append({"type": "rect", "layer": "below", **fill, **across, **along})
    # All at once: plotly copies all shapes for each one that is added.
    figure.layout.shapes = [*figure.layout.shapes, *shapes]


def tradeoff_figure(runs: Sequence[ReportRun]) -> go.Figure:
    """Loss against FLOPs per event, one mark a run."""
    figure = go.Figure()
    fixed = sorted(
        (run.summary.flops_per_event, run.summary.loss)
        for run in runs
        if run.summary.loss is not None and run.planned.n_unique() <= 1
    )
    figure.add_trace(
        go.Scatter(
            x=[cost for cost, _ in fixed], y=[loss for _, loss in fixed], mode="lines",
            line={"color": "#9aa5b1", "width": 1.5, "dash": "dot"}, hoverinfo="skip",
        )
    )  # fmt: skip
    places = _text_places([run.summary.flops_per_event for run in runs])
    for index, run in enumerate(runs):
        figure.add_trace(
            go.Scatter(
                x=[run.summary.flops_per_event], y=[run.summary.loss], mode="markers+text",
                text=[escape(run.name)], textposition=places[index], name=run.name, meta=index,
                textfont={"size": 11, "color": colour(index)}, cliponaxis=False,
                marker={"size": 11, "color": colour(index), "line": {"width": 1, "color": "#fff"}},
                hovertemplate=f"loss %{{y:.5g}}<br>%{{x:.4s}} FLOPs per event"
                f"<extra>{escape(run.name)}</extra>",
            )
        )  # fmt: skip
    style(figure, height=420)
    costs = [run.summary.flops_per_event for run in runs]
    room = 0.1 * (max(costs) - min(costs)) or 0.2 * max(costs) or 1.0
    figure.update_xaxes(
        title="FLOPs per event, wake and sleep", range=[min(costs) - room, max(costs) + room]
    )
    losses = [run.summary.loss for run in runs if run.summary.loss is not None]
    if losses:
        middle = (max(losses) + min(losses)) / 2
        reach = max(0.6 * (max(losses) - min(losses)), LEAST_SPAN * abs(middle) / 2, 1e-9)
        figure.update_yaxes(range=[middle - reach, middle + reach])
    figure.update_yaxes(title="mean loss")
    figure.update_layout(hovermode="closest", margin={"l": 62, "b": 52, "t": 30, "r": 16})
    return figure


def _text_places(costs: Sequence[float]) -> list[str]:
    """Where each name stands: towards the middle of the figure, above and below in turn."""
    low, high = min(costs), max(costs)
    places = [""] * len(costs)
    for turn, index in enumerate(sorted(range(len(costs)), key=lambda i: costs[i])):
        share = (costs[index] - low) / (high - low) if high > low else 0.5
        side = "right" if share < 0.3 else "left" if share > 0.7 else "center"
        places[index] = f"{('top', 'bottom')[turn % 2]} {side}"
    return places


def drawn_signals(curves: Sequence[Curve]) -> tuple[list[str], dict[str, float]]:
    """Split the signals into those that vary, and those that do not, with their value."""
    varying, constant = [], {}
    for name in SIGNALS:
        present = [line.values[name] for line in curves if name in line.values]
        if not present:
            continue
        values = np.concatenate(present)
        values = values[np.isfinite(values)]
        if len(values) and np.ptp(values) > 1e-9 * max(1.0, float(np.abs(values).max())):
            varying.append(name)
        elif len(values):
            constant[name] = float(values[0])
    return varying, constant


def signals_figure(
    runs: Sequence[ReportRun], curves: Sequence[Curve], phases: Phases | None
) -> go.Figure | None:
    """Every signal that varies, over time, or None if none does."""
    names, _ = drawn_signals(curves)
    if not names:
        return None
    height = 160 * len(names) + 60
    figure = make_subplots(
        rows=len(names), cols=1, shared_xaxes=True, vertical_spacing=34 / height,
        subplot_titles=[TITLES[name] for name in names],
    )  # fmt: skip
    for row, name in enumerate(names, start=1):
        for index, (run, line) in enumerate(zip(runs, curves, strict=True)):
            if name in line.values:
                _line(figure, _moments(line.time), line.values[name], index, run.name, row=row)
    style(figure, height=height)
    if phases is not None:
        _shade(figure, phases, rows=len(names))
    return figure


def phase_figure(runs: Sequence[ReportRun], phases: Phases) -> go.Figure | None:
    """For every run whose passes vary: how its windows of each phase divide by passes."""
    varying = [run for run in runs if run.planned.n_unique() > 1]
    if not varying:
        return None
    height = (34 * len(phases.names) + 60) * len(varying) + 40
    figure = make_subplots(
        rows=len(varying), cols=1, shared_xaxes=True, vertical_spacing=40 / height,
        subplot_titles=[escape(run.name) for run in varying],
    )  # fmt: skip
    order = list(reversed(phases.names))
    shown = [escape(phase) for phase in order]
    for row, run in enumerate(varying, start=1):
        counts = passes_by_phase(run, phases)
        totals = dict(counts.group_by("phase").sum().select("phase", "windows").iter_rows())
        for (passes,), part in counts.partition_by("passes", as_dict=True).items():
            windows = dict(part.select("phase", "windows").iter_rows())
            shares = [windows.get(p, 0) / totals[p] if p in totals else 0.0 for p in order]
            counted = [f"{windows.get(p, 0)} of {totals.get(p, 0)} windows" for p in order]
            figure.add_trace(
                go.Bar(
                    y=shown, x=shares, customdata=counted, orientation="h", name=f"{passes}",
                    marker={"color": pass_colour(int(passes)), "line": {"width": 0}},
                    hovertemplate=f"%{{y}}, {passes} passes: %{{customdata}}<extra></extra>",
                ),
                row=row, col=1,
            )  # fmt: skip
    style(figure, height=height)
    figure.update_xaxes(range=[0, 1], tickformat=".0%")
    figure.update_yaxes(automargin=True)
    figure.update_layout(barmode="stack", bargap=0.3, hovermode="closest")
    return figure


def style(figure: go.Figure, *, height: int) -> None:
    """Give a figure its height in pixels and the looks that all figures share."""
    figure.update_layout(
        height=height, showlegend=False, paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)", font={"family": FONT, "size": 12, "color": INK},
        margin={"l": 48, "r": 12, "t": 34, "b": 50}, hovermode="x unified", dragmode="zoom",
        hoverlabel={"bgcolor": "#ffffff", "bordercolor": GRID, "font": {"size": 12}},
    )  # fmt: skip
    figure.update_xaxes(
        gridcolor=GRID, zeroline=False, linecolor="#b8c0ca", ticks="outside", nticks=6,
        tickcolor="#b8c0ca",
    )  # fmt: skip
    figure.update_yaxes(gridcolor=GRID, zeroline=False, nticks=6, exponentformat="none")
    for title in figure.layout.annotations:
        if title.xref == "paper":  # the titles that make_subplots wrote
            title.update(x=0, xanchor="left", font={"size": 12.5, "color": "#52606d"})


def _pass_scale() -> list[tuple[float, str]]:
    last = len(PASS_COLOURS) - 1
    return [(index / last, shade) for index, shade in enumerate(PASS_COLOURS)]


def _moments(nanoseconds: NDArray[np.int64]) -> NDArray[Any]:
    return nanoseconds.astype("datetime64[ns]").astype("datetime64[ms]")


def _moment(nanoseconds: int) -> str:
    return str(np.datetime64(nanoseconds, "ns").astype("datetime64[ms]"))


def escape(text: str) -> str:
    """Keep plotly from reading a name as mark-up."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
