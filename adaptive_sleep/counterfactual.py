"""What 1, 2, ..., K passes over each window would have come to: forks that run beside a runtime.

Every window that a policy planned for is slept on 1 to K times, each pass going on from the one
before it, and K copies of its stream read what follows, side by side, in a store of their own. The
runtime itself is only looked at. What is made of the answers is not known here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from adaptive_sleep.advancing import Boundary, Draft, Works, advance
from adaptive_sleep.bookkeeping import write_weights
from adaptive_sleep.boundary import require_finite
from adaptive_sleep.forecasting import generator
from adaptive_sleep.ledger import Ledger
from adaptive_sleep.runtime import Runtime, StepResult
from adaptive_sleep.signals import FloatArray, IntArray, WindowSignals
from adaptive_sleep.sleep import Stage, stages
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.events import Piece
from adaptive_sleep.trace import TraceRow
from adaptive_sleep.wake import Predictions
from adaptive_sleep.whole import advance_whole

HALVES = ("a", "b")
MOST = 1024  # passes; each is a fork of its own


@dataclass(frozen=True, eq=False)
class Score:
    """How the scored windows after a window went, by passes over it, all `[K]`.

    `loss`: mean over `scored` predictions, in the unit of `surprise` (0 where nothing was scored);
    `right`: how many of them were answered right (0 for a model that answers nothing).
    """

    loss: FloatArray
    scored: IntArray
    right: IntArray

    @classmethod
    def of(cls, most: int) -> Score:
        """Nothing scored yet, for 1 to `most` passes."""
        none = np.zeros(most, dtype=np.int64)
        return cls(np.zeros(most), none, none.copy())

    def add(self, place: int, loss: float, scored: int, right: int) -> None:
        """Take in a window after `place + 1` passes; the first one's mean is kept to the bit."""
        if scored:
            self.scored[place] += scored
            self.loss[place] += (loss - self.loss[place]) * (scored / self.scored[place])
            self.right[place] += right


@dataclass(frozen=True, eq=False)
class Alternatives:
    """What 1 to K passes over one window came to.

    `passes`: those of the run; `lag`: windows from it to the last one of the horizon; `asked`:
    questions within it, None for a model that answers nothing. `score` is of all that was scored,
    `halves` of two seeded halves of the questions; `run` `[1]` is the run's own. `state_change`,
    `hidden_change` (NaN after pass 1) `[K]` and `summary` float32 `[K, 2d]` are of pass n;
    `signals`, one row, is what the policy was shown.
    """

    signals: WindowSignals
    passes: int
    lag: int
    asked: int | None
    score: Score
    halves: tuple[Score, Score]
    run: Score
    state_change: FloatArray
    hidden_change: FloatArray
    summary: NDArray[np.float32]


@dataclass(eq=False)
class _Case:
    """A window whose forks still read on; they sit in `seats`, one for each number of passes."""

    found: Alternatives
    seats: list[str]
    left: int  # scored windows still to come


@dataclass(eq=False)
class _Prescribed:
    """Passes of the windows that close in a step, by seat."""

    passes: dict[str, int]

    def plan(self, signals: WindowSignals) -> IntArray:
        """The passes of each seat."""
        return np.array([self.passes[seat] for seat in signals.stream], dtype=np.int64)


class Forks:
    """Forks of a runtime's streams at each window that its policy plans for.

    `follow` is told of each step after it was made. Windows after the fork are slept on as the run
    slept on them (so that the fork with the run's own passes is the run itself), but for the last
    one of the horizon, after which nothing is read.
    """

    def __init__(self, runtime: Runtime, *, most: int, horizon: int = 1, seed: int = 0) -> None:
        """`most` passes (K from 2 to `MOST`); `horizon`: scored windows that a fork reads on for
        (>= 1); `seed`: of the halves of the questions. Raises InputError, also for a KV budget,
        under which a window may close between two steps' ends.
        """
        for name, value, least in (("most", most, 2), ("horizon", horizon, 1)):
            if value < least:
                raise InputError(f"{name}={value}: a whole number, at least {least}")
        if most > MOST:
            raise InputError(f"most={most}: at most {MOST}; every pass is a fork of its own")
        if runtime.settings.kv_budget is not None:
            raise InputError(
                f"kv_budget={runtime.settings.kv_budget}: forks need a run without a KV budget; "
                "leave it out"
            )
        self.most, self.horizon, self.seed = most, horizon, seed
        self.ledger = Ledger()  # of the forks alone
        self._run = runtime
        works = runtime.works
        self._rule = _Prescribed({})
        self._works: Works = replace(
            works,
            policy=self._rule,
            settings=replace(works.settings, budget=None),  # it is in the passes of the run
            arena=works.arena.like(),
        )
        self._cases: dict[str, list[_Case]] = {}  # by stream, oldest first
        self._free: list[str] = []

    @property
    def unfinished(self) -> int:
        """Windows whose horizon has not been reached."""
        return sum(len(cases) for cases in self._cases.values())

    def follow(self, pieces: Sequence[Piece], result: StepResult) -> list[Alternatives]:
        """Read what a step of the runtime read, and fork where it closed windows.

        `result` is that step's, made with `boundaries`. Returns what is finished by it, in order of
        the streams of `pieces`, oldest window first. Whatever is raised, the forks are of no use
        after it; the runtime is as the step left it.
        """
        closed = {row.stream: row for row in result.rows}
        with torch.no_grad():
            found = self._read(pieces, closed)
            for boundary in result.boundaries:
                self._fork(boundary)
        self._works.arena.commit()
        return found

    def _read(self, pieces: Sequence[Piece], closed: dict[str, TraceRow]) -> list[Alternatives]:
        """Read pieces in every fork of their streams; `closed`: the run's rows, by stream."""
        going = [p for p in pieces if self._cases.get(p.stream)]
        copies = [
            replace(piece, stream=seat)
            for piece in going
            for case in self._cases[piece.stream]
            for seat in case.seats
        ]
        self._rule.passes = {
            seat: 1 if row.scored and case.left == 1 else row.passes
            for stream, row in closed.items()
            for case in self._cases.get(stream, ())
            for seat in case.seats
        }
        answers = bool(self._works.model.config.answers)
        draft = Draft(self._run.steps, self.ledger, {}, True, [] if answers else None)
        (advance_whole if answers else advance)(self._works, copies, draft)
        self.ledger = draft.ledger
        rows = {row.stream: row for row in draft.rows}
        asked = _by_seat(draft.predictions or ())
        return [
            case.found
            for piece in going
            if piece.stream in closed
            for case in list(self._cases[piece.stream])
            if self._booked(case, closed[piece.stream], rows, asked)
        ]

    def _booked(
        self,
        case: _Case,
        own: TraceRow,
        rows: dict[str, TraceRow],
        asked: dict[str, tuple[FloatArray, NDArray[np.bool_]]],
    ) -> bool:
        """Take in a window that every fork of a case has closed; whether that was the last one."""
        found = case.found
        found.run.add(0, own.loss or 0.0, own.scored, own.right or 0)
        for place, seat in enumerate(case.seats):
            row = rows[seat]
            found.score.add(place, row.loss or 0.0, row.scored, row.right or 0)
            if seat in asked:
                self._halve(found, place, asked[seat], own)
        lag = own.window - int(found.signals.window[0])
        total = None if own.asked is None else (found.asked or 0) + own.asked
        case.found = replace(found, lag=lag, asked=total)
        case.left -= own.scored > 0
        if case.left:
            return False
        self._cases[own.stream].remove(case)
        self._free += case.seats
        return True

    def _halve(
        self,
        found: Alternatives,
        place: int,
        asked: tuple[FloatArray, NDArray[np.bool_]],
        own: TraceRow,
    ) -> None:
        """Book the answers of one fork in two halves that are the same for all forks."""
        loss, right = asked
        order = generator(self.seed, own.stream, own.window).permutation(len(loss))
        for half, rows in zip(found.halves, np.array_split(order, 2), strict=True):
            if len(rows):
                half.add(place, float(loss[rows].mean()), len(rows), int(right[rows].sum()))

    def _fork(self, boundary: Boundary) -> None:
        """Sleep 1 to K passes on windows that have just closed, and seat a fork for each."""
        signals, run = boundary.decision.signals, self._run.works
        names, windows = signals.stream.tolist(), signals.window.tolist()
        state = _after_boundary(run, names)
        seats: list[list[str]] = []
        done: list[Stage] = []
        for stage in stages(run.model, boundary.closed, self.most):
            require_finite(stage.weights.finite_streams(), names, windows)
            weights = stage.weights
            after = state | write_weights(weights, "now") | write_weights(weights, "before")
            here = self._seat(names, windows, stage.passes)
            self._works.arena.scatter(self._works.arena.index(here), after)
            done.append(stage)
            seats.append(here)
        self.ledger = self.ledger.add(sleep=int(signals.pass_flops.sum()) * (self.most - 1))
        answers = bool(run.model.config.answers)
        state_change = torch.stack([s.state_change for s in done], 1).double().numpy()
        hidden_change = torch.stack([s.hidden_change for s in done], 1).double().numpy()
        pooled = torch.stack([s.summary for s in done], 1).numpy()
        for row, stream in enumerate(names):
            found = Alternatives(
                signals=signals.select([row]),
                passes=int(boundary.decision.passes[row]),
                lag=0,
                asked=0 if answers else None,
                score=Score.of(self.most),
                halves=(Score.of(self.most), Score.of(self.most)),
                run=Score.of(1),
                state_change=state_change[row],
                hidden_change=hidden_change[row],
                summary=pooled[row],
            )
            case = _Case(found, [here[row] for here in seats], self.horizon)
            self._cases.setdefault(stream, []).append(case)

    def _seat(self, names: list[str], windows: list[int], passes: int) -> list[str]:
        """Seats in the store, first those of forks that are finished, named by who sits there."""
        seats = [
            f"{stream}, {passes} passes over window {window}"
            for stream, window in zip(names, windows, strict=True)
        ]
        arena = self._works.arena
        again = {self._free.pop(): seat for seat in seats[: len(self._free)]}
        if again:
            arena.rows = {again.get(old, old): row for old, row in arena.rows.items()}
        return seats


def _after_boundary(works: Works, names: list[str]) -> dict[str, torch.Tensor]:
    """The rows of streams whose windows have just closed, without the buffers that are empty."""
    index = works.arena.index(names)
    state = works.arena.gather(index, works.small())
    if held := int(state["cached"].max()):
        state |= works.arena.gather(index, works.named("keys.", "values."), held)
    return state


def _by_seat(
    predictions: Sequence[Predictions],
) -> dict[str, tuple[FloatArray, NDArray[np.bool_]]]:
    """Loss (nats) and rightness of every answer that can be scored, by seat, in order."""
    losses: dict[str, list[float]] = defaultdict(list)
    rights: dict[str, list[bool]] = defaultdict(list)
    for part in predictions:
        assert part.asked is not None
        assert part.answer is not None
        assert part.logprob is not None
        known = part.asked >= 0
        right = part.asked == part.answer
        for seat, loss, hit in zip(
            part.stream[known], -part.logprob[known], right[known], strict=True
        ):
            losses[seat].append(float(loss))
            rights[seat].append(bool(hit))
    return {seat: (np.array(losses[seat]), np.array(rights[seat])) for seat in losses}
