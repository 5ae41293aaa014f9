"""Where the trials of a study run: trained models, their files, and the recordings of validation.

All of it is made in the folder of a comparison, and taken from there if that was run before.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from adaptive_sleep.checkpoint import load_model
from adaptive_sleep.experiments.compare_bench import Bench, Tell, asks, point
from adaptive_sleep.experiments.compare_fits import fitted
from adaptive_sleep.experiments.compare_models import trained
from adaptive_sleep.experiments.compare_streams import Source, pieces, source
from adaptive_sleep.experiments.comparing import Comparison
from adaptive_sleep.experiments.replay import replay
from adaptive_sleep.experiments.runs import Run, open_run
from adaptive_sleep.model import Model
from adaptive_sleep.streams.errors import InputError

ONE_COMMIT = 1 << 30  # steps: a trial is short, and what a kill leaves of it is thrown away


@dataclass(frozen=True)
class Measured:
    """What one replay came to: the score as a comparison has it, FLOPs of all phases, events.
    `asked`: the score is the share of windows answered all right, else minus the loss."""

    score: float
    flops: float
    events: int
    asked: bool

    @property
    def loss(self) -> float:
        """What is minimised."""
        return 1.0 - self.score if self.asked else -self.score


@dataclass(frozen=True)
class Trained:
    """The model of one seed, the files that stand for {model} and {NAME} of its fits, and its
    recordings."""

    model: Model
    files: Mapping[str, str]
    validation: Mapping[str, Source]
    test: Source
    folder: Path


@dataclass(frozen=True)
class TuneBench:
    """The models of a recipe by seed, and how a policy is run on them."""

    recipe: Comparison
    seeds: Mapping[int, Trained]

    @property
    def recordings(self) -> dict[str, int]:
        """The seed of every recording of validation, by name, in one order."""
        return {name: seed for seed, one in self.seeds.items() for name in one.validation}

    @property
    def files(self) -> Mapping[str, str]:
        """The files of the first seed."""
        return next(iter(self.seeds.values())).files

    def run(self, name: str, spec: str, window: int | None) -> Measured:
        """Replay a recording of validation under a policy; nothing of it is kept."""
        one = self.seeds[self.recordings[name]]
        where = one.validation[name]
        with tempfile.TemporaryDirectory(prefix="adaptive-sleep-trial-") as folder:
            out = Path(folder) / "run"
            replay(
                where.recording, one.model, spec, out, start=where.start, stop=where.stop,
                window=window, gap_seconds=self.recipe.gap, max_passes=self.recipe.max_passes,
                seed=self.recipe.seed, commit_every=ONE_COMMIT,
            )  # fmt: skip
            try:
                return measured(open_run(out))
            except InputError:
                raise InputError(
                    f"{where.recording}, rows from {where.start:.4g} to {where.stop:.4g} of all: "
                    "nothing is predicted there; cut the validation part in fewer [tune] "
                    f"recordings than {self.recipe.tune.recordings}, or make it longer"
                ) from None

    def test(self, seed: int, spec: str, window: int | None, name: str) -> Measured:
        """Replay the recording of the test into a run folder `name`, or take that run up."""
        one = self.seeds[seed]
        out = one.folder / "test" / name
        out.parent.mkdir(parents=True, exist_ok=True)
        replay(
            one.test.recording, one.files["model"], spec, out, resume=out.exists(),
            start=one.test.start, stop=one.test.stop, window=window, gap_seconds=self.recipe.gap,
            max_passes=self.recipe.max_passes, seed=self.recipe.seed,
        )  # fmt: skip
        return measured(open_run(out))


def measured(run: Run) -> Measured:
    """The figures of a finished run. Raises InputError where nothing was predicted."""
    _, score = point(run)
    assert run.summary is not None
    events = run.summary.events
    return Measured(score, round(run.summary.flops_per_event * events), events, asks(run))


def prepare(
    recipe: Comparison,
    folder: Path,
    models: Mapping[int, str | None],
    *,
    quick: bool,
    tell: Tell,
) -> TuneBench:
    """Train and record what is not yet there in `folder`; `models` as `models_of` gives them.
    Raises InputError."""
    seeds = {}
    for seed, given in models.items():
        home = folder / f"seed-{seed}"
        tell(f"seed {seed}: model and recordings")
        model = given or trained(recipe.models, home / "model", seed)
        cut = pieces(recipe, home / "streams", seed, recipe.tune.recordings, quick=quick)
        seeds[seed] = Trained(
            load_model(model),
            {"model": model},
            {f"seed-{seed}/{number}": where for number, where in enumerate(cut)},
            source(recipe, home / "streams", "test", seed, quick=quick),
            home,
        )
    return TuneBench(recipe, seeds)


def with_fits(bench: TuneBench, places: Collection[str], *, quick: bool, tell: Tell) -> TuneBench:
    """The same, with what policies are fitted to, of `places`, for each model. Raises InputError.

    It is fitted on forks of a training stream, and taken up where that was done before.
    """
    recipe, seeds = bench.recipe, {}
    for seed, one in bench.seeds.items():
        files = dict(one.files)
        for fit in sorted(set(places) - {"model"}):
            where = source(recipe, one.folder / "streams", "train", seed, quick=quick)
            fitting = Bench(recipe, files["model"], where, one.folder / "fit", tell)
            fitting.forks("forks")
            forks = fitting.folder / "forks"
            files[fit] = str(fitted(fit, forks, fitting.folder, recipe.seed))
        seeds[seed] = replace(one, files=files)
    return TuneBench(recipe, seeds)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Wait until no other worker on this machine makes anything in a folder, and hold it."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
