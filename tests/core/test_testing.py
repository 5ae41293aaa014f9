"""The conformance kit against a shelf of policies that are each broken in one way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
import pytest

import adaptive_sleep.testing as kit
from adaptive_sleep.contract import Choice, Range, policy
from adaptive_sleep.policies import Capped
from adaptive_sleep.signals import FloatArray, SleepProgress, WindowOutcome, WindowSignals
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.testing import Conformance, check_policy, make_progress, make_signals


@dataclass
class Sound:
    """Everything at once, and all of it right: state, seeded chance, learning, stopping early."""

    rate: Annotated[float, Range(0.0, 1.0)] = 0.5
    kind: Annotated[str, Choice("a", "b")] = "a"
    _draw: np.random.Generator = field(
        default_factory=lambda: np.random.default_rng(0), init=False, compare=False, repr=False
    )
    _seen: dict[str, float] = field(default_factory=dict, init=False, compare=False, repr=False)

    def plan(self, signals: WindowSignals) -> Any:
        lucky = self._draw.random(len(signals)) < self.rate
        worse = np.array([self._seen.get(stream, 0.0) for stream in signals.stream]) > 1.0
        return np.where(lucky | worse, np.minimum(4, signals.max_passes), 1)

    def keep_going(self, progress: SleepProgress) -> Any:
        return progress.state_change > 0.02

    def observe(self, outcome: WindowOutcome) -> None:
        self._seen.update(zip(outcome.stream, outcome.loss.tolist(), strict=True))

    def reset(self, seed: int) -> None:
        self._draw = np.random.default_rng(seed)
        self._seen.clear()

    def state_dict(self) -> dict[str, Any]:
        return {"draw": dict(self._draw.bit_generator.state), "seen": dict(self._seen)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._draw.bit_generator.state = state["draw"]
        self._seen = dict(state["seen"])

    def flops(self, streams: int) -> int:
        return 10 * streams


@dataclass
class Answers:
    """Plans what a function of the signals returns."""

    def plan(self, signals: WindowSignals) -> Any:
        return np.minimum(3, signals.max_passes)


class WrongShape(Answers):
    def plan(self, signals: WindowSignals) -> Any:
        return np.ones(len(signals) + 1, dtype=np.int64)


class ColumnForSeveral(Answers):
    def plan(self, signals: WindowSignals) -> Any:
        return np.ones((len(signals), 1) if len(signals) == 7 else len(signals), dtype=np.int64)


class Floats(Answers):
    def plan(self, signals: WindowSignals) -> Any:
        return np.ones(len(signals))


class Nan(Answers):
    def plan(self, signals: WindowSignals) -> Any:
        return np.where(signals.surprise > 5, np.nan, 1.0)


class Zero(Answers):
    def plan(self, signals: WindowSignals) -> Any:
        return (signals.surprise > 0.1).astype(np.int64)


class IgnoresMaxPasses(Answers):
    def plan(self, signals: WindowSignals) -> Any:
        return 9


class AboveTheMean(Answers):
    def plan(self, signals: WindowSignals) -> Any:
        busy = signals.surprise > signals.surprise.mean()
        return np.where(busy, np.minimum(3, signals.max_passes), 1)


class Writes(Answers):
    def plan(self, signals: WindowSignals) -> Any:
        signals.surprise[0] = 0.0
        return 1


class UnlocksAndWrites(Answers):
    def plan(self, signals: WindowSignals) -> Any:
        signals.surprise.flags.writeable = True
        signals.surprise[:] = -1.0
        return 1


class WritesProgress(Answers):
    def keep_going(self, progress: SleepProgress) -> Any:
        progress.state_change[:] = 0
        return True


class GoesOnWithNumbers(Answers):
    def keep_going(self, progress: SleepProgress) -> Any:
        return (progress.state_change > 0.1).astype(np.int64)


class GoesOnForOneOnly(Answers):
    def keep_going(self, progress: SleepProgress) -> Any:
        return np.array([True])


class NegativeFlops(Answers):
    def flops(self, streams: int) -> int:
        return 1 - streams


class Unseeded(Answers):
    def plan(self, signals: WindowSignals) -> Any:
        return np.random.default_rng().integers(1, signals.max_passes + 1)  # the point of it


class UnseededStop(Answers):
    def keep_going(self, progress: SleepProgress) -> Any:
        return np.random.default_rng().random(len(progress)) < 0.5


@dataclass
class Counts:
    """Sleeps on every third call, and forgets the count when saved."""

    _calls: list[int] = field(default_factory=lambda: [0], init=False, compare=False, repr=False)

    def plan(self, signals: WindowSignals) -> Any:
        self._calls[0] += 1
        asleep = self._calls[0] % 7 == 0
        return np.minimum(4 if asleep else 1, signals.max_passes)

    def reset(self, seed: int) -> None:
        self._calls[0] = 0


class CountsNotLoaded(Counts):
    def state_dict(self) -> dict[str, Any]:
        return {"calls": self._calls[0]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class CannotLoad(Counts):
    def state_dict(self) -> dict[str, Any]:
        return {"calls": self._calls[0]}


class NeverForgets(CountsNotLoaded):
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._calls[0] = state["calls"]

    def reset(self, seed: int) -> None:
        pass


class StateOfArrays(Counts):
    def state_dict(self) -> dict[str, Any]:
        return {"calls": np.array(self._calls)}


@dataclass
class RememberedElsewhere:
    """Restores itself only in the process that it was saved in."""

    _calls: list[int] = field(default_factory=lambda: [0], init=False, compare=False, repr=False)
    _saved: list[int] = field(default_factory=list, init=False, compare=False, repr=False)

    def plan(self, signals: WindowSignals) -> Any:
        self._calls[0] += 1
        return np.minimum(4 if self._calls[0] % 7 == 0 else 1, signals.max_passes)

    def reset(self, seed: int) -> None:
        self._calls[0] = 0

    def state_dict(self) -> dict[str, Any]:
        self._saved.append(self._calls[0])
        return {"index": len(self._saved) - 1}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._calls[0] = self._saved[state["index"]] if self._saved else 0


@dataclass
class DefaultOutOfRange(Answers):
    passes: Annotated[int, Range(2, 8)] = 1


@dataclass
class DefaultNoChoice(Answers):
    pool: Annotated[str, Choice("mean", "max")] = "sum"


@policy("test_wrong_str")
@dataclass
class WrongStr(Answers):
    passes: int = 2

    def __str__(self) -> str:
        return "test_wrong_str()"


class StrOfAnother:
    """No dataclass, so its own str is its spec."""

    def plan(self, signals: WindowSignals) -> Any:
        return np.minimum(3, signals.max_passes)

    def __str__(self) -> str:
        return "fixed(passes=3)"


class StrOfNothing(StrOfAnother):
    def __str__(self) -> str:
        return "three_passes(("


@policy("test_unreadable_str")
@dataclass
class UnreadableName(Answers):
    passes: int = 2

    def __str__(self) -> str:
        return "unreadable(passes=("


class Ordinary:
    """No dataclass, so only a spec string tells its parameters."""

    def __init__(self, passes: int = 1) -> None:
        self.passes = passes

    def plan(self, signals: WindowSignals) -> Any:
        return np.minimum(self.passes, signals.max_passes)


class Bare:
    """No dataclass, and nothing to tell."""

    def plan(self, signals: WindowSignals) -> Any:
        return np.minimum(2, signals.max_passes)


@dataclass
class HiddenParameter(Answers):
    passes: int = field(init=False, default=1)

    def plan(self, signals: WindowSignals) -> Any:
        return np.minimum(self.passes, signals.max_passes)


def hidden(passes: int) -> HiddenParameter:
    made = HiddenParameter()
    made.passes = passes
    return made


@dataclass
class MadeByReset(Answers):
    """What is no parameter is made by reset, as it should be."""

    passes: int = 2
    seen: dict[str, int] = field(init=False, repr=False)
    noise: np.random.Generator | None = field(init=False, default=None)
    drawn: FloatArray = field(init=False, repr=False)

    def reset(self, seed: int) -> None:
        self.seen = {}
        self.noise = np.random.default_rng(seed)
        self.drawn = np.zeros(3)


class SavesAlone(Answers):
    def state_dict(self) -> dict[str, Any]:
        return {}


@dataclass
class ReadsSummary(Answers):
    width: int = 6

    def plan(self, signals: WindowSignals) -> Any:
        score = signals.summary @ np.arange(self.width)
        return np.minimum(np.where(score > 0, 2, 1), signals.max_passes)


@dataclass
class NoLiteral(Answers):
    function: Callable[[float], float] = abs


@dataclass
class ChangesItsParameter(Answers):
    passes: int = 1

    def __post_init__(self) -> None:
        self.passes += 1


def two(signals: WindowSignals) -> Any:
    return np.minimum(2, signals.max_passes)


@pytest.mark.parametrize(
    "sound",
    [
        Sound(), Sound(0.1), Answers(), two, Capped(Sound(), 3), "surprise(0.5)", MadeByReset(),
        f"{__name__}:Ordinary(passes=3)", Bare(), f"{__name__}:Bare", Capped(Bare(), 2),
    ],
)  # fmt: skip
def test_a_sound_policy_passes(sound: Any) -> None:
    check_policy(sound)


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (WrongShape(), "shape"),
        (ColumnForSeveral(), r"shape \(7, 1\)"),
        (Floats(), "expected whole numbers"),
        (Nan(), "expected whole numbers"),
        (Zero(), "planned 0 passes"),
        (IgnoresMaxPasses(), "planned 9 passes .* expected 1 .* to 8"),
        (AboveTheMean(), "must not look at other streams"),
        (Writes(), "writes into its WindowSignals"),
        (UnlocksAndWrites(), "changes WindowSignals.surprise"),
        (WritesProgress(), "writes into its SleepProgress"),
        (GoesOnWithNumbers(), "expected a bool"),
        (GoesOnForOneOnly(), "answered keep_going with shape"),
        (NegativeFlops(), r"flops\(2\) is -1"),
        (Unseeded(), "randomness that reset does not seed"),
        (UnseededStop(), "randomness that reset does not seed"),
        (Counts(), "after load_state_dict"),
        (CountsNotLoaded(), "after load_state_dict"),
        (CannotLoad(), "no load_state_dict"),
        (NeverForgets(), "randomness that reset does not seed"),
        (StateOfArrays(), "expected str keys"),
        (RememberedElsewhere(), "a new one with its state loaded plans differently"),
        (DefaultOutOfRange(), "passes: the default 1 lies outside Range"),
        (DefaultNoChoice(), "pool: the default 'sum' lies outside Choice"),
        (WrongStr(3), "its str is"),
        (UnreadableName(3), "its str is 'unreadable"),
        (StrOfAnother(), r"'fixed\(passes=3\)' leads back to another policy"),
        (StrOfNothing(), "does not lead back"),
        (hidden(3), "leads back to plans differently"),
        (Ordinary(3), "nothing tells the passes it was made with"),
        (SavesAlone(), "has state_dict but no load_state_dict"),
        (NoLiteral(), "does not lead back"),
        (ChangesItsParameter(), "leads back to another policy"),
        (lambda signals: 1, "does not lead back"),
    ],
    ids=lambda it: None if isinstance(it, str) else getattr(it, "__name__", type(it).__name__),
)
def test_a_broken_policy_is_found_out(broken: Any, told: str) -> None:
    with pytest.raises(AssertionError, match=told) as raised:
        check_policy(broken)
    assert str(raised.value).startswith("policy ")


class TestSound(Conformance):
    """The kit as tests to inherit, for a policy that holds all of it."""

    def policy(self) -> Any:
        return Sound(0.3)


@pytest.mark.parametrize(
    ("broken", "test"),
    [
        (Zero(), "test_answers"),
        (NegativeFlops(), "test_answers"),
        (DefaultOutOfRange(), "test_ranges"),
        (Unseeded(), "test_seed"),
        (StrOfNothing(), "test_spec"),
        (CountsNotLoaded(), "test_state"),
        (AboveTheMean(), "test_batch"),
    ],
    ids=lambda it: it if isinstance(it, str) else type(it).__name__,
)
def test_the_test_that_is_inherited_finds_it_out(broken: Any, test: str) -> None:
    class Inherited(Conformance):
        def policy(self) -> Any:
            return broken

    with pytest.raises(AssertionError, match=r"^policy "):
        getattr(Inherited(), test)()


def test_the_kit_has_a_test_for_every_check() -> None:
    """What is inherited and what is called must not drift apart."""
    asked = [name for name in vars(Conformance) if name.startswith("test_")]
    checks = [name for name in vars(kit) if name.startswith("_check_") and name != "_check_answer"]
    assert {name.removeprefix("test_") for name in asked} == {
        name.removeprefix("_check_") for name in checks
    }
    with pytest.raises(NotImplementedError, match="define policy"):
        Conformance().test_seed()


def test_a_policy_may_read_summaries_of_its_models_width() -> None:
    check_policy(ReadsSummary(6), summary_width=6)

    class Inherited(Conformance):
        summary_width = 10

        def policy(self) -> Any:
            return ReadsSummary(10)

    for name in vars(Conformance):
        if name.startswith("test_"):
            getattr(Inherited(), name)()


def test_a_spec_that_names_nothing_is_bad_input() -> None:
    with pytest.raises(InputError, match="no policy 'fixt'"):
        check_policy("fixt(3)")


def test_made_up_records_are_seeded_and_take_overrides() -> None:
    one, same, other = make_signals(3, 1), make_signals(3, 1), make_signals(3, 2)
    assert one.surprise.tolist() == same.surprise.tolist() != other.surprise.tolist()
    assert make_signals(2, 0, summary_width=4).summary.shape == (2, 4)
    assert make_progress(2, 0, summary_width=4).summary.shape == (2, 4)
    assert make_signals(2, 0, gap=[1, 2]).gap.tolist() == [1.0, 2.0]
    with pytest.raises(InputError, match="gaps: no such field"):
        make_signals(2, 0, gaps=[1, 2])
