"""The tables of a page about a comparison, and what can be downloaded of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import polars as pl

from adaptive_sleep.experiments.compare_rows import UNRANKED
from adaptive_sleep.experiments.report import quantity, shortened
from adaptive_sleep.experiments.report_comparison_data import (
    Result,
    Row,
    best_rows,
    changes_frame,
    rows_frame,
    seeds_frame,
    signals_frame,
)
from adaptive_sleep.experiments.report_page import Cell, Table, number

Column = tuple[str, str, Callable[[Row], Cell]]


def _columns(most: int) -> list[Column]:
    """What is shown of rows at a cost of their own, and of those of a change."""
    return [
        ("row", "Its name in the recipe", lambda row: Cell(row.name)),
        ("score", "Mean over trained models, ± half its 95 % t-interval",
         lambda row: number(row.score, ".4f", row.score_interval)),
        (f"to fixed({most})", "Difference of the score to that of the most passes everywhere",
         lambda row: number(row.difference_to_fixed, "+.4f", row.difference_interval)),
        ("smallest effect", f"What it must truly be to fixed({most}) to be seen 4 times in 5",
         lambda row: number(row.smallest_effect, ".4f")),
        ("mean passes", "Passes per window; 1 is no sleep",
         lambda row: number(row.mean_passes, ".2f")),
        ("FLOPs per event", "All FLOPs per event, by the ledger",
         lambda row: _quantity(row.flops_per_event)),
        ("sleep FLOPs per event", "Of the sleep passes; of a policy also signals and policy",
         lambda row: _quantity(row.sleep_flops_per_event)),
        ("share", f"Of the sleep FLOPs of fixed({most})",
         lambda row: number(row.sleep_share, ".0%")),
        ("to shuffled", "Difference of the score to its own passes shuffled over the windows",
         lambda row: number(row.difference_to_shuffled, "+.4f",
                            row.difference_to_shuffled_interval)),
        ("to hull", "Difference of the score to the best mixture of fixed passes for its cost",
         lambda row: number(row.difference_to_hull, "+.4f", row.difference_to_hull_interval)),
        ("regret", "Score lost against the oracle", lambda row: number(row.regret, "+.4f")),
        ("online", "Whether it could be deployed", lambda row: Cell("yes" if row.online else "no")),
        ("policy", "What was run", lambda row: Cell(shortened(row.policy))),
    ]  # fmt: skip


def _matched_columns(rows: Sequence[Row]) -> list[Column]:
    """What is shown of rows at matched cost."""
    columns: list[Column] = [
        ("row", "Its name, and the target", lambda row: Cell(row.name)),
        ("target", "Times the FLOPs per event of the plain hybrid",
         lambda row: number(row.target, "g")),
        ("score", "Mean over trained models, ± half its 95 % t-interval",
         lambda row: number(row.score, ".4f", row.score_interval)),
        ("to the policy", "Difference of the score to the policy at that target that was best on "
         "validation",
         lambda row: number(row.difference_to_policy, "+.4f", row.difference_to_policy_interval)),
        ("smallest effect", "What a true difference must be to be seen 4 times in 5",
         lambda row: number(row.smallest_beside, ".4f")),
        ("FLOPs per event", "All FLOPs per event, by the ledger",
         lambda row: _quantity(row.flops_per_event)),
        ("of them wake", "What a prediction waits for: wake passes alone",
         lambda row: _quantity(row.wake_flops_per_event)),
        ("knob", "The one number of a baseline", lambda row: number(row.knob, "g")),
        ("bytes held", "The most that was kept between steps",
         lambda row: _quantity(row.resident_bytes)),
        ("training tokens", "Each counted once", lambda row: _quantity(row.training_tokens)),
        ("training FLOPs", "Of its model", lambda row: _quantity(row.training_flops)),
        ("tried", "Points that it was chosen among; a baseline's knob is set by its cost",
         lambda row: number(row.tuning_trials, "g")),
        ("tuning FLOPs", "Of trying them, and of what a policy was fitted to",
         lambda row: _quantity(row.tuning_flops)),
        ("time per event", "Wall clock, on the machine that ran it",
         lambda row: Cell("" if row.seconds_per_event is None
                          else f"{1e3 * row.seconds_per_event:.3g} ms", row.seconds_per_event)),
        ("policy", "What was run", lambda row: Cell(shortened(row.policy))),
    ]  # fmt: skip
    if any(row.score_beyond is not None for row in rows):
        where = "of the questions that the largest window at that target"
        columns[3:3] = [
            ("within", f"Score {where} reaches",
             lambda row: number(row.score_within, ".4f", row.score_within_interval)),
            ("beyond", f"Score {where} does not reach",
             lambda row: number(row.score_beyond, ".4f", row.score_beyond_interval)),
        ]  # fmt: skip
    return columns


def _quantity(value: float | None) -> Cell:
    return Cell("") if value is None else Cell(quantity(value), value)


def _rows_table(
    name: str,
    rows: Sequence[Row],
    columns: Sequence[Column],
    frame: pl.DataFrame,
    colours: Mapping[str, str],
) -> Table:
    return Table(
        name,
        [(head, meaning) for head, meaning, _ in columns],
        [[make(row) for _, _, make in columns] for row in rows],
        [colours[row.name] for row in rows],
        frame,
        spec=True,
    )


def tables_of(
    result: Result, passes: pl.DataFrame | None, colours: Mapping[str, str]
) -> dict[str, Table]:
    """The tables by their place in the template."""
    most, best = result.max_passes, {row.name for row in best_rows(result.rows)}

    def table(name: str, rows: Sequence[Row], columns: Sequence[Column]) -> Table:
        frame = rows_frame(rows, front=[row.name in best for row in rows])
        return _rows_table(name, rows, columns, frame, colours)

    found = {"rows": table("rows", result.others, _columns(most))}
    if result.matched:
        columns = _matched_columns(result.matched)
        found["matched"] = table("matched", result.matched, columns)
        if roomy := [row for row in result.matched if row.roomy]:
            found["roomy"] = table("roomy", roomy, columns)
    if result.changes:
        found["changes"] = _changes_table(result, colours)
    if result.signals:
        found["signals"] = _signals_table(result)
    if any(row.seeds_values for row in result.rows):
        found["seeds"] = _seeds_table(result, colours)
    if passes is not None:
        found["passes"] = _passes_table(passes, colours)
    return found


def _changes_table(result: Result, colours: Mapping[str, str]) -> Table:
    rows = [(name, row) for name, several in result.changes.items() for row in several]
    columns = _columns(result.max_passes)
    return Table(
        "changes",
        [("change", "What is other than where parameters were chosen"),
         *((head, meaning) for head, meaning, _ in columns)],
        [[Cell(name), *(make(row) for _, _, make in columns)] for name, row in rows],
        [colours.get(row.name, "") for _, row in rows],
        changes_frame(result),
        spec=True,
    )  # fmt: skip


def _signals_table(result: Result) -> Table:
    return Table(
        "signals",
        [("signal", "As a policy saw it after one pass"),
         ("rank correlation", "With the oracle's passes, over windows; ± half its interval")],
        [[Cell(name), number(it.correlation, "+.3f", it.interval, none=UNRANKED)]
         for name, it in result.signals.items()],
        frame=signals_frame(result.signals),
    )  # fmt: skip


def _seeds_table(result: Result, colours: Mapping[str, str]) -> Table:
    """The score of every trained seed; the file has all that a seed found."""
    rows = [row for row in result.rows if row.seeds_values]
    seeds = sorted({seed for row in rows for seed in row.seeds_values})
    return Table(
        "seeds",
        [("row", "Its name"), *((f"seed {seed}", "Its score") for seed in seeds)],
        [[Cell(row.name), *(number(row.seeds_values.get(seed, {}).get("score"), ".4f")
                            for seed in seeds)] for row in rows],
        [colours[row.name] for row in rows],
        seeds_frame(rows),
    )  # fmt: skip


def _passes_table(passes: pl.DataFrame, colours: Mapping[str, str]) -> Table:
    """Mean passes in the first and the second half of the streams; the file has every place."""
    rows = []
    for (streams, row), part in passes.group_by("streams", "row", maintain_order=True):
        middle = (part["place"].max() or 0) / 2  # type: ignore[operator]
        halves = (part.filter(pl.col("place") < middle), part.filter(pl.col("place") >= middle))
        means = [_mean_passes(half) for half in halves]
        rows.append([Cell(str(row)), Cell(str(streams)), *(number(it, ".3f") for it in means)])
    return Table(
        "passes",
        [("row", "Its name"), ("streams", "Which streams"),
         ("first half", "Mean passes"), ("second half", "Mean passes")],
        rows,
        [colours[cells[0].text] for cells in rows],
        passes,
    )  # fmt: skip


def _mean_passes(part: pl.DataFrame) -> float | None:
    windows = int(part["windows"].sum())
    return float((part["passes"] * part["windows"]).sum()) / windows if windows else None
