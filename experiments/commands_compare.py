"""`adaptive-sleep compare`: policies against fixed passes, their own passes shuffled and an oracle.

The work is done in compare.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from adaptive_sleep.experiments.console import print_json, print_table, progress
from adaptive_sleep.streams.errors import InputError


def compare(
    recipe: Annotated[
        str, typer.Argument(help="What to compare: a TOML file, or the name of a shipped one.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder of models and runs; default runs/NAME.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="One seed on a trained model: a few minutes.")
    ] = False,
    results: Annotated[
        bool, typer.Option("--from-results", help="Show what the last full run found.")
    ] = False,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Processes side by side; default one per core.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compare policies on one stream, at equal cost, with intervals over trained seeds.

    Parameters are chosen on validation streams. Beside every policy stand fixed passes, its own
    passes shuffled over the windows, the best mixture of fixed passes, and an oracle. A killed run
    goes on where it was; a full one may train its models first, and takes hours.
    """
    if quick and results:
        raise InputError("compare: give one of --quick and --from-results")
    unused: dict[str, Any] = {"--out": out, "--jobs": jobs}
    for option, value in unused.items():
        if results and value is not None:
            raise InputError(f"compare --from-results: runs nothing; leave out {option} {value}")
    from adaptive_sleep.experiments import compare as work

    if results:
        found = work.from_results(recipe)
    else:
        name = Path(recipe).stem
        folder = out or Path("runs") / (f"{name}-quick" if quick else name)
        with progress(f"compare {name}") as advance:
            found = work.compare(recipe, folder, quick=quick, jobs=jobs, on_progress=advance)
    if as_json:
        print_json(found)
    else:
        _print(found)


COLUMNS = ("row", "online", "score", "to fixed", "mean passes", "FLOPs / event", "of them sleep",
           "share", "regret", "to shuffled", "to hull")  # fmt: skip


MATCHED = ("row", "score", "to the policy", "FLOPs / event", "of them wake", "us / event", "knob",
           "bytes held", "training tokens", "training FLOPs", "tried", "tuning FLOPs")  # fmt: skip


def _matched_cells(row: Mapping[str, Any]) -> list[str]:
    from adaptive_sleep.experiments.report import quantity

    def counted(key: str, form: Callable[[float], str] = quantity) -> str:
        value = row.get(key)  # of what an earlier version wrote, or a knob that there is not
        return "" if value is None else form(value)

    beside = row.get("difference_to_policy"), row.get("difference_to_policy_interval")
    return [
        row["name"],
        _mean(row["score"], row["score_interval"], ".4f"),
        _mean(*beside, "+.4f"),
        quantity(row["flops_per_event"]),
        counted("wake_flops_per_event"),
        counted("seconds_per_event", lambda seconds: f"{1e6 * seconds:.0f}"),
        counted("knob", "{:g}".format),
        counted("resident_bytes"),
        counted("training_tokens"),
        counted("training_flops"),
        counted("tuning_trials", "{:g}".format),
        counted("tuning_flops"),
    ]


def _print(found: Mapping[str, Any]) -> None:
    """Print the table, those of the changes, what the signals tell, and the reading."""
    from adaptive_sleep.experiments.compare_rows import UNRANKED

    most = found["max_passes"]
    matched = [row for row in found["rows"] if row.get("target") is not None]
    parts = {"": [row for row in found["rows"] if row not in matched], **found["changes"]}
    for name, rows in parts.items():
        if name:
            print(f"\n{name}, with all parameters as they were chosen\n")
        print_table(COLUMNS, [_cells(row, most) for row in rows])
    for name, rows in (
        ("at matched cost", matched),
        ("of these, what keeps no more than 1.1 times the bytes of the policy that was best on "
         "validation", [row for row in matched if row.get("roomy")]),
    ):  # fmt: skip
        if rows:
            print(f"\n{name}\n")
            print_table(MATCHED, [_matched_cells(row) for row in rows])
    print("\nrank correlation of each signal after one pass with the oracle's passes\n")
    for name, told in found["signals"].items():
        ranked = told["correlation"], told["interval"]
        print(f"{name:<18} {_mean(*ranked, '+.3f', UNRANKED)}")
    print()
    for row in found["rows"]:
        if row["kind"] == "policy":
            print(f"{row['name']}: {row['policy']}")
    for sentence in found["reading"]:
        print(sentence)
    again = found.get("recounted_at_commit")
    print(
        f"{found['comparison']}: {len(found['seeds'])} seed(s), "
        f"{sum(found['windows'].values()):,} windows, commit {found['commit']}"
        + (f"; FLOPs counted again at commit {again}" if again else "")
    )


def _cells(row: Mapping[str, Any], most: int) -> list[str]:
    from adaptive_sleep.experiments.report import quantity

    share = row["sleep_share"]
    return [
        ("  " if row["control_of"] else "") + row["name"],
        "yes" if row["online"] else "no",
        _mean(row["score"], row["score_interval"], ".4f"),
        _mean(row[f"difference_to_fixed{most}"], row["difference_interval"], "+.4f"),
        f"{row['mean_passes']:.2f}",
        quantity(row["flops_per_event"]),
        quantity(row["sleep_flops_per_event"]),
        "" if share is None else f"{share:.0%}",
        _mean(row["regret"], None, "+.4f"),
        *(
            _mean(row[f"difference_to_{to}"], row[f"difference_to_{to}_interval"], "+.4f")
            for to in ("shuffled", "hull")
        ),
    ]


def _mean(value: float | None, ends: Sequence[float] | None, form: str, none: str = "") -> str:
    if value is None:
        return none
    return f"{value:{form}}" + ("" if ends is None else f" ±{ends[1] - value:.4f}")


def add_to(parent: typer.Typer) -> None:
    """Add the command to the application."""
    parent.command(epilog="Example: adaptive-sleep compare mixed_chain --quick --json")(compare)
