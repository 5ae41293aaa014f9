"""The figures of a page about a study, as plotly figures.

They draw what report_study_data read; the words are in the template.
"""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go
import polars as pl

from adaptive_sleep.experiments.report_figures import LEAST_SPAN, escape, style
from adaptive_sleep.experiments.report_study_data import StudyFound, TrialPoint

# what a page shows and hides together: name, colour, symbol
GROUPS = (
    ("within the budget", "#1d6fb8", "circle"),
    ("whole, over the budget", "#4b5563", "circle-open"),
    ("stopped: over the budget", "#c2410c", "x-thin-open"),
    ("stopped: plainly worse", "#8b96a3", "cross-thin-open"),
)
WIDE = 56  # letters of a spec in a line, where one points at a trial
BEST, FRONT = "#0f8a6d", "#1d6fb8"


def group_of(trial: TrialPoint) -> int:
    """The place of a trial's group among GROUPS."""
    if trial.stopped:
        return 2 if trial.stopped == "budget" else 3
    return 0 if trial.within else 1


def loss_title(found: StudyFound) -> str:
    """What the loss of a study is."""
    return "loss: windows not all right" if found.asks else "loss of the forecasts"


def progress_figure(found: StudyFound) -> go.Figure:
    """The loss of every whole trial, and of the best within the budget so far."""
    figure, line = go.Figure(), found.best_so_far().drop_nulls("best")
    figure.add_trace(
        go.Scatter(
            x=line["trial"].to_list(), y=line["best"].to_list(), mode="lines", name="best so far",
            line={"color": BEST, "width": 1.8, "shape": "hv"},
            hovertemplate="%{y:.5g} after trial %{x}<extra>best so far</extra>",
        )
    )  # fmt: skip
    drawn = [it for it in found.trials if it.loss is not None and not it.stopped]
    for at in range(len(GROUPS)):
        _marks(figure, [it for it in drawn if group_of(it) == at], at, against="number")
    style(figure, height=380)
    figure.update_xaxes(title="trial")
    figure.update_yaxes(
        title=loss_title(found), automargin=True, range=_range([it.loss for it in drawn])
    )
    figure.update_layout(hovermode="closest", margin={"l": 62, "b": 52, "t": 20, "r": 16})
    return figure


def tradeoff_figure(found: StudyFound) -> go.Figure:
    """Loss against FLOPs per event of all trials: the front with intervals, budget, best."""
    figure = go.Figure()
    drawn = [it for it in found.trials if it.loss is not None and it.flops is not None]
    front = sorted((it for it in drawn if it.front), key=lambda it: it.flops or 0.0)
    ends = [it.ends or (it.loss, it.loss) for it in front]
    figure.add_trace(
        go.Scatter(
            x=[it.flops for it in front], y=[it.loss for it in front], mode="lines", name="front",
            hoverinfo="skip", line={"color": FRONT, "width": 1.5, "shape": "hv"},
            error_y={
                "type": "data", "thickness": 1.2, "width": 3, "color": FRONT,
                "array": [(high or 0.0) - (it.loss or 0.0)
                          for (_, high), it in zip(ends, front, strict=True)],
                "arrayminus": [(it.loss or 0.0) - (low or 0.0)
                               for (low, _), it in zip(ends, front, strict=True)],
            },
        )
    )  # fmt: skip
    for at in range(len(GROUPS)):
        _marks(figure, [it for it in drawn if group_of(it) == at], at, against="flops")
    for it in drawn:
        if it.number == found.best:
            figure.add_trace(
                go.Scatter(
                    x=[it.flops], y=[it.loss], mode="markers", hoverinfo="skip", name="best",
                    marker={"symbol": "star", "size": 16, "color": BEST},
                )
            )  # fmt: skip
    for cost, name in ((found.plain, "no sleep"), (found.budget, "budget")):
        figure.add_vline(
            x=cost, line={"color": "#9aa5b1", "width": 1.2, "dash": "dot"}, annotation_text=name,
            annotation_position="top", annotation_font={"size": 11, "color": "#52606d"},
        )  # fmt: skip
    style(figure, height=440)
    figure.update_xaxes(title="FLOPs per event, all phases", exponentformat="SI")
    losses = [it.loss for it in drawn] + [end for pair in ends for end in pair]
    figure.update_yaxes(title=loss_title(found), automargin=True, range=_range(losses))
    figure.update_layout(hovermode="closest", margin={"l": 62, "b": 52, "t": 34, "r": 16})
    return figure


def _marks(figure: go.Figure, trials: Sequence[TrialPoint], at: int, *, against: str) -> None:
    """The trials of a group, against their number or their cost."""
    if not trials:
        return
    _, colour, symbol = GROUPS[at]
    figure.add_trace(
        go.Scatter(
            x=[getattr(it, against) for it in trials], y=[it.loss for it in trials],
            mode="markers", meta=at, name=GROUPS[at][0], text=[_said(it) for it in trials],
            hovertemplate="%{text}<extra></extra>",
            marker={"size": 8, "color": colour, "symbol": symbol, "opacity": 0.75,
                    "line": {"width": 1.4 if "open" in symbol else 0, "color": colour}},
        )
    )  # fmt: skip


def _said(it: TrialPoint) -> str:
    """What pointing at a trial shows."""
    ends = "" if it.ends is None else f" ({it.ends[0]:.5g} to {it.ends[1]:.5g})"
    cost = "" if it.flops is None else f"<br>{it.flops:,.0f} FLOPs per event"
    stopped = f"<br>stopped after {it.recordings} recordings: {it.stopped}" if it.stopped else ""
    lines = [escape(it.spec[at : at + WIDE]) for at in range(0, len(it.spec), WIDE)]
    told = f"trial {it.number}: loss {it.loss:.5g}{ends}{cost}{stopped}"
    return "<br>".join([told, *lines])


def _range(values: Sequence[float | None]) -> list[float] | None:
    """An axis that holds all values, and shows at least LEAST_SPAN of the loss."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    middle = (max(known) + min(known)) / 2
    reach = max(0.56 * (max(known) - min(known)), LEAST_SPAN * abs(middle) / 2, 1e-9)
    return [middle - reach, middle + reach]


def importance_figure(frame: pl.DataFrame) -> go.Figure:
    """The share of each parameter, for the loss and for the cost."""
    figure = go.Figure()
    ordered = frame.reverse()
    for column, name, colour in (("flops", "FLOPs", "#a9c9e3"), ("loss", "loss", "#16508a")):
        figure.add_trace(
            go.Bar(
                x=ordered[column].to_list(), y=[escape(it) for it in ordered["parameter"]],
                orientation="h", name=name, marker={"color": colour, "line": {"width": 0}},
                hovertemplate=f"%{{y}}: %{{x:.1%}} for the {name}<extra></extra>",
            )
        )  # fmt: skip
    style(figure, height=44 * len(frame) + 70)
    figure.update_xaxes(range=[0, 1], tickformat=".0%")
    figure.update_yaxes(automargin=True, type="category", nticks=None, dtick=1)
    figure.update_layout(barmode="group", bargap=0.3, hovermode="closest", margin={"l": 10})
    return figure
