"""One trial of a study: a policy over the recordings of validation, in an order of its own.

After each recording it says what the whole will cost at least; it stops once that is too much, or
once it is plain that it is worse than the best. How the best is found among trials is here too.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from adaptive_sleep.contract import PolicyError
from adaptive_sleep.experiments.tune_bench import TuneBench
from adaptive_sleep.experiments.tune_reading import Measured, together
from adaptive_sleep.experiments.tune_space import Candidate, Space
from adaptive_sleep.experiments.tune_workers import finished, slot
from adaptive_sleep.streams.errors import InputError

Plain = Mapping[int | None, Mapping[str, Measured]]  # window, recording: the run without sleep
COST = "FLOPs per event, at least, after"
STOPPED = ("budget", "worse", "refused")


@dataclass(frozen=True)
class Objective:
    """What a study minimises: the mean loss over recordings, those that are parts of one counted as
    one; in a `pareto` study also the cost, and then nothing is stopped. `budget`: FLOPs per event;
    `plain`: what the same recordings take without any sleep, so the least that what is left of a
    trial will cost."""

    bench: TuneBench
    space: Space
    budget: float
    plain: Plain
    pareto: bool = False

    def __call__(self, trial: optuna.Trial) -> float | Sequence[float]:
        """Run a trial. Raises TrialPruned where the policy refuses its parameters."""
        begun = time.perf_counter()
        candidate = self.space.suggest(trial)
        trial.set_user_attr("written", candidate.written)
        trial.set_user_attr("window", candidate.window)
        specs = self._specs(trial, candidate)
        known = self._known(trial, candidate)
        found: dict[str, Measured] = {}
        stopped = None
        for name in self._order(trial):
            spec = specs[self.bench.recordings[name]]
            try:
                found[name] = known.get(name) or self.bench.run(name, spec, candidate.window)
            except PolicyError as error:  # a wrong answer, or what it raised
                raise _refused(trial, error) from error
            stopped = self._stopped(trial, candidate, found)
            if stopped:
                break
        return self._told(trial, found, stopped, time.perf_counter() - begun)

    def _specs(self, trial: optuna.Trial, candidate: Candidate) -> dict[int, str]:
        """The spec for each seed's model."""
        try:
            specs = {seed: candidate.spec(one.files) for seed, one in self.bench.seeds.items()}
        except InputError as error:
            raise _refused(trial, error) from error
        trial.set_user_attr("spec", shown(candidate.written, list(specs.values())))
        return specs

    def _known(self, trial: optuna.Trial, candidate: Candidate) -> dict[str, Measured]:
        """What an earlier trial of the very same found: there is no need to find it again."""
        for other in finished(trial.study):
            said = other.user_attrs
            same = (said.get("written"), said.get("window")) == (
                candidate.written,
                candidate.window,
            )
            if same and "recordings" in said:
                return {name: Measured(*it) for name, it in said["recordings"].items()}
        return {}

    def _order(self, trial: optuna.Trial) -> list[str]:
        names, place = list(self.bench.recordings), slot(trial.study, trial.number)
        random = np.random.default_rng([self.bench.recipe.seed, place])
        return [names[at] for at in random.permutation(len(names))]

    def _stopped(
        self, trial: optuna.Trial, candidate: Candidate, found: Mapping[str, Measured]
    ) -> str | None:
        """Say what is known after a recording; why to stop, or None."""
        if self.pareto:
            return None
        plain = self.plain[candidate.window]
        cost = per_event({**plain, **found})
        name, last = list(found.items())[-1]
        trial.set_constraint(f"{COST} {len(found):03d}", cost / self.budget - 1.0)
        trial.report(last.loss, list(self.bench.recordings).index(name))
        if len(found) == len(plain):
            return None  # nothing is left to stop; a pruner would say that it is not the best
        if cost > self.budget:
            return "budget"
        return "worse" if trial.should_prune() else None

    def _told(
        self,
        trial: optuna.Trial,
        found: Mapping[str, Measured],
        stopped: str | None,
        seconds: float,
    ) -> float | Sequence[float]:
        """Tell readers of the study what the trial came to, and Optuna its value."""
        whole = streams(found) if self.bench.recipe.task is None else found
        loss, cost = mean_loss(whole), per_event(found)
        said: dict[str, Any] = {
            "score": float(np.mean([it.score for it in whole.values()])),
            "flops_per_event": cost,
            "loss_per_recording": {name: it.loss for name, it in sorted(found.items())},
            "loss_per_stream": {name: it.loss for name, it in sorted(whole.items())},
            "recordings": {name: astuple(it) for name, it in found.items()},
            "stopped": stopped,
            "seconds": seconds,
        }
        for key, value in said.items():
            trial.set_user_attr(key, value)
        return (loss, cost) if self.pareto else loss


def _refused(trial: optuna.Trial, error: Exception) -> optuna.TrialPruned:
    """What ends a trial of parameters that no run can have, which is told with it."""
    trial.set_constraint("refused by the policy", 1.0)
    trial.set_user_attr("stopped", "refused")
    trial.set_user_attr("refused", str(error))
    return optuna.TrialPruned(str(error))


def streams(found: Mapping[str, Measured]) -> dict[str, Measured]:
    """What the parts of each seed's recording, named SEED/NUMBER, come to as one stream."""
    parts: dict[str, list[Measured]] = {}
    for name, it in found.items():
        parts.setdefault(name.partition("/")[0], []).append(it)
    return {seed: together(several) for seed, several in parts.items()}


def mean_loss(found: Mapping[str, Measured]) -> float:
    """Mean loss over recordings: each counts alike."""
    return float(np.mean([it.loss for it in found.values()]))


def per_event(found: Mapping[str, Measured]) -> float:
    """FLOPs per event over all recordings together."""
    return sum(it.flops for it in found.values()) / sum(it.events for it in found.values())


def shown(written: str, specs: Sequence[str]) -> str:
    """One spec for all models: what was run, or, where files differ between them, as written."""
    return specs[0] if len(set(specs)) == 1 else written


def best_of(study: optuna.Study, budget: float) -> FrozenTrial | None:
    """The best trial that ran to its end within the budget, FLOPs per event: of equal losses the
    cheapest, of equal ones the first. None where there is none."""
    able = [
        trial
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if trial.user_attrs["stopped"] is None and trial.user_attrs["flops_per_event"] <= budget
    ]
    if not able:
        return None
    return min(able, key=lambda it: (it.values[0], it.user_attrs["flops_per_event"], it.number))


def front(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that ran to their end and that none beats in both loss and cost, by cost."""
    done = [
        trial
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if trial.user_attrs["stopped"] is None
    ]
    kept: list[FrozenTrial] = []
    for trial in sorted(done, key=lambda it: (it.user_attrs["flops_per_event"], it.values[0])):
        if not kept or trial.values[0] < kept[-1].values[0]:
            kept.append(trial)
    return kept
