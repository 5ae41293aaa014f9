"""Counterfactual replay: at each window of a replay, what 1, 2, ..., K passes would have come to.

The run is an ordinary one, and its trace the same bytes; the forks beside it are the core's
(`adaptive_sleep.counterfactual`). What the table says is worked out in oracle.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

from adaptive_sleep.contract import PolicyLike
from adaptive_sleep.counterfactual import HALVES, Alternatives, Forks
from adaptive_sleep.experiments.commits import said_when_full, write_manifest
from adaptive_sleep.experiments.replay import Progress, replay
from adaptive_sleep.experiments.runs import open_run, trace_glob
from adaptive_sleep.model import Model
from adaptive_sleep.runtime import Runtime, StepResult
from adaptive_sleep.signals import WindowSignals
from adaptive_sleep.streams.errors import InputError, IntegrityError
from adaptive_sleep.streams.events import Piece
from adaptive_sleep.streams.manifest import new_folder, write_atomically
from adaptive_sleep.streams.recording import Recording

SCHEMA = 1
TABLE, FACTS, RUN = "table.parquet", "counterfactual.json", "run"
_INT, _FLOAT = pl.Int64(), pl.Float64()
_SIGNALS: dict[str, pl.DataType] = {
    f"signal_{name}": _INT if "Int" in str(WindowSignals.__annotations__[name]) else _FLOAT
    for name in WindowSignals.SCALARS
}
_SCORES: dict[str, pl.DataType] = {"loss": _FLOAT, "scored": _INT, "right": _INT}
TABLE_SCHEMA: dict[str, pl.DataType] = {
    "stream": pl.String(),
    "window": _INT,
    "passes": _INT,
    "chosen": _INT,
    "lag": _INT,
    "loss": _FLOAT,
    "best_loss": _FLOAT,
    "run_loss": _FLOAT,
    "scored": _INT,
    "right": _INT,
    "asked": _INT,
    "sleep_flops": _INT,
    "state_change": _FLOAT,
    "hidden_change": _FLOAT,
    **{f"{name}_{half}": kind for half in HALVES for name, kind in _SCORES.items()},
    **_SIGNALS,
    "summary": pl.List(pl.Float32),
}  # fmt: skip


class Facts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """counterfactual.json: what was asked, what came of it, and the hash of the table beside it."""

    schema: int = SCHEMA
    most: int
    horizon: int
    seed: int
    windows: int
    unfinished: int
    drift: float | None
    forked_flops: int
    trace_sha256: str
    table_sha256: str


@dataclass(frozen=True, eq=False)
class Counterfactuals:
    """What 1 to K passes over each window of a run would have cost and saved.

    `table` has one row for each stream, window and number of `passes`, sorted by them:
    `chosen`, the passes of the run; `lag`, windows to the end of the horizon; `loss`, mean over the
    `scored` predictions of the horizon (nats, or normalised pinball), `best_loss` the least over
    1..K, `run_loss` that of the run itself; `right` and `asked` answers (null for a model that
    gives none); `sleep_flops` of passes 2..n; `state_change`, `hidden_change` (null at n = 1) and
    `summary` (float32, 2d) after pass n; `loss_a`, `scored_a`, `right_a` and the same with b, of
    two seeded halves of the questions (null likewise, and a loss where a half is empty);
    `signal_NAME`, what the policy was shown.

    `unfinished`: windows left out, whose horizon the recording does not reach. `drift`: the largest
    difference of `loss` at the passes chosen to `run_loss`, which only rounding can make; None
    where the run chose more than K everywhere.
    `forked_flops`: wake, sleep and signals of the forks, beside what the run spent.
    """

    table: pl.DataFrame
    trace_sha256: str
    unfinished: int
    drift: float | None
    forked_flops: int


def counterfactuals(
    recording: str | Path | Recording,
    model: str | Path | Model,
    policy: str | PolicyLike,
    out: str | Path,
    *,
    most: int = 4,
    horizon: int = 1,
    start: float | int = 0.0,
    stop: float | int = 1.0,
    window: int | None = None,
    gap_seconds: float | None = None,
    eviction: str = "hard",
    budget: float | None = None,
    burst: float = 4.0,
    max_passes: int = 8,
    price: float = 0.0,
    seed: int = 0,
    on_progress: Callable[[Progress], None] | None = None,
) -> Counterfactuals:
    """Replay a recording, and ask at every window that is slept on what 1 to `most` passes give.

    Each fork reads on for `horizon` scored windows, and sleeps on those between as the run does.
    `seed` is that of the run and of the halves of the questions; all else is as in `replay`. `out`,
    a new folder, appears whole or not at all: the run in run/, the table in table.parquet, and
    counterfactual.json; `open_counterfactuals` reads it. It is held in memory until then: 4 bytes
    times 2 d for each row's summary, and little else.
    Raises as `replay` and `Forks` do.
    """
    out = Path(out)
    if out.exists():
        raise InputError(f"out={str(out)!r}: exists already; choose another folder")
    follower = _Follower(most, horizon, seed)
    full = said_when_full(out, "nothing is left of it, so make room and begin again")
    with full, new_folder(out) as part:
        summary = replay(
            recording, model, policy, part / RUN, start=start, stop=stop, window=window,
            gap_seconds=gap_seconds, eviction=eviction, budget=budget, burst=burst,
            max_passes=max_passes, price=price, seed=seed, on_progress=on_progress,
            watch=follower,
        )  # fmt: skip
        found = follower.result(summary.trace_sha256)
        _write(part, found, follower)
        # where the trace will be, once the folder has its name
        at = replace(summary, trace=trace_glob(out / RUN))
        manifest = msgspec.structs.replace(open_run(part / RUN).manifest, summary=at)
        write_manifest(part / RUN, manifest)
    return found


def open_counterfactuals(path: str | Path) -> Counterfactuals:
    """Read what `counterfactuals` wrote into a folder.

    Raises InputError where there is none, IntegrityError where it is damaged or of a newer schema.
    """
    path = Path(path)
    if not (path / FACTS).is_file():
        raise InputError(
            f"path={str(path)!r}: no {FACTS} there; give the folder of counterfactuals"
        )
    try:
        facts = msgspec.json.decode((path / FACTS).read_bytes(), type=Facts)
    except msgspec.MsgspecError as error:
        raise IntegrityError(
            f"{path / FACTS}: damaged, or newer than this version: {error}"
        ) from None
    if facts.schema != SCHEMA:
        raise IntegrityError(f"{path / FACTS}: schema {facts.schema}; this version reads {SCHEMA}")
    file = path / TABLE
    if not file.is_file() or _hash(file) != facts.table_sha256:
        raise IntegrityError(f"{file}: missing, or not what was written (its SHA-256 differs)")
    table = pl.read_parquet(file.absolute(), glob=False)  # polars would expand a leading ~
    return Counterfactuals(
        table, facts.trace_sha256, facts.unfinished, facts.drift, facts.forked_flops
    )


class _Follower:
    """Watches a replay, and keeps what its forks find."""

    def __init__(self, most: int, horizon: int, seed: int) -> None:
        self.most, self.horizon, self.seed = most, horizon, seed
        self._forks: Forks | None = None
        self._found: list[Alternatives] = []

    def __call__(self, runtime: Runtime, pieces: Sequence[Piece], result: StepResult) -> None:
        if self._forks is None:
            self._forks = Forks(runtime, most=self.most, horizon=self.horizon, seed=self.seed)
        self._found += self._forks.follow(pieces, result)

    def result(self, trace_sha256: str) -> Counterfactuals:
        """All that was found, as a table."""
        forks = self._forks
        table = _table(self._found)
        own = table.filter(pl.col("passes") == pl.col("chosen"))
        apart = np.abs(own["loss"].to_numpy() - own["run_loss"].to_numpy())
        return Counterfactuals(
            table,
            trace_sha256,
            forks.unfinished if forks else 0,
            float(apart.max()) if len(apart) else None,
            forks.ledger.flops if forks else 0,
        )


def _table(found: Sequence[Alternatives]) -> pl.DataFrame:
    """One row for each window and number of passes, with the columns of TABLE_SCHEMA."""
    columns: dict[str, list[Any]] = {name: [] for name in TABLE_SCHEMA}
    for one in found:
        for name, values in _columns(one).items():
            columns[name] += values
    schema = {name: kind for name, kind in TABLE_SCHEMA.items() if name != "summary"}
    table = pl.DataFrame({name: columns[name] for name in schema}, schema=schema)
    pooled = np.concatenate([one.summary for one in found]) if found else np.zeros((0, 1))
    wide = pl.Series("summary", pooled, pl.Array(pl.Float32, pooled.shape[1]))
    table = table.with_columns(wide.cast(pl.List(pl.Float32)))
    return table.sort("stream", "window", "passes")


def _columns(one: Alternatives) -> dict[str, list[Any]]:
    """The rows of one window, by column."""
    most, signals, score = len(one.score.loss), one.signals, one.score
    answers = one.asked is not None
    whole: dict[str, Any] = {
        "stream": signals.stream[0],
        "window": int(signals.window[0]),
        "chosen": one.passes,
        "lag": one.lag,
        "best_loss": float(score.loss.min()),
        "run_loss": float(one.run.loss[0]),
        "asked": one.asked,
    }
    whole |= {f"signal_{name}": getattr(signals, name)[0].item() for name in signals.SCALARS}
    columns = {name: [value] * most for name, value in whole.items()}
    columns |= {
        "passes": list(range(1, most + 1)),
        "loss": score.loss.tolist(),
        "scored": score.scored.tolist(),
        "right": score.right.tolist() if answers else [None] * most,
        "sleep_flops": (np.arange(most) * signals.pass_flops[0]).tolist(),
        "state_change": one.state_change.tolist(),
        "hidden_change": [None, *one.hidden_change[1:].tolist()],
    }
    for half, part in zip(HALVES, one.halves, strict=True):
        there = [n if answers else None for n in part.scored.tolist()]
        columns[f"scored_{half}"] = there
        columns[f"right_{half}"] = part.right.tolist() if answers else [None] * most
        columns[f"loss_{half}"] = [
            x if n else None for x, n in zip(part.loss.tolist(), there, strict=True)
        ]
    return columns


def _write(folder: Path, found: Counterfactuals, follower: _Follower) -> None:
    """Put the table and its facts into a folder."""
    with said_when_full(folder):
        found.table.write_parquet(folder.absolute() / TABLE)
        facts = Facts(
            most=follower.most,
            horizon=follower.horizon,
            seed=follower.seed,
            windows=found.table.select("stream", "window").n_unique(),
            unfinished=found.unfinished,
            drift=found.drift,
            forked_flops=found.forked_flops,
            trace_sha256=found.trace_sha256,
            table_sha256=_hash(folder / TABLE),
        )
        text = msgspec.json.format(msgspec.json.encode(facts), indent=2) + b"\n"
        write_atomically(folder / FACTS, text)


def _hash(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
