"""The probe of numeric detail on one model: its streams by part, their states, and the read-out.

Which models are probed, and what is found over seeds, is in detail.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptive_sleep.bundled import locate
from adaptive_sleep.config import ModelConfig
from adaptive_sleep.experiments.probes.asked import (
    NEXT,
    QUESTIONS,
    TARGETS,
    aged,
    answers,
    as_read,
)
from adaptive_sleep.experiments.probes.learning import TESTING, LearnerRecipe, drawn_streams
from adaptive_sleep.experiments.probes.readout import Cases, Scored, read_out
from adaptive_sleep.experiments.probes.states import read_streams
from adaptive_sleep.model import Model
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.recording import Recording
from adaptive_sleep.training_data import read_streams as rows_of
from adaptive_sleep.training_data import rows_between

PARTS = ("train", "validation", "test")
Streams = Mapping[str, NDArray[np.float32]]  # by part, `[S, W * window, C]`


@dataclass(frozen=True, kw_only=True)
class DetailTest:
    """What is asked, of which streams. Lengths and ages are in windows."""

    passes: tuple[int, ...] = (1, 2, 3, 4)
    ages: tuple[int, ...] = (0, 1, 2, 3, 4, 6, 8)
    warm: int = 4  # windows before the oldest that is asked for
    asked: int = 16  # windows of a drawn stream after which is asked
    train: int = 128  # drawn streams that the read-out is fitted on
    validation: int = 32
    test: int = 64
    recording: str = "bundled:telemetry"  # a real one beside them; "" for none
    model: str = "bundled:telemetry"
    rows: tuple[tuple[float, float], ...] = ((0.0, 0.6), (0.6, 0.7), (0.7, 1.0))  # by part
    shifts: int = 5  # streams cut from each part of the recording, a share of a window apart

    @property
    def first(self) -> int:
        """The first window after which is asked."""
        return self.warm + max(self.ages)


def check_asking(test: DetailTest) -> None:
    """Refuse what cannot be asked. Raises InputError naming the field."""
    for name in ("asked", *PARTS, "shifts"):
        if getattr(test, name) < 1:
            raise InputError(f"[test] {name}={getattr(test, name)}: at least 1")
    if not test.ages or min(test.ages) < 0 or sorted(set(test.ages)) != [*test.ages]:
        raise InputError(f"[test] ages={list(test.ages)}: rising numbers of windows, 0 or more")
    if not test.passes or test.passes[0] != 1 or sorted(set(test.passes)) != [*test.passes]:
        raise InputError(f"[test] passes={list(test.passes)}: rising numbers, the first of them 1")
    if test.warm < 0:
        raise InputError(f"[test] warm={test.warm}: windows, 0 or more")
    if len(test.rows) != len(PARTS):
        raise InputError(f"[test] rows: {len(test.rows)} ranges; one each for {', '.join(PARTS)}")
    for first, last in test.rows:
        if not 0.0 <= first < last <= 1.0:
            raise InputError(f"[test] rows=[{first}, {last}]: 0.0 <= first < last <= 1.0")
    for (_, last), (first, _) in zip(test.rows, test.rows[1:], strict=False):
        if first < last:
            raise InputError(f"[test] rows={[*test.rows]}: parts one after the other, none shared")


def drawn_parts(recipe: LearnerRecipe, config: ModelConfig, test: DetailTest, seed: int) -> Streams:
    """Streams of regimes by part, none of them trained on. Every window has a regime of its own, so
    that nothing but the state tells what an earlier one was like."""
    windows = test.first + test.asked + 1  # the last is the one that comes next
    return {
        part: drawn_streams(
            recipe.regimes,
            config,
            np.tile(np.arange(windows), (getattr(test, part), 1)),
            (TESTING, seed, number),
        )
        for number, part in enumerate(PARTS)
    }


def recorded_parts(config: ModelConfig, test: DetailTest) -> Streams:
    """A recording's rows by part, as streams that begin a share of a window apart. Raises
    InputError where a part is too short."""
    recording = Recording.open(locate("recordings", test.recording))
    found: dict[str, NDArray[np.float32]] = {}
    window = config.window
    for part, fractions in zip(PARTS, test.rows, strict=True):
        (stream,) = rows_of(recording, config, *rows_between(fractions, recording.rows))
        assert stream.values is not None
        windows = (len(stream) - window) // window
        if windows < test.first + 2:
            raise InputError(
                f"[test] rows={list(fractions)}: {windows} windows of {window} events; "
                f"{test.first + 2} are needed for the oldest that is asked for"
            )
        starts = [shift * window // test.shifts for shift in range(test.shifts)]
        found[part] = np.stack([stream.values[s : s + windows * window] for s in starts])
    return found


def probed(model: Model, streams: Streams, test: DetailTest) -> dict[str, Any]:
    """What a read-out finds in the states of a model, for each number of passes: `rows` by "N=1",
    .., each with `r2` by what is asked (and "all": their mean) and age, FLOPs per event of the test
    streams, and how many `numbers` a state has and `cases` the read-out was fitted on.

    R2 of a question is the median over channels; that of the value, the mean over offsets.
    """
    ages = (*test.ages, NEXT)
    asked = {
        part: _asked(values, model.config, ages, test.first) for part, values in streams.items()
    }
    rows: dict[str, Any] = {}
    for passes in test.passes:
        parts: dict[str, Cases] = {}
        flops = 0.0
        for part in PARTS:
            read = read_streams(model, streams[part], passes)
            states = read.states[:, test.first : -1]
            parts[part] = Cases(_flat(states), _flat(asked[part]))
            flops = read.flops_per_event  # of the last part: the test
        scored = read_out(*(parts[part] for part in PARTS))
        rows[f"N={passes}"] = {
            "r2": _by_target(scored, ages, asked["test"].shape[-1]),
            "flops_per_event": flops,
            "numbers": parts["train"].states.shape[1],
            "cases": len(parts["train"].states),
        }
    return {"rows": rows}


def _asked(
    values: NDArray[np.float32], config: ModelConfig, ages: tuple[int, ...], first: int
) -> NDArray[np.float64]:
    """Answers `[S, n, ages, Q, C]` after every window from `first` on that has a next one."""
    return aged(answers(as_read(values, config)), ages, first)


def _flat(cases: NDArray[Any]) -> NDArray[np.float64]:
    """`[S, n, ...]` as one row for each case, float64."""
    return cases.reshape(cases.shape[0] * cases.shape[1], -1).astype(np.float64)


def _by_target(scored: Scored, ages: tuple[int, ...], channels: int) -> dict[str, dict[str, float]]:
    """R2 by target and age; "next" is the window that has not come yet."""
    r2 = np.nanmedian(scored.r2.reshape(len(ages), len(QUESTIONS), channels), axis=2)
    exact = len(TARGETS) - 1  # the questions after these ask for values
    found = np.concatenate([r2[:, :exact], r2[:, exact:].mean(1, keepdims=True)], 1)
    names = ["next" if age == NEXT else str(age) for age in ages]
    table = {
        target: dict(zip(names, found[:, i].tolist(), strict=True))
        for i, target in enumerate(TARGETS)
    }
    return {"all": dict(zip(names, found.mean(1).tolist(), strict=True)), **table}
