"""Tuning: the best policy within a budget, found by an Optuna study that many workers may share.

What is searched is in tune_space.py, one trial in tune_trial.py, where it runs in tune_bench.py,
how a policy is read there in tune_reading.py and tune_policy.py, how workers share the trials in
tune_workers.py, the database in tune_storage.py. The best is replayed on the test recordings once:
that replay is the only trial of a second study, so that it is claimed, and taken up from a dead
worker, as any other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.pruners import BasePruner, NopPruner, WilcoxonPruner
from optuna.samplers import BaseSampler, PartialFixedSampler, TPESampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial

from adaptive_sleep.experiments.compare import claim, folder_of
from adaptive_sleep.experiments.compare_models import models_of
from adaptive_sleep.experiments.comparing import Comparison, PolicyEntry, read_comparison
from adaptive_sleep.experiments.finding import find_recipe
from adaptive_sleep.experiments.jobs import one_thread
from adaptive_sleep.experiments.reproduce import Report, commit
from adaptive_sleep.experiments.tune_bench import TuneBench, alone, prepare, with_fits
from adaptive_sleep.experiments.tune_found import summary
from adaptive_sleep.experiments.tune_reading import Measured
from adaptive_sleep.experiments.tune_space import Space, space_of
from adaptive_sleep.experiments.tune_storage import (
    COUNTS,
    GRACE,
    HEARTBEAT,
    begun,
    close,
    exists,
    lost,
    open_storage,
    open_study,
    quiet,
    settle,
)
from adaptive_sleep.experiments.tune_table import Budget, read_budget
from adaptive_sleep.experiments.tune_trial import (
    Objective,
    Plain,
    best_of,
    front,
    per_event,
)
from adaptive_sleep.experiments.tune_workers import finished, work
from adaptive_sleep.streams.errors import AdaptiveSleepError, InputError

QUICK_TRIALS = 20
NO_SLEEP = "fixed(passes=1)"
# How what pieces of a recording come to is counted (tune_reading.py); a study keeps it.
COUNTED = "windows of one running stream, pooled over pieces"
P_WORSE = 0.1  # of the test by which a trial is stopped, uncorrected for its being asked repeatedly


@dataclass(frozen=True)
class Order:
    """What is to be tuned: the recipe and what is given beside it."""

    stem: str
    sha256: str
    recipe: Comparison
    space: Space
    budget: str
    quick: bool
    pareto: bool
    name: str

    def is_of(self) -> dict[str, Any]:
        """What a study must be of to be this one; also what a reader of it sees first."""
        of = {
            "recipe": self.stem,
            "recipe_sha256": self.sha256,
            "quick": self.quick,
            "pareto": self.pareto,
            "budget": self.budget,
            "space": self.space.described(),
        }
        return of if self.recipe.recording is None else {COUNTS: COUNTED, **of}


def tune(
    recipe: str | Path,
    storage: str,
    *,
    trials: int | None = None,
    policies: Sequence[str] = (),
    budget: str | None = None,
    quick: bool = False,
    pareto: bool = False,
    out: str | Path | None = None,
    study: str | None = None,
    heartbeat: int = HEARTBEAT,
    grace: int = GRACE,
    on_progress: Report | None = None,
) -> dict[str, Any]:
    """Work on the study of a recipe until it is done, and return what it found, with stable keys.

    `storage`: the URL of a database; who calls this elsewhere with the same is another worker.
    `trials` are those of the study; None: as many as it has, or a new one's default. `policies` and
    `budget` as in `TuneTable`, and instead of it. `quick`: on the recipe's quick model, with fewer
    samples. `pareto`: minimise loss and FLOPs, stop nothing. `out`: the folder of models, files and
    recordings (that of a comparison will do), default runs/NAME. `study`: its name in the storage,
    default that of the recipe. `heartbeat`, `grace`: seconds between two signs of life, and without
    one before a trial is run again.

    Raises InputError for bad input, a storage that cannot be reached, a study of something else, a
    budget below the cheapest run, and more trials for a study whose best has had its test;
    AdaptiveSleepError where no trial was within the budget (with `pareto`: where none ran to its
    end), or what is the best fails in its test.
    """
    file = find_recipe(recipe)
    plan = read_comparison(file)
    order = Order(
        stem=file.stem,
        sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
        recipe=plan,
        space=space_of(plan, policies),
        budget=budget or plan.tune.budget,
        quick=quick,
        pareto=pareto,
        name=study or "-".join([file.stem, *["quick"] * quick, *["pareto"] * pareto]),
    )
    wanted = read_budget(order.budget)
    if trials is not None and trials < 1:
        raise InputError(f"trials={trials}: at least 1")
    models = models_of(plan, quick)
    order.space.check({})
    folder = folder_of(out or Path("runs") / "-".join([file.stem, *["quick"] * quick]))
    with quiet(), one_thread(), lost(storage):
        kept = open_storage(storage, heartbeat=heartbeat, grace=grace)
        try:
            with begun(kept, order.name, 1 + pareto, order.is_of()) as held:
                if "begun_at_commit" not in held.user_attrs:
                    held.set_user_attr("begun_at_commit", commit())
                _set_trials(held, kept, trials, QUICK_TRIALS if quick else plan.tune.trials)
                if "test" not in held.user_attrs:
                    _work(order, held, kept, models, wanted, folder, on_progress)
                return summary(held)
        finally:
            close(kept)


def _work(
    order: Order,
    study: optuna.Study,
    storage: RDBStorage,
    models: Mapping[int, str | None],
    budget: Budget,
    folder: Path,
    on_progress: Report | None,
) -> None:
    """Do what is left of a study: its trials, then the test."""

    def tell(note: str) -> None:
        if on_progress is not None:
            on_progress(len(finished(study)), study.user_attrs["trials"], note)

    with alone(folder):
        what = {"recipe_sha256": order.sha256, "quick": order.quick}
        claim(folder, what, order.recipe.models.recipe)
        bench = prepare(order.recipe, folder, models, quick=order.quick, tell=tell)
        plain = _plain(study, bench, order.space)
        flops = _within(order, budget, plain)
        settle(study, {
            "budget_flops_per_event": flops,
            "plain_flops_per_event": per_event(plain[None]),
            "model_hashes": {str(seed): one.model.hash for seed, one in bench.seeds.items()},
            "models": {str(seed): given or "trained" for seed, given in models.items()},
        })  # fmt: skip
        bench = with_fits(bench, order.space.places(), quick=order.quick, tell=tell)
    order.space.check(bench.files)
    study.pruner = _pruner(order.pareto)
    objective = Objective(bench, order.space, flops, plain, order.pareto)
    work(
        study, storage, objective, lambda: int(study.user_attrs["trials"]),
        sampler=lambda number: _sampler(order.recipe.seed, number, order.space, bench.window),
        tell=lambda done, most: tell(f"{done} of {most} trials"),
    )  # fmt: skip
    best = best_of(study, flops)
    if best is not None:
        tell("test")
        _test(study, storage, bench, best)
    elif not (order.pareto and front(study)):
        raise AdaptiveSleepError(f"study {study.study_name!r}: {_without(study, order, flops)}")


def _without(study: optuna.Study, order: Order, flops: float) -> str:
    """Why a study has no best, and what may be done."""
    done = finished(study)
    refused = [it for it in done if it.user_attrs.get("refused")]
    why = ""
    if refused:
        said = refused[0].user_attrs
        why = f"trial {refused[0].number}, {said.get('spec', said['written'])}: {said['refused']}"
    if len(refused) == len(done):
        return (
            f"all of its {len(done)} trials were refused, the first of them {why}. Mend the policy "
            "or narrow what is tried, and begin another --study"
        )
    return (
        f"none of its {len(done)} trials is within budget={order.budget!r} ({flops:,.0f} FLOPs per "
        "event): ask for more --trials, or begin another study with a larger budget or a policy "
        f"that can sleep less{f'; {len(refused)} were refused, the first {why}' if why else ''}"
    )


def _within(order: Order, budget: Budget, plain: Plain) -> float:
    """The budget in FLOPs per event. Raises InputError where not even a run without sleep is
    within it."""
    flops = budget.flops(per_event(plain[None]))
    cheapest = min(per_event(plain[window]) for window in order.space.windows or (None,))
    if flops < cheapest:
        raise InputError(
            f"budget={order.budget!r}: {flops:,.0f} FLOPs per event, below the cheapest run, which "
            f"never sleeps and takes {cheapest:,.0f}; give more, such as 1.5x"
        )
    return flops


def _plain(study: optuna.Study, bench: TuneBench, space: Space) -> Plain:
    """The runs without any sleep, by window (None: the model's own); kept in the study."""
    found: dict[int | None, Mapping[str, Measured]] = {}
    what = "plain" if bench.recipe.recording is None else "plain, running"
    for window in (None, *space.windows):
        key = f"{what}, window {window or 'of the model'}"
        held = study.user_attrs.get(key)
        if held is None:
            runs = {name: bench.run(name, NO_SLEEP, window) for name in bench.recordings}
            held = {name: astuple(it) for name, it in runs.items()}
            study.set_user_attr(key, held)
        found[window] = {name: Measured(*it) for name, it in held.items()}
    return found


def _pruner(pareto: bool) -> BasePruner:
    return NopPruner() if pareto else WilcoxonPruner(p_threshold=P_WORSE)


def _sampler(seed: int, number: int, space: Space, window: int | None) -> BaseSampler:
    """A sampler for the trial of that slot: no two workers draw alike, and one alone draws the
    same again. The first trials are of every policy as it is untuned, at the models' `window`."""
    drawn = TPESampler(seed=int(np.random.SeedSequence([seed, number]).generate_state(1)[0]))
    given = space.usual(number, window)
    return PartialFixedSampler(given, drawn) if given else drawn


# ---------------------------------------------------------------- the test


def _test_name(name: str) -> str:
    return f"{name} (test)"


def _set_trials(study: optuna.Study, storage: RDBStorage, given: int | None, default: int) -> None:
    """Keep how many trials the study is to have. Raises InputError for more of a tested one."""
    most = study.user_attrs.get("trials", default) if given is None else given
    name = _test_name(study.study_name)
    if exists(storage, name) and most > len(finished(study)):
        raise InputError(
            f"trials={most}: study {study.study_name!r} ended with {len(finished(study))}, and its "
            "best has been replayed on the test recordings, which is done once; begin another "
            "with --study"
        )
    if study.user_attrs.get("trials") != most:
        study.set_user_attr("trials", most)


def _test(study: optuna.Study, storage: RDBStorage, bench: TuneBench, best: FrozenTrial) -> None:
    """Replay the best on the test recordings, unless another worker does or did."""
    name = _test_name(study.study_name)
    tested = open_study(storage, name, 1, {"test_of": study.study_name})

    def replayed(trial: optuna.Trial) -> float:
        written, window = best.user_attrs["written"], best.user_attrs["window"]
        key = hashlib.sha256(f"{written} {window}".encode()).hexdigest()[:8]
        runs, specs = {}, {}
        for seed, one in bench.seeds.items():
            specs[seed] = spec = PolicyEntry("", written).written(one.files)
            runs[seed] = bench.test(seed, spec, window, f"tuned-{key}")
        for attribute, value in {
            "spec": best.user_attrs["spec"],
            "trial": best.number,
            "score": float(np.mean([it.score for it in runs.values()])),
            "flops_per_event": per_event({str(seed): it for seed, it in runs.items()}),
            "by_seed": {str(s): {"spec": specs[s], **asdict(it)} for s, it in runs.items()},
        }.items():
            trial.set_user_attr(attribute, value)
        return float(np.mean([it.loss for it in runs.values()]))

    work(tested, storage, replayed, lambda: 1)
    (once,) = finished(tested)
    study.set_user_attr("test", {k: v for k, v in once.user_attrs.items() if k != "worker"})
