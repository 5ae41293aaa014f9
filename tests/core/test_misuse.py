"""What callers and policies may do at a wrong moment, or hand over in a wrong form."""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import core_cases as cases
import numpy as np
import pytest
import torch

import adaptive_sleep as asl
from adaptive_sleep.contract import policy_state
from adaptive_sleep.testing import check_policy


def piece(config: asl.ModelConfig, stream: str, count: int, seed: int = 0) -> asl.Piece:
    return asl.Piece(stream, cases.events(config, count, seed), closes=True)


class Calls:
    """A policy that calls its runtime while it is asked, by the method `at`."""

    def __init__(self, call: Callable[[asl.Runtime], object], at: str = "plan") -> None:
        self.call, self.at, self.runtime = call, at, list[asl.Runtime]()
        self._adaptive_sleep_spec = "fixed(passes=3)"  # as of one that a spec string made

    def _now(self, method: str) -> None:
        for runtime in self.runtime:
            if method == self.at:
                self.call(runtime)

    def plan(self, signals: asl.WindowSignals) -> Any:
        self._now("plan")
        return np.full(len(signals), 3)

    def keep_going(self, progress: asl.SleepProgress) -> bool:
        self._now("keep_going")
        return True

    def observe(self, outcome: asl.WindowOutcome) -> None:
        self._now("observe")


def calls(folder: Path) -> dict[str, Callable[[asl.Runtime], object]]:
    """What may be asked of a runtime between its steps."""
    return {
        "step": lambda runtime: runtime.step([]),
        "predict": lambda runtime: runtime.predict("x", horizon=1),
        "save": lambda runtime: runtime.save(folder),
        "room": lambda runtime: runtime.room(),
    }


@pytest.mark.parametrize("at", ["plan", "keep_going", "observe"])
@pytest.mark.parametrize("method", ["step", "predict", "save", "room"])
def test_nothing_is_asked_of_a_runtime_in_the_midst_of_a_step(
    method: str, at: str, tmp_path: Path
) -> None:
    model, call = cases.build(cases.tiny()), calls(tmp_path)[method]
    policy = Calls(call, at)
    runtime = asl.Runtime(model, policy, kv_budget=40)
    runtime.step([piece(model.config, "x", 5)])
    before = cases.everything(runtime)
    policy.runtime.append(runtime)
    later = [piece(model.config, name, 5, 1) for name in "xy"]
    with pytest.raises(asl.AdaptiveSleepError, match=f"^{method}: a step .* is running"):
        runtime.step(later)
    assert cases.everything(runtime) == before
    policy.runtime.clear()
    call(runtime)
    assert [row.stream for row in runtime.step(later).rows] == ["x", "y"]


def test_another_thread_waits_until_a_step_has_returned(tmp_path: Path) -> None:
    told: list[str] = []

    def elsewhere(runtime: asl.Runtime) -> None:
        def ask() -> None:
            for method, call in calls(tmp_path).items():
                with pytest.raises(asl.AdaptiveSleepError, match=f"^{method}: a step .* is run"):
                    call(runtime)
                told.append(method)

        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()

    model = cases.build(cases.tiny())
    disturbed, left = (asl.Runtime(model, Calls(elsewhere), kv_budget=40) for _ in range(2))
    for number in range(3):
        for runtime in (disturbed, left):
            runtime.step([piece(model.config, name, 5, number) for name in "xy"])
        disturbed.policy.runtime[:] = [disturbed]
    assert told == 2 * [*calls(tmp_path)]
    assert cases.everything(disturbed) == cases.everything(left)


@pytest.mark.parametrize("kind", cases.KINDS)
def test_a_step_in_inference_mode_is_a_step(kind: str) -> None:
    model = cases.build(cases.tiny(kind))
    config = model.config
    with torch.inference_mode():
        runtime = asl.Runtime(model, "fixed(2)")
        runtime.step([piece(config, "x", 12)])
    other = asl.Runtime(model, "fixed(2)")
    other.step([piece(config, "x", 12)])
    for one in (runtime, other):
        one.step([piece(config, "x", 12, 1), piece(config, "y", 12, 2)])
    assert cases.everything(runtime) == cases.everything(other)


@pytest.mark.parametrize(
    "change",
    [torch.nn.Module.half, torch.nn.Module.bfloat16, torch.nn.Module.double],
    ids=lambda it: it.__name__,
)
def test_a_model_of_other_numbers_is_refused(change: Callable[[Any], Any]) -> None:
    model = change(cases.build(cases.tiny()))
    with pytest.raises(asl.InputError, match=r"model: .* is of torch\..*; give model.float\(\)"):
        asl.Runtime(model, "fixed(1)")


@pytest.mark.parametrize("targets", [np.array([0.7, np.nan]), np.array([None, 1])])
def test_targets_are_whole_numbers(targets: Any) -> None:
    config = cases.tiny(answers=3, layers=("attention", "deltanet"), conv=0)
    runtime = asl.Runtime(cases.build(config), "fixed(1)")
    given = asl.Events(np.arange(2), tokens=np.arange(2), targets=targets)
    with pytest.raises(asl.InputError, match=r"targets of stream 'x' are .*, not whole numbers"):
        runtime.step([asl.Piece("x", given, closes=True)])


def test_a_policy_cannot_rewrite_what_its_passes_cost() -> None:
    def plan(signals: asl.WindowSignals) -> Any:
        signals.pass_flops.setflags(write=True)
        signals.pass_flops[:] = 1
        return np.full(len(signals), 2)

    model = cases.build(cases.tiny())
    honest, sly = asl.Runtime(model, "fixed(2)"), asl.Runtime(model, plan)
    for runtime in (honest, sly):
        runtime.step([piece(model.config, "x", 12)])
    assert sly.ledger.sleep == honest.ledger.sleep > 1


def test_a_policy_cannot_rewrite_what_it_is_allowed_or_what_is_traced() -> None:
    def plan(signals: asl.WindowSignals) -> Any:
        for name in ("max_passes", "surprise", "window"):
            column = getattr(signals, name)
            column.setflags(write=True)
            column[:] = 9
        return np.full(len(signals), passes)

    model, rows = cases.build(cases.tiny()), []
    for policy, passes in (("fixed(2)", 2), (plan, 2), (plan, 9)):
        runtime = asl.Runtime(model, policy)
        if passes > 8:
            with pytest.raises(asl.PolicyError, match=r"planned 9 passes .* to 8 \(max_passes"):
                runtime.step([piece(model.config, "x", 12)])
        else:
            rows.append(runtime.step([piece(model.config, "x", 12)]).rows)
    assert rows[0] == rows[1]


def test_an_infinite_reading_that_waits_is_no_reading() -> None:
    config = cases.tiny("series", skip=2)
    model, said = cases.build(config), []
    for value in (np.inf, np.nan):
        runtime = asl.Runtime(model, "fixed(1)")
        runtime.step([piece(config, "x", 12)])
        waiting = cases.events(config, 1, 5)
        values = np.array(waiting.values)
        values[0, 0] = value
        runtime.step([asl.Piece("x", asl.Events(waiting.time + 10**12, values=values))])
        said.append(runtime.predict("x", horizon=2).mean)
    np.testing.assert_array_equal(said[0], said[1])


def test_times_that_64_bits_hold_but_not_their_distance() -> None:
    config, seen = cases.tiny(), list[float]()

    def plan(signals: asl.WindowSignals) -> Any:
        seen.extend(signals.gap.tolist())
        return np.ones(len(signals), dtype=np.int64)

    runtime = asl.Runtime(cases.build(config), plan)
    for time in (-9 * 10**18, -8 * 10**18, 9 * 10**18):
        runtime.step([asl.Piece("x", asl.Events(np.array([time]), tokens=np.ones(1, int)), True)])
    assert seen == pytest.approx([0.0, 1e9, 1.7e10])


class Mode(enum.StrEnum):
    A = "a"


@dataclass
class Named:
    mode: Any = Mode.A

    def plan(self, signals: asl.WindowSignals) -> Any:
        return np.ones(len(signals), dtype=np.int64)


@dataclass
class Costly:
    most: float = 1.0

    def plan(self, signals: asl.WindowSignals) -> Any:
        return np.ones(len(signals), dtype=np.int64)


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        (Named(), "mode is <Mode.A: 'a'>: expected what a literal"),
        (Costly(10**400), "most is an int of 1329 bits"),
        (Costly(10**5000), "most is an int of 16610 bits"),
    ],
    ids=["enum", "float", "digits"],
)
def test_what_no_spec_can_spell_is_refused(policy: Any, told: str) -> None:
    with pytest.raises(asl.InputError, match=told):
        asl.format_spec(policy)


@dataclass
class Remembers:
    value: Any = "a"

    def plan(self, signals: asl.WindowSignals) -> Any:
        return np.ones(len(signals), dtype=np.int64)

    def state_dict(self) -> dict[str, Any]:
        return {"v": self.value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value = state["v"]


@pytest.mark.parametrize("value", [np.str_("zz"), "\ud800", Mode.A], ids=repr)
def test_a_state_of_text_that_cannot_be_written_is_refused(value: Any) -> None:
    with pytest.raises(asl.PolicyError, match=r"state_dict.*'v'"):
        policy_state(Remembers(value))


@dataclass
class Rests:
    """Rests for a window after a burst: now and then it has nothing to remember."""

    _rest: set[str] = field(default_factory=set, init=False, repr=False, compare=False)

    def plan(self, signals: asl.WindowSignals) -> Any:
        passes = np.ones(len(signals), dtype=np.int64)
        for row, stream in enumerate(signals.stream):
            if stream in self._rest:
                self._rest.discard(stream)
            elif signals.event_density[row] > 2.0:
                passes[row] = 4
                self._rest.add(stream)
        return passes

    def reset(self, seed: int) -> None:
        self._rest = set()

    def state_dict(self) -> dict[str, Any]:
        return dict.fromkeys(sorted(self._rest), True)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._rest = set(state)


def test_a_policy_that_remembers_now_and_then_is_sound() -> None:
    check_policy(Rests())


@dataclass
class TakesOneForAll(Rests):
    """Takes what is told for its last window, though several may be told at once."""

    _open: dict[str, int] = field(default_factory=dict, init=False, repr=False, compare=False)

    def plan(self, signals: asl.WindowSignals) -> Any:
        self._open.update(zip(signals.stream, signals.window.tolist(), strict=True))
        return np.ones(len(signals), dtype=np.int64)

    def observe(self, outcome: asl.WindowOutcome) -> None:
        for stream, window in zip(outcome.stream, outcome.window.tolist(), strict=True):
            if self._open[stream] != window:
                raise RuntimeError(f"window {window} of {stream} is not the last")

    def reset(self, seed: int) -> None:
        self._open = {}

    def state_dict(self) -> dict[str, Any]:
        return dict(self._open)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._open = dict(state)


def test_the_kit_tells_several_windows_at_once() -> None:
    with pytest.raises(RuntimeError, match="is not the last"):
        check_policy(TakesOneForAll())
