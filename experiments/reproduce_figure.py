"""The figure of a reproduced experiment: accuracy against difficulty, one line for each N.

One self-contained HTML file; what is drawn was found by reproduce.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from adaptive_sleep.experiments.report_figures import FONT, GRID, INK, pass_colour
from adaptive_sleep.experiments.reproduce import passes_once
from adaptive_sleep.streams.manifest import write_file


def _line(figure: go.Figure, name: str, found: Mapping[str, Any], passes: Any, look: Any) -> None:
    """One curve with the interval over seeds as error bars."""
    row, bounds = found["accuracy"][passes], found["interval"][passes]
    x, y = [int(d) for d in row], list(row.values())
    ends = [bounds[d] for d in row]
    above = [e[1] - v if e else 0.0 for e, v in zip(ends, y, strict=True)]
    figure.add_scatter(
        x=x,
        y=y,
        name=name,
        mode="lines+markers",
        line=look,
        error_y={"type": "data", "array": above, "thickness": 1, "width": 2},
    )


def draw(result: Mapping[str, Any]) -> go.Figure:
    """Draw accuracy by difficulty and N; controls dashed, at N = 1."""
    figure = go.Figure()
    for passes in result["accuracy"]:
        look = {"color": pass_colour(int(passes) + 1), "width": 2}
        _line(figure, f"N = {passes}", result, passes, look)
    names = {
        "control": "trained at N = 1, as many tokens",
        "control_compute": "trained at N = 1, as much compute",
        "control_staged": "trained at N = 1, as many tokens, in the same stages",
        "control_staged_compute": "trained at N = 1, as much compute, in the same stages",
    }
    dashes = ("dash", "dot", "dashdot", "longdash")
    for (kind, words), dash in zip(names.items(), dashes, strict=True):
        once = passes_once(result.get(kind))
        if once is not None:
            look = {"color": "#c2410c", "width": 2, "dash": dash}
            _line(figure, words, result[kind], once, look)
    seeds = len(result["seeds"])
    measure = (
        "R2" if result.get("recipe", {}).get("test", {}).get("measure") == "r2" else "accuracy"
    )
    lowest = min(min(line.y) for line in figure.data)  # R2 may be negative
    figure.update_layout(
        title=f"{result['experiment']}: {measure} after eviction ({seeds} seeds, 95 % t-intervals)",
        font={"family": FONT, "color": INK},
        plot_bgcolor="white",
        xaxis={"title": "difficulty", "gridcolor": GRID, "dtick": 1},
        yaxis={"title": measure, "gridcolor": GRID, "range": [min(lowest, 0.0) - 0.02, 1.05]},
    )
    return figure


def write_figure(result: Mapping[str, Any], path: Path) -> Path:
    """Write the figure as one HTML file that loads nothing; returns its path."""
    return write_file(path, draw(result).to_html(include_plotlyjs=True, full_html=True).encode())
