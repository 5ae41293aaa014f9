"""The figures of a page about a comparison, as plotly figures.

They draw what report_comparison_data and report_passes read; the words are in the template.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go
import polars as pl
from plotly.subplots import make_subplots

from adaptive_sleep.experiments.matched_table import COMPUTE
from adaptive_sleep.experiments.report_comparison_data import Result, Row, best_rows
from adaptive_sleep.experiments.report_comparison_looks import (
    DARK,
    FRONT,
    SYMBOLS,
    colours_of,
    ends_of,
    error_bar,
    group_of,
    labels_of,
    score_range,
    score_title,
)
from adaptive_sleep.experiments.report_figures import escape, style
from adaptive_sleep.experiments.report_passes import drawn_streams

STREAM_TITLES = {"test": "The test streams", "switch": "Streams whose mix switches half-way"}


def tradeoff_figure(result: Result) -> go.Figure:
    """Score against FLOPs per event: every row with its interval, every seed, and the front."""
    rows, colours = result.rows, colours_of(result.rows)
    best = best_rows(rows)
    figure = go.Figure()
    fixed = [row for row in rows if row.kind == "fixed"]
    for line, look in (
        (fixed, {"color": "#9aa5b1", "dash": "dot"}),
        (best, {"color": FRONT, "shape": "hv"}),
    ):
        figure.add_trace(
            go.Scatter(
                x=[row.flops_per_event for row in line], y=[row.score for row in line],
                mode="lines", hoverinfo="skip", line={"width": 1.5, **look},
            )
        )  # fmt: skip
    places = labels_of(rows, best)
    for row in rows:
        _seeds(figure, row, colours[row.name])
        _mark(figure, row, colours[row.name], places.get(row.name, ""))
    style(figure, height=460)
    figure.update_xaxes(title="FLOPs per event, all phases", exponentformat="SI")
    figure.update_yaxes(title=score_title(result), automargin=True, range=score_range(rows))
    figure.update_layout(hovermode="closest", margin={"l": 62, "b": 52, "t": 30, "r": 16})
    return figure


def _mark(figure: go.Figure, row: Row, colour: str, place: str) -> None:
    shown = f"score %{{y:.5g}}{ends_of(row)}<br>%{{x:.4s}} FLOPs per event<br>"
    figure.add_trace(
        go.Scatter(
            x=[row.flops_per_event], y=[row.score], meta=group_of(row.kind), name=row.name,
            mode="markers+text" if place else "markers", text=[escape(row.name)],
            textposition=place or None, textfont={"size": 11, "color": colour}, cliponaxis=False,
            error_y=error_bar(row, colour),
            marker={
                "size": 10, "color": colour, "symbol": SYMBOLS.get(row.kind, "x"),
                "line": {"width": 1.2 if "open" in SYMBOLS.get(row.kind, "") else 0},
            },
            hovertemplate=f"{shown}{row.mean_passes:.2f} passes<extra>{escape(row.name)}</extra>",
        )
    )  # fmt: skip


def _seeds(figure: go.Figure, row: Row, colour: str) -> None:
    """A faint dot for every trained seed."""
    held = [it for it in row.seeds_values.items() if {"score", "flops_per_event"} <= set(it[1])]
    if len(held) < 2:
        return
    figure.add_trace(
        go.Scatter(
            x=[values["flops_per_event"] for _, values in held],
            y=[values["score"] for _, values in held],
            text=[f"seed {seed}" for seed, _ in held], meta=group_of(row.kind), name=row.name,
            mode="markers", marker={"size": 4, "color": colour, "opacity": 0.4},
            hovertemplate=f"%{{text}}: %{{y:.5g}}<extra>{escape(row.name)}</extra>",
        )
    )  # fmt: skip


def matched_figure(result: Result) -> go.Figure:
    """For each target the scores of policies and baselines, as bars with intervals."""
    colours = colours_of(result.rows)
    targets = list(dict.fromkeys(row.target for row in result.matched))
    parts = [[row for row in result.matched if row.target == target] for target in targets]
    heights = [26 * len(part) + 14 for part in parts]
    whole = sum(heights) + 50 * len(parts) + 50
    figure = make_subplots(
        rows=len(parts), cols=1, shared_xaxes=True, row_heights=heights,
        vertical_spacing=0 if len(parts) < 2 else 50 / whole,
        subplot_titles=[f"at {target:g} times" for target in targets],
    )  # fmt: skip
    for at, part in enumerate(parts, start=1):
        for row in sorted(part, key=lambda row: row.score):
            figure.add_trace(_bar(row, colours[row.name]), row=at, col=1)
    style(figure, height=whole)
    figure.update_layout(hovermode="closest", bargap=0.25, margin={"l": 10, "b": 52})
    figure.update_yaxes(automargin=True, type="category", nticks=None, dtick=1, gridcolor="#ffffff")
    figure.update_xaxes(title=score_title(result), row=len(parts), col=1)
    return figure


def _bar(row: Row, colour: str) -> go.Bar:
    error = error_bar(row, DARK)
    knob = "" if row.knob is None else f"<br>knob {row.knob:g}"
    bytes_held = "" if row.resident_bytes is None else f"<br>{row.resident_bytes:,.0f} bytes held"
    return go.Bar(
        x=[row.score], y=[escape(row.base)], orientation="h", meta=group_of(row.kind),
        name=row.name, error_x=error,
        marker={
            "color": colour, "line": {"width": 0},
            "pattern": {"shape": "/" if COMPUTE in row.base else ""},
        },
        hovertemplate=f"score %{{x:.5g}}{ends_of(row)}<br>{row.flops_per_event:,.0f} FLOPs per "
        f"event{knob}{bytes_held}<extra>{escape(row.name)}</extra>",
    )  # fmt: skip


def changes_figure(result: Result) -> go.Figure:
    """Score and mean passes of each row as it was chosen, and at every change."""
    drawn = [row.name for row in result.others if row.kind in ("fixed", "policy", "oracle")]
    several = {"as chosen": result.others, **result.changes}
    held = {name: {row.name: row for row in rows} for name, rows in several.items()}
    colours = colours_of(result.rows)
    figure = make_subplots(
        rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.09,
        subplot_titles=[score_title(result).capitalize(), "Mean passes"],
    )  # fmt: skip
    for name in drawn:
        there = {change: rows[name] for change, rows in held.items() if name in rows}
        _change_line(figure, name, there, colours[name])
    style(figure, height=620)
    figure.update_layout(hovermode="closest", margin={"b": 90})
    figure.update_xaxes(type="category", nticks=None, automargin=True)
    return figure


def _change_line(figure: go.Figure, name: str, rows: Mapping[str, Row], colour: str) -> None:
    """One row over the changes: its score above, its passes below."""
    first = next(iter(rows.values()))
    look = {
        "x": list(rows), "meta": group_of(first.kind), "name": name, "mode": "lines+markers",
        "line": {"color": colour, "width": 1, "dash": "dot" if first.kind == "oracle" else "solid"},
        "marker": {"size": 7, "color": colour, "symbol": SYMBOLS.get(first.kind, "x")},
    }  # fmt: skip
    ends = [row.score_interval or (row.score, row.score) for row in rows.values()]
    scores = [row.score for row in rows.values()]
    error = {
        "type": "data", "thickness": 1, "width": 2, "color": colour,
        "array": [high - score for (_, high), score in zip(ends, scores, strict=True)],
        "arrayminus": [score - low for (low, _), score in zip(ends, scores, strict=True)],
    }  # fmt: skip
    extra = f"<extra>{escape(name)}</extra>"
    figure.add_trace(
        go.Scatter(y=scores, error_y=error, hovertemplate=f"%{{x}}: %{{y:.5g}}{extra}", **look),
        row=1, col=1,
    )  # fmt: skip
    passes = [row.mean_passes for row in rows.values()]
    figure.add_trace(
        go.Scatter(y=passes, hovertemplate=f"%{{x}}: %{{y:.2f}} passes{extra}", **look),
        row=2, col=1,
    )  # fmt: skip


def passes_figure(result: Result, frame: pl.DataFrame) -> go.Figure:
    """Mean passes by place in the stream, with their interval over seeds as a band."""
    streams, colours = drawn_streams(frame), colours_of(result.rows)
    kinds = {row.name: row.kind for row in result.rows}
    height = 300 * len(streams) + 60
    figure = make_subplots(
        rows=len(streams), cols=1, vertical_spacing=70 / height,
        subplot_titles=[STREAM_TITLES[name] for name in streams],
    )  # fmt: skip
    for at, name in enumerate(streams, start=1):
        for (row,), part in frame.filter(pl.col("streams") == name).group_by(
            "row", maintain_order=True
        ):
            look = {"meta": group_of(kinds[str(row)]), "name": str(row)}
            _passes(figure, part, colours[str(row)], look, at)
    style(figure, height=height)
    figure.update_layout(hovermode="closest")
    figure.update_yaxes(range=[0.9, result.max_passes + 0.1])
    figure.update_xaxes(title="windows slept on before", row=len(streams), col=1)
    return figure


def _passes(
    figure: go.Figure, part: pl.DataFrame, colour: str, look: Mapping[str, Any], at: int
) -> None:
    known = part.drop_nulls("low")
    if len(known):
        there = known["place"].to_list()
        figure.add_trace(
            go.Scatter(
                x=[*there, *reversed(there)],
                y=[*known["high"].to_list(), *reversed(known["low"].to_list())],
                mode="lines", fill="toself", fillcolor=colour, opacity=0.14, line={"width": 0},
                hoverinfo="skip", **look,
            ),
            row=at, col=1,
        )  # fmt: skip
    figure.add_trace(
        go.Scatter(
            x=part["place"].to_list(), y=part["passes"].to_list(), mode="lines",
            line={"color": colour, "width": 1.6},
            hovertemplate=f"%{{y:.2f}} passes<extra>{escape(str(look['name']))}</extra>", **look,
        ),
        row=at, col=1,
    )  # fmt: skip
