"""A step that raises leaves everything as before it, and can be repeated as if it had not run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import core_cases as cases
import numpy as np
import pytest
import torch

import adaptive_sleep as asl
from adaptive_sleep.arena import Arena


class Learner:
    """A policy with state that grows at every call, and that can be told to misbehave."""

    def __init__(self) -> None:
        self.calls = 0
        self.heard: list[float] = []
        self.plan_answer: Callable[[asl.WindowSignals], Any] | None = None
        self.going_answer: Callable[[asl.SleepProgress], Any] | None = None

    def observe(self, outcome: asl.WindowOutcome) -> None:
        self.heard += outcome.loss.tolist()

    def plan(self, signals: asl.WindowSignals) -> Any:
        self.calls += 1
        return self.plan_answer(signals) if self.plan_answer else 3

    def keep_going(self, progress: asl.SleepProgress) -> Any:
        self.calls += 1
        return self.going_answer(progress) if self.going_answer else True

    def state_dict(self) -> dict[str, Any]:
        return {"calls": self.calls, "heard": list(self.heard)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.calls, self.heard = state["calls"], list(state["heard"])


def raising(error: type[BaseException]) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error("on purpose")

    return fail


def prepared(kind: str, eviction: str, **settings: Any) -> tuple[asl.Runtime, list[asl.Piece]]:
    """A runtime amid its work, and a step in which old and new streams close and go on."""
    model = cases.build(cases.tiny(kind))
    runtime = asl.Runtime(model, Learner(), eviction=eviction, **settings)
    config = model.config
    for i in range(2):
        runtime.step(
            [
                asl.Piece("old", cases.events(config, 10, i), closes=True),
                asl.Piece("open", cases.events(config, 5, 10 + i)),
            ]
        )
    step = [
        asl.Piece("new", cases.events(config, 7, 5), closes=True),
        asl.Piece("open", cases.events(config, 2, 6), closes=True),
        asl.Piece("old", cases.events(config, 9, 7)),
        asl.Piece("young", cases.events(config, 3, 8)),
    ]
    return runtime, step


def finish(runtime: asl.Runtime, step: list[asl.Piece]) -> tuple[Any, ...]:
    rows = [runtime.step(step).rows]
    closing = [asl.Piece(n, step[0].events[:0], closes=True) for n in ("old", "young")]
    rows.append(runtime.step(closing).rows)
    return cases.everything(runtime), rows


def check(
    runtime: asl.Runtime,
    step: list[asl.Piece],
    attempt: Callable[[], object],
    error: type[BaseException],
    wanted: tuple[Any, ...],
) -> None:
    before = cases.everything(runtime)
    with pytest.raises(error):
        attempt()
    assert cases.everything(runtime) == before
    assert finish(runtime, step) == wanted


@pytest.fixture(params=[(k, e) for k in cases.KINDS for e in cases.EVICTIONS], ids="-".join)
def work(request: pytest.FixtureRequest) -> tuple[asl.Runtime, list[asl.Piece], tuple[Any, ...]]:
    wanted = finish(*prepared(*request.param))
    return (*prepared(*request.param), wanted)


Work = tuple[asl.Runtime, list[asl.Piece], tuple[Any, ...]]

ANSWERS: dict[str, Callable[[asl.WindowSignals], Any]] = {
    "raises": raising(RuntimeError),
    "nan": lambda s: np.full(len(s), np.nan),
    "floats": lambda s: np.full(len(s), 2.5),
    "whole floats": lambda s: np.full(len(s), 2.0),
    "zero": lambda s: 0,
    "negative": lambda s: np.array([1, -1]),
    "too many": lambda s: 9,
    "wrong shape": lambda s: np.ones(len(s) + 1, dtype=np.int64),
    "two axes": lambda s: np.ones((len(s), 1), dtype=np.int64),
    "booleans": lambda s: np.ones(len(s), dtype=bool),
    "none": lambda s: None,
    "text": lambda s: "2",
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_policy_with_a_wrong_plan(work: Work, answer: str) -> None:
    runtime, step, wanted = work
    error = RuntimeError if answer == "raises" else asl.PolicyError

    def attempt() -> None:
        runtime.policy.plan_answer = ANSWERS[answer]
        try:
            runtime.step(step)
        finally:
            runtime.policy.plan_answer = None

    check(runtime, step, attempt, error, wanted)


@pytest.mark.parametrize("answer", ["raises", "interrupted", "number", "wrong shape"])
def test_a_policy_that_fails_during_the_sleep(work: Work, answer: str) -> None:
    runtime, step, wanted = work
    answers = {
        "raises": (raising(RuntimeError), RuntimeError),
        "interrupted": (raising(KeyboardInterrupt), KeyboardInterrupt),
        "number": (lambda p: 1, asl.PolicyError),
        "wrong shape": (lambda p: np.ones(len(p) + 1, dtype=bool), asl.PolicyError),
    }
    wrong, error = answers[answer]

    def attempt() -> None:
        # only the second sleep pass goes wrong
        runtime.policy.going_answer = lambda p: (
            wrong(p) if answer == "number" else (p.passes[0] < 2 or wrong(p))
        )
        runtime.policy.plan_answer = lambda s: 5
        try:
            runtime.step(step)
        finally:
            runtime.policy.going_answer = runtime.policy.plan_answer = None

    check(runtime, step, attempt, error, wanted)


PLACES = ("policy", "forward", "second forward", "scatter", "half a scatter", "rows", "publishing")


@pytest.mark.parametrize("place", PLACES)
def test_an_interrupt(work: Work, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime, step, wanted = work

    def attempt() -> None:
        with monkeypatch.context() as patch:
            _interrupt(runtime, place, patch)
            runtime.step(step)

    check(runtime, step, attempt, KeyboardInterrupt, wanted)


def _interrupt(runtime: asl.Runtime, place: str, patch: pytest.MonkeyPatch) -> None:
    stop = raising(KeyboardInterrupt)
    if place == "policy":
        patch.setattr(runtime.policy, "plan", stop)
    elif place == "forward":
        patch.setattr(type(runtime.model), "run", stop)
    elif place == "second forward":  # in the sleep
        patch.setattr("adaptive_sleep.sleep.sleep_pass", stop)
    elif place == "scatter":
        _after(patch, Arena, "scatter", calls=1)
    elif place == "half a scatter":
        _half_scatter(patch)
    elif place == "rows":
        _after(patch, Arena, "index", calls=0)
    else:
        patch.setattr("adaptive_sleep.runtime.StepResult", stop)


def _after(patch: pytest.MonkeyPatch, owner: type, name: str, calls: int) -> None:
    """Interrupt the call after the next `calls`, once its work is done."""
    real, count = getattr(owner, name), 0

    def counting(self: Any, *args: Any) -> Any:
        nonlocal count
        found = real(self, *args)
        count += 1
        if count > calls:
            raise KeyboardInterrupt
        return found

    patch.setattr(owner, name, counting)


def _half_scatter(patch: pytest.MonkeyPatch) -> None:
    """Interrupt a scatter between two of its tensors."""
    real, count = Arena._target, 0

    def counting(self: Arena, name: str, value: torch.Tensor) -> torch.Tensor:
        nonlocal count
        count += 1
        if count == 50:
            raise KeyboardInterrupt
        return real(self, name, value)

    patch.setattr(Arena, "_target", counting)


class Interrupting:
    """Raises KeyboardInterrupt at the `line`-th line of this package that runs."""

    def __init__(self, runtime: asl.Runtime, line: int) -> None:
        self.runtime, self.left = runtime, line
        self.folder = str(Path(asl.__file__).parent)

    def __call__(self, frame: Any, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(self.folder):
            return None
        # once a step is real, only a `return` is left to run
        if event == "line" and self.runtime._in_flight is not None:
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
        return self


def traced(tracer: Interrupting, step: list[asl.Piece]) -> None:
    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        tracer.runtime.step(step)
    finally:
        sys.settrace(before)


def test_an_interrupt_at_any_line(work: Work) -> None:
    runtime, step, wanted = work
    other, _ = prepared(runtime.model.config.kind, runtime.settings.eviction)
    counter = Interrupting(other, 300)
    with pytest.raises(KeyboardInterrupt):
        traced(counter, step)
    traced(counter, step)  # the store has grown by now: so many lines does a repeated step run
    lines = -counter.left
    assert lines > 300
    before = cases.everything(runtime)
    for line in [300, *np.random.default_rng(0).integers(1, lines + 1, 25).tolist(), lines]:
        with pytest.raises(KeyboardInterrupt):
            traced(Interrupting(runtime, line), step)
        assert cases.everything(runtime) == before, line
    assert finish(runtime, step) == wanted


def test_the_interrupts_come_after_something_was_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests above would prove nothing if they stopped a step before its first write."""
    for place in ("scatter", "half a scatter", "publishing"):
        runtime, step = prepared("series", "hard")
        before = cases.everything(runtime)
        with monkeypatch.context() as patch:
            patch.setattr(runtime, "_settle", lambda: None)
            _interrupt(runtime, place, patch)
            with pytest.raises(KeyboardInterrupt):
                runtime.step(step)
        assert cases.everything(runtime)["tensors"] != before["tensors"], place


@pytest.mark.parametrize("call", ["rollback", "load_policy_state"])
def test_an_interrupt_while_a_step_is_undone(
    work: Work, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime, step, wanted = work
    before = cases.everything(runtime)
    with monkeypatch.context() as patch:
        _interrupt(runtime, "publishing", patch)
        if call == "rollback":
            patch.setattr(Arena, "rollback", raising(KeyboardInterrupt))
        else:
            patch.setattr("adaptive_sleep.runtime.load_policy_state", raising(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            runtime.step(step)
    runtime.step([])  # whatever is asked next finishes the work
    after = cases.everything(runtime) | {"steps": before["steps"]}
    assert after == before
    monkeypatch.setattr(runtime, "_steps", before["steps"])
    assert finish(runtime, step) == wanted


@pytest.mark.filterwarnings("error")
def test_an_error_stays_itself_where_the_policy_cannot_be_put_back(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime, step, wanted = work
    before = cases.everything(runtime)
    with monkeypatch.context() as patch:
        _interrupt(runtime, "publishing", patch)
        patch.setattr(Learner, "load_state_dict", raising(KeyError))
        with pytest.raises(KeyboardInterrupt) as raised:
            runtime.step(step)
        assert raised.value.__notes__ == ["the step is not undone yet: KeyError: 'on purpose'"]
        with pytest.raises(KeyError, match="on purpose"):  # and nothing is built on half of it
            runtime.step(step)
    runtime.predict("open", horizon=1)  # whatever is asked next finishes the work
    assert cases.everything(runtime) == before
    assert finish(runtime, step) == wanted


def test_bad_pieces(work: Work) -> None:
    runtime, step, wanted = work
    config = runtime.model.config
    other = cases.events(cases.tiny("series" if config.kind == "tokens" else "tokens"), 2)
    for bad in (
        [*step, asl.Piece("bad", other)],
        [*step, step[0]],
        [*step[:-1], asl.Piece("young", cases.events(config, 13))],
    ):
        before = cases.everything(runtime)
        with pytest.raises(asl.InputError):
            runtime.step(bad)
        assert cases.everything(runtime) == before
    assert finish(runtime, step) == wanted


def spoiling(what: str, row: int, from_call: int) -> Callable[..., Any]:
    """A `Model.run` that leaves values that are not finite with one stream of the batch."""
    real, calls = asl.Model.run, 0

    def spoiled(self: asl.Model, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        done, calls = real(self, *args, **kwargs), calls + 1
        if calls >= from_call:
            target = done.hidden if what == "hidden" else done.weights.matrices["2"]
            target[row].view(-1)[0] = torch.nan if what == "hidden" else torch.inf
        return done

    return spoiled


@pytest.mark.parametrize("what", ["weights", "hidden"])
def test_state_that_is_not_finite(work: Work, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is found in the step that makes it, also in a window that stays open ("old")."""
    runtime, step, wanted = work

    def attempt() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(asl.Model, "run", spoiling(what, 2, 1))
            with pytest.raises(asl.AdaptiveSleepError, match="stream 'old' is not finite in windo"):
                runtime.step(step)
            runtime.step(step)

    check(runtime, step, attempt, asl.AdaptiveSleepError, wanted)


def test_state_that_is_not_finite_after_a_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    model = cases.build(cases.tiny("tokens"))
    runtime = asl.Runtime(model, cases.fixed(3))
    piece = asl.Piece("s", cases.events(model.config, 9), closes=True)
    before = cases.everything(runtime)
    with monkeypatch.context() as patch:
        patch.setattr(asl.Model, "run", spoiling("weights", 0, 3))
        with pytest.raises(asl.AdaptiveSleepError, match="stream 's' is not finite in window 0"):
            runtime.step([piece])
    assert cases.everything(runtime)["streams"] == before["streams"]
    runtime.step([piece])
    fresh = asl.Runtime(model, cases.fixed(3))
    fresh.step([piece])
    assert cases.everything(runtime) == cases.everything(fresh)


def test_it_holds_under_a_kv_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that first closes windows early, then raises, undoes both."""
    wanted = finish(*prepared("tokens", "hard", kv_budget=26))
    runtime, step = prepared("tokens", "hard", kv_budget=26)

    def attempt() -> None:
        runtime.policy.plan_answer = lambda s: raising(RuntimeError)() if "new" in s.stream else 2
        try:
            runtime.step(step)
        finally:
            runtime.policy.plan_answer = None

    assert len(wanted[1][0]) > 2  # an early close among them
    check(runtime, step, attempt, RuntimeError, wanted)
