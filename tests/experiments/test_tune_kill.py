"""A worker that is killed in a trial: the study completes, and nothing that was done is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from run_cases import answering_model
from test_tune import TASK

from adaptive_sleep.checkpoint import save_model
from adaptive_sleep.experiments.tune import tune
from adaptive_sleep.experiments.tune_storage import close, open_storage, quiet

SLOW_POLICY = '''
import time
from dataclasses import dataclass
from typing import Annotated

import adaptive_sleep as asl


@dataclass(frozen=True)
class Slow:
    """Takes its time, so that a kill finds it at work."""

    share: Annotated[float, asl.Range(0.0, 1.0)] = 0.5

    def plan(self, signals):
        time.sleep(0.2)
        return 1
'''
WORKER = """
import sys
from adaptive_sleep.experiments.tune import tune
tune(sys.argv[1], sys.argv[2], quick=True, trials=5, out=sys.argv[3], heartbeat=1, grace=4)
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_study_outlives_a_killed_worker(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slow_policy.py").write_text(SLOW_POLICY)
    monkeypatch.syspath_prepend(str(tmp_path))
    save_model(answering_model(0), tmp_path / "m0.safetensors", provenance={})
    save_model(answering_model(1), tmp_path / "m1.safetensors", provenance={})
    recipe = tmp_path / "tiny.toml"
    (there,) = [line for line in TASK.splitlines() if line.startswith("policies = ")]
    text = TASK.replace(there, 'policies = ["slow_policy:Slow"]')
    recipe.write_text(text.format(folder=tmp_path))
    arguments = [sys.executable, "-c", WORKER, str(recipe), url, str(tmp_path / "out")]
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path}
    with quiet():
        storage = open_storage(url)  # makes the tables
    with subprocess.Popen(arguments, env=environment) as worker:
        try:
            study = at_work(storage, worker)
        finally:
            worker.send_signal(signal.SIGKILL)
    done = {it.number: it for it in study.trials if it.state == TrialState.COMPLETE}
    (killed,) = [it for it in study.trials if it.state == TrialState.RUNNING]
    found = tune(recipe, url, quick=True, trials=5, out=tmp_path / "out", heartbeat=1, grace=4)
    assert found["trials"] == 5
    trials = study.trials
    assert trials[killed.number].state == TrialState.FAIL
    again = [it for it in trials if it.system_attrs.get("failed_trial") == killed.number]
    assert [it.state.name for it in again] == ["COMPLETE"]
    assert again[0].params.items() >= killed.params.items()
    for number, trial in done.items():
        assert trials[number].datetime_complete == trial.datetime_complete
        assert trials[number].values == trial.values
    assert sum(it.state == TrialState.COMPLETE for it in trials) == 5
    close(storage)


def at_work(storage: RDBStorage, worker: subprocess.Popen[bytes]) -> optuna.Study:
    """The study, once a trial of it is done and another one under way."""
    until = time.monotonic() + 400
    while time.monotonic() < until:
        assert worker.poll() is None, "the worker ended by itself"
        time.sleep(0.1)
        if "tiny-quick" not in optuna.get_all_study_names(storage):
            continue
        study = optuna.load_study(storage=storage, study_name="tiny-quick")
        done = any(it.state == TrialState.COMPLETE for it in study.trials)
        running = [it for it in study.trials if it.state == TrialState.RUNNING]
        if done and running and "spec" in running[0].user_attrs:
            return study
    raise AssertionError("no trial was run in time")
