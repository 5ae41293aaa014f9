"""Sleep as long as it is predicted to pay: a network reads the summary, before and during a sleep.

It is fitted offline, from counterfactual replays of one model (`adaptive-sleep fit-gain`), and is
for no other. What it predicts is said in `gain_network`; it learns nothing any more.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import numpy as np

from adaptive_sleep.contract import Range, policy
from adaptive_sleep.policies.checks import number
from adaptive_sleep.policies.gain_file import digest, read_gain
from adaptive_sleep.policies.gain_network import Gain, planned
from adaptive_sleep.policies.of_file import OfFile
from adaptive_sleep.signals import BoolArray, FloatArray, IntArray, SleepProgress, WindowSignals


@policy("predicted_gain")
@dataclass(frozen=True)
class PredictedGain(OfFile):
    """Go on where a further pass is predicted to save at least `threshold` and its price.

    At the boundary it plans up to the last pass that may pay, or none; after each pass it looks
    again, and stops where nothing is left to save. The saving is in units of what it was fitted to,
    a pass: loss, or windows that are not answered all right (`fit-gain --of errors`); the best mean
    over all numbers of further passes. The price of a pass is `signals.price` x `pass_flops`, in
    units of loss: give none to what was fitted to errors.

    file: path of a gain file, read when the policy is made; its digest is kept with a run that is
    saved, so that none goes on with another. Raises InputError where there is no such file, or one
    that is damaged or of another model, and, when asked, for a summary of another width.
    """

    file: str
    threshold: Annotated[float, Range(1e-4, 1.0, log=True)] = 0.01
    _gain: Gain = field(init=False, compare=False, repr=False)
    _digest: str = field(init=False, compare=False, repr=False)
    # what a pass over each stream's window must save; no state, since the next plan overwrites it
    _bars: dict[str, float] = field(default_factory=dict, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        number("threshold", self.threshold, 0)
        object.__setattr__(self, "_gain", read_gain(self.file))
        object.__setattr__(self, "_digest", digest(self._gain))

    @property
    def model_hash(self) -> str:
        """The one model that it was fitted to."""
        return self._gain.model_hash

    def plan(self, signals: WindowSignals) -> IntArray:
        """Return 1 where nothing is to be gained, else up to the last pass that may pay."""
        once = np.ones(len(signals), dtype=np.int64)
        saving = self._gain.saving(signals.summary, once, signals.state_change)
        bars: FloatArray = self.threshold + signals.price * signals.pass_flops
        if self._bars or signals.price.any():
            self._bars.update(zip(signals.stream.tolist(), bars.tolist(), strict=True))
        return np.minimum(planned(saving, bars), signals.max_passes)

    def keep_going(self, progress: SleepProgress) -> BoolArray:
        """Return where going on still pays; never beyond the passes that it was fitted on."""
        known = progress.passes < self._gain.most
        passes = np.minimum(progress.passes, self._gain.most - 1)
        saving = self._gain.saving(
            progress.summary, passes, progress.state_change, progress.hidden_change
        )
        here: FloatArray = saving[np.arange(len(passes)), passes - 1]
        going: BoolArray = known & (here >= self._asked_of(progress))
        return going

    def _asked_of(self, progress: SleepProgress) -> FloatArray | float:
        """What a pass over each window must save: as it was planned."""
        if not self._bars:  # passes have no price
            return self.threshold
        return np.array([self._bars.get(it, self.threshold) for it in progress.stream.tolist()])

    def reset(self, seed: int) -> None:
        """Forget the prices; nothing here is random."""
        self._bars.clear()

    def flops(self, streams: int) -> int:
        """Return the network's matrix products for a plan, and for each question after it."""
        return streams * self._gain.network.flops * (self._gain.most - 1)
