"""Matching: which knob of a baseline costs what something else costs, by the ledger of a replay.

Costs are measured on a stream, since windows and what attention holds differ from stream to stream;
weights do not matter to them, so a model that is not trained is run. What the runs are worth is
compared in matched_reading.py: where `check_matched` lets it, or where the cheaper scores more.
"""

from __future__ import annotations

import bisect
import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from adaptive_sleep.experiments.baselines.setup import AnyRecipe, Baseline, Setup, passes_of
from adaptive_sleep.experiments.compare_bench import resident
from adaptive_sleep.experiments.replay import replay
from adaptive_sleep.experiments.runs import Run, open_run
from adaptive_sleep.model import Model
from adaptive_sleep.settings import RuntimeSettings
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.recording import Recording

NEAR = 0.02  # of the FLOPs per event: matched (design, section 2)
ROOMY = 1.1  # of the resident bytes


@dataclass(frozen=True)
class Spent:
    """What a run came to: FLOPs per event, all phases, and the most bytes that stayed between
    steps, all streams together, with what sleep needs where it slept. `knob` is None for what has
    none."""

    name: str
    flops_per_event: float
    resident_bytes: int
    knob: int | None = None

    def __str__(self) -> str:
        knob = "" if self.knob is None else f" (knob {self.knob})"
        return f"{self.name}{knob}: {self.flops_per_event:,.0f} FLOPs an event"


class UnmatchedError(InputError):
    """No knob of a baseline costs so much, or so little, or its costs do not rise with it."""


Measure = Callable[[Setup], Spent]


@dataclass(frozen=True)
class Matched:
    """What `match` found: the one knob within `NEAR` of the target, or both neighbours of it, the
    cheaper first; or, `short` of it, the least knob that costs as much as any."""

    baseline: str
    target: float
    found: tuple[Spent, ...]
    short: bool = False

    @property
    def bracketed(self) -> bool:
        """Whether no knob was near enough."""
        return len(self.found) == 2


def spent(run: Run, name: str, knob: int | None = None) -> Spent:
    """What a finished run came to."""
    assert run.summary is not None
    return Spent(name, run.summary.flops_per_event, resident(run), knob)


@contextmanager
def untaught(
    setup: Setup,
    recording: str | Path | Recording,
    *,
    start: float | int = 0.0,
    stop: float | int = 1.0,
    gap_seconds: float | None = None,
    seed: int = 0,
) -> Iterator[Run]:
    """A finished run of a setup on rows `start` to `stop` of a recording, by a model that is not
    trained, in a folder that is gone afterwards; `gap_seconds` as in `replay`, which raises what
    this raises.

    Attention that keeps events over boundaries fills up as a stream goes on, and costs more: rows
    must be as many, for each stream, as those that are compared on.
    """
    torch.manual_seed(seed)
    model = Model(setup.config)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        replay(
            recording, model, setup.policy, out, start=start, stop=stop, gap_seconds=gap_seconds,
            eviction=setup.eviction, keep=setup.keep, seed=seed,
            max_passes=max(RuntimeSettings.max_passes, passes_of(setup.recipe)),
        )  # fmt: skip
        yield open_run(out)


def measured(setup: Setup, recording: str | Path | Recording, **rows: Any) -> Spent:
    """What a setup comes to on a recording; `rows` and more as in `untaught`."""
    with untaught(setup, recording, **rows) as run:
        return spent(run, setup.policy)


def match(baseline: Baseline, recipe: AnyRecipe, target: float, measure: Measure) -> Matched:
    """Find the knob of a baseline for which `measure` finds `target` FLOPs per event within 2 %, or
    both integers between which the target lies.

    Of several that are near enough, the nearest. Where none costs so much, the least of those that
    cost most: what cannot spend a budget may still be the better buy. Raises UnmatchedError where
    all knobs cost more than the target, and where a higher knob costs less than a lower one.
    """
    known: dict[int, Spent] = {}

    def cost(knob: int) -> float:
        if knob not in known:
            found = measure(baseline.setup(recipe, knob))
            known[knob] = Spent(baseline.name, found.flops_per_event, found.resident_bytes, knob)
            _check_rising(list(known.values()))
        return known[knob].flops_per_event

    least, most = baseline.bounds(recipe)
    low, high = _around(cost, least, most, target)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(middle) <= target else (low, middle)
    near = [k for k in dict.fromkeys((low, high)) if abs(cost(k) - target) <= NEAR * target]
    if near:
        best = _least(cost, least, min(near, key=lambda k: abs(cost(k) - target)))
        return Matched(baseline.name, target, (known[best],))
    if low < high:
        return Matched(baseline.name, target, (known[low], known[high]))
    if cost(low) > target:
        raise UnmatchedError(
            f"target={target:,.0f} FLOPs an event: {baseline.name} costs at least "
            f"{cost(low):,.0f}, with knob {low} ({baseline.knob}, {least} to {most})"
        )
    return Matched(baseline.name, target, (known[_least(cost, least, most)],), short=True)


def _around(cost: Callable[[int], float], least: int, most: int, target: float) -> tuple[int, int]:
    """Two knobs between whose costs the target lies, far apart; the same twice at an end that does
    not reach it. Steps double from the least on, since a knob may have no end to speak of."""
    low, step = least, 1
    if cost(least) > target:
        return least, least
    while True:
        high = min(low + step, most)
        if high == low:
            return most, most
        if cost(high) > target:
            return low, high
        low, step = high, 2 * step


def _least(cost: Callable[[int], float], least: int, knob: int) -> int:
    """The least knob that costs what `knob` does: more of what is never full changes nothing."""
    if knob == least or cost(knob - 1) < cost(knob):
        return knob
    knobs = range(least, knob + 1)
    return knobs[bisect.bisect_left(knobs, cost(knob), key=cost)]


def _check_rising(known: Sequence[Spent]) -> None:
    """Refuse costs that do not rise with the knob: a search among them finds nothing sure."""
    ordered = sorted(known, key=lambda one: one.knob or 0)
    for low, high in itertools.pairwise(ordered):
        if high.flops_per_event < low.flops_per_event:
            raise UnmatchedError(f"the cost falls as the knob rises: {low}, {high}")


def check_matched(ours: Spent, theirs: Sequence[Spent]) -> Literal["matched", "bracketed"]:
    """Say whether runs may be compared: one of `theirs` costs what ours does within 2 %, or the two
    of them lie on either side of it, and ours must then beat the dearer.

    Raises InputError, with all figures, for anything else.
    """
    aim = ours.flops_per_event
    if any(abs(one.flops_per_event - aim) <= NEAR * aim for one in theirs):
        return "matched"
    costs = sorted(one.flops_per_event for one in theirs)
    if len(costs) == 2 and costs[0] < aim < costs[1]:
        return "bracketed"
    raise InputError(
        f"{ours} is not matched by {'; '.join(map(str, theirs))}: compare runs within "
        f"{NEAR:.0%}, or with a run on either side"
    )


def as_roomy(ours: Spent, theirs: Spent) -> bool:
    """Whether theirs keeps no more bytes than ours, give or take a tenth: the second table."""
    return theirs.resident_bytes <= ROOMY * ours.resident_bytes
