"""Counterfactual replays as numbers to learn from: what was seen after each pass, what it saved.

Windows that are held out share nothing with the others. What is fitted to them is in
gain_training.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from adaptive_sleep.experiments.counterfactual import FACTS, RUN, Facts, open_counterfactuals
from adaptive_sleep.experiments.runs import open_run
from adaptive_sleep.signals import BoolArray, FloatArray, IntArray, StrArray
from adaptive_sleep.streams.errors import InputError, nearest

SHARE = 0.2  # of the windows, held out
STREAMS = 4  # from so many streams on, whole streams are held out
Of = Literal["loss", "errors"]  # what a pass is to save


@dataclass(frozen=True, eq=False)
class Cases:
    """Windows after 1..K passes, one a row.

    loss, cost (what a pass is to save: the loss, or 1 where not all is right; both of all windows
    up to `last`), state_change, hidden_change (NaN after pass 1) `[windows, K]`; summary float32
    `[windows, K, width]`; all_right bool `[windows, K]`, None for a model that answers nothing;
    stream: recording and stream, one name for both; window: its index; last: the index of the last
    window that `loss` is of; cut: how the stream was cut, in words: what decides which events have
    an index.
    """

    loss: FloatArray
    cost: FloatArray
    all_right: BoolArray | None
    state_change: FloatArray
    hidden_change: FloatArray
    summary: NDArray[np.float32]
    stream: StrArray
    window: IntArray
    last: IntArray
    cut: StrArray

    def __len__(self) -> int:
        return len(self.loss)

    @property
    def most(self) -> int:
        """K."""
        return int(self.loss.shape[1])

    def select(self, rows: IntArray) -> Cases:
        """Some of the windows."""
        parts: dict[str, Any] = {it.name: getattr(self, it.name) for it in fields(self)}
        some: dict[str, Any] = {n: None if it is None else it[rows] for n, it in parts.items()}
        return Cases(**some)


@dataclass(frozen=True)
class Origin:
    """What all folders that are fitted together have in common, and the recordings they are of."""

    model_hash: str
    most: int
    horizon: int
    width: int
    recordings: tuple[str, ...]


def read_cases(folders: Sequence[str | Path], of: Of = "loss") -> tuple[Cases, Origin]:
    """The windows of folders of counterfactuals, with what a pass is to save of each, and where
    they come from.

    Raises InputError for none, for folders of different models, passes or horizons, for one without
    a window, and for errors where nothing is answered; else as `open_counterfactuals` does.
    """
    if not folders:
        raise InputError("forks: give at least one folder of counterfactuals")
    if of not in get_args(Of):
        raise InputError(f"of={of!r}: one of {', '.join(get_args(Of))}{nearest(of, get_args(Of))}")
    found = [_read(Path(folder), of) for folder in folders]
    first = found[0][1]
    for folder, (_, origin) in zip(folders, found, strict=True):
        check_alike(folders[0], first, folder, origin)
    recordings = tuple(dict.fromkeys(origin.recordings[0] for _, origin in found))
    return _joined([cases for cases, _ in found]), replace(first, recordings=recordings)


def check_alike(folder: str | Path, mine: Origin, other: str | Path, theirs: Origin) -> None:
    """Refuse what cannot be fitted together. Raises InputError naming both folders."""
    for name in ("model_hash", "most", "horizon", "width"):
        if getattr(mine, name) != getattr(theirs, name):
            raise InputError(
                f"forks: {name} is {getattr(mine, name)} in {folder} but {getattr(theirs, name)} "
                f"in {other}; a fit is of one model, most and horizon"
            )


def split(cases: Cases, seed: int) -> tuple[Cases, Cases]:
    """Windows to fit, and at least a fifth of them held out, which share nothing.

    Whole streams where there are `STREAMS` or more, drawn by `seed`: windows of one stream start
    from each other's fast weights. Else the last of each stream, without the windows before whose
    horizon reaches into them. Raises InputError where one side would be empty, and for such a
    stream that was cut in two ways, since an index is then of other events.
    """
    names = np.unique(cases.stream.astype(str))
    if len(names) >= STREAMS:
        drawn = np.random.default_rng(seed).permutation(names)
        sizes = np.cumsum([(cases.stream == name).sum() for name in drawn])
        held = np.isin(cases.stream, drawn[: 1 + int((sizes < SHARE * len(cases)).sum())])
        kept = ~held
    else:
        held, kept = _late(cases)
    if not held.any() or not kept.any():
        raise InputError(
            f"forks: {len(cases)} windows of {len(names)} stream(s) are too few to hold some out"
        )
    return cases.select(np.flatnonzero(kept)), cases.select(np.flatnonzero(held))


def _late(cases: Cases) -> tuple[BoolArray, BoolArray]:
    """The last fifth of every stream, and what has nothing in common with it. Raises InputError."""
    held = np.zeros(len(cases), dtype=np.bool_)
    kept = np.zeros(len(cases), dtype=np.bool_)
    for name in np.unique(cases.stream.astype(str)):
        rows = np.flatnonzero(cases.stream == name)
        if len(cuts := sorted(set(cases.cut[rows]))) > 1:
            raise InputError(
                f"forks: {name} is cut in {len(cuts)} ways ({'; '.join(cuts)}), so windows that "
                "are held out would share events with the others; give folders that are cut "
                "alike, or hold out other recordings (held_out)"
            )
        begin = np.quantile(cases.window[rows], 1.0 - SHARE)
        held[rows] = cases.window[rows] >= begin
        kept[rows] = cases.last[rows] < begin
    return held, kept


def _read(folder: Path, of: Of) -> tuple[Cases, Origin]:
    table = open_counterfactuals(folder).table.sort("stream", "window", "passes")
    if not len(table):
        raise InputError(f"forks={str(folder)!r}: holds no window; replay a longer recording")
    facts = msgspec.json.decode((folder / FACTS).read_bytes(), type=Facts)
    manifest = open_run(folder / RUN).manifest
    most = facts.most

    def grid(name: str) -> NDArray[Any]:
        return table[name].cast(pl.Float64).to_numpy().reshape(-1, most)

    summary = table["summary"].explode().to_numpy().reshape(len(table) // most, most, -1)
    one = table.gather_every(most)
    recording = manifest.recording.sha256
    right = None if table["right"].null_count() else grid("right") == grid("asked")
    cost = loss = grid("loss")
    if of == "errors":
        if right is None:
            raise InputError(
                f"of='errors': the model of {str(folder)!r} answers no questions, so none is "
                "wrong; fit to 'loss'"
            )
        cost = 1.0 - right
    settings = manifest.settings
    cut = (
        f"start={manifest.recording.start}, window={settings.window}, "
        f"gap_seconds={settings.gap_seconds}"
    )
    cases = Cases(
        loss=loss,
        cost=cost,
        all_right=right,
        state_change=grid("state_change"),
        hidden_change=grid("hidden_change"),
        summary=summary,
        stream=np.array([f"{recording[:12]}/{name}" for name in one["stream"]], dtype=object),
        window=one["window"].to_numpy(),
        last=(one["window"] + one["lag"]).to_numpy(),
        cut=np.full(len(one), cut, dtype=object),
    )
    origin = Origin(manifest.model.hash, most, facts.horizon, summary.shape[2], (recording,))
    return cases, origin


def _joined(parts: Sequence[Cases]) -> Cases:
    """All windows of several folders."""
    joined: dict[str, Any] = {}
    for field in fields(Cases):
        values = [getattr(part, field.name) for part in parts]
        joined[field.name] = None if values[0] is None else np.concatenate(values)
    return Cases(**joined)
