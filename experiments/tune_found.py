"""What a finished study found, as one object with stable keys.

Nothing of where the study is kept is in it.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from adaptive_sleep.experiments.reproduce import commit
from adaptive_sleep.experiments.runs import versions
from adaptive_sleep.experiments.tune_trial import STOPPED, front
from adaptive_sleep.experiments.tune_workers import finished


def summary(study: optuna.Study) -> dict[str, Any]:
    """The best policy of a study that has had its test, what it costs, and where that comes from.

    `score`: on validation; `test`: on the test recordings; both as in a comparison. FLOPs are per
    event, of all phases. `front`: what no other trial beats in both loss and cost. Where none is
    within the budget, which is no failure of a study of the front, all of the best is None.
    """
    said, trials = study.user_attrs, finished(study)
    test: dict[str, Any] = said.get("test", {})
    best = next((trial for trial in trials if trial.number == test.get("trial")), None)
    its: dict[str, Any] = {} if best is None else best.user_attrs
    stopped = Counter(trial.user_attrs["stopped"] for trial in trials)
    return {
        "tune": said["recipe"],
        "study": study.study_name,
        "best": its.get("spec"),
        "window": its.get("window"),
        "score": its.get("score"),
        "flops_per_event": its.get("flops_per_event"),
        "budget": said["budget_flops_per_event"],
        "plain_flops_per_event": said["plain_flops_per_event"],
        "trials": len(trials),
        "stopped": {why: stopped[why] for why in STOPPED},
        "test": test.get("score"),
        "test_flops_per_event": test.get("flops_per_event"),
        "test_by_seed": test.get("by_seed"),
        "front": [_point(trial) for trial in front(study)],
        "loss_per_recording": its.get("loss_per_recording"),
        "params": None if best is None else best.params,
        "space": said["space"],
        "seeds": [int(seed) for seed in said["models"]],
        "models": said["models"],
        "model_hashes": said["model_hashes"],
        "recipe_sha256": said["recipe_sha256"],
        "commit": commit(),
        "begun_at_commit": said["begun_at_commit"],
        "quick": said["quick"],
        "pareto": said["pareto"],
        "versions": versions() | {"optuna": optuna.__version__},
    }


def _point(trial: FrozenTrial) -> dict[str, Any]:
    keys = ("spec", "window", "score", "flops_per_event")
    return {"trial": trial.number, **{key: trial.user_attrs[key] for key in keys}}
