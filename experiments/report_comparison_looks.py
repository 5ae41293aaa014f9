"""How the rows of a comparison look in every figure: colours, groups, names, intervals.

A policy keeps its colour everywhere, at any target and with its passes shuffled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from adaptive_sleep.experiments.matched_table import BY_COST, COMPUTE, SIDES
from adaptive_sleep.experiments.report_comparison_data import Result, Row
from adaptive_sleep.experiments.report_figures import LEAST_SPAN, RUN_COLOURS

GROUPS: Mapping[str, tuple[str, ...]] = {
    "fixed passes": ("fixed",),
    "policies": ("policy",),
    "their passes shuffled": ("shuffled",),
    "table and oracle": ("table", "oracle"),
    "policies at a target": ("matched",),
    "baselines": ("baseline",),
}
SYMBOLS = {
    "fixed": "circle", "policy": "circle", "shuffled": "circle-open", "table": "diamond",
    "oracle": "diamond-open", "matched": "square", "baseline": "triangle-up",
}  # fmt: skip
GREYS = ("#8b96a3", "#74808d", "#5d6976", "#4b5563", "#374151", "#1f2933")
BASELINE_COLOURS = ("#7a6a53", "#8a5a78", "#4f7a6b", "#93703a", "#5d6b94", "#8a4f4f", "#667a3f")
DARK, FRONT = "#1f2933", "#1d6fb8"
VARIANTS = (*SIDES, COMPUTE, BY_COST)
MOST_LABELS = 12


def group_of(kind: str) -> int:
    """The place of a row's group among GROUPS: what a page shows and hides together."""
    places = [at for at, kinds in enumerate(GROUPS.values()) if kind in kinds]
    return places[0] if places else len(GROUPS)


def plain_name(row: Row) -> str:
    """The name of a baseline without its side of the target and its training, of a policy without
    how its setting was found."""
    name = row.base
    for variant in reversed(VARIANTS):
        name = name.removesuffix(variant)
    return name


def colours_of(rows: Sequence[Row]) -> dict[str, str]:
    """A colour for every row by its name: a policy has one, at any target and shuffled as well."""
    policies = [plain_name(row) for row in rows if row.kind in ("policy", "matched")]
    known = _in_turn(policies, RUN_COLOURS[1:])
    fixed = _in_turn([row.name for row in rows if row.kind == "fixed"], GREYS)
    bases = _in_turn([plain_name(row) for row in rows if row.kind == "baseline"], BASELINE_COLOURS)
    found = {}
    for row in rows:
        if row.kind == "baseline":
            found[row.name] = bases[plain_name(row)]
        else:
            asked = row.control_of or plain_name(row)
            found[row.name] = known.get(asked, fixed.get(row.name, DARK))
    return found


def _in_turn(names: Sequence[str], colours: Sequence[str]) -> dict[str, str]:
    return {
        name: colours[at % len(colours)] for at, name in enumerate(dict.fromkeys(names))
    }  # in the order of the rows


def score_title(result: Result) -> str:
    """What the score of a comparison is."""
    return "score: windows all right" if result.asks else "score: minus the loss"


def error_bar(row: Row, colour: str) -> dict[str, Any] | None:
    """The interval of a score as plotly has it, or None."""
    if row.score_interval is None:
        return None
    low, high = row.score_interval
    ends = {"array": [high - row.score], "arrayminus": [row.score - low]}
    return {"type": "data", "thickness": 1.2, "width": 3, "color": colour, **ends}


def ends_of(row: Row) -> str:
    """The interval of a score in words."""
    return "" if row.score_interval is None else " ({:.5g} to {:.5g})".format(*row.score_interval)


def score_range(rows: Sequence[Row]) -> list[float]:
    """An axis that holds all intervals, and shows at least LEAST_SPAN of the score."""
    ends = [end for row in rows for end in (*(row.score_interval or ()), row.score)]
    middle = (max(ends) + min(ends)) / 2
    reach = max(0.58 * (max(ends) - min(ends)), LEAST_SPAN * abs(middle) / 2, 1e-9)
    return [middle - reach, middle + reach]


def labels_of(rows: Sequence[Row], best: Sequence[Row]) -> dict[str, str]:
    """Which rows have their name beside them, and where: as many as do not hide one another."""
    order = ("policy", "matched", "fixed", "table", "oracle", "baseline")
    wanted = [*best, *(row for kind in order for row in rows if row.kind == kind)]
    costs, scores = [row.flops_per_event for row in rows], [row.score for row in rows]
    wide, high = max(costs) - min(costs) or 1.0, max(scores) - min(scores) or 1.0
    kept: dict[str, Row] = {}
    for row in wanted:
        near = any(
            abs(row.flops_per_event - other.flops_per_event) < 0.3 * wide
            and abs(row.score - other.score) < 0.07 * high
            for other in kept.values()
        )
        if not near and len(kept) < MOST_LABELS:
            kept[row.name] = row
    places = {}
    for name, row in kept.items():
        share = (row.flops_per_event - min(costs)) / wide
        side = "right" if share < 0.3 else "left" if share > 0.7 else "center"
        places[name] = f"top {side}"
    return places
