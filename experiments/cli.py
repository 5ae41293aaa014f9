"""The command line: the application, and how a command ends.

The commands are in commands_*.py; each imports what it needs when it runs, so that --help is quick.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from adaptive_sleep.experiments import (
    commands_choices,
    commands_compare,
    commands_fit,
    commands_learn,
    commands_look,
    commands_make,
    commands_probe,
    commands_record,
    commands_run,
    commands_tune,
)
from adaptive_sleep.experiments.console import guarded

app = typer.Typer(
    name="adaptive-sleep",
    help=(
        "Decide, window by window, how long a model sleeps on what it has just seen.\n\n"
        "A RECORDING or a MODEL is a path or bundled:NAME. A policy is a spec such as "
        "'state_change(tolerance=0.05, max_passes=4)'.\n\n"
        "Results are on stdout, progress and errors on stderr. Exit code 0: done; "
        "1: failed while running; 2: wrong use, or an input file that is missing, damaged or of "
        "the wrong kind; 130: interrupted by Ctrl-C; 143: by SIGTERM, which does the same."
    ),
    epilog="Example: adaptive-sleep demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"adaptive-sleep {version('adaptive-sleep')}")
        raise typer.Exit()


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Hold what stands before the command."""


for part in (
    commands_run,
    commands_record,
    commands_make,
    commands_learn,
    commands_choices,
    commands_probe,
    commands_fit,
    commands_compare,
    commands_tune,
    commands_look,
):
    part.add_to(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code (`arguments` default to the process's own).

    A policy's module may lie in the current folder; what is installed under its name goes before.
    """
    given = None if arguments is None else list(arguments)

    def run() -> None:
        if (here := str(Path.cwd())) not in sys.path:
            sys.path.append(here)
        app(args=given, prog_name="adaptive-sleep")

    return guarded(run)


if __name__ == "__main__":
    sys.exit(main())
