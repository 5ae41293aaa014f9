"""The short tables of a comparison in Markdown, as README and MATCHED.md show them.

`python -m adaptive_sleep.experiments.compare_table NAME` prints that of the last full run.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from adaptive_sleep.experiments.compare import from_results
from adaptive_sleep.experiments.console import guarded
from adaptive_sleep.streams.errors import InputError


def short_table(found: Mapping[str, Any]) -> str:
    """One line for each fixed N, online policy, look-up table, and the oracle by halves, of what
    `compare` found: means over seeds, differences with their 95 % t-intervals, and sleep FLOPs as a
    share of those of fixed(max_passes)."""
    most = found["max_passes"]
    head = (
        "policy", "score", f"to `fixed({most})`", "mean passes",
        f"of `fixed({most})`'s sleep FLOPs", "to its passes shuffled",
    )  # fmt: skip
    lines = [head, ("---",) * len(head)]
    for row in found["rows"]:
        if row["online"] or row["name"] in ("oracle", "table"):
            named = row["policy"] if row["kind"] == "fixed" else row["name"]
            lines.append(
                (
                    f"`{named}`" if row["online"] else f"{named} (not online)",
                    f"{row['score']:.3f}",
                    _difference(row, f"difference_to_fixed{most}", "difference_interval"),
                    f"{row['mean_passes']:.2f}",
                    f"{row['sleep_share']:.0%}",
                    _difference(row, "difference_to_shuffled", "difference_to_shuffled_interval"),
                )
            )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def matched_table(found: Mapping[str, Any], target: float) -> str:
    """One line for each policy and baseline at a target of what `compare` found, by score: means
    over seeds with their 95 % t-intervals, the least and the most of a seed, FLOPs per event in
    units of the plain hybrid's, fixed(1) of the model that sleeps, and, where some questions lie
    beyond the largest window at that target, the score within and beyond it."""
    plain = next(row for row in found["rows"] if row["name"] == "fixed-1")["flops_per_event"]
    here = [row for row in found["rows"] if row.get("target") == target]
    apart = any(row.get("score_beyond") is not None for row in here)
    parts = ("within", "beyond") if apart else ()
    head = ("at cost", "knob", "score", "least to most", "FLOPs an event", "of them wake", *parts)
    lines = [head, ("---",) * len(head)]
    for row in sorted(here, key=lambda row: -float(row["score"])):
        name = row["name"].rpartition("@")[0]
        values = [value["score"] for value in row["seeds_values"].values()]
        lines.append(
            (
                f"**`{name}`**" if row["kind"] == "matched" else name,
                "" if row["knob"] is None else f"{row['knob']:g}",
                _with_half(row, "score"),
                f"{min(values):.3f} to {max(values):.3f}",
                f"{row['flops_per_event'] / plain:.2f}x",
                f"{row['wake_flops_per_event'] / plain:.2f}x",
                *(_with_half(row, f"score_{part}") for part in parts),
            )
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _with_half(row: Mapping[str, Any], name: str) -> str:
    """A mean with half of its interval, if it has one."""
    if row[name] is None:
        return ""
    ends = row[f"{name}_interval"]
    return f"{row[name]:.3f}" + (f" ±{ends[1] - row[name]:.3f}" if ends else "")


def _difference(row: Mapping[str, Any], value: str, ends: str) -> str:
    if row[value] is None:
        return ""
    spread = f" ±{row[ends][1] - row[value]:.3f}" if row[ends] else ""
    return f"{row[value]:+.3f}{spread}"


def main() -> None:
    """Print the tables of the comparison that is named."""
    if len(sys.argv) != 2:
        raise InputError(f"{sys.argv[1:]}: give the name of one kept comparison, as mixed_chain")
    held = from_results(sys.argv[1])
    targets = held["recipe"].get("targets", ())
    tables = [matched_table(held, target) for target in targets] or [short_table(held)]
    sys.stdout.write("\n\n".join(tables) + "\n")


if __name__ == "__main__":
    sys.exit(guarded(main))
