"""The probe of recurrence: is a regime forecast better on its return for having been slept on?

A regime is injected into streams of others, its windows are evicted, and after M windows of new
regimes it comes back for one window. Each stream has a twin that is the same but for the windows in
which the regime first appeared: these hold another one. What having seen it is worth is the loss of
the twin on the return less that of the stream; what sleep is worth is the loss at N = 1 less that
at N passes, over the injected windows alone or over every window, of this model and of a control
that is trained at N = 1 on as many events.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptive_sleep.checkpoint import load_model
from adaptive_sleep.config import ModelConfig, decode, read_toml
from adaptive_sleep.experiments.finding import find_recipe
from adaptive_sleep.experiments.jobs import Given, one_thread, side_by_side
from adaptive_sleep.experiments.probes.learning import (
    TESTING,
    LearnerRecipe,
    check_learner,
    drawn_streams,
    learn_regimes,
)
from adaptive_sleep.experiments.probes.states import read_streams
from adaptive_sleep.experiments.probes.summing import (
    Table,
    kept_or_done,
    shown,
    tables_over_seeds,
)
from adaptive_sleep.experiments.reproduce import Report, commit
from adaptive_sleep.model import Model
from adaptive_sleep.streams.errors import InputError

NAME = "probe_recurrence"
SEEDS = (0, 1, 2, 3, 4)
PLAIN = "N=1"
CONTROL = "control N=1"  # trained at N = 1 on as many events
WHERE = ("injected", "every")  # the windows that are slept on
MEASURES = ("loss", "unseen", "gain")
INJECTED, OTHER = 1_000_000, 1_000_001  # regimes that streams have by no other way


@dataclass(frozen=True, kw_only=True)
class RecurrenceTest:
    """What comes back when. Lengths are in windows."""

    passes: tuple[int, ...] = (1, 2, 3, 4)
    gaps: tuple[int, ...] = (0, 1, 2, 4, 8, 16)  # M, of new regimes before the return
    shown: int = 2  # of the injected regime, when it first appears
    lead: int = 4  # of new regimes before that, at least: streams of all gaps are as long
    pairs: int = 128  # streams, each with a twin

    @property
    def windows(self) -> int:
        """The windows of a stream; the regime returns in the last."""
        return self.lead + self.shown + max(self.gaps) + 1


@dataclass(frozen=True, kw_only=True)
class RecurrenceRecipe(LearnerRecipe):
    """A whole recipe: what is trained, and `[test]`."""

    test: RecurrenceTest = field(default_factory=RecurrenceTest)


def read_recipe(path: Path) -> RecurrenceRecipe:
    """Decode a recipe strictly. Raises InputError naming the field."""
    recipe = decode(RecurrenceRecipe, read_toml(path), where=str(path))
    check_learner(recipe)
    test = recipe.test
    for name, least in (("shown", 1), ("lead", 0), ("pairs", 1)):
        if getattr(test, name) < least:
            raise InputError(f"[test] {name}={getattr(test, name)}: at least {least}")
    if not test.gaps or min(test.gaps) < 0 or sorted(set(test.gaps)) != [*test.gaps]:
        raise InputError(f"[test] gaps={list(test.gaps)}: rising numbers of windows, 0 or more")
    if not test.passes or test.passes[0] != 1 or sorted(set(test.passes)) != [*test.passes]:
        raise InputError(f"[test] passes={list(test.passes)}: rising numbers, the first of them 1")
    return recipe


def injected_at(test: RecurrenceTest, gap: int) -> range:
    """The windows in which the injected regime first appears, where it returns after `gap`."""
    first = test.windows - 1 - gap - test.shown
    return range(first, first + test.shown)


def plan_of(test: RecurrenceTest, gap: int, regime: int) -> NDArray[np.int64]:
    """Regimes by window, `[windows]`: `regime` where the injected one first appears, it itself in
    the last window, and a new one in each of the others."""
    plan = np.arange(test.windows, dtype=np.int64)
    plan[injected_at(test, gap)] = regime
    plan[-1] = INJECTED
    return plan


def slept(test: RecurrenceTest, gap: int, where: str, passes: int) -> list[int]:
    """The passes over each window when `where` is slept on."""
    chosen = injected_at(test, gap) if where == "injected" else range(test.windows)
    return [passes if window in chosen else 1 for window in range(test.windows)]


def twins(
    recipe: LearnerRecipe, config: ModelConfig, test: RecurrenceTest, gap: int, seed: int
) -> NDArray[np.float32]:
    """The streams, then their twins, `[2 * pairs, windows * window, C]`."""
    return np.concatenate(
        [
            drawn_streams(
                recipe.regimes,
                config,
                np.tile(plan_of(test, gap, regime), (test.pairs, 1)),
                (TESTING, seed),
            )
            for regime in (INJECTED, OTHER)
        ]
    )


def run(
    out: Path,
    *,
    seeds: Sequence[int] = SEEDS,
    quick: bool = False,
    jobs: int | None = None,
    recipe: Path | None = None,
    on_progress: Report | None = None,
) -> dict[str, Any]:
    """Train and probe every seed in folders under `out`; killed, it goes on with what lacks.

    `quick`: the first seed alone. Returns what `summary` does. Raises InputError.
    """
    begun = time.perf_counter()
    plan = read_recipe(recipe or find_recipe(NAME))
    chosen = list(seeds)[:1] if quick else list(seeds)
    work: dict[int, Given] = {seed: (plan, str(out), seed) for seed in chosen}
    alone = len(work) == 1 or jobs == 1
    here = partial(_job, on_progress=on_progress) if alone else None  # it tells how far it is
    found: dict[int, dict[str, Any]] = {}
    for seed, job in side_by_side(_job, work, jobs, here=here):
        found[seed] = job
        if on_progress is not None and not alone:
            on_progress(len(found), len(work), f"seed {seed}")
    return summary(plan, found, wall=time.perf_counter() - begun)


def _job(
    recipe: RecurrenceRecipe, out: str, seed: int, on_progress: Report | None = None
) -> dict[str, Any]:
    """One seed on one thread: trained and probed, or taken up as it was."""
    told = {"recipe": json.loads(json.dumps(asdict(recipe))), "seed": seed}
    folder = Path(out) / f"seed-{seed}"

    def do() -> dict[str, Any]:
        with one_thread():
            learned = learn_regimes(recipe, folder, seed, on_progress=on_progress)
            control = learn_regimes(at_one(recipe), folder / "control", seed)
            begun, model = time.perf_counter(), load_model(learned.path)
            rows = returned(model, recipe, seed)
            rows[CONTROL] = returned(load_model(control.path), at_one(recipe), seed)[PLAIN]
            return {
                "rows": rows,
                "tokens": learned.tokens,
                "step": learned.step,
                "seconds": learned.seconds + control.seconds,
                "test_seconds": time.perf_counter() - begun,
                "parameters": model.parameters_count,
            }

    return kept_or_done(folder / "found.json", told, do)


def at_one(recipe: RecurrenceRecipe) -> RecurrenceRecipe:
    """The recipe of the control: trained and tested at N = 1."""
    training = replace(recipe.training, passes="1")
    return replace(recipe, training=training, test=replace(recipe.test, passes=(1,)))


def returned(model: Model, recipe: RecurrenceRecipe, seed: int) -> dict[str, Any]:
    """Losses in the window of the return, means over streams: by windows slept on and passes
    ("injected N=2"), by measure (`MEASURES`) and gap."""
    test = recipe.test
    rows: dict[str, Any] = {}
    for gap in test.gaps:
        values = twins(recipe, model.config, test, gap, seed)
        for name, plan in _plans(test, gap).items():
            loss = read_streams(model, values, plan, keep=False).loss[:, -1]
            seen, unseen = (float(half.mean()) for half in np.split(loss, 2))
            row = rows.setdefault(name, {measure: {} for measure in MEASURES})
            for measure, value in zip(MEASURES, (seen, unseen, unseen - seen), strict=True):
                row[measure][str(gap)] = value
    return rows


def _plans(test: RecurrenceTest, gap: int) -> dict[str, list[int]]:
    """Passes by window, for each row; what is slept on makes no difference at N = 1."""
    first = {PLAIN: [1] * test.windows}
    return first | {
        f"{where} N={n}": slept(test, gap, where, n) for where in WHERE for n in test.passes[1:]
    }


def summary(
    recipe: RecurrenceRecipe, found: Mapping[int, Mapping[str, Any]], *, wall: float
) -> dict[str, Any]:
    """What was found, with stable keys: `rows`, by "N=1", "injected N=2", .., "control N=1", each
    by gap and as `tables_over_seeds` has it: `loss` on the return, `unseen` (that of the twins),
    `gain` (the second less the first), and, paired by seed, `saved` (the loss at N=1 less that of
    the row), `beaten` (that of the control less that of the row) and `gained` (the gain of the row
    less that at N=1); and where they come from."""
    seeds = sorted(found)
    rows: dict[str, Any] = {}
    for name in found[seeds[0]]["rows"]:
        rows[name] = tables_over_seeds([_with_saved(found[seed]["rows"], name) for seed in seeds])
    return {
        "probe": NAME.removeprefix("probe_"),
        "rows": rows,
        "seeds": seeds,
        "tokens": found[seeds[0]]["tokens"],
        "parameters": found[seeds[0]]["parameters"],
        "steps": {seed: found[seed]["step"] for seed in seeds},
        "seconds": float(np.mean([found[seed]["seconds"] for seed in seeds])),
        "test_seconds": float(np.mean([found[seed]["test_seconds"] for seed in seeds])),
        "wall_seconds": wall,
        "commit": commit(),
        "recipe": json.loads(json.dumps(asdict(recipe))),
    }


def _with_saved(rows: Mapping[str, Mapping[str, Mapping[str, float]]], name: str) -> Table:
    """A row of one seed with `saved`, `beaten` and `gained`."""
    row, base, control = rows[name], rows[PLAIN], rows[CONTROL]
    saved = {gap: base["loss"][gap] - loss for gap, loss in row["loss"].items()}
    beaten = {gap: control["loss"][gap] - loss for gap, loss in row["loss"].items()}
    gained = {gap: gain - base["gain"][gap] for gap, gain in row["gain"].items()}
    return {**row, "saved": saved, "beaten": beaten, "gained": gained}


def table_of(found: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of what is printed: measures by gap, those of N = 1 first."""
    gaps = list(found["rows"][PLAIN]["mean"]["loss"])
    columns = ["slept on", "passes", "what", *(f"M={gap}" for gap in gaps)]
    rows = []
    for name, row in found["rows"].items():
        where, _, passes = name.rpartition(" ")
        plain = name in (PLAIN, CONTROL)
        for measure in MEASURES if plain else ("loss", "gain", "saved", "beaten"):
            means, ends = row["mean"][measure], row["interval"][measure]
            cells = [shown(means[gap], ends[gap], 4) for gap in gaps]
            rows.append([where or "nothing", passes, measure, *cells])
    return columns, rows


def said(found: Mapping[str, Any]) -> str:
    """What must be known beside the table: what the most passes saved, and what may be compared."""
    lines = []
    for where in WHERE:
        name = [name for name in found["rows"] if name.startswith(where)][-1]
        row = found["rows"][name]
        for measure, words in (("saved", "the model at N = 1"), ("beaten", "the control")):
            told = ", ".join(
                f"M={gap} {shown(value, row['interval'][measure][gap], 4)}"
                for gap, value in row["mean"][measure].items()
            )
            lines.append(f"{name}, better than {words} by: {told}.")
    test = found["recipe"]["test"]
    lines.append(
        f"Normalised pinball loss in the window of the return, {test['pairs']} streams a seed; "
        "'unseen' is that of twins that never saw the regime, 'gain' what having seen it is worth. "
        f"At M=0 it goes on. {len(found['seeds'])} seed(s), {found['seconds']:.0f} s of training "
        f"and {found['test_seconds']:.0f} s of tests a seed, commit {found['commit']}"
    )
    return "\n".join(lines)
