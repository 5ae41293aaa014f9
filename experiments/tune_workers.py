"""How workers share the trials of a study: none is lost, none is run twice, and no more than asked.

A worker is whoever calls `work` on the study, in any process on any machine. What is common to them
is in the storage alone.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Sequence

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.samplers import BaseSampler
from optuna.storages import RDBStorage, fail_stale_trials
from optuna.trial import FrozenTrial, TrialState

from adaptive_sleep.experiments.tune_storage import again, first_try

POLL_SECONDS = 1.0
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
WORKER = "worker"  # the first thing a worker says of a trial, after its heart began to beat
SURPLUS = "surplus"  # what it says of one that it gives up, since others have the last places

Objective = Callable[[optuna.Trial], float | Sequence[float]]


class SurplusError(Exception):
    """Two workers took the last trial at the same moment, and this is the later one."""


def work(
    study: optuna.Study,
    storage: RDBStorage,
    objective: Objective,
    wanted: Callable[[], int],
    *,
    sampler: Callable[[int], BaseSampler] | None = None,
    tell: Callable[[int, int], None] = lambda done, most: None,
) -> None:
    """Run trials until `wanted()` of the study are finished, by this worker or by others.

    While others are at the last ones it waits, and takes up those of a worker that is gone.
    `sampler` makes a sampler for the trial of a slot, so that no two trials draw alike.
    `tell(done, most)` is called now and then. What `objective` raises ends this worker alone.
    """
    orphans: dict[int, float] = {}
    while True:
        trials, most = study.get_trials(deepcopy=False), wanted()
        done = sum(trial.state in FINISHED for trial in trials)
        running = [trial for trial in trials if trial.state == TrialState.RUNNING]
        tell(done, most)
        if done >= most:
            return
        if done + len(running) < most:
            if sampler is not None:
                study.sampler = sampler(slot(study, len(trials)))
            _one(study, storage, objective, most, sampler)
        else:
            fail_stale_trials(study)
            _fail_orphans(study, storage, running, orphans)
            time.sleep(POLL_SECONDS)


def _one(
    study: optuna.Study,
    storage: RDBStorage,
    objective: Objective,
    most: int,
    sampler: Callable[[int], BaseSampler] | None,
) -> None:
    """Run one trial; if another worker has meanwhile given it up, it is that one's business."""
    mine: list[int] = []
    raised: list[BaseException] = []

    def guarded(trial: optuna.Trial) -> float | Sequence[float]:
        mine.append(trial._trial_id)
        try:
            trial.set_user_attr(WORKER, f"{socket.gethostname()}:{os.getpid()}")
            if _before(study, trial.number) >= most:
                trial.set_user_attr(SURPLUS, True)
                raise SurplusError
            if sampler is not None:
                study.sampler = sampler(slot(study, trial.number))
            return objective(trial)
        except BaseException as error:
            raised.append(error)
            raise

    try:
        study.optimize(guarded, n_trials=1, catch=(SurplusError,))
    except KeyboardInterrupt:
        if mine:
            again(study, storage.get_trial(mine[0]))
        raise
    except Exception as error:
        own = raised and error is raised[-1] and not isinstance(error, UpdateFinishedTrialError)
        if own or not mine or storage.get_trial(mine[0]).state != TrialState.FAIL:
            raise


def slot(study: optuna.Study, number: int) -> int:
    """Which trial of the study, from 0, that of a number is. One that is run again stays the same
    trial, and one that was given up as one too many is none; one that ended in an error was one."""
    trials = study.get_trials(deepcopy=False)
    first = next((first_try(it) for it in trials if it.number == number), number)
    return sum(
        it.number < first and first_try(it) == it.number and SURPLUS not in it.user_attrs
        for it in trials
    )


def _before(study: optuna.Study, number: int) -> int:
    """How many trials with a lower number are finished or run: who is first has the last place."""
    taken = (*FINISHED, TrialState.RUNNING)
    trials = study.get_trials(deepcopy=False)
    return sum(trial.number < number and trial.state in taken for trial in trials)


def _fail_orphans(
    study: optuna.Study,
    storage: RDBStorage,
    running: Sequence[FrozenTrial],
    since: dict[int, float],
) -> None:
    """Give up trials whose worker died before their heart had beaten once: no clock but this
    worker's own tells how long ago that was."""
    now = time.monotonic()
    for trial in running:
        if WORKER in trial.user_attrs:
            since.pop(trial.number, None)
        elif now - since.setdefault(trial.number, now) > (storage.grace_period or 0):
            try:
                gone = storage.set_trial_state_values(trial._trial_id, state=TrialState.FAIL)
            except UpdateFinishedTrialError:
                gone = False  # another worker did
            if gone:
                again(study, storage.get_trial(trial._trial_id))


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that count, by number."""
    return study.get_trials(deepcopy=False, states=FINISHED)
