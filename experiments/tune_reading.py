"""A policy on streams of validation: read once, in order, and told by piece.

A piece of a recording goes on from the one before it, so what it comes to is what a running stream
comes to, and all of them together cost what the same rows cost in one replay.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from adaptive_sleep.experiments.commits import summed
from adaptive_sleep.experiments.compare_bench import ASKED, share_right
from adaptive_sleep.experiments.compare_streams import Source
from adaptive_sleep.experiments.comparing import Comparison
from adaptive_sleep.experiments.replay import MAX_ROWS
from adaptive_sleep.experiments.runs import Run
from adaptive_sleep.experiments.tune_policy import guarded
from adaptive_sleep.intake import check_categories, check_fits, row_range
from adaptive_sleep.model import Model
from adaptive_sleep.runtime import Runtime
from adaptive_sleep.streams.cutting import Cutter, Windower
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.trace import TraceRow, trace_frame


@dataclass(frozen=True)
class Measured:
    """What a piece came to: the score as a comparison has it, FLOPs of all phases, events.
    `asked`: the score is the share of windows answered all right, else minus the loss. `scored`:
    the windows in which something was asked, or the predictions, that it is the mean of."""

    score: float
    flops: float
    events: int
    asked: bool
    scored: int = 1

    @property
    def loss(self) -> float:
        """What is minimised."""
        return 1.0 - self.score if self.asked else -self.score


def measured(run: Run) -> Measured:
    """The figures of a finished run. Raises InputError where nothing was predicted."""
    assert run.summary is not None
    events = run.summary.events
    flops = round(run.summary.flops_per_event * events)
    found = _told(run.trace().collect(), flops, events)
    if found is None:
        raise InputError(f"{run.path}: nothing was predicted, so there is nothing to compare")
    return found


def _told(trace: pl.DataFrame, flops: int, events: int) -> Measured | None:
    """The figures of a trace, None where nothing was predicted."""
    share = share_right(trace)
    if share is not None:
        asked = len(trace.filter(ASKED))
        return Measured(share, flops, events, asked=True, scored=asked)
    lost, scored = summed(trace.lazy()).collect().select("lost", "scored").row(0)
    return Measured(-lost / scored, flops, events, False, scored) if scored else None


def together(parts: Sequence[Measured]) -> Measured:
    """What pieces of one stream come to as one, in whatever order: each counts by what is scored
    in it; where something is asked in some, they alone do."""
    counted = [it for it in parts if it.asked] or parts
    scored = sum(it.scored for it in counted)
    score = math.fsum(it.score * it.scored for it in counted) / scored
    flops, events = sum(it.flops for it in parts), sum(it.events for it in parts)
    return Measured(score, flops, events, counted[0].asked, scored)


class Reading:
    """A model under a policy on one stream of `pieces`, which follow one another in a recording.

    Pieces may be asked for in any order. What comes before one is read first; a window counts for
    the piece in which it ends, and is cut short only where the last piece ends.
    """

    def __init__(
        self,
        recipe: Comparison,
        model: Model,
        spec: str,
        window: int | None,
        pieces: Mapping[str, Source],
    ) -> None:
        """`window` in events, None for the model's own. Raises InputError."""
        self.key = (spec, window, *pieces)
        recording = next(iter(pieces.values())).open()
        check_fits(recording, model.config)
        check_categories(recording, model.categories)
        self._recording, self._pieces = recording, dict(pieces)
        self._runtime = Runtime(
            model, guarded(spec, model), window=window, max_passes=recipe.max_passes,
            seed=recipe.seed, streams=recording.streams,
            columns=[channel.name for channel in recording.inputs] or None,
        )  # fmt: skip
        self._windower = Windower(self._runtime.settings.window, recipe.gap)
        self._coming = self._read()
        self._found: dict[str, tuple[list[TraceRow], int, int]] = {}

    def piece(self, name: str) -> Measured | None:
        """What a piece comes to; None where no window ends in it in which anything was predicted.
        Raises PolicyError for what the policy does wrong, after which there is no going on."""
        while name not in self._found:
            read, rows, flops, events = next(self._coming)
            self._found[read] = rows, flops, events
        rows, flops, events = self._found[name]
        return _told(trace_frame(rows), flops, events)

    def _read(self) -> Iterator[tuple[str, list[TraceRow], int, int]]:
        """Every piece, in order: its name, the windows that end in it, FLOPs, events."""
        for number, (name, where) in enumerate(self._pieces.items(), 1):
            start, stop = row_range(where.start, where.stop, self._recording.rows)
            before, rows = self._runtime.ledger, list[TraceRow]()
            cutter = Cutter(
                self._recording, self._windower, start=start, stop=stop, max_rows=MAX_ROWS,
                close_at_end=number == len(self._pieces),
            )  # fmt: skip
            for _, cut in cutter:
                rows += self._runtime.step(cut).rows
            after = self._runtime.ledger
            yield name, rows, after.flops - before.flops, after.events - before.events
