"""Where the trials of a study run: trained models, their files, and the recordings of validation.

All of it is made in the folder of a comparison, and taken from there if that was run before.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from adaptive_sleep.checkpoint import load_model
from adaptive_sleep.experiments.compare_bench import Bench, Tell
from adaptive_sleep.experiments.compare_fits import fitted
from adaptive_sleep.experiments.compare_models import trained
from adaptive_sleep.experiments.compare_streams import Source, pieces, source
from adaptive_sleep.experiments.comparing import Comparison
from adaptive_sleep.experiments.replay import replay
from adaptive_sleep.experiments.runs import open_run
from adaptive_sleep.experiments.tune_policy import guarded
from adaptive_sleep.experiments.tune_reading import Measured, Reading, measured
from adaptive_sleep.model import Model
from adaptive_sleep.streams.errors import InputError


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
    _readings: dict[int, Reading] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )  # of a recording, by seed: the stream that was read last, to be gone on with

    @property
    def recordings(self) -> dict[str, int]:
        """The seed of every recording of validation, by name, in one order."""
        return {name: seed for seed, one in self.seeds.items() for name in one.validation}

    @property
    def files(self) -> Mapping[str, str]:
        """The files of the first seed."""
        return next(iter(self.seeds.values())).files

    @property
    def window(self) -> int | None:
        """The window of the models, in events; None where they differ."""
        own = {one.model.config.window for one in self.seeds.values()}
        return own.pop() if len(own) == 1 else None

    def run(self, name: str, spec: str, window: int | None) -> Measured:
        """What a recording of validation comes to under a policy; nothing is written.

        Recordings of a task are streams of their own. Parts of one recording are one stream: a part
        comes to what it does in a run of all of them, in whatever order they are asked for.
        """
        seed = self.recordings[name]
        one, where = self.seeds[seed], self.seeds[seed].validation[name]
        stream = one.validation if self.recipe.task is None else {name: where}
        reading = self._readings.pop(seed, None)
        if reading is None or reading.key != (spec, window, *stream):
            reading = Reading(self.recipe, one.model, spec, window, stream)
        found = reading.piece(name)
        if found is None:
            raise InputError(
                f"{where.recording}, rows from {where.start:.4g} to {where.stop:.4g} of all: no "
                "window ends there in which anything is predicted; cut the validation part in "
                f"fewer [tune] recordings than {self.recipe.tune.recordings}, or make it longer"
            )
        if len(stream) > 1:
            self._readings[seed] = reading
        return found

    def test(self, seed: int, spec: str, window: int | None, name: str) -> Measured:
        """Replay the recording of the test into a run folder `name`, or take that run up."""
        one = self.seeds[seed]
        out = one.folder / "test" / name
        out.parent.mkdir(parents=True, exist_ok=True)
        replay(
            one.test.recording, one.files["model"], guarded(spec, one.model), out,
            resume=out.exists(), start=one.test.start, stop=one.test.stop, window=window,
            gap_seconds=self.recipe.gap, max_passes=self.recipe.max_passes, seed=self.recipe.seed,
        )  # fmt: skip
        return measured(open_run(out))


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
    """Wait until no other worker on this machine makes anything in a folder, and hold it. Raises
    InputError for one that cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise InputError(
            f"out={str(folder)!r}: cannot be made or read ({error.strerror}); give a folder, new "
            "or of this recipe"
        ) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
