"""`adaptive-sleep reproduce`: train and test what an experiment says, or show what is known of it.

The work is done in reproduce.py.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeGuard

import typer

from adaptive_sleep.experiments.console import print_json, print_table, progress
from adaptive_sleep.streams.errors import InputError, nearest
from adaptive_sleep.streams.manifest import write_file

DEFAULT_KINDS = "model,control,control_compute,control_staged,control_staged_compute"


def reproduce(
    name: Annotated[str, typer.Argument(help="The experiment, e.g. chain; or a recipe *.toml.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the trained models; default runs/NAME.")
    ] = None,
    quick: Annotated[
        bool, typer.Option(help="One seed, few steps ([training] quick), one control: minutes.")
    ] = False,
    checkpoint: Annotated[
        str, typer.Option("--from-checkpoint", help="Test this model instead of training.")
    ] = "",
    results: Annotated[
        bool, typer.Option("--from-results", help="Show what the last full run found.")
    ] = False,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change the recipe, e.g. model.carry=restart; may be repeated."),
    ] = None,
    kinds: Annotated[
        str,
        typer.Option(
            help="What to train, by commas; without model, controls beside those that were kept."
        ),
    ] = DEFAULT_KINDS,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="How many seeds, from 0 [default: 5].")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Processes side by side; default one per core.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="etth1: the file ETTh1.csv, or a copy in its format.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Train models that sleep on a task, beside controls at N = 1, and test them.

    Accuracy is by N and difficulty, with intervals over seeds. A killed run goes on where it was;
    a full one takes an hour or more and writes NAME.json and NAME.html into --out.
    """
    if sum((bool(checkpoint), results, quick)) > 1:
        raise InputError("reproduce: give one of --quick, --from-checkpoint and --from-results")
    how = "--quick" if quick else "--from-checkpoint" if checkpoint else "--from-results"
    fixed = {"--seeds": seeds, "--kinds": None if kinds == DEFAULT_KINDS else kinds}
    for option, value in fixed.items():
        if value is not None and (quick or checkpoint or results):
            raise InputError(f"reproduce {how}: what it runs is fixed; leave out {option} {value}")
    unused: dict[str, Any] = {"--out": out, "--jobs": jobs, "--data": data}
    for option, value in unused.items():
        if value is not None and (checkpoint or results):
            raise InputError(f"reproduce {how}: trains nothing; leave out {option} {value}")
    if changes and (checkpoint or results):
        raise InputError(f"reproduce {how}: tests the recipe as it is; leave out --set")
    from adaptive_sleep.experiments import reproduce as work

    seeds = seeds or len(work.SEEDS)

    if name == "etth1":
        if checkpoint or changes or kinds != DEFAULT_KINDS:
            raise InputError("reproduce etth1: takes no --from-checkpoint, --set or --kinds")
        _etth1(out, data, range(seeds), quick=quick, results=results, jobs=jobs, as_json=as_json)
        return
    if data is not None:
        raise InputError(f"--data {data}: {name} makes its own data; only etth1 reads a file")
    if results:
        found = work.from_results(name)
    elif checkpoint:
        found = work.from_checkpoint(name, checkpoint)
    else:
        stem = Path(name).stem
        folder = out or Path("runs") / (f"{stem}-quick" if quick else stem)
        options: dict[str, Any] = {"seeds": range(seeds), "jobs": jobs, "changes": changes or ()}
        options["kinds"] = _kinds(kinds, work.KINDS)
        if quick:
            shorter = ["training.longest=0", *(changes or ())]
            training = work.recipe_of(name, shorter).training
            steps = f"training.steps={min(training.quick, training.steps)}"
            options |= {"seeds": (0,), "kinds": work.KINDS[:2], "changes": [steps, *shorter]}
        with progress(f"reproduce {name}") as advance:
            found = work.reproduce(name, folder, on_progress=advance, **options)
        _write(found, folder, stem.replace("-", "_"))
    if as_json:
        print_json(found)
    else:
        _print(found)


def _etth1(
    out: Path | None, data: Path | None, seeds: Sequence[int], *, quick: bool, results: bool,
    jobs: int | None, as_json: bool,
) -> None:  # fmt: skip
    """Reproduce ETTh1, which is no task, and print what was found."""
    from adaptive_sleep.experiments import etth1

    if results:
        found = etth1.from_results()
    else:
        folder = out or Path("runs") / ("etth1-quick" if quick else "etth1")
        chosen = (0,) if quick else seeds
        with progress("reproduce etth1") as advance:
            found = etth1.reproduce(
                folder, data=data, seeds=chosen, quick=quick, jobs=jobs, on_progress=advance
            )
        text = json.dumps(found, indent=1) + "\n"
        write_file(folder / "etth1.json", text.encode())
    if as_json:
        print_json(found)
        return
    columns, rows = etth1.table_of(found)
    print_table(columns, rows)
    print(f"* the cheapest policy that is as good as any on validation rows. {etth1.said(found)}")


def _kinds(given: str, known: tuple[str, ...]) -> list[str]:
    """The kinds to train. Raises InputError."""
    kinds = given.split(",")
    for kind in kinds:
        if kind not in known:
            raise InputError(f"--kinds {kind!r}: one of {', '.join(known)}{nearest(kind, known)}")
    return kinds


def _write(found: dict[str, Any], folder: Path, stem: str) -> None:
    from adaptive_sleep.experiments.reproduce_figure import write_figure

    text = json.dumps(found, indent=1) + "\n"
    write_file(folder / f"{stem}.json", text.encode())
    write_figure(json.loads(text), folder / f"{stem}.html")


def _print(found: dict[str, Any]) -> None:
    """Print accuracy by N (columns) and difficulty (rows), controls last; then the gain of every N
    on the same model at N = 1 and on each control, which was made for N = 1."""
    from adaptive_sleep.experiments.reproduce import passes_once

    parts = {f"N={n}": (found["accuracy"][n], found["interval"][n]) for n in found["accuracy"]}
    gains = {"itself at N=1": (found.get("gains"), found.get("gains_interval"))}
    for kind, control in found.items():
        n = passes_once(control) if kind.startswith("control") else None
        if n is not None:
            name = kind.replace("_", " ")
            parts[name] = control["accuracy"][n], control["interval"][n]
            gains[name] = control.get("gains"), control.get("gains_interval")
    _table(parts)
    for name, (values, bounds) in gains.items():
        slept = [n for n in values or () if int(n) > 1]  # text in what was kept
        if values and bounds and slept:
            print(f"\ngain on {name}\n")
            _table({f"N={n}": (values[n], bounds[n]) for n in slept}, "+.3f")
    if found.get("checkpoint"):
        print(
            f"\n{found['experiment']}: {found['checkpoint']}, {found['parameters']:,} parameters, "
            f"tested in {found['seconds']:.0f} s, commit {found['commit']}"
        )
        return
    print(
        f"\n{found['experiment']}: {len(found['seeds'])} seed(s), {found['parameters']:,} "
        f"parameters, {found['tokens']:,} tokens and {found['seconds']:.0f} s a seed, "
        f"commit {found['commit']}"
    )


def _table(
    parts: dict[str, tuple[dict[str, float], dict[str, list[float] | None]]], form: str = ".3f"
) -> None:
    """Print a table of columns with intervals, by difficulty."""
    rows = []
    for difficulty in next(iter(parts.values()))[0]:
        cells = []
        for values, bounds in parts.values():
            value, ends = values[difficulty], bounds[difficulty]
            cells.append(f"{value:{form}}" + (f" ±{ends[1] - value:.3f}" if _wide(ends) else ""))
        rows.append([str(difficulty), *cells])
    print_table(["difficulty", *parts], rows)


def _wide(ends: list[float] | None) -> TypeGuard[list[float]]:
    return ends is not None and math.isfinite(ends[0]) and ends[1] > ends[0]


def add_to(parent: typer.Typer) -> None:
    """Add the command to the application."""
    parent.command(epilog="Example: adaptive-sleep reproduce chain --quick --json")(reproduce)
