"""Learn online how many passes pay: a bandit whose arms are numbers of passes.

The arithmetic is in `linucb`, the context in `features`. It learns from outcomes only: from the
loss at the stream's next scored window, less the price of the sleep.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np

from adaptive_sleep.contract import Range, policy
from adaptive_sleep.policies.checks import number, whole
from adaptive_sleep.policies.features import features
from adaptive_sleep.policies.linucb import LinUCB, bounds_flops, learn_flops
from adaptive_sleep.policies.threshold import at_least_one
from adaptive_sleep.signals import FloatArray, IntArray, WindowOutcome, WindowSignals

_WIDTH = 1 + len(WindowSignals.SCALARS)


@dataclass
class _Memory:
    """What was learned; contexts that wait for an outcome, oldest first; how many were dropped.

    A waiting context is (loss that one more pass has to save, x `[_WIDTH]`).
    """

    arms: LinUCB
    waiting: dict[tuple[str, int], tuple[float, FloatArray]] = field(default_factory=dict)
    dropped: int = 0


@policy("bandit")
@dataclass(frozen=True)
class Bandit:
    """Choose passes by LinUCB, learning from what came of them; all streams teach the same arms.

    Arms: 1..`passes` passes, each with a ridge regression of its own on 1 and the 13 `features`.
    The arm with the highest bound is planned, of equal ones the shortest. Reward of a window: minus
    the loss of the stream's next scored window, minus its sleep passes x FLOPs of a pass x price;
    no reward before there is one. The arm that learns is the passes really run; more than `passes`
    of them (somebody else's doing) teach nothing. The same outcomes in the same order teach the
    same, whatever the grouping of streams between them.

    alpha: how much doubt is worth, in units of loss; 0 never explores on purpose.
    price: loss that 10^9 FLOPs have to save, on top of `signals.price` (loss per FLOP).
    ridge: weight of the prior, that every reward is 0. Losses being positive, arms not yet tried
        look good, so each is tried soon.
    remember: contexts that may wait for an outcome; beyond that the oldest are dropped, and
        counted in the state as "dropped".

    Source: Li et al., WWW 2010 (disjoint LinUCB). Raises InputError for a value that is not
    allowed.
    """

    passes: Annotated[int, Range(2, 8)] = 4
    alpha: Annotated[float, Range(0.01, 10.0, log=True)] = 0.5
    price: Annotated[float, Range(0.0, 10.0)] = 0.0
    ridge: Annotated[float, Range(0.01, 100.0, log=True)] = 1.0
    remember: int = 1024
    _memory: _Memory = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        at_least_one("passes", self.passes)
        number("alpha", self.alpha, 0)
        number("price", self.price, 0)
        number("ridge", self.ridge, 1e-9)
        whole("remember", self.remember, 1)
        self.reset(0)

    def plan(self, signals: WindowSignals) -> IntArray:
        """Return the arm with the highest bound, and keep the context until its outcome."""
        memory, passes = self._memory, np.ones(len(signals), dtype=np.int64)
        contexts = np.column_stack([np.ones(len(signals)), features(signals)])
        costs = (1e-9 * float(self.price) + signals.price) * signals.pass_flops
        # by name, so that which contexts are the oldest does not hang on the order of rows
        for row, stream in sorted(enumerate(signals.stream), key=lambda it: it[1]):
            allowed = min(self.passes, int(signals.max_passes[row]))
            bounds = memory.arms.bounds(contexts[row], self.alpha)[:allowed]
            passes[row] = 1 + int(np.argmax(bounds))
            key = (stream, int(signals.window[row]))
            memory.waiting.pop(key, None)  # a window that is asked about again is the youngest
            memory.waiting[key] = (float(costs[row]), contexts[row])
        while len(memory.waiting) > self.remember:
            del memory.waiting[next(iter(memory.waiting))]
            memory.dropped += 1
        return passes

    def observe(self, outcome: WindowOutcome) -> None:
        """Learn from each window whose context is still there, in the order given."""
        for row, stream in enumerate(outcome.stream):
            found = self._memory.waiting.pop((stream, int(outcome.window[row])), None)
            sleep = int(outcome.passes[row]) - 1
            if found is not None and sleep < self.passes:
                cost, x = found
                self._memory.arms.learn(sleep, x, -float(outcome.loss[row]) - sleep * cost)

    def reset(self, seed: int) -> None:
        """Forget everything; nothing here is random."""
        arms = LinUCB.fresh(self.passes, _WIDTH, self.ridge)
        object.__setattr__(self, "_memory", _Memory(arms))

    def state_dict(self) -> dict[str, Any]:
        """Return the arms, the contexts that wait, oldest first, and how many were dropped."""
        waiting = [[*key, cost, *x.tolist()] for key, (cost, x) in self._memory.waiting.items()]
        arms = self._memory.arms.state_dict()
        return {"arms": arms, "waiting": waiting, "dropped": self._memory.dropped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Replace everything by what the state holds; an empty one is a fresh start."""
        self.reset(0)
        if state:
            waiting = {(row[0], row[1]): (row[2], np.array(row[3:])) for row in state["waiting"]}
            memory = _Memory(LinUCB.from_state(state["arms"]), waiting, state["dropped"])
            object.__setattr__(self, "_memory", memory)

    def flops(self, streams: int) -> int:
        """Return the FLOPs of all bounds, and of learning one outcome for every stream."""
        return streams * (bounds_flops(self.passes, _WIDTH) + learn_flops(_WIDTH))
