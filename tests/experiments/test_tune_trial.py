"""A trial says what it costs at least after each recording, and stops when that is enough."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast

import optuna
import pytest
from optuna.trial import TrialState

from adaptive_sleep.experiments.tune_bench import TuneBench
from adaptive_sleep.experiments.tune_open import Reader
from adaptive_sleep.experiments.tune_reading import Measured
from adaptive_sleep.experiments.tune_space import Space
from adaptive_sleep.experiments.tune_storage import quiet
from adaptive_sleep.experiments.tune_trial import (
    Objective,
    best_of,
    front,
    mean_loss,
    per_event,
    streams,
)
from adaptive_sleep.spec import parse_spec

RECORDINGS = 8
EVENTS = 10


@dataclass
class Bench:
    """In the place of replays: `passes` passes cost so many times 100 FLOPs an event, and each
    halves the loss, which differs from recording to recording."""

    ran: list[tuple[str, str]] = field(default_factory=list)
    recipe: Any = field(default_factory=lambda: SimpleNamespace(seed=0, task="one"))
    seeds: Any = field(default_factory=lambda: {0: SimpleNamespace(files={})})

    @property
    def recordings(self) -> dict[str, int]:
        return {str(number): 0 for number in range(RECORDINGS)}

    def run(self, name: str, spec: str, window: int | None) -> Measured:
        self.ran.append((name, spec))
        passes = int(getattr(parse_spec(spec), "passes", 0))
        loss = (1 + int(name) / 10) * 0.5**passes
        return Measured(1.0 - loss, 100.0 * passes * EVENTS, EVENTS, asked=True)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with quiet():
        yield


def objective(budget: float, **changes: Any) -> Objective:
    bench = Bench()
    plain = {None: {name: bench.run(name, "fixed(1)", None) for name in bench.recordings}}
    bench.ran.clear()
    part = Reader("fixed(range(1, 8))").read("fixed")
    space = Space({"fixed": part}, (8,), (), 8)
    return replace(Objective(cast(TuneBench, bench), space, budget, plain), **changes)


def study(passes: list[int], made: Objective, **given: Any) -> optuna.Study:
    found = optuna.create_study(pruner=optuna.pruners.WilcoxonPruner(), **given)
    for number in passes:
        found.enqueue_trial({"fixed.passes": number})
    found.optimize(made, n_trials=len(passes))
    return found


def ran(made: Objective) -> list[str]:
    return [name for name, _ in cast(Bench, made.bench).ran]


def test_a_trial_stops_as_soon_as_its_cheapest_remainder_is_over_the_budget() -> None:
    made = objective(budget=250.0)
    (trial,) = study([4], made).trials
    # after k recordings at 400 FLOPs an event the others cost at least 100: over 250 at k = 5
    assert len(ran(made)) == 5
    costs = [trial.constraints[key] for key in sorted(trial.constraints)]
    assert costs == pytest.approx([(100 + 300 * k / 8) / 250 - 1 for k in range(1, 6)])
    assert trial.user_attrs["stopped"] == "budget"
    assert trial.state == TrialState.COMPLETE
    assert best_of(study([4, 4], objective(250.0)), 250.0) is None


def test_what_is_plainly_worse_stops_and_is_not_the_best() -> None:
    made = objective(budget=1e6)
    found = study([3, 1, 4], made)
    assert [it.user_attrs["stopped"] for it in found.trials] == [None, "worse", None]
    assert 2 <= len(found.trials[1].intermediate_values) < RECORDINGS
    best = best_of(found, 1e6)
    assert best is not None
    assert best.number == 2
    assert best.user_attrs["score"] == pytest.approx(1.0 - mean_loss(whole(made, 4)))
    assert best.user_attrs["flops_per_event"] == per_event(whole(made, 4)) == 400.0


def whole(made: Objective, passes: int) -> dict[str, Measured]:
    return {name: made.bench.run(name, f"fixed({passes})", None) for name in made.bench.recordings}


def test_parts_of_a_recording_count_by_what_is_scored_in_them_and_seeds_alike() -> None:
    found = {
        "seed-0/1": Measured(-4.0, 30.0, 3, False, 3),
        "seed-0/0": Measured(-1.0, 50.0, 1, False, 1),
        "seed-1/0": Measured(-2.0, 20.0, 1, False, 9),
    }
    pooled = streams(found)
    assert pooled["seed-0"] == Measured(-13.0 / 4, 80.0, 4, False, 4)
    assert mean_loss(pooled) == pytest.approx((13.0 / 4 + 2.0) / 2)
    assert per_event(pooled) == per_event(found) == 20.0
    back = dict(reversed(found.items()))
    assert mean_loss(streams(back)) == mean_loss({**pooled})  # to the last bit
    asked = {"seed-0/0": Measured(0.5, 1.0, 1, True, 2), "seed-0/1": Measured(1.0, 1.0, 1, True, 6)}
    assert streams(asked)["seed-0"].loss == pytest.approx(1 / 8)
    asked["seed-0/2"] = Measured(-9.0, 1.0, 1, False, 40)  # as in a replay of all three
    assert streams(asked)["seed-0"] == Measured(7 / 8, 3.0, 3, True, 8)


def test_recordings_come_in_an_order_of_the_trials_own() -> None:
    made = objective(budget=1e6)
    study([3, 4], made)
    first, second = ran(made)[:RECORDINGS], ran(made)[RECORDINGS:]
    assert sorted(first) == sorted(second) == sorted(made.bench.recordings)
    assert first != second


def test_the_same_again_is_not_run_but_told() -> None:
    made = objective(budget=1e6)
    found = study([3, 3], made)
    assert len(ran(made)) == RECORDINGS
    assert found.trials[0].value == found.trials[1].value
    assert found.trials[0].intermediate_values == found.trials[1].intermediate_values


def test_the_front_holds_what_none_beats_and_nothing_is_stopped_for_it() -> None:
    made = objective(budget=150.0, pareto=True)
    found = study([2, 1, 3, 2], made, directions=["minimize", "minimize"])
    assert all(it.user_attrs["stopped"] is None for it in found.trials)
    assert [it.number for it in front(found)] == [1, 0, 2]
    best = best_of(found, 150.0)
    assert best is not None
    assert best.number == 1


def test_of_equal_losses_the_cheapest_is_best() -> None:
    made = objective(budget=1e6)
    found = study([1], made)
    values = {"loss_per_recording": {}, "stopped": None, "score": 0.0}
    for flops in (300.0, 200.0):
        found.add_trial(
            optuna.create_trial(value=-1.0, user_attrs={**values, "flops_per_event": flops})
        )
    best = best_of(found, 1e6)
    assert best is not None
    assert best.user_attrs["flops_per_event"] == 200.0
