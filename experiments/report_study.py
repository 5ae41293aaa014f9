"""One self-contained HTML page about a study of `adaptive-sleep tune`.

What it shows is read in report_study_data, drawn in report_study_figures; what it shares with other
pages is in report_page.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from adaptive_sleep.experiments.report import quantity, shortened
from adaptive_sleep.experiments.report_page import (
    Cell,
    Table,
    file_to_write,
    make_page,
    number,
    save_page,
)
from adaptive_sleep.experiments.report_study_data import (
    StudyFound,
    TrialPoint,
    open_study,
    trials_frame,
)

if TYPE_CHECKING:
    import plotly.graph_objects as go

STOPPED = {
    "budget": "over the budget",
    "worse": "plainly worse than the best",
    "refused": "refused by the policy",
}


def write_study(storage: str, name: str | None, out: Path, *, title: str = "") -> tuple[Path, str]:
    """Write the page of a study, given as in `open_study`; return its path and the study's name.

    Raises InputError for what is no study, and for an `out` that is a folder.
    """
    out = file_to_write(out)
    found = open_study(storage, name)
    return save_page(render(found, title=title), out), found.name


def render(found: StudyFound, *, title: str = "") -> str:
    """Return the page as text."""
    from adaptive_sleep.experiments import report_study_figures as draw

    groups = {draw.group_of(it) for it in found.trials if it.loss is not None}
    return make_page(
        "report_study.html.j2",
        title=title or f"Study {found.name}",
        figures=_figures(found),
        found=found,
        reading=_reading(found),
        tables=_tables(found),
        groups=[(at, name, tint) for at, (name, tint, _) in enumerate(draw.GROUPS) if at in groups],
        loss=draw.loss_title(found),
        **_settings(found),
    )


def _figures(found: StudyFound) -> dict[str, go.Figure]:
    """The figures, each under the id of its place in the template."""
    from adaptive_sleep.experiments import report_study_figures as draw

    figures = {"progress": draw.progress_figure(found), "tradeoff": draw.tradeoff_figure(found)}
    if found.importance is not None:
        figures["importance"] = draw.importance_figure(found.importance)
    return figures


# ---------------------------------------------------------------- what it says


def _reading(found: StudyFound) -> list[str]:
    """What the study found, in plain sentences."""
    return [*_of_the_best(found), *_of_the_trials(found)]


def _of_the_best(found: StudyFound) -> list[str]:
    best = [it for it in found.trials if it.number == found.best]
    if not best:
        return ["No trial ran to its end within the budget."]
    (it,), test = best, found.said.get("test")
    said = [
        f"The best within the budget is trial {it.number}: {shortened(it.spec)}"
        f"{'' if it.window is None else f', in windows of {it.window} events'}; loss {it.loss:.5g}"
        f"{'' if it.ends is None else f' ({it.ends[0]:.5g} to {it.ends[1]:.5g})'} on validation, "
        f"{_cost(found, it.flops)}."
    ]
    if test is None:
        return [*said, "The best has not been replayed on the test recordings yet."]
    return [
        *said,
        f"Replayed once on the test recordings, trial {test['trial']} has a score of "
        f"{test['score']:.5g}, for {_cost(found, test['flops_per_event'])}.",
    ]


def _cost(found: StudyFound, flops: float | None) -> str:
    return (
        f"{quantity(flops or 0.0)} FLOPs per event ({(flops or 0.0) / found.plain:.2f}x no sleep)"
    )


def _of_the_trials(found: StudyFound) -> list[str]:
    stopped = Counter(it.stopped for it in found.trials if it.stopped)
    said = [
        f"{stopped.total()} of {len(found.trials)} trials stopped before their end"
        + "".join(
            f"{':' if at == 0 else ','} {count} {STOPPED.get(why, why)}"
            for at, (why, count) in enumerate(stopped.most_common())
        )
        + "."
    ]
    if found.others:
        counts = ", ".join(f"{count} {state}" for state, count in sorted(found.others.items()))
        said.append(f"Besides, not shown: {counts}.")
    return said


# ---------------------------------------------------------------- the tables


def _tables(found: StudyFound) -> dict[str, Table]:
    """The tables by their place in the template."""
    tables = {"trials": _trials(found)}
    if found.importance is not None:
        tables["importance"] = _importance(found.importance)
    if "test" in found.said:
        tables["test"] = _test(found)
    return tables


def _trials(found: StudyFound) -> Table:
    from adaptive_sleep.experiments import report_study_figures as draw

    columns = (
        ("trial", "Its number"),
        ("loss", "Mean over recordings of validation, ± half its interval over trained models"),
        ("score", "As in a comparison"),
        ("FLOPs per event", "All FLOPs per event; of a stopped trial on what it saw"),
        ("times no sleep", "FLOPs per event, times those of the plain hybrid"),
        ("recordings", "How many it saw"),
        ("stopped", "Why it did not run to its end"),
        ("within", "Whether it ran to its end within the budget"),
        ("front", "Whether no whole trial beats it in both loss and cost"),
        ("window", "Events; empty: the model's own"),
        ("seconds", "On the machine that ran it"),
        ("policy", "What was run"),
    )
    colours = [draw.GROUPS[draw.group_of(it)][1] for it in found.trials]
    rows = [_cells(found, it) for it in found.trials]
    return Table("trials", columns, rows, colours, trials_frame(found), spec=True)


def _cells(found: StudyFound, it: TrialPoint) -> list[Cell]:
    name = f"{it.number} (best)" if it.number == found.best else str(it.number)
    return [
        Cell(name, it.number),
        number(it.loss, "#.5g", it.ends),
        number(it.score, "#.5g"),
        Cell("") if it.flops is None else Cell(quantity(it.flops), it.flops),
        number(None if it.flops is None else it.flops / found.plain, ".2f"),
        Cell(str(it.recordings), it.recordings),
        Cell(STOPPED.get(it.stopped, it.stopped)),
        Cell("yes" if it.within else "no"),
        Cell("yes" if it.front else "no"),
        number(it.window, "d"),
        number(it.seconds, ".1f"),
        Cell(shortened(it.spec)),
    ]


def _importance(frame: pl.DataFrame) -> Table:
    columns = (
        ("parameter", "POLICY.PARAMETER, or of the study"),
        ("for the loss", "Its share"),
        ("for the FLOPs", "Its share"),
        ("trials", "Whole ones that have it"),
    )
    rows = [
        [Cell(name), number(loss, ".1%"), number(flops, ".1%"), number(trials, "d")]
        for name, loss, flops, trials in frame.select("parameter", "loss", "flops", "trials").rows()
    ]
    return Table("importance", columns, rows, frame=frame)


def _test(found: StudyFound) -> Table:
    columns = (
        ("trained model", "Its seed"),
        ("score", "On its test recording"),
        ("FLOPs per event", "All of them"),
        ("events", "Of the recording"),
    )
    by_seed = {int(seed): it for seed, it in found.said["test"]["by_seed"].items()}
    frame = pl.DataFrame(
        [
            {"seed": seed, "score": it["score"], "flops_per_event": it["flops"] / it["events"],
             "events": it["events"]}
            for seed, it in sorted(by_seed.items())
        ]
    )  # fmt: skip
    rows = [
        [Cell(f"seed {seed}", seed), number(score, "#.5g"), Cell(quantity(flops), flops),
         number(events, ",d")]
        for seed, score, flops, events in frame.rows()
    ]  # fmt: skip
    return Table("test", columns, rows, frame=frame)


# ---------------------------------------------------------------- where it comes from


def _settings(found: StudyFound) -> dict[str, Any]:
    from adaptive_sleep.experiments.runs import versions

    said = found.said
    models, hashes = said.get("models", {}), said.get("model_hashes", {})
    lead = {
        "recipe": f"{said['recipe']} ({shortened(said['recipe_sha256'])})",
        "begun at commit": said.get("begun_at_commit", ""),
        "trained models": f"{len(hashes)}, seeds {', '.join(hashes)}",
        "trials": f"{len(found.trials)} of {said.get('trials', len(found.trials))}",
        "workers": str(found.workers),
    }
    made = {
        "study": found.name,
        "recipe": said["recipe"],
        "recipe_sha256": said["recipe_sha256"],
        "begun_at_commit": said.get("begun_at_commit", ""),
        "quick": "yes: nothing is claimed" if said.get("quick") else "no",
        "pareto": "yes: loss and FLOPs, nothing stopped" if said.get("pareto") else "no",
        "budget": f"{said['budget']}: {found.budget:,.0f} FLOPs per event",
        "no sleep": f"{found.plain:,.0f} FLOPs per event",
        "seeds": ", ".join(hashes),
        **{f"this page was made with {name}": version for name, version in versions().items()},
    }
    return {
        "lead": {name: value for name, value in lead.items() if value},
        "made": {name: value for name, value in made.items() if value},
        "models": {f"seed {it}": f"{models.get(it, '')} {hashes[it]}".strip() for it in hashes},
        "space": said["space"],
    }
