"""`adaptive-sleep fit-gain`: what policies are fitted to, offline.

The work is done in fit_gain.py; here are the options and the result.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import msgspec
import typer

from adaptive_sleep.experiments.console import note, print_facts, print_json, print_table

if TYPE_CHECKING:
    from adaptive_sleep.experiments.fit_gain import FittedGain, Passes
    from adaptive_sleep.experiments.gain_cases import Of


def fit_gain(
    forks: Annotated[
        list[Path], typer.Argument(help="Folders of counterfactual, all of one model.")
    ],
    out: Annotated[Path, typer.Option(help="The gain file to write; it must not exist.")],
    held_out: Annotated[
        list[Path] | None,
        typer.Option(
            help="A folder to choose thresholds on (repeat) [default: a fifth of FORKS or more]."
        ),
    ] = None,
    of: Annotated[
        str,
        typer.Option(help="What a pass is to save: loss, or errors (windows not all right)."),
    ] = "loss",
    seed: Annotated[int, typer.Option(min=0, help="Of the fit.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Fit to counterfactual replays what further passes still save; predicted_gain reads it.

    Held out are whole streams where there are 4 or more, else the end of each: windows of one
    stream start from each other's fast weights. What thresholds give there is printed, so that one
    can be chosen: it is validation, to be tested on another recording.
    """
    from adaptive_sleep.experiments.fit_gain import fit_gain as fit

    found = fit(forks, out, of=cast("Of", of), held_out=held_out or (), seed=seed)
    if as_json:
        print_json(msgspec.to_builtins(found, enc_hook=str))
        return
    print_facts(_facts(found))
    print_table(
        ("on the windows held out", "mean passes", "loss", "all right"),
        [*_rows("fixed", found.fixed), *_rows("threshold", found.thresholds)],
    )
    note(f"use it as: predicted_gain(file={str(out)!r}, threshold=...)")


def _facts(found: FittedGain) -> dict[str, str]:
    return {
        "a pass saves": found.of,
        "windows fitted": f"{found.windows:,}",
        "windows held out": f"{found.held_out:,}",
        "error there": f"{found.error:.4g}",
        "error of the mean": f"{found.error_of_mean:.4g}",
        "model": found.model_hash,
        "file": f"{found.file} ({found.file.stat().st_size:,} bytes)",
    }


def _rows(kind: str, choices: tuple[Passes, ...]) -> list[tuple[str, ...]]:
    return [
        (
            f"{kind} {passes if it.threshold is None else f'{it.threshold:g}'}",
            f"{it.mean_passes:.3f}",
            f"{it.loss:.5g}",
            "-" if it.all_right is None else f"{100 * it.all_right:.1f} %",
        )
        for passes, it in enumerate(choices, 1)
    ]


def add_to(parent: typer.Typer) -> None:
    """Add the command to the application."""
    parent.command(
        "fit-gain", epilog="Example: adaptive-sleep fit-gain forks --out gain.safetensors"
    )(fit_gain)
