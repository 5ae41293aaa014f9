"""Rows at matched cost: for each target the policies, and every baseline trained for it.

A target is so many times the FLOPs per event of the plain hybrid, as validation finds them. A
baseline is trained on as many tokens as the model that sleeps, and, where the recipe asks, another
time with as many training FLOPs. Everything lies in folders and is taken up where it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from adaptive_sleep.experiments.baselines.registry import find_baseline
from adaptive_sleep.experiments.baselines.setup import (
    AWAKE,
    AnyRecipe,
    Setup,
    passes_of,
    plain,
    shape_of,
)
from adaptive_sleep.experiments.compare_bench import Bench, ledger_of, point
from adaptive_sleep.experiments.compare_models import taught, training_recipe
from adaptive_sleep.experiments.compare_reach import by_reach, divided, reaches
from adaptive_sleep.experiments.compare_rows import Kind, SeedRow
from adaptive_sleep.experiments.compare_streams import Source, pieces
from adaptive_sleep.experiments.comparing import Comparison, PolicyEntry
from adaptive_sleep.experiments.matched_table import ABOVE, BELOW, BY_COST, COMPUTE, MOST
from adaptive_sleep.experiments.matching import Spent, UnmatchedError, match, measured
from adaptive_sleep.experiments.runs import Run
from adaptive_sleep.experiments.training_cost import Training, step_flops, training_of
from adaptive_sleep.learning import TaskRecipe
from adaptive_sleep.spec import format_spec, resolve
from adaptive_sleep.streams.errors import InputError

FEW = 4  # streams
DRAWN = 256  # samples, of which one differs from the others if any does
QUICK_STEPS = 20  # of training, where nothing is claimed


@dataclass(frozen=True)
class Market:
    """Where compute is spent: `validation` and `test` of one trained seed; `few` streams of the
    validation part that are as long, and the same for every seed, so that each finds the same knobs
    of what does not sleep (of a recording as many rows as the test has, from the first on: only
    lengths matter there); the training recipe that baselines change (in as many steps as the model
    took, few in a quick comparison), what the training of the model took, the FLOPs of the forks
    that policies were `fitted` to, and of a task whose questions stand alone their `reaches` on the
    test stream."""

    validation: Bench
    test: Bench
    few: Source
    training: AnyRecipe
    taken: Training
    seed: int
    quick: bool
    fitted: float = 0.0
    reaches: pl.DataFrame | None = None

    @property
    def comparison(self) -> Comparison:
        """The recipe of the comparison."""
        return self.test.recipe

    def measure(self, setup: Setup) -> Spent:
        """What a setup costs on validation: on few streams where only their lengths matter, on all
        where its passes may come by lot."""
        awake = setup.policy == AWAKE
        where, gap = self.few if awake else self.validation.source, self.comparison.gap
        self.validation.tell(f"matching: {setup.config.layers}, {setup.policy}")
        return measured(
            setup, where.recording, start=where.start, stop=where.stop, gap_seconds=gap,
            seed=self.comparison.seed,
        )  # fmt: skip


def market(
    validation: Bench, test: Bench, seed: int, *, quick: bool, fitted: float = 0.0
) -> Market:
    """The market of a seed, where policies were `fitted` for so many FLOPs. Raises InputError for a
    wrong training recipe."""
    training = training_recipe(test.recipe.models.recipe)
    taken = training_of(test.model)
    steps = QUICK_STEPS if quick else taken.steps
    training = _in_steps(training, steps, min(steps, training.training.validate_every))
    comparison = test.recipe
    few = few_streams(comparison, validation.folder.parent / "streams", quick=quick)
    alone = comparison.task is not None and comparison.made_task().space.questions == "alone"
    known = reaches(test.source) if alone else None  # a text asks where it will
    return Market(validation, test, few, training, taken, seed, quick, fitted, known)


def few_streams(comparison: Comparison, folder: Path, *, quick: bool) -> Source:
    """What costs are measured on where lengths alone matter: `Market.few`, in `folder`."""
    if comparison.recording is not None:
        first, last = comparison.recording.test
        return Source(comparison.recording.path, 0.0, last - first)
    assert comparison.task is not None
    parts = 1 if uneven(comparison) else max(1, comparison.task.streams // FEW)
    few, *_ = pieces(comparison, folder, comparison.seed, parts, quick=quick)
    return few


def uneven(comparison: Comparison) -> bool:
    """Whether samples of a comparison's task differ in their windows, so that a few streams do not
    cost what all do."""
    if comparison.task is None:
        return False
    task = comparison.made_task()
    lengths = task.sample(np.random.default_rng(0), DRAWN, part="validation").lengths
    return bool(np.any(lengths != lengths[0]))


def matched_rows(
    here: Market, files: Mapping[str, str]
) -> tuple[dict[str, SeedRow], dict[str, str]]:
    """All rows at all targets, and what has no row at one, with the reason; `files` stand for
    places of specs. Raises InputError."""
    recipe, found, without = here.comparison, dict[str, SeedRow](), dict[str, str]()
    base = here.measure(plain(here.training)).flops_per_event
    for factor in targets_of(recipe.targets, quick=here.quick):
        rows: dict[str, SeedRow] = {}
        for entry in recipe.policies:
            ours = dict(_policy(here, entry, files, factor * base))
            if not ours:
                reason = f"every point of its grid costs more than {factor:g} times"
                without[f"{entry.name}@{factor:g}"] = reason
            for name, row in ours.items():
                rows[f"{name}@{factor:g}"] = replace(row, target=factor)
        for baseline in recipe.baselines:
            try:
                again = baseline.computes_at(factor)
                for name, row in _baseline(here, baseline.name, factor * base, again=again):
                    rows[f"{name}@{factor:g}"] = replace(row, target=factor)
            except UnmatchedError as error:
                without[f"{baseline.name}@{factor:g}"] = str(error)
        found |= divided(rows)
    return found, without


def targets_of(targets: Sequence[float], *, quick: bool) -> Sequence[float]:
    """The targets that are run: all, or with `quick` the middle one (of two the lower)."""
    middle = (len(targets) - 1) // 2
    return targets[middle : middle + 1] if quick else targets


def _policy(
    here: Market, entry: PolicyEntry, files: Mapping[str, str], target: float
) -> Iterator[tuple[str, SeedRow]]:
    """The rows of a policy: with the point of its grid that does best on validation among those
    that cost no more than the target, and with the one that costs most among them, whatever it
    scores, since a baseline's knob is set by its cost alone. None where all cost more, and one
    where there is nothing to choose."""
    tried, flops = [], 0.0 if not entry.fit else here.fitted
    for number, values in enumerate(entry.points()):
        spec = entry.written({**values, **files})
        run = here.validation.run(f"{entry.name}-{number}", spec)
        assert run.summary is not None
        tried.append((run.summary.flops_per_event, point(run)[1], spec))
        flops += ledger_of(run).flops
    best, dearest = affordable(tried, target), dearest_within(tried, target)
    if best is None or dearest is None:
        return
    rules = [("", best, len(tried)), (BY_COST, dearest, 1)]
    for rule, (_, score, spec), trials in rules if len(tried) > 1 else rules[:1]:
        name = entry.name if spec == best[2] else f"{entry.name}{rule}"
        run = here.test.run(f"{name}-{_short(target)}", spec)
        row = _row(here, run, "matched", entry.spec, online=entry.online)
        row = replace(
            row, policy=format_spec(resolve(spec)), validation_score=score, tuning_trials=trials,
            tuning_flops=flops,
        )  # fmt: skip
        yield f"{entry.name}{rule}", _taught(row, here.taken.tokens, here.taken.flops)


Tried = tuple[float, float, str]  # FLOPs per event, score, spec


def affordable(tried: Sequence[Tried], target: float) -> Tried | None:
    """The best score that costs no more than the target, and the cheapest of several; None where
    all cost more."""
    within = [one for one in tried if one[0] <= target]
    return max(within, key=lambda one: (one[1], -one[0]), default=None)


def dearest_within(tried: Sequence[Tried], target: float) -> Tried | None:
    """What costs most of all that cost no more than the target, and the first of several; None
    where all cost more. No score is looked at."""
    within = [one for one in tried if one[0] <= target]
    return max(within, key=lambda one: one[0], default=None)


def _baseline(
    here: Market, name: str, target: float, *, again: bool
) -> Iterator[tuple[str, SeedRow]]:
    """The rows of a baseline: one that is matched, or the two on either side of the target; one at
    the most that it can cost where that is less; `again`, trained with as much compute, too. Raises
    UnmatchedError where it costs more."""
    baseline = find_baseline(name)
    found = match(baseline, here.training, target, here.measure)
    sides = (BELOW, ABOVE) if found.bracketed else (MOST if found.short else "",)
    for side, spent in zip(sides, found.found, strict=True):
        assert spent.knob is not None
        setup = baseline.setup(here.training, spent.knob)
        yield f"{name}{side}", _trained(here, name, setup, spent.knob)
        if again and setup.recipe != here.training:
            same = _same_compute(here, setup)
            yield f"{name}{side}{COMPUTE}", _trained(here, name, same, spent.knob)


def _same_compute(here: Market, setup: Setup) -> Setup:
    """The setup, trained for as many steps as come to the training FLOPs of what sleeps (in a quick
    comparison: of as many steps of it)."""
    flops = here.taken.flops * here.training.training.steps / here.taken.steps
    steps = max(1, round(flops / step_flops(setup.recipe)))
    every = setup.recipe.training.validate_every
    return replace(setup, recipe=_in_steps(setup.recipe, steps, every))


def _in_steps(recipe: AnyRecipe, steps: int, every: int) -> AnyRecipe:
    """The recipe with other numbers of training steps, and of steps between validations."""
    if isinstance(recipe, TaskRecipe):
        changed = replace(recipe.training, steps=steps, validate_every=every)
        return replace(recipe, training=changed)
    return replace(recipe, training=replace(recipe.training, steps=steps, validate_every=every))


def _trained(here: Market, name: str, setup: Setup, knob: int) -> SeedRow:
    """Train, or take up, the model of a setup, and run it on the test stream. What a knob leaves as
    the plain hybrid is trained once for all baselines."""
    recipe, model = setup.recipe, here.test.model
    tokens, flops = here.taken.tokens, here.taken.flops
    place = here.test.folder.parent / "baselines"
    folder = where = place / f"{name}-{knob}-{recipe.training.steps}"
    asleep = recipe == here.training  # it is the model that sleeps
    if not asleep:
        usual = plain(here.training).recipe
        if _alike(recipe, usual):
            recipe, where = usual, place / f"plain-{usual.training.steps}"
        here.test.tell(f"{where.name}: training")
        place.mkdir(parents=True, exist_ok=True)
        try:
            model = taught(recipe, where / "model", here.seed)
        except InputError as error:
            raise InputError(f"baseline {name}({knob}), seed {here.seed}: {error}") from error
        took = training_of(model)
        tokens, flops = took.tokens, took.flops
    bench = replace(
        here.test, model=model, folder=folder, eviction=setup.eviction, keep=setup.keep,
        most=passes_of(here.training),
    )  # fmt: skip
    row = _row(here, bench.run("test", setup.policy), "baseline", f"{name}({knob})")
    return _taught(replace(row, knob=knob, tuning_trials=1, tuning_flops=0.0), tokens, flops)


def _alike(one: AnyRecipe, other: AnyRecipe) -> bool:
    """Whether two recipes train the same model in the same way, however their tables put it."""
    same = one.training == other.training and shape_of(one) == shape_of(other)
    if isinstance(one, TaskRecipe) and isinstance(other, TaskRecipe):
        return same and (one.eviction, one.keep) == (other.eviction, other.keep)
    return same


def _taught(row: SeedRow, tokens: int, flops: float) -> SeedRow:
    """The row with what the training of its model took."""
    return replace(row, training_flops=flops, training_tokens=tokens)


def _row(here: Market, run: Run, kind: Kind, written: str, *, online: bool = True) -> SeedRow:
    """The figures of one run on the test stream."""
    summary, ledger, (_, score) = run.summary, ledger_of(run), point(run)
    assert summary is not None
    events = max(summary.events, 1)
    return SeedRow(
        kind=kind,
        policy=run.manifest.policy,
        written=written,
        online=online,
        score=score,
        mean_passes=summary.mean_passes,
        sleep_flops_per_event=summary.sleep_flops_per_event,
        flops_per_event=summary.flops_per_event,
        resident_bytes=ledger.resident_bytes,
        wake_flops_per_event=ledger.wake / events,
        seconds_per_event=summary.seconds / events,
        by_reach=None if here.reaches is None else by_reach(run, here.reaches),
    )


def _short(target: float) -> str:
    """A target as part of a folder's name."""
    return f"at-{round(target)}"
