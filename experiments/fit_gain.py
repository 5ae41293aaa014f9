"""`adaptive-sleep fit-gain`: counterfactual replays in, a gain file for `predicted_gain` out.

The windows are read in gain_cases.py and learned from in gain_training.py; here is what is fitted
to what, and what each threshold would give on windows held out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adaptive_sleep.experiments.gain_cases import (
    Cases,
    Of,
    Origin,
    check_alike,
    read_cases,
    split,
)
from adaptive_sleep.experiments.gain_training import Recipe, Samples, train, unit_of
from adaptive_sleep.policies.gain_file import save_gain
from adaptive_sleep.policies.gain_network import Gain, planned
from adaptive_sleep.signals import FloatArray, IntArray
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.tasks.task import checked_seed

THRESHOLDS = 12  # that are told, of
TRIED = 200


@dataclass(frozen=True)
class Passes:
    """What a choice of passes gives on the windows held out: means over them; `all_right` is None
    for a model that answers nothing; `threshold` is None for a fixed number of passes."""

    threshold: float | None
    mean_passes: float
    loss: float
    all_right: float | None


@dataclass(frozen=True)
class FittedGain:
    """A gain file, and how far to trust it.

    `of`: what a pass is to save; `windows` fitted to and `held_out`; `error`: mean deviance of the
    predictions on the latter (0 for the truth), `error_of_mean` that of the mean savings over the
    former; `fixed`: 1 to K passes each; `thresholds`: what predicted_gain would do, from the least
    threshold up.
    """

    file: Path
    model_hash: str
    of: str
    windows: int
    held_out: int
    error: float
    error_of_mean: float
    fixed: tuple[Passes, ...]
    thresholds: tuple[Passes, ...]


def fit_gain(
    forks: Sequence[str | Path],
    out: str | Path,
    *,
    of: Of = "loss",
    held_out: Sequence[str | Path] = (),
    seed: int = 0,
    how: Recipe | None = None,
) -> FittedGain:
    """Fit what going on saves to folders of counterfactuals of one model, and write a gain file.

    What it saves is loss, or, `of` errors, the chance that a window is not answered all right: a
    model that is sure of a wrong answer loses much by it, and a budget that buys loss goes to the
    windows that need most passes, where one that buys right windows goes to those that need few.
    Without folders `held_out`, some windows of `forks` are (`gain_cases.split`). They say when to
    stop fitting, so that what they tell of thresholds is validation, and no test. Same folders and
    seed, same file. Raises InputError for an existing `out`, a seed that seeds nothing, a
    folder given twice, recordings that are on both sides, and as `read_cases` does.
    """
    out, seed = Path(out), checked_seed(seed)
    if out.exists():
        raise InputError(f"out={str(out)!r}: exists already; choose another file")
    if not out.parent.is_dir():
        raise InputError(f"out={str(out)!r}: the folder {out.parent} does not exist")
    for name, folders in (("forks", forks), ("held_out", held_out)):
        for folder, times in Counter(Path(folder).resolve() for folder in folders).items():
            if times > 1:  # its windows would count for as many
                raise InputError(f"{name}: {folder} is given {times} times; give each folder once")
    cases, origin = read_cases(forks, of)
    fit, held = _sides(cases, origin, forks, held_out, of) if held_out else split(cases, seed)
    provenance = {
        "of": of,
        "recordings": " ".join(origin.recordings),
        "seed": str(seed),
        "windows": str(len(fit)),
        "held_out": str(len(held)),
    }
    gain = train(fit, held, origin, provenance, seed, how or Recipe())
    save_gain(gain, out)
    return told(gain, out, fit, held)


def _sides(
    cases: Cases,
    origin: Origin,
    forks: Sequence[str | Path],
    held_out: Sequence[str | Path],
    of: Of,
) -> tuple[Cases, Cases]:
    """The windows to fit, which are all of `forks`, and those held out, which are others."""
    held, theirs = read_cases(held_out, of)
    check_alike(forks[0], origin, held_out[0], theirs)
    if shared := set(cases.stream) & set(held.stream):
        raise InputError(
            f"held_out: {len(shared)} of its streams are also among those to fit; give forks of "
            "another recording, or none"
        )
    return cases, held


def told(gain: Gain, file: Path, fit: Cases, held: Cases) -> FittedGain:
    """What a gain is worth on windows held out."""
    unit = unit_of(fit)
    samples, checks = Samples.of(fit, unit), Samples.of(held, unit)
    saving = predicted(gain, held)
    count = len(held)
    return FittedGain(
        file=file,
        model_hash=gain.model_hash,
        of=gain.provenance.get("of", "loss"),
        windows=len(fit),
        held_out=count,
        error=checks.error(gain.network.run(checks.x) - np.log(unit)),
        error_of_mean=checks.error(samples.mean()),
        fixed=tuple(outcome(held, np.full(count, n), None) for n in range(1, gain.most + 1)),
        thresholds=tuple(
            outcome(held, slept(saving, threshold), threshold) for threshold in _thresholds(saving)
        ),
    )


def predicted(gain: Gain, cases: Cases) -> FloatArray:
    """Savings predicted after 1..K-1 passes of going on beyond 1..K-1, `[windows, K-1, K-1]`."""
    found = []
    for done in range(1, gain.most):
        at = done - 1
        moved = None if done == 1 else cases.hidden_change[:, at]
        passes = np.full(len(cases), done)
        found.append(gain.saving(cases.summary[:, at], passes, cases.state_change[:, at], moved))
    return np.stack(found, axis=1)


def slept(saving: FloatArray, threshold: float) -> IntArray:
    """The passes that predicted_gain would run, `[windows]`, of what `predicted` gave, price 0."""
    bars = np.full(len(saving), threshold)
    plan = planned(saving[:, 0], bars)
    passes = np.minimum(plan, 2)
    for done in range(2, saving.shape[1] + 1):
        going = (passes == done) & (plan > done) & (saving[:, done - 1, done - 1] >= bars)
        passes = passes + going
    return passes


def outcome(cases: Cases, passes: IntArray, threshold: float | None) -> Passes:
    """What so many passes over each window came to."""
    rows = np.arange(len(cases)), passes - 1
    right = None if cases.all_right is None else float(cases.all_right[rows].mean())
    return Passes(threshold, float(passes.mean()), float(cases.loss[rows].mean()), right)


def _thresholds(saving: FloatArray) -> list[float]:
    """Thresholds, three digits each, that sleep more and more, about evenly from least to most."""
    own = saving.diagonal(axis1=1, axis2=2)
    above = own[own > 0]
    if not len(above):
        return []
    shares = np.linspace(0.0, 1.0, TRIED)
    tried = np.unique([float(f"{it:.2e}") for it in np.quantile(above, shares)])
    passes = np.array([slept(saving, threshold).mean() for threshold in tried])
    wanted = np.linspace(passes.min(), passes.max(), THRESHOLDS)
    return sorted({float(tried[np.abs(passes - each).argmin()]) for each in wanted})
