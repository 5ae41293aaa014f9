"""`adaptive-sleep choices`: train a recipe, changed in one thing at a time, and compare.

The work is done in choices.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from adaptive_sleep.experiments.console import print_json, print_table, progress
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.manifest import write_file


def choices(
    name: Annotated[
        str, typer.Argument(help="choices_hops, choices_memory; or a file of choices *.toml.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the trained models; default runs/NAME.")
    ] = None,
    only: Annotated[
        str, typer.Option(help="These choices, by commas, and the recipe as it is.")
    ] = "",
    seeds: Annotated[
        int | None, typer.Option(min=1, help="How many seeds, from 0; default as the file says.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Processes side by side; default one per core.")
    ] = None,
    results: Annotated[
        bool, typer.Option("--from-results", help="Show what the last full run found.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Train a recipe as it is and with one thing changed at a time; compare over seeds.

    Judged on validation samples. A killed run goes on where it was; NAME.json, or with --only
    NAME-only.json, is written into --out.
    """
    from adaptive_sleep.experiments import choices as work

    if results:
        given = {"--out": out, "--only": only or None, "--seeds": seeds, "--jobs": jobs}
        for option, value in given.items():
            if value is not None:
                raise InputError(
                    f"choices --from-results: trains nothing; leave out {option} {value}"
                )
        found = work.choices_found(name)
    else:
        stem = Path(name).stem
        folder = out or Path("runs") / stem
        with progress(f"choices {name}") as advance:
            found = work.compare_choices(
                name,
                folder,
                only=only.split(",") if only else (),
                seeds=seeds,
                jobs=jobs,
                on_progress=advance,
            )
        text = json.dumps(found, indent=1) + "\n"
        write_file(folder / f"{stem}{'-only' if only else ''}.json", text.encode())
        found = json.loads(text)  # keys are words, as a file has them
    if as_json:
        print_json(found)
    else:
        _print(found)


def _print(found: dict[str, Any]) -> None:
    """Print, for each choice, accuracy by N as means over difficulties, and what it took."""
    passes = list(found["rows"][0]["mean"])
    rows = []
    for row in found["rows"]:
        cells = [_cell(row["mean"][n], row["mean_interval"][n]) for n in passes]
        steps = list(row["steps"].values())
        took = [f"{min(steps)}..{max(steps)}", f"{row['flops']:.3g}", f"{row['seconds']:.0f}"]
        rows.append([row["name"], *cells, *took])
    print_table(["choice", *(f"N={n}" for n in passes), "steps", "FLOPs", "s"], rows)
    print(
        f"{found['choices']}: changes to {found['recipe']}, means over difficulties and "
        f"{len(found['seeds'])} seed(s), commit {found['commit']}"
    )


def _cell(value: float, ends: list[float] | None) -> str:
    return f"{value:.3f}" + (f" ±{ends[1] - value:.3f}" if ends and ends[1] > ends[0] else "")


def add_to(parent: typer.Typer) -> None:
    """Add the command to the application."""
    example = "Example: adaptive-sleep choices choices_hops --only accumulate --seeds 1"
    parent.command(epilog=example)(choices)
