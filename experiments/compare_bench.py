"""Runs of a comparison: a model on a stream under one policy after another, and what each came to.

Every replay lies in a folder of its own and is taken up where it was, so that a killed comparison
goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from adaptive_sleep import snapshot
from adaptive_sleep.config import Eviction
from adaptive_sleep.contract import PolicyLike
from adaptive_sleep.experiments.compare_rows import Point
from adaptive_sleep.experiments.compare_streams import Source
from adaptive_sleep.experiments.comparing import Comparison
from adaptive_sleep.experiments.counterfactual import (
    RUN,
    Counterfactuals,
    counterfactuals,
    open_counterfactuals,
)
from adaptive_sleep.experiments.replay import replay
from adaptive_sleep.experiments.runs import Run, open_run
from adaptive_sleep.ledger import Ledger
from adaptive_sleep.streams.errors import InputError

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Bench:
    """Where a model is run on a stream: the folder of its runs, the price that policies see, what
    outlives a boundary, and the `most` passes (None: those of the recipe)."""

    recipe: Comparison
    model: str
    source: Source
    folder: Path
    tell: Tell
    price: float = 0.0
    eviction: Eviction = "hard"
    keep: int | None = None
    most: int | None = None

    def run(self, name: str, policy: str | PolicyLike) -> Run:
        """Replay under a policy into `folder`/`name`, or take that run up."""
        self.tell(f"{self.folder.name}: {name}")
        out = self.folder / name
        out.parent.mkdir(parents=True, exist_ok=True)
        replay(
            self.source.recording, self.model, policy, out, resume=out.exists(),
            start=self.source.start, stop=self.source.stop, gap_seconds=self.recipe.gap,
            max_passes=self.most or self.recipe.max_passes, price=self.price,
            seed=self.recipe.seed, eviction=self.eviction, keep=self.keep,
        )  # fmt: skip
        return open_run(out)

    def forks(self, name: str) -> Counterfactuals:
        """What 1 to max_passes passes come to at each window of a run that sleeps them all."""
        self.tell(f"{self.folder.name}: {name}")
        out, most = self.folder / name, self.recipe.max_passes
        if out.exists():
            return open_counterfactuals(out)
        out.parent.mkdir(parents=True, exist_ok=True)
        return counterfactuals(
            self.source.recording, self.model, f"fixed({most})", out, most=most,
            start=self.source.start, stop=self.source.stop, gap_seconds=self.recipe.gap,
            max_passes=most, seed=self.recipe.seed,
        )  # fmt: skip


ASKED = pl.col("right").is_not_null() & (pl.col("scored") > 0)


def asks(run: Run) -> bool:
    """Whether anything is asked, so that the score of a run is the share of windows all right;
    else it is minus the loss."""
    return bool(run.trace().select(ASKED.any()).collect().item())


def point(run: Run, *, charged: bool = False) -> Point:
    """Sleep FLOPs per event, with those of signals and policy where `charged`; and the score."""
    trace, summary = run.trace().collect(), run.summary
    assert summary is not None
    columns = ["sleep_flops", *(("signal_flops", "policy_flops") if charged else ())]
    flops = sum(int(trace[name].sum()) for name in columns) / max(summary.events, 1)
    share = share_right(trace)
    if share is not None:
        return flops, share
    if summary.loss is None:
        raise InputError(f"{run.path}: nothing was predicted, so there is nothing to compare")
    return flops, -summary.loss


def share_right(trace: pl.DataFrame) -> float | None:
    """The share of the windows in which something was asked that were answered all right; None
    where nothing was asked."""
    asked = trace.filter(ASKED)
    if not len(asked):
        return None
    return float((asked["right"] == asked["scored"]).to_numpy().mean())


def ledger_of(run: Run) -> Ledger:
    """What a finished run spent."""
    assert run.last is not None
    return snapshot.read(run.last)[0].ledger


def forked_flops(forks: Counterfactuals, folder: Path) -> int:
    """What counterfactuals took: the forks, and the run that they leave in their `folder`."""
    return forks.forked_flops + ledger_of(open_run(folder / RUN)).flops


def resident(run: Run) -> int:
    """The most bytes that a finished run kept between steps."""
    return ledger_of(run).resident_bytes
