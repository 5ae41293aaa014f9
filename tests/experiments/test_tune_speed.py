"""Two workers on one storage do nearly twice the trials of one in the same time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from run_cases import answering_model
from test_tune import TASK

from adaptive_sleep.checkpoint import save_model
from adaptive_sleep.experiments.tune_storage import close, open_storage, quiet
from adaptive_sleep.experiments.tune_workers import finished

BUSY_POLICY = '''
import time
from dataclasses import dataclass
from typing import Annotated

import adaptive_sleep as asl


@dataclass(frozen=True)
class Busy:
    """Computes for so long that a trial is mostly that."""

    share: Annotated[float, asl.Range(0.0, 1.0)] = 0.5

    def plan(self, signals):
        until = time.thread_time() + 0.5
        while time.thread_time() < until:
            pass
        return 1
'''
WORKER = """
import sys
from adaptive_sleep.experiments.tune import tune
recipe, url, out, trials = sys.argv[1:]
tune(recipe, url, quick=True, trials=int(trials), out=out, heartbeat=15, grace=60)
"""


REAL = """
[models]
paths = ["bundled:chain"]
[task]
name = "chain"
parameters = { nodes = 18, paths = 2, alone = true }
quick_samples = 1024
[tune]
recordings = 1
pass_caps = [4]
budget = "4x"
policies = ["random(mean=range(2.0, 2.1), most=4)"]
[[policies]]
name = "lot"
spec = "random(mean=2.0, most=4)"
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
@pytest.mark.parametrize(("work", "trials"), [("a busy loop", 16), ("a trained model", 48)])
def test_two_workers_do_1_7_times_the_trials_of_one(
    url: str, tmp_path: Path, work: str, trials: int
) -> None:
    """A busy loop shares nothing but the storage; a trained model the memory too. All trials of one
    do as much: on one recording none is stopped."""
    text = REAL if work == "a trained model" else busy(tmp_path)
    rates = []
    for workers in (1, 2):
        recipe = tmp_path / f"by{workers}.toml"  # whose study is named after it
        recipe.write_text(text)
        rates.append(trials_a_second(recipe, url, trials, workers))
    print("trials a second:", rates)
    assert rates[1] >= 1.7 * rates[0], rates


def busy(folder: Path) -> str:
    """The recipe of a study whose trials are mostly a loop, with what it needs in the folder."""
    (folder / "busy_policy.py").write_text(BUSY_POLICY)
    save_model(answering_model(0), folder / "m0.safetensors", provenance={})
    save_model(answering_model(1), folder / "m1.safetensors", provenance={})
    (there,) = [line for line in TASK.splitlines() if line.startswith("policies = ")]
    return TASK.replace(there, 'policies = ["busy_policy:Busy"]').format(folder=folder)


def trials_a_second(recipe: Path, url: str, trials: int, workers: int) -> float:
    """Trials finished after all workers had finished one, which took longest, by the time from then
    on."""
    folder = recipe.parent
    given = [sys.executable, "-c", WORKER, str(recipe), url, str(folder / recipe.stem), str(trials)]
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    with quiet():
        storage = open_storage(url)
        running = [subprocess.Popen(given, env=environment) for _ in range(workers)]
        assert [one.wait() for one in running] == [0] * workers
        study = optuna.load_study(storage=storage, study_name=f"{recipe.stem}-quick")
        done = finished(study)
        close(storage)
    assert len({trial.number for trial in done}) == trials  # none lost, none run again
    first: dict[str, float] = {}
    for trial in done:
        over = trial.datetime_complete.timestamp()
        worker = str(trial.user_attrs["worker"])
        first[worker] = min(over, first.get(worker, over))
    assert len(first) == workers
    at = max(first.values())
    ended = sorted(trial.datetime_complete.timestamp() for trial in done)
    after = [moment for moment in ended if moment > at]
    # the last trials may leave one worker idle: count while all were at work
    counted = after[: len(after) - workers + 1]
    return (len(counted) - 1) / (counted[-1] - counted[0])
