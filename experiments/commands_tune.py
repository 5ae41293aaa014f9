"""`adaptive-sleep tune`: an Optuna study that finds the best policy within a budget.

The work is done in tune.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from adaptive_sleep.experiments.console import print_facts, print_json, print_table, progress


def tune(
    recipe: Annotated[
        str, typer.Argument(help="Of a comparison: a TOML file, or the name of a shipped one.")
    ],
    storage: Annotated[
        str, typer.Option(help="Database of the study: sqlite:///FILE, postgresql://...")
    ] = "sqlite:///tune.db",
    trials: Annotated[
        int | None,
        typer.Option(min=1, help="Of the study, whoever runs them [default: 100, or 20 if quick]."),
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help="A policy to try (repeat): what its spec leaves out is tuned; range(1, 3) and "
            "{2, 4} narrow a parameter [default: those of the recipe]."
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(help="FLOPs per event, or 1.5x the plain hybrid's [default: 1.5x]."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="On one trained model: a few minutes.")
    ] = False,
    pareto: Annotated[
        bool, typer.Option("--pareto", help="Minimise loss and FLOPs; stop no trial.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder of models and recordings; default runs/NAME.")
    ] = None,
    study: Annotated[
        str | None, typer.Option(help="Its name in the storage; default that of the recipe.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Find the policy with the best score on validation recordings within a budget of compute.

    The same command in another terminal or on another machine is another worker of the study. A
    killed worker's trial is run again, and a study goes on where it was. At the end the best is
    replayed on the test recordings, once.
    """
    from adaptive_sleep.experiments import tune as work

    with progress(f"tune {Path(recipe).stem}") as advance:
        found = work.tune(
            recipe, storage, trials=trials, policies=policy or (), budget=budget, quick=quick,
            pareto=pareto, out=out, study=study, on_progress=advance,
        )  # fmt: skip
    if as_json:
        print_json(found)
    else:
        _print(found)


def _print(found: Mapping[str, Any]) -> None:
    """Print the best policy, what it costs and scores, and the front."""
    from adaptive_sleep.experiments.report import quantity

    plain = found["plain_flops_per_event"]
    cost = {
        key: f"{quantity(found[key])} ({found[key] / plain:.2f}x the plain hybrid's)"
        for key in ("flops_per_event", "budget")
        if found[key] is not None
    }
    stopped = ", ".join(f"{count} {why}" for why, count in found["stopped"].items())
    best = {"best policy": "none is within the budget"}
    if found["best"] is not None:
        score = f"{found['score']:.4f} on validation, {found['test']:.4f} on the test recordings"
        best = {
            "best policy": found["best"],
            "window": "the model's own" if found["window"] is None else f"{found['window']} events",
            "score": score,
            "FLOPs per event": cost["flops_per_event"],
        }
    print_facts({
        **best,
        "budget": cost["budget"],
        "trials": f"{found['trials']} (stopped: {stopped})",
        "commit": found["commit"],
    })  # fmt: skip
    if found["pareto"]:
        print()
        print_table(
            ("policy", "score", "FLOPs / event"),
            [
                (it["spec"], f"{it['score']:.4f}", quantity(it["flops_per_event"]))
                for it in found["front"]
            ],
        )


def add_to(parent: typer.Typer) -> None:
    """Add the command to the application."""
    parent.command(
        epilog="Example: adaptive-sleep tune mixed_chain --storage sqlite:///study.db --quick"
    )(tune)
