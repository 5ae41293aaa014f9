"""`adaptive-sleep inspect` and `policies`: look at what is there, change nothing."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from adaptive_sleep.experiments.console import print_facts, print_json, print_table

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def inspect(
    path: Annotated[str, typer.Argument(help="A recording, a model, a run, or bundled:NAME.")],
    as_json: Json = False,
) -> None:
    """Say what a recording, a model or a run is, and verify its hashes.

    Exit code 2 if a file is missing or is not what was written.
    """
    from adaptive_sleep.experiments.inspection import inspect_path, readable

    found = inspect_path(path)
    if as_json:
        print_json(found)
    else:
        print_facts(readable(found))


def policies(as_json: Json = False) -> None:
    """List the installed policies with their parameters, defaults and tuning ranges."""
    from adaptive_sleep.experiments.inspection import installed_policies

    found = installed_policies()
    if as_json:
        print_json({"policies": found})
        return
    rows = [
        (
            entry["name"],
            ", ".join(_parameter(it) for it in entry["parameters"]),
            entry.get("error") or entry["summary"],
        )
        for entry in found
    ]
    print_table(("policy", "parameters", "what it does"), rows, left=3)


def _parameter(found: dict[str, Any]) -> str:
    """A parameter as it stands in a spec, with what it may be tuned among; one without a default by
    its name alone."""
    written = found["name"] if found["required"] else f"{found['name']}={found['default']!r}"
    return written + _tuned(found["tune"])


def _tuned(tune: dict[str, Any] | None) -> str:
    if tune is None:
        return ""
    if "options" in tune:
        return f" {{{', '.join(map(repr, tune['options']))}}}"
    return f" ({tune['low']:g}..{tune['high']:g}{' log' if tune.get('log') else ''})"


def add_to(parent: typer.Typer) -> None:
    """Add the commands to the application."""
    parent.command(epilog="Example: adaptive-sleep inspect bundled:telemetry")(inspect)
    parent.command(epilog="Example: adaptive-sleep policies --json")(policies)
