"""The Gymnasium environment: to choose the passes of window after window of a recording.

Importing this module registers it, so `gymnasium.make` finds it by

    gymnasium.make("adaptive_sleep.policies.environment:adaptive_sleep/Consolidation-v0", ...)

How a run is stopped at a decision is in `environment_play`, what is seen in `environment_view`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from adaptive_sleep.bundled import locate
from adaptive_sleep.checkpoint import load_model
from adaptive_sleep.config import Eviction
from adaptive_sleep.contract import PolicyLike
from adaptive_sleep.intake import check_categories, check_fits, row_range
from adaptive_sleep.model import Model
from adaptive_sleep.policies.agent_file import read_view
from adaptive_sleep.policies.environment_play import Play, awake, tracks
from adaptive_sleep.policies.environment_view import Moments, View
from adaptive_sleep.runtime import Runtime
from adaptive_sleep.signals import WindowSignals
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.recording import Recording
from adaptive_sleep.trace import TraceRow

ID = "adaptive_sleep/Consolidation-v0"
Seen = NDArray[np.float32]
_used_in: list[int] = []  # the process that made the first environment


class Consolidation(gymnasium.Env[Seen, np.int64]):
    """One episode: rows `start` to `stop` of a recording. One step: the passes of one window.

    Streams are played one after another, each in a runtime of its own, so that what follows a
    decision is its own doing; their order is drawn at `reset` (`shuffle`), or the recording's.
    Windows in which something is asked are answered on the way and ask for no decision. With one
    stream, an episode is the `replay` of the same passes, to the bit; KV budgets, which tie streams
    together, there are none.

    Action a, Discrete(`max_passes`): a + 1 passes. `info["action_mask"]` (int8) and
    `action_masks()` (bool), `[max_passes]`: what the sleep budget leaves; whatever is beyond it is
    clipped, as for any policy.

    Observation, float32 `[13]` in [-10, 10]: the `features` of `WindowSignals.SCALARS` in that
    order, less their mean and by their deviation over the same rows run without sleep (running
    statistics of one pass over the windows, then fixed: no two episodes and no two environments
    side by side see differently), clipped. With `summary`, also the 2d numbers of the summary.
    `view`: a `View`, or a file that holds one (`save_view`, or an agent's), in place of those. All
    zeros after the last window.

    Reward: loss saved - `price` x sleep FLOPs. Loss saved: over the windows scored since the last
    decision, up to the one that is asked about next, the mean loss that the same window has in the
    same rows run without sleep, less its own (nats, or normalised pinball). A whole episode without
    sleep so comes to 0, and what would have been lost anyway is in no reward. `price`: loss per
    FLOP.

    `info`: `action_mask`; `stream` and `window` that are asked about; after a step `passes` run,
    `sleep_flops` and `loss_saved`. An episode ends (`terminated`) after the last window; it is
    never truncated. Nothing but the order of streams is random: the same seed and actions give
    the same observations and rewards.

    recording, model: a path, "bundled:NAME" or the object; the other settings as in `replay`.
    Side by side in processes they must be fresh ones, for a fork may wait for ever for threads that
    it lacks: `gymnasium.make_vec(..., vectorization_mode="async", vector_kwargs={"context":
    "spawn"})`. Raises InputError for what `replay` refuses, rows in which nothing is slept on, an
    action that is none, and in a process forked from one that had made an environment.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  (as gymnasium declares it)

    def __init__(
        self,
        recording: str | Path | Recording,
        model: str | Path | Model,
        *,
        start: float | int = 0.0,
        stop: float | int = 1.0,
        window: int | None = None,
        gap_seconds: float | None = None,
        eviction: Eviction = "hard",
        budget: float | None = None,
        burst: float = 4.0,
        max_passes: int = 4,
        price: float = 0.0,
        summary: bool = False,
        view: View | str | Path | None = None,
        shuffle: bool = True,
    ) -> None:
        _refuse_fork()
        source = recording if isinstance(recording, Recording) else _opened(recording)
        net = load_model(model) if isinstance(model, str | Path) else model
        rows = row_range(start, stop, source.rows)
        check_fits(source, net.config)
        check_categories(source, net.categories)
        settings: dict[str, Any] = {
            "window": net.config.window if window is None else window,
            "eviction": eviction,
            "budget": budget,
            "burst": burst,
            "max_passes": max_passes,
            "price": price,
            "columns": [channel.name for channel in source.inputs] or None,
        }

        def make(policy: PolicyLike) -> Runtime:
            return Runtime(net, policy, **settings)

        self._make = make
        self._settings = make(lambda _: 1).settings  # refuses what no runtime takes
        self._tracks = tracks(source, *rows, self._settings.window, gap_seconds)
        self._shuffle = shuffle
        moments = Moments(WindowSignals.SCALARS, 2 * net.config.width if summary else 0)
        self._losses = self._survey(moments)
        if moments.count == 0:
            raise InputError(
                f"start={start}, stop={stop}: no window of these rows is slept on, so there is "
                "nothing to choose; take more rows"
            )
        self.view = _view(view, moments, net.hash if summary else "")
        self.observation_space = gymnasium.spaces.Box(
            -self.view.clip, self.view.clip, (self.view.width,), np.float32
        )
        self.action_space = gymnasium.spaces.Discrete(max_passes)
        self._most = max_passes
        self.rows: list[TraceRow] = []
        self._left: list[str] = []
        self._play: Play | None = None

    def _survey(self, moments: Moments) -> dict[tuple[str, int], float]:
        """Run all without sleep: the losses to be saved from, by stream and window."""
        runs = (awake(self._make, pieces, moments.add) for pieces in self._tracks.values())
        rows = (row for run in runs for row in run)
        return {(row.stream, row.window): row.loss for row in rows if row.loss is not None}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Seen, dict[str, Any]]:
        """Begin an episode; `seed` decides the order of its streams. There are no options."""
        super().reset(seed=seed)
        if options:
            raise InputError(f"options={options!r}: this environment has none")
        names = list(self._tracks)
        order = self.np_random.permutation(len(names)) if self._shuffle else range(len(names))
        self._left = [names[i] for i in order]
        self._play = None
        self.rows = self._go_on()
        return self._seen(), self._info()

    def step(self, action: np.int64 | int) -> tuple[Seen, float, bool, bool, dict[str, Any]]:
        """Run `action` + 1 passes over the window that is asked about, and on to the next."""
        if self._play is None or self._play.asked is None:
            raise gymnasium.error.ResetNeeded("step after the end of an episode: call reset first")
        if not self.action_space.contains(action):
            raise InputError(
                f"action={action!r}: expected a whole number from 0 to {self._most - 1}, "
                "the passes less 1"
            )
        self._play.choose(int(action) + 1)
        rows = self._go_on()
        self.rows += rows
        saved = sum(self._losses[place] - loss for place, loss in self._new_losses(rows[1:]))
        run = {
            "passes": rows[0].passes,  # the first row is of the window that was asked about
            "sleep_flops": sum(row.sleep_flops for row in rows),
            "loss_saved": float(saved),
        }
        reward = float(saved) - self._settings.price * run["sleep_flops"]
        return self._seen(), reward, self._asked is None, False, self._info() | run

    def _new_losses(self, rows: list[TraceRow]) -> Iterator[tuple[tuple[str, int], float]]:
        """Stream and window, and loss, of scored windows: of `rows`, and the one asked about."""
        for row in rows:
            if row.loss is not None:
                yield (row.stream, row.window), row.loss
        asked = self._asked
        if asked is not None and asked.scored[0]:
            yield (asked.stream[0], int(asked.window[0])), float(asked.surprise[0])

    def action_masks(self) -> NDArray[np.bool_]:
        """Return which actions are run as they are, `[max_passes]`; the first always is."""
        return np.arange(1, self._most + 1) <= self._allowed()

    def _allowed(self) -> int:
        """The most passes that the sleep budget leaves for the window that is asked about."""
        if self._play is None or self._play.asked is None or self._settings.budget is None:
            return self._most
        return 1 + int(self._play.balance() // self._play.asked.pass_flops[0])

    @property
    def _asked(self) -> WindowSignals | None:
        """The window for which passes are to be chosen; None outside an episode."""
        return None if self._play is None else self._play.asked

    def _go_on(self) -> list[TraceRow]:
        """Run to the next window that is asked about, in this stream or the next that has one."""
        rows = [] if self._play is None else self._play.go_on()
        while self._asked is None and self._left:
            self._play = Play(self._make, self._tracks[self._left.pop(0)])
            rows += self._play.go_on()
        return rows

    def _seen(self) -> Seen:
        if self._asked is None:
            return np.zeros(self.view.width, np.float32)
        seen: Seen = self.view.see(self._asked)[0]
        return seen

    def _info(self) -> dict[str, Any]:
        info: dict[str, Any] = {"action_mask": self.action_masks().astype(np.int8)}
        if (asked := self._asked) is not None:
            info |= {"stream": asked.stream[0], "window": int(asked.window[0])}
        return info


def _refuse_fork() -> None:
    """Refuse a process that was forked after an environment was made. Raises InputError."""
    if not _used_in:
        _used_in.append(os.getpid())
    if os.getpid() not in _used_in:
        raise InputError(
            "context: this process is a fork of one that had made an environment, in which another "
            "may hang for ever; start fresh ones: make_vec(..., vectorization_mode='async', "
            "vector_kwargs={'context': 'spawn'}), or AsyncVectorEnv(..., context='spawn')"
        )


def _opened(where: str | Path) -> Recording:
    return Recording.open(locate("recordings", where))


def _view(given: View | str | Path | None, moments: Moments, model: str) -> View:
    """The view that is asked for, which must be one of what this environment shows."""
    if given is None:
        return moments.view(model)
    view = given if isinstance(given, View) else read_view(given)
    if (view.signals, view.summary) != (moments.signals, moments.summary):
        raise InputError(
            f"view: of {len(view.signals)} signals and a summary of {view.summary}, but this "
            f"environment shows {len(moments.signals)} and {moments.summary}; set summary="
            f"{view.summary > 0}, or take a view of this model"
        )
    if view.model not in ("", model):
        raise InputError(
            f"view: of the summaries of model {view.model[:12]}, but this is {model[:12]}; "
            "take a view of this model"
        )
    return view


def register() -> None:
    """Let `gymnasium.make` know the environment by its `ID`; a second time changes nothing."""
    if ID not in gymnasium.registry:
        gymnasium.register(ID, entry_point=f"{__name__}:{Consolidation.__name__}")


register()
