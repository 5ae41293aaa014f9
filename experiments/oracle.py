"""What a table of counterfactuals says: the oracle's passes, a policy's regret, a pass's value.

All of it is arithmetic on the table that counterfactual.py makes; nothing is run here. Losses are
means over windows, in the unit of the loss of the run; costs are `loss + price * sleep FLOPs`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from adaptive_sleep.experiments.runs import open_run
from adaptive_sleep.signals import BoolArray, FloatArray, IntArray
from adaptive_sleep.streams.errors import InputError

KEYS = ["stream", "window"]
COLUMNS = (*KEYS, "passes", "loss", "scored", "right", "sleep_flops")
TOLERANCE = 0.01  # nats, or normalised pinball


@dataclass(frozen=True, eq=False)
class Oracle:
    """The passes that would have been best, window by window.

    `passes`: a table of `stream`, `window`, `passes`, and at these passes `sleep_flops` and what
    came after: `loss_after`, `scored_after`, `right_after` (null for a model that answers nothing),
    with halves those of the half that chose nothing. It can be prescribed (controls.py) where every
    window that is slept on is in it. `optimistic`: chosen and scored on the same predictions,
    so that luck counts as skill. `left_out`: windows with too few questions for two halves.
    """

    passes: pl.DataFrame
    optimistic: bool
    left_out: int

    @property
    def mean_passes(self) -> float:
        """Mean passes over the windows."""
        return float(self.passes["passes"].to_numpy().mean())

    @property
    def loss(self) -> float:
        """Mean loss over the windows."""
        return float(self.passes["loss_after"].to_numpy().mean())


@dataclass(frozen=True)
class Regret:
    """What the passes of a run lost against the oracle, means over windows.

    `loss`: that of the passes run less that of the oracle's; `extra_passes`, `extra_flops`: run
    less oracle (negative where the run spent less); `cost`: loss and extra FLOPs at the price;
    `all_right`: share of windows answered all right, oracle less run, None for a model that answers
    nothing. `optimistic` (of the oracle) and `left_out` as in `Oracle`.
    """

    windows: int
    loss: float
    extra_passes: float
    extra_flops: float
    cost: float
    all_right: float | None
    optimistic: bool
    left_out: int


def oracle(
    table: pl.DataFrame, *, tolerance: float = TOLERANCE, price: float = 0.0, halves: bool = False
) -> Oracle:
    """The least passes whose cost is within `tolerance` of the best over 1 to K, for each window.

    At price 0 and for a model that answers, passes after which everything is answered right come
    first: where there are any, the others are no candidates, whatever their loss. `price`: units of
    loss per sleep FLOP. With `halves`, it chooses on one seeded half of the questions and is scored
    on the other. Raises InputError for a table that is not one, for halves of a model that answers
    nothing, or a tolerance or price that is not a number from 0 on.
    """
    grid = _grid(table)
    for name, value in (("tolerance", tolerance), ("price", price)):
        if not value >= 0.0 or (name == "price" and math.isinf(value)):
            raise InputError(f"{name}={value}: a number from 0 on")
    seen, told, kept = grid.sides(halves)
    place = _least(seen, grid.flops, tolerance, price)
    rows = np.arange(len(place)), place
    found = grid.keys.with_columns(
        pl.Series("passes", place + 1),
        pl.Series("loss_after", told.loss[rows]),
        pl.Series("scored_after", told.scored[rows]),
        pl.lit(None, pl.Int64).alias("right_after")
        if told.right is None
        else pl.Series("right_after", told.right[rows]),
        pl.Series("sleep_flops", grid.flops[rows]),
    )
    return Oracle(found[kept], not halves, len(place) - len(kept))


def regret(
    table: pl.DataFrame,
    trace: pl.DataFrame | pl.LazyFrame | str | Path,
    *,
    tolerance: float = TOLERANCE,
    price: float = 0.0,
    halves: bool = False,
) -> Regret:
    """How far the passes of a trace are from the oracle's, on the windows of the table.

    `trace`: a run folder, or a table of `stream`, `window` and `passes` (such as `Oracle.passes`).
    The loss may be below 0: the oracle saves passes within the tolerance, puts all right above a
    lower loss, and with `halves` both are scored on the half that chose nothing.
    Raises InputError as `oracle` does, and where the trace lacks a window of the table or has more
    passes than the table knows.
    """
    best = oracle(table, tolerance=tolerance, price=price, halves=halves)
    if not len(best.passes):
        raise InputError(
            "table: no window to compare; it is empty, or too few questions for halves"
        )
    grid = _grid(table)
    _, told, kept = grid.sides(halves)
    chosen = _chosen(grid.keys[kept], trace, grid.flops.shape[1])
    rows = kept, chosen - 1
    loss = float((told.loss[rows] - best.passes["loss_after"].to_numpy()).mean())
    flops = float((grid.flops[rows] - best.passes["sleep_flops"].to_numpy()).mean())
    all_right = None
    if told.right is not None:
        ours = told.right[rows] == told.scored[rows]
        theirs = (best.passes["right_after"] == best.passes["scored_after"]).to_numpy()
        all_right = float(theirs.mean() - ours.mean())
    return Regret(
        windows=len(kept),
        loss=loss,
        extra_passes=float((chosen - best.passes["passes"].to_numpy()).mean()),
        extra_flops=flops,
        cost=loss + price * flops,
        all_right=all_right,
        optimistic=best.optimistic,
        left_out=best.left_out,
    )


def value(table: pl.DataFrame) -> pl.DataFrame:
    """What going on from n passes is worth, for n = 1 to K - 1: one row a window and n.

    `value`: loss after n passes less the least loss after more of them (below 0 where any more
    hurt); `at`: the least passes with that loss; `more_flops`: sleep FLOPs from n to there.
    Raises InputError for a table that is not one.
    """
    grid = _grid(table)
    loss, most = grid.whole().loss, grid.flops.shape[1]
    parts = []
    for place in range(most - 1):
        later = place + 1 + loss[:, place + 1 :].argmin(1)
        rows = np.arange(len(loss))
        parts.append(
            grid.keys.with_columns(
                pl.lit(place + 1, pl.Int64).alias("passes"),
                pl.Series("value", loss[:, place] - loss[rows, later]),
                pl.Series("at", later + 1),
                pl.Series("more_flops", grid.flops[rows, later] - grid.flops[:, place]),
            )
        )
    return pl.concat(parts).sort(*KEYS, "passes")


@dataclass(frozen=True, eq=False)
class _Scores:
    """Loss, scored and right predictions, `[windows, K]`."""

    loss: FloatArray
    scored: IntArray
    right: IntArray | None


@dataclass(frozen=True, eq=False)
class _Grid:
    """A table as one row a window: its keys, and columns as `[windows, K]`."""

    keys: pl.DataFrame
    flops: IntArray
    frame: pl.DataFrame

    def column(self, name: str) -> NDArray[np.float64]:
        """A numeric column `[windows, K]`, null as NaN."""
        return self.frame[name].cast(pl.Float64).to_numpy().reshape(self.flops.shape)

    def whole(self) -> _Scores:
        """What all predictions say."""
        right = None if self.frame["right"].null_count() else self.column("right").astype(np.int64)
        return _Scores(self.column("loss"), self.column("scored").astype(np.int64), right)

    def sides(self, halves: bool) -> tuple[_Scores, _Scores, IntArray]:
        """What chooses, what is scored, and the windows that have both."""
        seen = self.half("a") if halves else self.whole()
        told = self.half("b") if halves else seen
        return seen, told, np.flatnonzero((seen.scored > 0).all(1) & (told.scored > 0).all(1))

    def half(self, name: str) -> _Scores:
        """What the half "a" or "b" of the questions says."""
        column = f"scored_{name}"
        if column not in self.frame.columns or self.frame[column].null_count():
            raise InputError("halves=True: only for a model that answers questions; leave it out")
        loss, scored, right = (self.column(f"{c}_{name}") for c in ("loss", "scored", "right"))
        return _Scores(loss, scored.astype(np.int64), right.astype(np.int64))


def _grid(table: pl.DataFrame) -> _Grid:
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        raise InputError(f"table: no column {', '.join(missing)}; give one of counterfactuals")
    frame = table.sort(*KEYS, "passes")
    most = int(table["passes"].cast(pl.Int64).to_numpy().max(initial=1))
    passes = frame["passes"].to_numpy()
    keys = frame.select(KEYS)
    whole = len(frame) % most == 0
    if not whole or not (passes.reshape(-1, most) == np.arange(1, most + 1)).all():
        raise InputError(f"table: every window needs one row for each of 1 to {most} passes")
    first = keys.gather_every(most)
    if keys.n_unique() != len(first):
        raise InputError(f"table: every window needs one row for each of 1 to {most} passes")
    if frame["loss"].null_count():
        raise InputError("table: loss is missing in some rows")
    flops = frame["sleep_flops"].to_numpy().reshape(-1, most)
    return _Grid(first, flops, frame)


def _least(seen: _Scores, flops: IntArray, tolerance: float, price: float) -> IntArray:
    """The least passes, less one, within tolerance of the best candidate; 0 where all are NaN."""
    cost = np.nan_to_num(seen.loss + price * flops, nan=np.inf)
    open_to: BoolArray = np.ones(cost.shape, dtype=np.bool_)
    if price == 0.0 and seen.right is not None:
        exact = seen.right == seen.scored
        open_to = exact | ~exact.any(1, keepdims=True)
    cost = np.where(open_to, cost, np.inf)
    within = open_to & (cost <= cost.min(1, keepdims=True) + tolerance)
    least: IntArray = within.argmax(1).astype(np.int64)
    return least


def _chosen(
    keys: pl.DataFrame, trace: pl.DataFrame | pl.LazyFrame | str | Path, most: int
) -> IntArray:
    """The passes of a trace for some windows, `[windows]`, each from 1 to `most`."""
    rows = open_run(trace).trace() if isinstance(trace, (str, Path)) else trace.lazy()
    absent = _absent(rows.collect_schema().names())
    if absent:
        raise InputError(f"trace: no column {', '.join(absent)}")
    theirs = rows.select(*KEYS, "passes").collect()
    if theirs.select(KEYS).is_duplicated().any():
        raise InputError("trace: a window is there twice")
    found = keys.join(theirs, on=KEYS, how="left", maintain_order="left")
    for stream, window, passes in found.iter_rows():
        if passes is None:
            raise InputError(f"trace: nothing on stream {stream!r}, window {window}")
        if not 1 <= passes <= most:
            raise InputError(
                f"trace: {passes} passes over stream {stream!r}, window {window}, but the table "
                f"knows 1 to {most}; make it with most={passes}"
            )
    return found["passes"].to_numpy().astype(np.int64)


def _absent(names: Sequence[str]) -> list[str]:
    return [name for name in (*KEYS, "passes") if name not in names]
