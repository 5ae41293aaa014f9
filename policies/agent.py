"""Do what was learned in the Gymnasium environment: a network over the signals, read from a file.

The file is described in `agent_file`, how one is made of a trained stable-baselines3 agent in
`agent_export`. It learns nothing any more.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from adaptive_sleep.contract import policy
from adaptive_sleep.policies.agent_file import Trained, digest, read_agent
from adaptive_sleep.policies.of_file import OfFile
from adaptive_sleep.signals import IntArray, WindowSignals


@policy("agent")
@dataclass(frozen=True)
class Agent(OfFile):
    """Plan what a trained agent finds likeliest; output a of its network is a + 1 passes.

    file: path of a safetensors file, read when the policy is made; its digest is kept with a run
    that is saved, so that none goes on with another. Where fewer passes are allowed, the likeliest
    of those; of equal ones the least. Raises InputError where there is no such file,
    IntegrityError where it is damaged, and, when asked, InputError for a summary of another width.
    """

    file: str
    _trained: Trained = field(init=False, compare=False, repr=False)
    _digest: str = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_trained", read_agent(self.file))
        object.__setattr__(self, "_digest", digest(self._trained))

    @property
    def model_hash(self) -> str | None:
        """The model it was trained with, if it looks at the summary, which no other model has."""
        return self._trained.view.model or None

    def plan(self, signals: WindowSignals) -> IntArray:
        """Return the likeliest passes for each stream, by its own signals alone."""
        scores = self._trained.network.run(self._trained.view.see(signals))
        passes = np.arange(1, scores.shape[1] + 1)
        allowed = passes <= signals.max_passes[:, None]
        best: IntArray = np.where(allowed, scores, -np.inf).argmax(axis=1)
        return 1 + best

    def flops(self, streams: int) -> int:
        """Return the matrix products of the network."""
        return streams * self._trained.network.flops
