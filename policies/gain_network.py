"""What going on would still save, predicted by a small network.

What the network is shown, and what its outputs mean, is said here, for the policy that asks it and
for whoever fits it. How it lies on disk is in `gain_file`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptive_sleep.policies.agent_network import Network
from adaptive_sleep.policies.checks import whole
from adaptive_sleep.signals import FloatArray, IntArray
from adaptive_sleep.streams.errors import InputError

EPSILON = 1e-6  # least change that is told apart
_CHANGES = 2
_UTMOST = 50.0  # size of a logarithm of a saving that is told apart


@dataclass(frozen=True, eq=False)
class Gain:
    """A network fitted to one model, for windows after 1 to `most` - 1 passes.

    model_hash: of the model; most: passes of the longest sleep it was fitted on, >= 2; width: 2d of
    the summary; horizon: scored windows over which a saving was measured; provenance: how it was
    fitted, free text. Output m of the network, m = 1..most - 1, is the logarithm of what going on
    beyond m passes is expected to save, as `savings` has it, in units of what it was fitted to:
    loss, or windows that are not answered all right. Output m means nothing after more than m
    passes.
    Raises InputError for what does not fit together.
    """

    network: Network
    model_hash: str
    most: int
    width: int
    horizon: int
    provenance: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        whole("most", self.most, 2)
        whole("width", self.width, 1)
        whole("horizon", self.horizon, 1)
        ends = self.network.inputs, self.network.outputs
        wanted = self.width + _CHANGES + self.most - 1, self.most - 1
        if ends != wanted:
            raise InputError(
                f"network: takes {ends[0]} numbers and gives {ends[1]}, expected {wanted[0]} and "
                f"{wanted[1]} for summaries of width {self.width} and {self.most} passes"
            )

    def saving(
        self,
        summary: NDArray[np.float32],
        passes: IntArray,
        state_change: FloatArray,
        hidden_change: FloatArray | None = None,
    ) -> FloatArray:
        """Predict the saving of going on beyond 1..most - 1 passes, `[rows, most - 1]`.

        summary `[rows, width]` and changes `[rows]` are those of the last of `passes` `[rows]`,
        which are 1 to most - 1; `hidden_change` is None after pass 1. Each row is computed as if
        it were alone. Raises InputError for a summary of another width.
        """
        if summary.shape[1] != self.width:
            raise InputError(
                f"summary: {summary.shape[1]} wide, but this gain file is for models with "
                f"{self.width}; fit one to this model (adaptive-sleep fit-gain)"
            )
        compiled = self.network.compiled
        if compiled is not None:  # `inputs` and what is below, in one call
            parts = (
                _bytes(summary, np.float32),
                _bytes(state_change, np.float64),
                None if hidden_change is None else _bytes(hidden_change, np.float64),
                _bytes(passes, np.int64),
            )
            saved: FloatArray
            saved = compiled.joined(self.width, *parts, least=EPSILON, most=_UTMOST).numpy()
            return saved
        found = self.network.run(inputs(summary, passes, state_change, hidden_change, self.most))
        saving: FloatArray = np.exp(np.clip(found.astype(np.float64), -_UTMOST, _UTMOST))
        return saving


def planned(saving: FloatArray, bars: FloatArray) -> IntArray:
    """Passes that the savings `[rows, K - 1]` at the boundary call for, `[rows]`.

    1 where going on saves less than the bar `[rows]`, a pass; else up to the last pass that may
    save as much: a sleep that is under way can only be cut short.
    """
    pays = saving >= bars[:, None]
    last: IntArray = 1 + saving.shape[1] - pays[:, ::-1].argmax(axis=1)
    return np.where(pays[:, 0], last, 1)


def inputs(
    summary: NDArray[np.float32],
    passes: IntArray,
    state_change: FloatArray,
    hidden_change: FloatArray | None,
    most: int,
) -> NDArray[np.float32]:
    """What the network is shown, float32 `[rows, width + 2 + most - 1]`, arguments as in `saving`.

    The summary, logarithms of the two changes (0 for one there is not), and which of 1..most - 1
    the passes are, one of them 1.
    """
    rows, width = summary.shape
    x = np.empty((rows, width + _CHANGES + most - 1), np.float32)
    x[:, :width] = summary
    x[:, width] = _log(state_change)
    x[:, width + 1] = 0.0 if hidden_change is None else _log(hidden_change)
    x[:, width + _CHANGES :] = passes[:, None] == np.arange(1, most)
    return x


def savings(loss: FloatArray) -> FloatArray:
    """What going on beyond each number of passes saved, `[rows, K - 1]`, of losses `[rows, K]`, or
    of whatever else is to be saved.

    The most that any number of further passes saved, a pass, or 0 where none saved anything:
    max over n > m of (loss after m - loss after n) / (n - m). So at any price of a pass, going on
    pays exactly where the saving is above it.
    """
    most = loss.shape[1]
    found = [
        ((loss[:, [m]] - loss[:, m + 1 :]) / np.arange(1, most - m)).max(axis=1)
        for m in range(most - 1)
    ]
    best: FloatArray = np.maximum(np.stack(found, axis=1), 0.0)
    return best


def _bytes(values: NDArray[Any], kind: type[np.generic]) -> bytes:
    return np.asarray(values, kind).tobytes()


def _log(change: FloatArray) -> FloatArray:
    logarithm: FloatArray = np.log(np.maximum(change, EPSILON))
    return logarithm
