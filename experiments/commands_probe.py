"""`adaptive-sleep probe`: what a state keeps, and when signals speak; one question a probe.

The work is done in probes/; each module there has `run`, `table_of` and `said`.
"""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer

from adaptive_sleep.experiments.console import print_json, print_table, progress
from adaptive_sleep.streams.errors import InputError, nearest
from adaptive_sleep.streams.manifest import write_file

# The module of each probe, imported when it is asked for.
PROBES = {
    name: f"adaptive_sleep.experiments.probes.{name}"
    for name in ("action", "detail", "recurrence", "labels", "events", "spending")
}
SEEDS = 5
REAL = ("labels", "events", "spending")  # these read the public data sets


def probe(
    name: Annotated[str, typer.Argument(help=f"The probe: {', '.join(PROBES)}.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the trained models; default runs/probe_NAME.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="The folder of public data sets: nab/, asd/, ett/, logs/."),
    ] = None,
    quick: Annotated[
        bool, typer.Option(help="The first seed alone; of some, fewer steps.")
    ] = False,
    seeds: Annotated[
        int | None, typer.Option(min=1, help=f"How many seeds, from 0; default {SEEDS}.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Processes side by side; default one per core.")
    ] = None,
    results: Annotated[
        bool, typer.Option("--from-results", help="Show what the last full run found.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Train small models, or take up those that are there, and ask them one question.

    action: an action that works windows later. detail: mean, slope, extremes of past windows.
    recurrence: a regime that comes back. labels: do triggers fire where real recordings are
    labelled. events: the next event of a real log, and the surprise before its alerts. spending:
    does a policy find that sleep buys nothing, and not pay for it.

    A killed run goes on where it was; probe_NAME.json is written into --out.
    """
    if quick and results:
        raise InputError("probe: give one of --quick and --from-results")
    if quick and seeds is not None:
        raise InputError(f"probe --quick: runs the first seed alone; leave out --seeds {seeds}")
    if results and (seeds or jobs or data or out):
        raise InputError("probe --from-results: takes no --seeds, --jobs, --data and --out")
    work = find_probe(name)
    if data is not None and name not in REAL:
        raise InputError(f"--data {data}: {name} makes its own; {', '.join(REAL)} read files")
    options = {"data": data} if name in REAL else {}
    stem = f"probe_{name}"
    if results:
        from adaptive_sleep.experiments.reproduce import kept_result

        found = kept_result(stem)
    else:
        folder = out or Path("runs") / (f"{stem}-quick" if quick else stem)
        with progress(f"probe {name}") as advance:
            found = work.run(
                folder,
                seeds=range(seeds or SEEDS),
                quick=quick,
                jobs=jobs,
                on_progress=advance,
                **options,
            )
        found = _written(found, folder / f"{stem}.json")
    if as_json:
        print_json(found)
        return
    columns, rows = work.table_of(found)
    print_table(columns, rows)
    print(work.said(found))


def find_probe(name: str) -> ModuleType:
    """The module of a probe. Raises InputError for a name that there is not, with the nearest."""
    if name not in PROBES:
        known = ", ".join(PROBES)
        raise InputError(f"probe {name!r}: no such probe{nearest(name, PROBES)} ({known})")
    return import_module(PROBES[name])


def _written(found: dict[str, Any], file: Path) -> dict[str, Any]:
    """Write what was found, and give it back as the file has it: its keys are words."""
    text = json.dumps(found, indent=1) + "\n"
    write_file(file, text.encode())
    again: dict[str, Any] = json.loads(text)
    return again


def add_to(parent: typer.Typer) -> None:
    """Add the command to the application."""
    parent.command(epilog="Example: adaptive-sleep probe recurrence --quick")(probe)
