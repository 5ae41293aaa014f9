"""What a page about a comparison shows, read from the JSON that `adaptive-sleep compare` wrote.

Nothing is measured here but which rows no other beats. Traces are read in report_passes.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from adaptive_sleep.experiments.compare import CLAIM
from adaptive_sleep.experiments.compare_rows import smallest_effect
from adaptive_sleep.experiments.matched_reading import beside_policy
from adaptive_sleep.streams.errors import InputError, nearest

Ends = tuple[float, float]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One row: means over trained seeds, and their intervals, as in `compare_rows.make_rows`.

    `difference_to_fixed` is that to fixed(max_passes).
    """

    name: str
    policy: str
    kind: str
    control_of: str = ""
    online: bool = True
    optimistic: bool = False
    score: float
    score_interval: Ends | None = None
    mean_passes: float
    sleep_flops_per_event: float
    flops_per_event: float
    resident_bytes: float | None = None
    regret: float | None = None
    regret_optimistic: float | None = None
    regret_loss: float | None = None
    extra_passes: float | None = None
    difference_to_fixed: float | None = None
    difference_interval: Ends | None = None
    difference_to_shuffled: float | None = None
    difference_to_shuffled_interval: Ends | None = None
    difference_to_hull: float | None = None
    difference_to_hull_interval: Ends | None = None
    sleep_share: float | None = None
    sleep_share_interval: Ends | None = None
    target: float | None = None
    knob: float | None = None
    training_tokens: float | None = None
    training_flops: float | None = None
    tuning_trials: float | None = None
    tuning_flops: float | None = None
    difference_to_policy: float | None = None
    difference_to_policy_interval: Ends | None = None
    roomy: bool | None = None
    wake_flops_per_event: float | None = None
    seconds_per_event: float | None = None
    largest_window: float | None = None
    score_within: float | None = None
    score_within_interval: Ends | None = None
    score_beyond: float | None = None
    score_beyond_interval: Ends | None = None
    seeds_values: dict[int, dict[str, Any]] = {}

    @property
    def smallest_effect(self) -> float | None:
        """The smallest true difference to fixed(max_passes) that would have been seen."""
        return smallest_effect(self.difference_interval, len(self.seeds_values))

    @property
    def smallest_beside(self) -> float | None:
        """The same of its difference to the policy at its target."""
        return smallest_effect(self.difference_to_policy_interval, len(self.seeds_values))

    @property
    def base(self) -> str:
        """The name without the target that it is matched at."""
        return self.name if self.target is None else self.name.rpartition("@")[0] or self.name


class Correlation(msgspec.Struct, frozen=True):
    """Rank correlation of a signal with the oracle's passes; None where either never changes."""

    correlation: float | None = None
    interval: Ends | None = None


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """All that a comparison wrote."""

    comparison: str
    rows: tuple[Row, ...]
    changes: dict[str, tuple[Row, ...]] = {}
    signals: dict[str, Correlation] = {}
    reading: tuple[str, ...] = ()
    left_out: dict[str, str] = {}
    seeds: tuple[int, ...]
    max_passes: int
    asked: bool | None = None
    windows: dict[int, int] = {}
    models: dict[int, str] = {}
    model_hashes: dict[int, str] = {}
    versions: dict[str, str] = {}
    recipe: dict[str, Any] = {}
    recipe_sha256: str = ""
    commit: str = ""
    begun_at_commit: str = ""
    recounted_at_commit: str = ""
    recording_sha256: str | None = None
    quick: bool = False
    wall_seconds: float | None = None

    @property
    def asks(self) -> bool:
        """Whether the score is a share of windows answered right; else it is minus the loss."""
        if self.asked is not None:
            return self.asked
        return self.recipe.get("recording") is None  # written by an earlier version

    @property
    def matched(self) -> tuple[Row, ...]:
        """The rows at matched cost, by target."""
        held = [row for row in self.rows if row.target is not None]
        return tuple(sorted(held, key=lambda row: row.target or 0.0))

    @property
    def others(self) -> tuple[Row, ...]:
        """The rows at a cost of their own."""
        return tuple(row for row in self.rows if row.target is None)


@dataclass(frozen=True)
class Found:
    """A comparison, and the folder that it ran in, if what was read lies in one."""

    result: Result
    folder: Path | None


def open_comparison(where: str | Path) -> Found:
    """Read a comparison: the JSON that it wrote, the folder that this lies in, or the name of a
    kept result. Raises InputError where there is none, with the nearest name."""
    path = Path(where)
    if path.is_dir():
        file = _within(path)
    elif path.is_file():
        file = path
    else:
        file = _kept(str(where))
    result = read_result(file)
    return Found(result, file.parent if _is_of(file.parent, result) else None)


def _within(folder: Path) -> Path:
    """The one comparison that a folder holds."""
    if not (folder / CLAIM).is_file():
        raise InputError(
            f"comparison={str(folder)!r}: no {CLAIM} there; give the --out folder of "
            "`adaptive-sleep compare`"
        )
    held = [path for path in sorted(folder.glob("*.json")) if "rows" in _object(path)]
    if not held:
        raise InputError(
            f"comparison={str(folder)!r}: none has ended there yet; `adaptive-sleep compare` with "
            "the same --out goes on with it"
        )
    if len(held) > 1:
        names = ", ".join(path.name for path in held)
        raise InputError(f"comparison={str(folder)!r}: holds several ({names}); give one of them")
    return held[0]


def _kept(name: str) -> Path:
    files = {path.stem: path for path in _results()}
    if name in files:
        return files[name]
    names = [stem for stem, path in files.items() if "comparison" in _object(path)]
    raise InputError(
        f"report {name!r}: no such run or file, and no comparison of that name is kept"
        f"{nearest(name, names)} ({', '.join(names) or 'none is kept'})"
    )


def _results() -> list[Path]:
    folder = Path(str(resources.files("adaptive_sleep.experiments"))) / "results"
    return sorted(folder.glob("*.json"))


def _object(file: Path) -> dict[str, Any]:
    """A JSON file that holds an object. Raises InputError."""
    try:
        held = json.loads(file.read_bytes())
    except ValueError as error:  # also of bytes that are no text
        raise InputError(f"comparison={str(file)!r}: is no JSON ({error})") from None
    if not isinstance(held, dict):
        raise InputError(f"comparison={str(file)!r}: an object is expected, not {held!r:.40}")
    return held


def read_result(file: Path) -> Result:
    """Read the JSON of a comparison. Raises InputError for what holds none, naming the field."""
    held = _object(file)
    where = f"comparison={str(file)!r}"
    if "rows" not in held:
        raise InputError(
            f"{where}: holds no comparison (it has no field rows); give what `adaptive-sleep "
            "compare` wrote"
        )
    to_fixed = f"difference_to_fixed{held.get('max_passes')}"

    def plain(rows: Any) -> Any:
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            return rows  # whoever decodes it says what is wrong
        return [{**row, "difference_to_fixed": row.get(to_fixed)} for row in rows]

    changes = held.get("changes")
    if isinstance(changes, dict):
        changes = {name: plain(rows) for name, rows in changes.items()}
    try:
        whole = {**held, "rows": plain(held["rows"]), "changes": changes or {}}
        msgspec.convert(whole, Result, str_keys=True)
        whole["rows"] = _beside(whole["rows"], where)
        result = msgspec.convert(whole, Result, str_keys=True)
    except msgspec.ValidationError as error:
        raise InputError(f"{where}: is not as `adaptive-sleep compare` wrote it: {error}") from None
    if not result.rows:
        raise InputError(f"{where}: rows=[]: at least one")
    return result


def _beside(rows: list[dict[str, Any]], where: str) -> list[dict[str, Any]]:
    """`beside_policy`; raises InputError where a row at matched cost lacks what that takes."""
    needed = ("online", "resident_bytes", "seeds_values")
    for row in rows:
        lacks = [name for name in needed if row.get(name) is None]
        if row.get("target") is not None and lacks:
            raise InputError(
                f"{where}: row {row.get('name')!r} is at matched cost and lacks {', '.join(lacks)}"
            )
    return beside_policy(rows)


def _is_of(folder: Path, result: Result) -> bool:
    """Whether a folder is that of this very comparison."""
    if not (folder / CLAIM).is_file():
        return False
    return _object(folder / CLAIM).get("recipe_sha256") == result.recipe_sha256


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which of the points (cost, score) none beats in both, by cost.

    >>> front([(2.0, 0.5), (1.0, 0.5), (3.0, 0.7)])
    [1, 2]
    """
    kept: list[int] = []
    for at in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if not kept or points[at][1] > points[kept[-1]][1]:
            kept.append(at)
    return kept


def best_rows(rows: Sequence[Row]) -> list[Row]:
    """The front of score and FLOPs per event among what could be deployed, by cost."""
    online = [row for row in rows if row.online]
    return [online[at] for at in front([(row.flops_per_event, row.score) for row in online])]


def rows_frame(rows: Sequence[Row], **marks: Sequence[Any]) -> pl.DataFrame:
    """Every figure of the rows; an interval as two columns, `_low` and `_high`. `marks` are more
    columns, at the front."""
    held = [dict(_flat(row)) for row in rows]
    frame = pl.DataFrame(held, infer_schema_length=None, strict=False)
    known = [name for name in frame.columns if frame[name].null_count() < len(frame)]
    given = [pl.Series(name, values) for name, values in marks.items()]
    return frame.select(*given, *known)


def _flat(row: Row) -> Iterator[tuple[str, Any]]:
    for name, value in msgspec.structs.asdict(row).items():
        if name.endswith("_interval"):
            low, high = value or (None, None)
            yield from ((f"{name}_low", low), (f"{name}_high", high))
        elif name != "seeds_values":
            yield name, value


def seeds_frame(rows: Sequence[Row]) -> pl.DataFrame:
    """Every figure of every trained seed: row, seed, and what that seed found."""
    held = [
        {"row": row.name, "kind": row.kind, "seed": seed, **values}
        for row in rows
        for seed, values in row.seeds_values.items()
    ]
    return pl.DataFrame(held, infer_schema_length=None, strict=False)


def changes_frame(result: Result) -> pl.DataFrame:
    """The rows of all changes, in a first column `change`."""
    rows = [row for several in result.changes.values() for row in several]
    named = [name for name, several in result.changes.items() for _ in several]
    return rows_frame(rows, change=named)


def signals_frame(signals: Mapping[str, Correlation]) -> pl.DataFrame:
    """The correlation of every signal, with its interval."""
    ends = [it.interval or (None, None) for it in signals.values()]
    return pl.DataFrame(
        {
            "signal": list(signals),
            "correlation": [it.correlation for it in signals.values()],
            "low": [low for low, _ in ends],
            "high": [high for _, high in ends],
        },
        schema_overrides=dict.fromkeys(("correlation", "low", "high"), pl.Float64),
    )
