"""Where a study is kept: a database that every worker opens, with a heart that beats in each trial.

How workers share the trials is in tune_workers.py. Whatever SQLAlchemy speaks to will do; what is
here for SQLite only makes it wait for other workers instead of failing.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from adaptive_sleep.experiments.tune_table import read_budget
from adaptive_sleep.streams.errors import InputError

HEARTBEAT, GRACE = 15, 60  # seconds between beats; without one before a trial is given up
RETRIES = 3  # of one trial: what kills its worker every time is left alone
PATIENCE = 60  # seconds that SQLite waits for another writer
OPENINGS = 5  # tries: two workers may make the tables at the same moment
CONSTRAINTS = "constraints"  # how Optuna's names of a trial's constraints begin
COUNTS = "counted"  # what a study keeps of how its figures are counted
SHARED = "shared"  # what a worker says of a study that another has made, and that has no trial yet


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Optuna from logging what we say ourselves, and from calling things experimental."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)


def open_storage(where: str, *, heartbeat: int = HEARTBEAT, grace: int = GRACE) -> RDBStorage:
    """Open the database at a URL such as sqlite:///FILE or postgresql://USER@HOST/NAME, and make
    its tables; `heartbeat` and `grace` in seconds. Raises InputError where it cannot be reached."""
    try:
        url = make_url(where)
        sqlite = url.get_backend_name() == "sqlite"
    except (ArgumentError, ValueError):  # ValueError: of a port that is no number
        raise InputError(
            f"storage={where!r}: a URL is expected, sqlite:///FILE or postgresql://USER@HOST/NAME"
        ) from None
    except NoSuchModuleError as error:
        raise _unreachable(url, str(error)) from None
    if sqlite and url.database in (None, "", ":memory:"):
        raise InputError(f"storage={where!r}: no other worker could see it; name a file")
    _check_options(url)
    for left in reversed(range(OPENINGS)):
        try:
            return _opened(url, heartbeat, grace)
        except (SQLAlchemyError, StorageInternalError) as error:
            if not left:
                raise _unreachable(url, _first_line(error)) from error
            time.sleep(0.2)
        except ImportError as error:
            why = (
                f"{_first_line(error)}; a driver is missing, for PostgreSQL that of the extra "
                "adaptive-sleep[postgres]"
            )
            raise _unreachable(url, why) from error
        except RuntimeError as error:  # tables of another Optuna
            raise _unreachable(url, _first_line(error)) from error
    raise AssertionError("unreachable")


def _check_options(url: URL) -> None:
    """Raise InputError for what stands behind the ? of a URL and cannot be read."""
    try:
        url.get_dialect()().create_connect_args(url)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"storage={url.render_as_string()!r}: what is behind the ? cannot be read ({error}); "
            "options are NAME=VALUE as the driver takes them, such as sqlite:///FILE?timeout=60"
        ) from None
    except SQLAlchemyError as error:
        raise _unreachable(url, _first_line(error)) from None


def close(storage: RDBStorage) -> None:
    """Give back the connections of a storage; a server waits for them to be closed."""
    storage.remove_session()
    storage.engine.dispose()


def _opened(url: URL, heartbeat: int, grace: int) -> RDBStorage:
    backend = url.get_backend_name()
    if backend == "sqlite":
        options: dict[str, Any] = {"connect_args": {"timeout": PATIENCE}}
    else:
        options = {"pool_pre_ping": True}  # a server may have closed what we hold
        if backend == "postgresql":
            options["connect_args"] = {"connect_timeout": 10}
    storage = RDBStorage(
        url.render_as_string(hide_password=False),
        engine_kwargs=options,
        heartbeat_interval=heartbeat,
        grace_period=grace,
        heartbeat_stale_trial_callback=again,
    )
    if backend == "sqlite":
        with storage.engine.connect() as connection:
            # readers and one writer at a time, side by side; the file remembers it
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
    return storage


def _first_line(error: BaseException) -> str:
    deepest = getattr(error, "orig", None) or error.__cause__ or error
    first = next(iter(str(deepest).strip().splitlines()), "")
    return f"{type(deepest).__name__}: {first}" if first else type(deepest).__name__


@contextmanager
def lost(url: str) -> Iterator[None]:
    """Raise InputError, naming the storage, where it fails in the midst of a study."""
    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as error:
        raise InputError(
            f"storage={make_url(url).render_as_string()!r}: failed ({_first_line(error)}); trials "
            "that it holds are kept: see that it is there and can be written, and give the same "
            "command again"
        ) from error


def _unreachable(url: URL, why: str) -> InputError:
    return InputError(
        f"storage={url.render_as_string()!r}: cannot be reached ({why}); "
        "give sqlite:///FILE in a folder that is there, or a server that runs"
    )


def again(study: optuna.Study, trial: FrozenTrial) -> None:
    """Queue a trial whose worker is gone to be run again, with the parameters it had."""
    # what it had been told so far would count for the second run
    trial.user_attrs = {}
    trial.system_attrs = {
        key: value for key, value in trial.system_attrs.items() if not key.startswith(CONSTRAINTS)
    }
    RetryHeartbeatStaleTrialCallback(max_retry=RETRIES)(study, trial)


def first_try(trial: FrozenTrial) -> int:
    """The number of the trial that one runs again; where it does not, its own."""
    return int(trial.system_attrs.get("failed_trial", trial.number))


def open_study(
    storage: RDBStorage, name: str, objectives: int, is_of: Mapping[str, Any]
) -> optuna.Study:
    """Open a study, or make it, that minimises so many objectives; `is_of` says what it must be of,
    and is kept with it.

    Raises InputError where it is of something else, naming the first thing that differs. The first
    of `is_of` is the first that is kept: where it alone is missing, an earlier version began it.
    """
    with begun(storage, name, objectives, is_of) as study:
        return study


@contextmanager
def begun(
    storage: RDBStorage, name: str, objectives: int, is_of: Mapping[str, Any]
) -> Iterator[optuna.Study]:
    """Open a study as `open_study`, to work on it. One that is made here, and that no other worker
    has opened, is taken away again where this ends with an error or an interrupt before there is
    any trial, so that the command can be put right and begin it anew."""
    study, made = _opened_or_made(storage, name, objectives)
    try:
        _check(study, is_of)
        settle(study, is_of)
        if not made and not study.get_trials(deepcopy=False):
            study.set_user_attr(SHARED, True)
        yield study
    except BaseException:
        if made and SHARED not in study.user_attrs and not study.get_trials(deepcopy=False):
            optuna.delete_study(study_name=name, storage=storage)
        raise


def _opened_or_made(storage: RDBStorage, name: str, objectives: int) -> tuple[optuna.Study, bool]:
    """The study, and whether it was made just now, and by nobody else."""
    down = [StudyDirection.MINIMIZE] * objectives
    try:
        return optuna.create_study(storage=storage, study_name=name, directions=down), True
    except DuplicatedStudyError:
        return optuna.load_study(storage=storage, study_name=name), False


def _check(study: optuna.Study, is_of: Mapping[str, Any]) -> None:
    """Raise InputError for a study of an earlier version, or of somebody else."""
    (first, *rest), said = is_of, study.user_attrs
    kept = None
    if first not in said and {*rest} & {*said}:
        kept = f"nothing of {first!r}"
    elif COUNTS in is_of and said.get(COUNTS, is_of[COUNTS]) != is_of[COUNTS]:
        kept = f"another {COUNTS!r} ({_shown(said[COUNTS])})"
    if kept is not None:
        raise InputError(
            f"study {study.study_name!r}: was begun by an earlier version, which kept {kept} "
            f"(here {_shown(is_of[first])}), so its trials do not compare with those of today; "
            "begin another --study"
        )
    if not {*is_of} <= {*said} and study.get_trials(deepcopy=False):
        raise InputError(
            f"study {study.study_name!r}: was not begun by `adaptive-sleep tune`; choose another "
            "name"
        )


def settle(study: optuna.Study, is_of: Mapping[str, Any]) -> None:
    """Keep what a study is of, or see that it is; raises InputError for what differs."""
    held = study.user_attrs
    for key, value in is_of.items():
        if key not in held:
            study.set_user_attr(key, value)
        elif _same_budget(key, held[key], value):
            continue
        elif held[key] == value and json.dumps(held[key]) != json.dumps(value):
            raise InputError(
                f"study {study.study_name!r}: was begun by an earlier version, with its {key} in "
                "another order, which Optuna cannot go on with; begin another --study"
            )
        elif held[key] != value:
            raise InputError(
                f"study {study.study_name!r}: was begun with another {key} ({_shown(held[key])}, "
                f"here {_shown(value)}); give it as it was, or begin a study with another --study "
                "or storage"
            )


def _same_budget(key: str, held: Any, value: Any) -> bool:
    """Whether two texts are one budget, such as 1.5x and 1.50x."""
    return key == "budget" and read_budget(held) == read_budget(value)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def exists(storage: RDBStorage, name: str) -> bool:
    """Tell whether a storage holds a study of that name."""
    return name in {study.study_name for study in storage.get_all_studies()}
