"""Workers share a study: exactly the trials asked for, none lost, those of the dead run again."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from adaptive_sleep.experiments import tune_workers
from adaptive_sleep.experiments.tune_storage import (
    begun,
    close,
    exists,
    lost,
    open_storage,
    open_study,
    quiet,
    settle,
)
from adaptive_sleep.experiments.tune_workers import finished, work
from adaptive_sleep.streams.errors import InputError

OPEN: list[RDBStorage] = []


@pytest.fixture(autouse=True)
def _fast_and_quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(tune_workers, "POLL_SECONDS", 0.02)
    with quiet():
        yield
    while OPEN:
        close(OPEN.pop())


def opened(url: str, name: str = "it") -> tuple[RDBStorage, optuna.Study]:
    storage = open_storage(url, heartbeat=1, grace=2)
    OPEN.append(storage)
    return storage, open_study(storage, name, 1, {"of": "tests"})


def square(trial: optuna.Trial) -> float:
    return trial.suggest_float("x", -1.0, 1.0) ** 2


def sampler(number: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.RandomSampler(seed=number)


def sql(storage: RDBStorage, statement: str) -> Any:
    with storage.engine.begin() as connection:
        return connection.exec_driver_sql(statement)


def a_minute_passes(storage: RDBStorage) -> None:
    """Every heart beat a minute earlier than it did."""
    sqlite = storage.engine.dialect.name == "sqlite"
    ago = "datetime('now', '-1 minute')" if sqlite else "CURRENT_TIMESTAMP - INTERVAL '1 minute'"
    sql(storage, f"UPDATE trial_heartbeats SET heartbeat = {ago}")


def born(study: optuna.Study) -> optuna.Trial:
    """A trial whose worker does nothing more."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that nobody keeps its heart beating
        return study.ask()


def test_a_study_ends_with_the_trials_asked_for_and_goes_on(url: str) -> None:
    storage, study = opened(url)
    work(study, storage, square, lambda: 3, sampler=sampler)
    work(study, storage, square, lambda: 3, sampler=sampler)
    assert len(study.trials) == 3
    storage, again = opened(url)
    work(again, storage, square, lambda: 5, sampler=sampler)
    drawn = [trial.params["x"] for trial in again.trials]
    assert len(set(drawn)) == 5
    _, other = opened(url, "other")
    work(other, storage, square, lambda: 5, sampler=sampler)
    assert [trial.params["x"] for trial in other.trials] == drawn  # whoever ran them, and when


def test_workers_side_by_side_run_no_trial_twice_and_none_too_many(url: str) -> None:
    opened(url)
    told: dict[int, list[int]] = {0: [], 1: []}

    def worker(number: int) -> None:
        storage, study = opened(url)

        def objective(trial: optuna.Trial) -> float:
            told[number].append(trial.number)
            return square(trial)

        work(study, storage, objective, lambda: 12, sampler=sampler)

    threads = [threading.Thread(target=worker, args=(number,)) for number in told]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    _, study = opened(url)
    assert sorted(told[0] + told[1]) == [trial.number for trial in finished(study)]
    assert len(finished(study)) == 12
    assert len({trial.params["x"] for trial in finished(study)}) == 12


def test_the_later_of_two_that_took_the_last_trial_gives_way(url: str) -> None:
    storage, study = opened(url)
    work(study, storage, square, lambda: 1)
    tune_workers._one(study, storage, square, 1, None)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE, TrialState.FAIL]


def test_a_trial_without_a_heartbeat_is_run_again_with_its_parameters(url: str) -> None:
    storage, study = opened(url)
    dead = born(study)
    value = dead.suggest_float("x", -1.0, 1.0)
    dead.set_user_attr("worker", "gone")
    dead.set_constraint("cost", 1.0)
    storage.record_heartbeat(dead._trial_id)
    a_minute_passes(storage)
    seen: list[dict[str, float]] = []

    def objective(trial: optuna.Trial) -> float:
        seen.append(dict(study._storage.get_trial(trial._trial_id).constraints))
        return square(trial)

    work(study, storage, objective, lambda: 2)
    assert [trial.state.name for trial in study.trials] == ["FAIL", "COMPLETE", "COMPLETE"]
    assert study.trials[1].params == {"x": value}
    assert seen == [{}, {}]  # what the dead one was told does not count


def test_a_trial_whose_worker_died_at_birth_is_not_waited_for(url: str) -> None:
    storage, study = opened(url)
    born(study)  # no heartbeat, no worker: a kill between two statements
    work(study, storage, square, lambda: 1)
    assert [trial.state.name for trial in study.trials] == ["FAIL", "COMPLETE"]


def test_a_trial_that_is_run_again_is_the_same_trial_and_one_too_many_is_none(url: str) -> None:
    """Whatever happens on the way, what an undisturbed study draws is drawn, and no more."""
    storage, calm = opened(url, "calm")
    work(calm, storage, square, lambda: 6, sampler=sampler)
    storage, study = opened(url)
    dead = born(study)
    dead.set_user_attr("worker", "gone")
    storage.record_heartbeat(dead._trial_id)
    a_minute_passes(storage)

    def interrupted(trial: optuna.Trial) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work(study, storage, interrupted, lambda: 3, sampler=sampler)
    work(study, storage, square, lambda: 3, sampler=sampler)
    tune_workers._one(study, storage, square, 3, sampler)  # takes the last one too late
    work(study, storage, square, lambda: 6, sampler=sampler)
    drawn = [trial.params["x"] for trial in finished(study)]
    assert sorted(drawn) == sorted(trial.params["x"] for trial in calm.trials)
    assert sum(trial.state == TrialState.FAIL for trial in study.trials) == 3


def test_what_kills_its_worker_every_time_is_left_alone(url: str) -> None:
    storage, study = opened(url)
    for _ in range(6):
        waiting = [it for it in study.trials if it.state == TrialState.WAITING]
        dead = born(study)
        if waiting:
            assert dead.number == waiting[0].number
        storage.record_heartbeat(dead._trial_id)
        a_minute_passes(storage)
        optuna.storages.fail_stale_trials(study)
    tries = [len(it.system_attrs.get("retry_history", [])) for it in study.trials]
    assert tries[:4] == [0, 1, 2, 3]
    assert tries[4] == 0  # another trial


def test_a_worker_whose_trial_was_given_up_goes_on(url: str) -> None:
    storage, study = opened(url)

    def taken(trial: optuna.Trial) -> float:
        value = square(trial)
        if trial.number == 0:
            storage.set_trial_state_values(trial._trial_id, state=TrialState.FAIL)
        return value

    work(study, storage, taken, lambda: 2)
    assert [trial.state.name for trial in study.trials] == ["FAIL", "COMPLETE", "COMPLETE"]


def test_what_a_trial_raises_ends_the_worker_and_ctrl_c_puts_it_back(url: str) -> None:
    storage, study = opened(url)

    def broken(trial: optuna.Trial) -> float:
        trial.suggest_float("x", -1.0, 1.0)
        raise error

    error: BaseException = ValueError("mine")
    with pytest.raises(ValueError, match="mine"):
        work(study, storage, broken, lambda: 1)
    error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        work(study, storage, broken, lambda: 1)
    work(study, storage, square, lambda: 1)
    states = [trial.state.name for trial in study.trials]
    assert states == ["FAIL", "FAIL", "COMPLETE"]
    assert study.trials[2].params == study.trials[1].params


def test_sqlite_is_opened_so_that_readers_do_not_wait(tmp_path: Path) -> None:
    storage, _ = opened(f"sqlite:///{tmp_path}/s.db")
    assert sql(storage, "PRAGMA journal_mode").scalar() == "wal"


def test_a_study_is_known_by_its_name(url: str) -> None:
    storage, _ = opened(url)
    assert exists(storage, "it")
    assert not exists(storage, "that")


def ended(storage: RDBStorage, name: str, error: BaseException, *before: Any) -> bool:
    """End the work on a study with an error; whether the study is still there."""

    def work_on() -> None:
        with begun(storage, name, 1, {"of": "tests"}) as study:
            for happens in before:
                happens(study)
            raise error

    with pytest.raises(type(error)):
        work_on()
    return exists(storage, name)


@pytest.mark.parametrize("error", [InputError("refused"), KeyboardInterrupt()])
def test_a_study_without_a_trial_is_taken_away_by_who_made_it_alone(
    url: str, error: BaseException
) -> None:
    storage, _ = opened(url)
    assert not ended(storage, "new", error)
    assert not ended(storage, "new", error)
    assert ended(storage, "it", error)  # which was there
    assert ended(storage, "ours", error, lambda study: opened(url, "ours"))
    assert ended(storage, "tried", error, born)


def test_a_study_of_something_else_is_refused(url: str) -> None:
    storage, study = opened(url)
    settle(study, {"of": "tests", "budget": "1.5x", "space": {"a": "1", "b": "2"}})
    with pytest.raises(InputError, match="earlier version, with its space in another order"):
        settle(study, {"space": {"b": "2", "a": "1"}})
    settle(study, {"budget": "1.50x"})
    assert study.user_attrs["budget"] == "1.5x"
    with pytest.raises(InputError, match=r"another budget \('1.5x', here '2x'\)"):
        settle(study, {"of": "tests", "budget": "2x"})
    theirs = optuna.create_study(storage=storage, study_name="theirs")
    theirs.optimize(square, n_trials=1)
    with pytest.raises(InputError, match="was not begun by"):
        open_study(storage, "theirs", 1, {"of": "tests"})


def test_a_storage_that_fails_in_the_midst_of_a_study_is_one_error(url: str) -> None:
    storage, _ = opened(url)
    sql(storage, "ALTER TABLE studies RENAME TO gone")
    with pytest.raises(InputError, match=r"^storage='\w+://.*: failed \(.*studies"), lost(url):
        open_study(storage, "other", 1, {"of": "tests"})
    sql(storage, "ALTER TABLE gone RENAME TO studies")
    with pytest.raises(InputError, match=r"failed \(StorageInternalError\)"), lost(url):
        raise StorageInternalError  # without a word


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("s.db", "a URL is expected"),
        ("sqlite://", "name a file"),
        ("sqlite:////no/such/folder/s.db", "unable to open database file"),
        ("oracel://host/name", "cannot be reached"),
        ("mysql://me@host/name", "a driver is missing"),
        ("postgresql://me:secret@127.0.0.1:1/name", "cannot be reached"),
    ],
)
def test_a_storage_that_cannot_be_reached_is_one_error(
    where: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adaptive_sleep.experiments.tune_storage.time.sleep", lambda seconds: None)
    with pytest.raises(InputError) as caught:
        open_storage(where)
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)
