"""One self-contained HTML page about a comparison: tables, figures, and where all of it comes from.

What it shows is read in report_comparison_data and report_passes, tabulated and drawn in
report_comparison_tables and _figures; what it shares with other pages is in report_page.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from adaptive_sleep.experiments.report import shortened
from adaptive_sleep.experiments.report_comparison_data import (
    Found,
    Result,
    best_rows,
    open_comparison,
)
from adaptive_sleep.experiments.report_comparison_tables import tables_of
from adaptive_sleep.experiments.report_data import flatten
from adaptive_sleep.experiments.report_page import file_to_write, make_page, save_page
from adaptive_sleep.experiments.report_passes import passes_over_time

if TYPE_CHECKING:
    import plotly.graph_objects as go


def write_comparison(where: str | Path, out: Path, *, title: str = "") -> tuple[Path, str]:
    """Write the page of a comparison, given as in `open_comparison`; return its path and the name
    of the comparison.

    Raises InputError for what is no comparison, and for an `out` that is a folder.
    """
    out = file_to_write(out)
    found = open_comparison(where)
    return save_page(render(found, title=title), out), found.result.comparison


def render(found: Found, *, title: str = "") -> str:
    """Return the page as text."""
    from adaptive_sleep.experiments import report_comparison_looks as looks

    result = found.result
    passes, passes_missing = passes_over_time(found)
    colours = looks.colours_of(result.rows)
    kinds = {looks.group_of(row.kind) for row in result.rows}
    return make_page(
        "report_comparison.html.j2",
        title=title or result.comparison,
        figures=_figures(result, passes),
        result=result,
        reading=result.reading,
        tables=tables_of(result, passes, colours),
        groups=_groups(result, kinds, colours),
        front=", ".join(row.name for row in best_rows(result.rows)),
        passes_missing=passes_missing,
        score=looks.score_title(result),
        **_settings(result),
    )


def _figures(result: Result, passes: pl.DataFrame | None) -> dict[str, go.Figure]:
    """The figures, each under the id of its place in the template."""
    from adaptive_sleep.experiments import report_comparison_figures as draw

    found = {"tradeoff": draw.tradeoff_figure(result)}
    if result.matched:
        found["matched"] = draw.matched_figure(result)
    if result.changes:
        found["changes"] = draw.changes_figure(result)
    if passes is not None:
        found["passes"] = draw.passes_figure(result, passes)
    return found


def _groups(
    result: Result, kinds: set[int], colours: Mapping[str, str]
) -> list[tuple[int, str, str]]:
    """What can be shown and hidden together: number, name, and a colour of one of its rows."""
    from adaptive_sleep.experiments import report_comparison_looks as looks

    found = []
    for at, name in enumerate((*looks.GROUPS, "others")):
        if at in kinds:
            first = next(row for row in result.rows if looks.group_of(row.kind) == at)
            found.append((at, name, colours[first.name]))
    return found


def _settings(result: Result) -> dict[str, Any]:
    many = len(result.seeds)
    lead = {
        "recipe": f"{result.comparison} ({shortened(result.recipe_sha256)})",
        "commit": result.commit,
        "FLOPs counted again at commit": result.recounted_at_commit,
        "trained models": f"{many}, seeds {', '.join(map(str, result.seeds))}",
        "windows": f"{sum(result.windows.values()):,}",
        "version": result.versions.get("adaptive-sleep", ""),
    }
    made = {
        "recipe": result.comparison,
        "recipe_sha256": result.recipe_sha256,
        "commit": result.commit,
        "begun_at_commit": result.begun_at_commit,
        "recounted_at_commit": result.recounted_at_commit,
        "recording_sha256": result.recording_sha256,
        "quick": "yes: nothing is claimed" if result.quick else "no",
        "seeds": ", ".join(map(str, result.seeds)),
        "wall time of the last sitting": ""
        if result.wall_seconds is None
        else f"{result.wall_seconds:,.0f} s",
        **{f"versions.{name}": version for name, version in result.versions.items()},
    }
    models = {
        f"seed {seed}": f"{result.models.get(seed, '')} {result.model_hashes.get(seed, '')}".strip()
        for seed in result.seeds
    }
    return {
        "lead": {name: value for name, value in lead.items() if value},
        "made": {name: value for name, value in made.items() if value},
        "models": models,
        "recipe": flatten(result.recipe),
    }
