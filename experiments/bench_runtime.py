"""Times what deciding costs, and what a batch of streams that sleep differently long costs:
`adaptive-sleep bench runtime`.

Correctness comes first (`bench_runtime_gate`). All figures are ratios of CPU seconds of one thread
within one run; what is run is in `bench_workload`, how a step is looked into in `bench_watch`.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptive_sleep.contract import PolicyLike
from adaptive_sleep.experiments.bench_runtime_gate import check_gate
from adaptive_sleep.experiments.bench_watch import watching
from adaptive_sleep.experiments.bench_within import within
from adaptive_sleep.experiments.bench_workload import (
    MOST,
    Shape,
    even_passes,
    model_of,
    policies_of,
    prescribed,
    windows_of,
)
from adaptive_sleep.experiments.jobs import one_thread
from adaptive_sleep.model import Model
from adaptive_sleep.runtime import Runtime
from adaptive_sleep.streams.events import Piece

FULL = Shape(streams=64, window=64, width=64)  # the one that is held to the bounds
OTHERS = (
    Shape(64, 64, 128),
    Shape(64, 64, 32),
    Shape(64, 16, 64),
    Shape(8, 64, 64),
    Shape(8, 16, 32),
    Shape(1, 64, 64),
    Shape(1, 16, 32),
)
ROUNDS = 15  # timed windows of every stream, each read by every contender in turn
WARM = 2  # before them, not timed
WITHIN_ROUNDS = 60  # of each kernel, with and without what it measures
DECIDING_BOUND = 0.02  # of a step
MIXED_BOUND = 1.10  # times the ideal

Floats = NDArray[np.float64]


class Contender:
    """A runtime of its own for one policy, and what its steps took."""

    def __init__(self, model: Model, policy: PolicyLike | str) -> None:
        self.runtime = Runtime(model, policy)
        # CPU seconds of every step ("step"), and of it "signals" and "policy"
        self.times: list[dict[str, float]] = []
        self.passes: list[float] = []  # of every step, mean over the streams

    def step(self, pieces: Sequence[Piece]) -> None:
        """Make a step and keep what it took."""
        with watching() as watch:
            start = time.thread_time()
            result = self.runtime.step(pieces)
            spent = time.thread_time() - start
        self.times.append({"step": spent} | watch.seconds)
        self.passes.append(float(np.mean([row.passes for row in result.rows])))

    def of(self, phase: str) -> Floats:
        """CPU seconds of a phase, one entry a timed step."""
        return np.array([each[phase] for each in self.times[WARM:]])


def in_turn(contenders: Sequence[Contender], shape: Shape, rounds: int) -> None:
    """Let all read the same windows; who begins changes every time."""
    for turn in range(WARM + rounds):
        pieces = windows_of(shape, turn)
        for place in range(len(contenders)):
            contenders[(turn + place) % len(contenders)].step(pieces)


def deciding(shape: Shape, rounds: int) -> list[dict[str, Any]]:
    """The share of a step's CPU seconds that signals and policy take, one row a policy.

    Every step closes a window of every stream: deciding is as large a part of it as it can be. What
    passes measure within their kernels counts as signals, as `bench_within` finds it.
    """
    model = model_of(shape)
    with tempfile.TemporaryDirectory() as folder:
        contenders = {
            name: Contender(model, spec) for name, spec in policies_of(model, Path(folder)).items()
        }
    in_turn(list(contenders.values()), shape, rounds)
    inner = within(shape, WITHIN_ROUNDS)
    rows = []
    for name, each in contenders.items():
        step, signals, policy = (each.of(phase) for phase in ("step", "signals", "policy"))
        asked = getattr(each.runtime.policy, "keep_going", None) is not None
        passes = np.array(each.passes[WARM:])
        signals = signals + inner.of(passes, asked=asked)
        rows.append(
            asdict(shape)
            | {"policy": name, "mean_passes": float(passes.mean())}
            | spread("share", (signals + policy) / step)
            | {
                "signals_share": float(np.median(signals / step)),
                "policy_share": float(np.median(policy / step)),
                "step_seconds": float(np.median(step)),
            }
        )
    return rows


def mixed(shape: Shape, rounds: int) -> dict[str, Any]:
    """A step in which N is 1 to 4, each for a quarter of the streams, over its ideal.

    The ideal is the sum of its passes, each at the time a row that it takes in a full batch. Pass n
    of a full batch is what a step with n passes for all takes beyond one with n - 1, and a quarter
    of the rows leave after each pass: so the ideal is the mean of the four steps.
    """
    model = model_of(shape)
    full = [Contender(model, f"fixed({passes})") for passes in range(1, MOST + 1)]
    ours = Contender(model, prescribed(even_passes(shape)))
    in_turn([ours, *full], shape, rounds)
    steps = np.stack([each.of("step") for each in full])
    ideal = steps.mean(axis=0)
    step = ours.of("step")
    return (
        asdict(shape)
        | spread("ratio", step / ideal)
        | {
            "sleep_ratio": float(np.median(step - steps[0]) / np.median(ideal - steps[0])),
            "step_seconds": float(np.median(step)),
            "ideal_seconds": float(np.median(ideal)),
        }
    )


def spread(name: str, values: Floats) -> dict[str, float]:
    """The median of `values` as `name`, and their 10th and 90th percentile."""
    low, middle, high = np.quantile(values, [0.1, 0.5, 0.9]).tolist()
    return {name: middle, f"{name}_low": low, f"{name}_high": high}


def run_bench(
    full: Shape = FULL,
    others: Sequence[Shape] = OTHERS,
    rounds: int = ROUNDS,
    report: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Check that what is timed is right, then time it on one thread, in CPU seconds.

    `full`: the shape that is held to the bounds, of at least 4 streams. Returns `gate` ("passed"),
    `threads`, `rounds`; `deciding`, per shape and policy the `share` of a step with its 10th and
    90th percentile over steps; `mixed`, per shape of at least 4 streams the `ratio` to the ideal
    likewise, and `sleep_ratio`, that of what comes after the wake pass; of `full`,
    `deciding_share`, the largest over the policies, and `mixed_ratio`; and the bounds.
    Raises AdaptiveSleepError where the gate does not pass.
    """
    say = report or (lambda _: None)
    with one_thread():
        check_gate()
        say("gate: passed; timing")
        shares: list[dict[str, Any]] = []
        ratios: list[dict[str, Any]] = []
        for shape in (full, *others):
            found = deciding(shape, rounds)
            say(f"deciding, {shape}: at most {max(row['share'] for row in found):.1%} of a step")
            shares += found
            if shape.streams >= MOST:
                ratios.append(mixed(shape, rounds))
                say(f"mixed, {shape}: {ratios[-1]['ratio']:.3f} times the ideal")
    measured = [row for row in shares if asdict(full).items() <= row.items()]
    return {
        "gate": "passed",
        "threads": 1,
        "rounds": rounds,
        "deciding": shares,
        "mixed": ratios,
        "deciding_share": max(row["share"] for row in measured),
        "deciding_bound": DECIDING_BOUND,
        "mixed_ratio": ratios[0]["ratio"],
        "mixed_bound": MIXED_BOUND,
    }
