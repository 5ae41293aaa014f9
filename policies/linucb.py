"""Disjoint linear upper confidence bounds: one ridge regression an arm, and how unsure it is.

Arithmetic only; which context belongs to which reward is `bandit`'s business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from adaptive_sleep.signals import FloatArray


@dataclass
class LinUCB:
    """For every arm a, A_a = ridge I + sum of x x^T and b_a = sum of reward x over its rewards.

    inverse: A_a^-1, `[arms, width, width]`, kept by the Sherman-Morrison formula.
    sums: b_a, `[arms, width]`.

    Source: Li, Chu, Langford, Schapire, A contextual-bandit approach to personalized news article
    recommendation, WWW 2010 (arXiv 1003.0146), algorithm 1.
    """

    inverse: FloatArray
    sums: FloatArray

    @classmethod
    def fresh(cls, arms: int, width: int, ridge: float) -> LinUCB:
        """Return one that has seen nothing."""
        return cls(np.tile(np.eye(width) / ridge, (arms, 1, 1)), np.zeros((arms, width)))

    def bounds(self, x: FloatArray, alpha: float) -> FloatArray:
        """Return theta_a^T x + alpha sqrt(x^T A_a^-1 x), `[arms]`, for a context x `[width]`."""
        # not `@`, which rounds by row: arms that have seen the same must be exactly equal
        turned = (self.inverse * x).sum(axis=2)
        # rounding may leave a variance of nearly 0 below it
        variance = np.maximum((turned * x).sum(axis=1), 0.0)
        bounds: FloatArray = (self.sums * turned).sum(axis=1) + alpha * np.sqrt(variance)
        return bounds

    def learn(self, arm: int, x: FloatArray, reward: float) -> None:
        """Add one reward of one arm in the context x `[width]`."""
        turned = self.inverse[arm] @ x
        self.inverse[arm] -= np.outer(turned, turned) / (1.0 + x @ turned)
        self.sums[arm] += reward * x

    def state_dict(self) -> dict[str, Any]:
        """Return both arrays as lists."""
        return {"inverse": self.inverse.tolist(), "sums": self.sums.tolist()}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> LinUCB:
        """Return the one whose state it is, bit for bit."""
        return cls(np.array(state["inverse"]), np.array(state["sums"]))


def bounds_flops(arms: int, width: int) -> int:
    """Return the FLOPs of `bounds`: a matrix and two vectors times x for every arm."""
    return arms * (2 * width * width + 4 * width)


def learn_flops(width: int) -> int:
    """Return the FLOPs of `learn`: a matrix and a vector times x, and an outer product."""
    return 4 * width * width + 2 * width
