"""What a page about a study shows, read from the storage that `adaptive-sleep tune` worked on.

The storage is read, never written. Which trial is best is decided in tune_trial.py.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import polars as pl
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from adaptive_sleep.experiments.report_importance import importance
from adaptive_sleep.experiments.reproduce import interval
from adaptive_sleep.experiments.tune_storage import close, quiet
from adaptive_sleep.experiments.tune_trial import best_of, front
from adaptive_sleep.experiments.tune_workers import FINISHED, WORKER
from adaptive_sleep.streams.errors import InputError, nearest

OURS = {"recipe", "recipe_sha256", "budget", "space"}  # what a study of `tune` says of itself
Ends = tuple[float, float]


@dataclass(frozen=True)
class TrialPoint:
    """A finished trial. `loss`, `score` and `flops`, per event, are means over the `recordings` it
    saw, all of them or, where it was `stopped` (budget, worse, refused), some; None where it was
    refused. `ends`: the interval of the loss over trained seeds. `within` the budget, and whole."""

    number: int
    spec: str
    window: int | None
    params: Mapping[str, Any]
    loss: float | None
    score: float | None
    flops: float | None
    stopped: str
    recordings: int
    ends: Ends | None
    within: bool
    front: bool
    seconds: float | None


@dataclass(frozen=True)
class StudyFound:
    """A study: its name, what it says of itself, its finished trials by number, the number of the
    best, how many trials are in which other state, how many workers it had, and the weight of each
    parameter, with what there is to say of it, or why there is none."""

    name: str
    said: Mapping[str, Any]
    trials: tuple[TrialPoint, ...]
    best: int | None
    others: Mapping[str, int]
    workers: int
    importance: pl.DataFrame | None
    importance_said: str

    @property
    def plain(self) -> float:
        """FLOPs per event of the plain hybrid."""
        return float(self.said["plain_flops_per_event"])

    @property
    def budget(self) -> float:
        """FLOPs per event that the best may take."""
        return float(self.said["budget_flops_per_event"])

    @property
    def asks(self) -> bool:
        """Whether the loss is a share of windows answered wrong; else it is that of forecasts."""
        known = [it for it in self.trials if it.loss is not None and it.score is not None]
        return all(math.isclose(it.loss or 0.0, 1.0 - (it.score or 0.0)) for it in known)

    def best_so_far(self) -> pl.DataFrame:
        """The loss of the best trial within the budget up to each: `trial`, `best`, null before
        the first."""
        kept: list[float | None] = []
        for it in self.trials:
            last = kept[-1] if kept else None
            new = it.loss if it.within else None
            kept.append(new if last is None else last if new is None else min(new, last))
        numbers = [it.number for it in self.trials]
        return pl.DataFrame({"trial": numbers, "best": pl.Series(kept, dtype=pl.Float64)})


def open_study(storage: str, name: str | None) -> StudyFound:
    """Read a study; `name` may be left out where the storage holds one of `adaptive-sleep tune`.

    Raises InputError for a storage that cannot be read, a study that is not there, with the nearest
    name, or that is not one of `tune`, and for one that no trial of is finished.
    """
    with quiet():
        kept = _opened(storage)
        try:
            studies = {it.study_name: it.user_attrs for it in kept.get_all_studies()}
            chosen = _chosen(studies, name)
            return _found(optuna.load_study(study_name=chosen, storage=kept))
        except (SQLAlchemyError, StorageInternalError) as error:
            raise _unreadable(make_url(storage), error) from error
        finally:
            close(kept)


def _opened(where: str) -> RDBStorage:
    try:
        url = make_url(where)
        backend = url.get_backend_name()
    except (ArgumentError, ValueError) as error:  # an unknown backend; a port that is no number
        raise InputError(
            f"storage={where!r}: a URL is expected, sqlite:///FILE or postgresql://USER@HOST/NAME "
            f"({str(error).splitlines()[0]})"
        ) from None
    file = url.database
    if backend == "sqlite" and (not file or not Path(file).is_file()):
        raise InputError(f"storage={where!r}: there is no such file{_nearby(file)}")
    try:
        return RDBStorage(
            url.render_as_string(hide_password=False), skip_table_creation=True,
            engine_kwargs={"connect_args": {"connect_timeout": 10}}
            if backend == "postgresql" else None,
        )  # fmt: skip
    except (SQLAlchemyError, StorageInternalError, ImportError, RuntimeError) as error:
        raise _unreadable(url, error) from error


def _nearby(file: str | None) -> str:
    """The nearest name of a file beside it."""
    path = Path(file or "study.db")
    if not path.parent.is_dir():
        return ""
    return nearest(path.name, [it.name for it in path.parent.iterdir() if it.suffix == path.suffix])


def _unreadable(url: URL, error: BaseException) -> InputError:
    deepest = getattr(error, "orig", None) or error.__cause__ or error
    first, *_ = [*str(deepest).strip().splitlines(), ""]
    why = f"{type(deepest).__name__}: {first}"
    return InputError(
        f"storage={url.render_as_string()!r}: no study can be read there ({why}); give the "
        "storage that `adaptive-sleep tune` had"
    )


def _chosen(studies: Mapping[str, Mapping[str, Any]], name: str | None) -> str:
    ours = [it for it, said in studies.items() if {*said} >= OURS]
    listed = ", ".join(ours) or "there is none"
    if name is None:
        if len(ours) == 1:
            return ours[0]
        if not ours:
            raise InputError("storage: holds no study that `adaptive-sleep tune` made")
        raise InputError(f"storage: holds several studies; give one with --study: {listed}")
    if name not in studies:
        raise InputError(f"study={name!r}: no such study{nearest(name, ours)} ({listed})")
    if name not in ours:
        raise InputError(
            f"study={name!r}: was not made by `adaptive-sleep tune`{nearest(name, ours)} ({listed})"
        )
    return name


def _found(study: optuna.Study) -> StudyFound:
    trials, said = study.get_trials(deepcopy=False), study.user_attrs
    done = [it for it in trials if it.state in FINISHED]
    if not done or not {"budget_flops_per_event", "plain_flops_per_event"} <= {*said}:
        raise InputError(
            f"study={study.study_name!r}: no trial of it is finished yet; `adaptive-sleep tune` "
            "goes on with it"
        )
    kept = {it.number for it in front(study)}
    best = best_of(study, said["budget_flops_per_event"])
    points = tuple(_point(it, float(said["budget_flops_per_event"]), kept) for it in done)
    weights, why_not = importance(study, [it for it in done if _whole(it)])
    return StudyFound(
        name=study.study_name,
        said=said,
        trials=points,
        best=None if best is None else best.number,
        others=Counter(it.state.name.lower() for it in trials if it.state not in FINISHED),
        workers=len({it.user_attrs[WORKER] for it in done if WORKER in it.user_attrs}),
        importance=weights,
        importance_said=why_not,
    )


def _whole(trial: FrozenTrial) -> bool:
    """Whether a trial ran to its end."""
    return trial.state == TrialState.COMPLETE and trial.user_attrs.get("stopped") is None


def _point(trial: FrozenTrial, budget: float, kept: set[int]) -> TrialPoint:
    said = trial.user_attrs
    cost, whole = said.get("flops_per_event"), _whole(trial)
    return TrialPoint(
        number=trial.number,
        spec=said.get("spec") or said.get("written", ""),
        window=said.get("window"),
        params=trial.params,
        loss=trial.values[0] if trial.state == TrialState.COMPLETE and trial.values else None,
        score=said.get("score"),
        flops=cost,
        stopped=said.get("stopped") or "",
        recordings=len(said.get("loss_per_recording", {})),
        ends=_ends(said.get("loss_per_stream", said["loss_per_recording"])) if whole else None,
        within=whole and cost is not None and cost <= budget,
        front=trial.number in kept,
        seconds=said.get("seconds"),
    )


def _ends(losses: Mapping[str, float]) -> Ends | None:
    """The interval of the mean loss over trained seeds; recordings are named seed-S/NUMBER, what
    the parts of one come to together seed-S."""
    by_seed: dict[str, list[float]] = {}
    for name, loss in losses.items():
        by_seed.setdefault(name.partition("/")[0], []).append(loss)
    ends = interval([float(np.mean(several)) for several in by_seed.values()])
    return None if ends is None else (ends[0], ends[1])


def trials_frame(found: StudyFound) -> pl.DataFrame:
    """Every finished trial, with a column for each parameter, named param.NAME (text, where its
    values are not all numbers; null where it was not open)."""
    names = sorted({name for it in found.trials for name in it.params})
    columns: dict[str, Any] = {
        "trial": [it.number for it in found.trials],
        "spec": [it.spec for it in found.trials],
        "window": pl.Series([it.window for it in found.trials], dtype=pl.Int64),
        "loss": pl.Series([it.loss for it in found.trials], dtype=pl.Float64),
        "loss_low": pl.Series([(it.ends or (None,))[0] for it in found.trials], dtype=pl.Float64),
        "loss_high": pl.Series([(it.ends or (None,))[-1] for it in found.trials], dtype=pl.Float64),
        "best_so_far": found.best_so_far()["best"],
        "score": pl.Series([it.score for it in found.trials], dtype=pl.Float64),
        "flops_per_event": pl.Series([it.flops for it in found.trials], dtype=pl.Float64),
        "stopped": [it.stopped for it in found.trials],
        "recordings": [it.recordings for it in found.trials],
        "within_budget": [it.within for it in found.trials],
        "front": [it.front for it in found.trials],
        "best": [it.number == found.best for it in found.trials],
        "seconds": pl.Series([it.seconds for it in found.trials], dtype=pl.Float64),
    }
    for name in names:
        values = [it.params.get(name) for it in found.trials]
        plain = all(value is None or type(value) in (int, float) for value in values)
        shown = values if plain else [None if it is None else str(it) for it in values]
        columns[f"param.{name}"] = pl.Series(shown, strict=False)
    return pl.DataFrame(columns)
