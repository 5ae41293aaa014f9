"""Policies for the conformance kit: a few are sound, each of the others is broken in one way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np

from adaptive_sleep.contract import Choice, Range, policy
from adaptive_sleep.signals import FloatArray, SleepProgress, WindowOutcome, WindowSignals


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


class AlwaysEight(Answers):
    def plan(self, signals: WindowSignals) -> Any:
        return 8


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
class LosesWhatIsOpen(Answers):
    """Is told of windows that it forgot when saved, and sleeps where it knows none."""

    _open: set[tuple[str, int]] = field(default_factory=set, init=False, compare=False, repr=False)
    _lost: list[str] = field(default_factory=list, init=False, compare=False, repr=False)

    def plan(self, signals: WindowSignals) -> Any:
        self._open.update(zip(signals.stream, signals.window.tolist(), strict=True))
        lost = [stream in self._lost for stream in signals.stream]
        return np.where(lost, np.minimum(3, signals.max_passes), 1)

    def observe(self, outcome: WindowOutcome) -> None:
        told = set(zip(outcome.stream, outcome.window.tolist(), strict=True))
        self._lost += [stream for stream, _ in told - self._open]
        self._open -= told

    def reset(self, seed: int) -> None:
        self._open, self._lost = set(), []

    def state_dict(self) -> dict[str, Any]:
        return {"lost": list(self._lost)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._open, self._lost = set(), list(state["lost"])


class KeepsWhatIsOpen(LosesWhatIsOpen):
    """The same, put right."""

    def state_dict(self) -> dict[str, Any]:
        return {"lost": list(self._lost), "open": [list(it) for it in sorted(self._open)]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._open, self._lost = {tuple(it) for it in state["open"]}, list(state["lost"])


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


@dataclass
class EverySixth:
    """Has a memory that it does not save, which comes round every six windows."""

    _count: int = field(default=0, init=False)

    def plan(self, signals: WindowSignals) -> Any:
        self._count = (self._count + 1) % 6
        return np.full(len(signals), 2 if self._count == 0 else 1)

    def reset(self, seed: int) -> None:
        self._count = 0


class StrOfAnother:
    """No dataclass, and its own str is not its spec."""

    def __init__(self, passes: int = 3) -> None:
        self.passes = passes

    def plan(self, signals: WindowSignals) -> Any:
        return np.minimum(self.passes, signals.max_passes)

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
