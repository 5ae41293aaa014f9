"""What a comparison of policies is to run: the recipe, decoded strictly and checked as a whole.

How its streams are drawn is in compare_streams.py, what a seed runs in compare_seed.py.
"""

from __future__ import annotations

import ast
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import adaptive_sleep.policies  # noqa: F401  (registers the policies that we ship)
from adaptive_sleep.config import decode, read_toml
from adaptive_sleep.experiments.finding import command_of
from adaptive_sleep.experiments.matched_table import BaselineEntry, check_apart, check_baselines
from adaptive_sleep.experiments.tune_table import TuneTable, check_tune
from adaptive_sleep.spec import resolve
from adaptive_sleep.streams.errors import InputError, nearest
from adaptive_sleep.streams.tasks.drawing import check_power
from adaptive_sleep.streams.tasks.recorded import GAP_SECONDS
from adaptive_sleep.streams.tasks.registry import make_task
from adaptive_sleep.streams.tasks.task import Task

ERRORS = "gain_of_errors"
FITS = ("gain", ERRORS)  # what can be fitted for a policy; `{NAME}` in its spec is the file
MOST_GRID = 256
OWN = ("fixed", "oracle", "table", "forks")  # rows and folders that a comparison adds itself
_NAME = re.compile(r"[a-z][a-z0-9_-]*")
_PLACE = re.compile(r"\{(?P<name>[A-Za-z_]\w*)\}")
_WRITTEN = re.compile(  # texts, in which places may be, and places
    rf"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|{_PLACE.pattern}""", re.DOTALL
)
Span = tuple[float, float]


@dataclass(frozen=True)
class Models:
    """The models: `paths` of trained ones (or bundled:NAME), or a training `recipe` (a name or a
    file) and its `seeds`. `quick` is the one that a quick comparison takes."""

    paths: tuple[str, ...] = ()
    recipe: str = ""
    seeds: tuple[int, ...] = ()
    quick: str = ""


@dataclass(frozen=True)
class TaskStreams:
    """Samples of a task on streams that go on, drawn anew for each seed of training.

    Difficulty d is drawn with weight d^-`power` (from 0: (1 + d)^-`power`). `samples` for
    validation, and as many for the test; `fit_samples` of the training part for policies that are
    fitted; and what a quick comparison takes. With `fresh` every sample has a stream of its own,
    for models that were not trained on streams that go on. With `table`, a look-up table from
    difficulty to passes is shown beside the policies: it reads a label, so it is not online.
    """

    name: str
    parameters: dict[str, Any] = field(default_factory=dict)
    power: float = 0.0
    streams: int = 64
    samples: int = 4096
    fit_samples: int = 4096
    quick_samples: int = 1024
    quick_fit_samples: int = 2048
    fresh: bool = False
    table: bool = False


@dataclass(frozen=True)
class RecordedStreams:
    """Parts of a recording, as fractions of its rows that do not overlap; `fit` for policies that
    are fitted."""

    path: str
    validation: Span
    test: Span
    fit: Span | None = None


@dataclass(frozen=True)
class PolicyEntry:
    """A policy: a name, and a spec in which `{parameter}` stands for a value of `grid`, `{model}`
    for the model's file and `{gain}` for what `fit` = "gain" fitted to losses (`gain_of_errors`: to
    what was not answered all right).

    Of all points of the grid, each seed takes the cheapest within `within` of fixed(max_passes) on
    validation. `online` is false for a policy that reads what no deployed one could.
    """

    name: str
    spec: str
    online: bool = True
    grid: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    fit: str = ""

    def points(self) -> Iterator[dict[str, Any]]:
        """Every choice of the grid's values, the last parameter fastest; one empty choice without
        a grid."""
        for values in itertools.product(*self.grid.values()):
            yield dict(zip(self.grid, values, strict=True))

    def written(self, values: Mapping[str, Any]) -> str:
        """The spec with `values` in place of the names in braces, as literals, also in a policy
        that is quoted within."""
        return _filled(self.spec, values)


def _filled(spec: str, values: Mapping[str, Any]) -> str:
    def put(found: re.Match[str]) -> str:
        name, quoted = found["name"], found[0]
        if name is not None:
            return repr(values[name]) if name in values else quoted
        try:
            inner = ast.literal_eval(quoted)
        except (SyntaxError, ValueError):
            return quoted  # no literal: whoever reads the spec says so
        if "(" not in inner:  # a text with a place in it, no policy
            filled = _PLACE.sub(lambda m: str(values.get(m["name"], m[0])), inner)
        else:
            filled = _filled(inner, values)
        return quoted if filled == inner else repr(filled)

    return _WRITTEN.sub(put, spec)


@dataclass(frozen=True)
class Changes:
    """What is run besides, with all parameters as they were chosen: `mixes`, the power by name;
    `switch`, the powers of the first and the second half of each stream; `bursts`, mean lengths in
    samples, in which these two mixes come by turns on each stream; `price` of a FLOP in units of
    loss, which is then doubled."""

    mixes: dict[str, float] = field(default_factory=dict)
    switch: tuple[float, float] | None = None
    bursts: tuple[float, float] | None = None
    price: float | None = None


@dataclass(frozen=True)
class Comparison:
    """A whole recipe. `within`: in units of the score, which is the share of windows answered all
    right, or minus the loss where nothing is asked. `tolerance`: loss above the best that the
    oracle takes for fewer passes. `control_seeds`: of the shuffled passes. `seed`: of the streams
    and the runs. `gap_seconds` without an event close a window (of a task: 0.5). `targets`, times
    the FLOPs per event of the plain hybrid, are what policies and `baselines` are matched at."""

    models: Models
    policies: tuple[PolicyEntry, ...]
    task: TaskStreams | None = None
    recording: RecordedStreams | None = None
    gap_seconds: float | None = None
    max_passes: int = 4
    within: float = 0.01
    tolerance: float = 0.01
    control_seeds: tuple[int, ...] = (0, 1, 2)
    seed: int = 0
    changes: Changes = field(default_factory=Changes)
    tune: TuneTable = field(default_factory=TuneTable)
    baselines: tuple[BaselineEntry, ...] = ()
    targets: tuple[float, ...] = ()

    @property
    def gap(self) -> float | None:
        """Seconds without an event that close a window."""
        return GAP_SECONDS if self.task and self.gap_seconds is None else self.gap_seconds

    def made_task(self) -> Task:
        """The task; only for a comparison that has one."""
        assert self.task is not None
        return make_task(self.task.name, **self.task.parameters)


def read_comparison(path: str | Path) -> Comparison:
    """Decode and check a recipe. Raises InputError naming file, field, value and what is right."""
    data, where = read_toml(path), str(path)
    if data and not {"models", "policies"} & set(data):
        raise InputError(
            f"{where}: is a recipe of `adaptive-sleep {command_of(data)}`; compare and tune take "
            "one with [models] and [[policies]]"
        )
    tables: dict[str, Any] = {"policies": PolicyEntry, "baselines": BaselineEntry}
    for name, table in tables.items():
        entries = data.get(name, ())
        for number, entry in enumerate(entries if isinstance(entries, list) else ()):
            decode(table, entry, where=f"{where}: {name}[{number}]")  # refuses unknown fields
    recipe = decode(Comparison, data, where=where)
    try:
        _check(recipe)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    return recipe


def _check(recipe: Comparison) -> None:
    _check_models(recipe.models)
    _check_streams(recipe)
    _check_numbers(recipe)
    _check_changes(recipe)
    check_tune(recipe.tune, recipe.max_passes, task=recipe.task is not None)
    training, task = recipe.models.recipe, recipe.task is not None
    check_baselines(recipe.baselines, recipe.targets, training, task=task)
    names = [entry.name for entry in recipe.policies]
    if not names or len(set(names)) != len(names):
        raise InputError(f"policies={names}: at least one, each name once")
    check_apart(names, [entry.name for entry in recipe.baselines])
    for entry in recipe.policies:
        _check_policy(entry, recipe)


def _check_models(models: Models) -> None:
    if bool(models.paths) == bool(models.recipe):
        raise InputError("[models]: give paths, or recipe with seeds (one of the two)")
    if bool(models.recipe) != bool(models.seeds):
        raise InputError("[models] seeds: they go with recipe, one model each, e.g. [0, 1, 2]")
    for name in ("paths", "seeds"):
        given = getattr(models, name)
        if len(set(given)) != len(given):
            raise InputError(f"[models] {name}={list(given)}: each once")
    if any(seed < 0 for seed in models.seeds):
        raise InputError(f"[models] seeds={list(models.seeds)}: whole numbers from 0")


def _check_streams(recipe: Comparison) -> None:
    if (recipe.task is None) == (recipe.recording is None):
        raise InputError("give [task] or [recording] (one of the two)")
    if recipe.task is not None:
        recipe.made_task()
        for name in ("streams", "samples", "fit_samples", "quick_samples", "quick_fit_samples"):
            if getattr(recipe.task, name) < 1:
                raise InputError(f"[task] {name}={getattr(recipe.task, name)}: at least 1")
        check_power("[task] power", recipe.task.power)
    if recipe.recording is not None:
        _check_spans(recipe.recording)


def _check_spans(recording: RecordedStreams) -> None:
    spans = {"validation": recording.validation, "test": recording.test}
    if recording.fit is not None:
        spans["fit"] = recording.fit
    for name, (start, stop) in spans.items():
        if not 0.0 <= start < stop <= 1.0:
            raise InputError(
                f"[recording] {name}=[{start}, {stop}]: two rising fractions from 0 to 1"
            )
    for (one, first), (other, second) in itertools.combinations(spans.items(), 2):
        if max(first[0], second[0]) < min(first[1], second[1]):
            raise InputError(
                f"[recording] {one}={list(first)} and {other}={list(second)} overlap: what is "
                "tested on must not have been chosen or fitted on"
            )


def _check_numbers(recipe: Comparison) -> None:
    if recipe.max_passes < 2:
        raise InputError(f"max_passes={recipe.max_passes}: at least 2, or there is no sleep")
    controls = recipe.control_seeds
    if not controls or min(controls) < 0 or len(set(controls)) != len(controls):
        raise InputError(
            f"control_seeds={list(controls)}: at least one, from 0, each once, e.g. [0, 1, 2]"
        )
    if recipe.seed < 0:
        raise InputError(f"seed={recipe.seed}: a whole number from 0")
    for name in ("within", "tolerance"):
        if not 0.0 <= getattr(recipe, name) < math.inf:
            raise InputError(f"{name}={getattr(recipe, name)}: a number from 0 on")


def _check_changes(recipe: Comparison) -> None:
    changes = recipe.changes
    if recipe.task is None and (changes.mixes or changes.switch):
        raise InputError("[changes]: mixes and switch need a [task]; a recording is as it is")
    for name, power in changes.mixes.items():
        _check_name("[changes] mixes", name)
        check_power(f"[changes] mixes.{name}", power)
    for power in changes.switch or ():
        check_power("[changes] switch", power)
    if changes.bursts is not None:
        _check_bursts(recipe, changes.bursts)
    if changes.price is not None and not 0.0 < changes.price < math.inf:
        raise InputError(f"[changes] price={changes.price}: units of loss per FLOP, above 0")


def _check_bursts(recipe: Comparison, bursts: Span) -> None:
    given, task = f"[changes] bursts={list(bursts)}", recipe.task
    if task is None:
        raise InputError(f"{given}: bursts need a [task]; a recording is as it is")
    if recipe.changes.switch is None:
        raise InputError(f"{given}: of the two mixes of switch; give it too, e.g. [2.0, -2.0]")
    if task.fresh or task.streams >= task.samples:
        raise InputError(
            f"{given}: fresh={task.fresh}, streams={task.streams} and samples={task.samples} leave "
            "a stream one sample; give it several, or leave out bursts"
        )
    if not all(1.0 <= mean < math.inf for mean in bursts):
        raise InputError(f"{given}: mean lengths in samples, from 1, e.g. [6.0, 3.0]")


def _check_name(field: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise InputError(f"{field}: the name {name!r}: small letters, digits, - and _")


def _check_policy(entry: PolicyEntry, recipe: Comparison) -> None:
    _check_name("policies", entry.name)
    if entry.name.split("-")[0] in OWN or entry.name.endswith("-shuffled"):
        raise InputError(
            f"policies: the name {entry.name!r} is taken by what every comparison runs"
        )
    where = f"policy {entry.name!r}"
    if entry.fit and entry.fit not in FITS:
        raise InputError(
            f"{where}: fit={entry.fit!r}: one of {', '.join(FITS)}{nearest(entry.fit, FITS)}"
        )
    if entry.fit and recipe.recording is not None and recipe.recording.fit is None:
        raise InputError(f"{where}: fit={entry.fit!r} needs [recording] fit, a part to fit on")
    if entry.fit == ERRORS and recipe.changes.price is not None:
        raise InputError(
            f"{where}: fit={entry.fit!r} beside [changes] price: a price is in units of loss; fit "
            "to losses ('gain'), or leave the price out"
        )
    known = [*entry.grid, "model", *((entry.fit,) if entry.fit else ())]
    places = _PLACE.findall(entry.spec)
    for place in places:
        if place not in known:
            raise InputError(
                f"{where}: spec has {{{place}}}{nearest(place, known)}; there are "
                f"{', '.join(known)}"
            )
    for name in (*entry.grid, *((entry.fit,) if entry.fit else ())):
        if name not in places:
            raise InputError(f"{where}: {{{name}}} is not in its spec {entry.spec!r}")
    _check_grid(where, entry)


def _check_grid(where: str, entry: PolicyEntry) -> None:
    for name, values in entry.grid.items():
        if not values:
            raise InputError(f"{where}: grid.{name}=[]: at least one value")
    points = math.prod(len(values) for values in entry.grid.values())
    if points > MOST_GRID:
        raise InputError(f"{where}: grid has {points} points; at most {MOST_GRID}")
    of_files = {"model", *FITS}
    if not of_files & set(_PLACE.findall(entry.spec)):  # else it can be made only later
        for point in entry.points():
            resolve(entry.written(point))


def names_of(recipe: Comparison) -> Sequence[str]:
    """The names of the policies, in order."""
    return [entry.name for entry in recipe.policies]
