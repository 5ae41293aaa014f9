"""A small fully connected network: what a trained agent is when it runs.

Each row of a batch is computed as if it were alone, so that no stream changes another's passes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adaptive_sleep.streams.errors import InputError, nearest

if TYPE_CHECKING:
    from adaptive_sleep.kernels import Dense

Floats = NDArray[np.float32]
TOGETHER = 16  # rows of one product, blank ones among them; a multiple of what BLAS takes at a time

ACTIVATIONS: dict[str, Callable[[Floats], Floats]] = {
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, np.float32(0)),
}


@dataclass(frozen=True, eq=False)
class Network:
    """x -> W_n f(... f(W_1 x + b_1) ...) + b_n, with f the `activation` between layers.

    weights: float32 `[out, in]`, as torch's Linear has them; biases: float32 `[out]`. Raises
    InputError for layers that do not follow on one another, numbers that are not finite, and an
    activation that there is not.
    """

    weights: tuple[Floats, ...]
    biases: tuple[Floats, ...]
    activation: str = "tanh"

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise InputError(
                f"activation={self.activation!r}: expected one of {', '.join(ACTIVATIONS)}"
                f"{nearest(self.activation, ACTIVATIONS)}"
            )
        if not self.weights or len(self.weights) != len(self.biases):
            raise InputError(
                f"layers: {len(self.weights)} weights and {len(self.biases)} biases, expected as "
                "many of each, and at least 1"
            )
        width = self.weights[0].shape[-1]
        for at, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if weight.ndim != 2 or weight.shape[1] != width or bias.shape != weight.shape[:1]:
                raise InputError(
                    f"layer {at}: weight {weight.shape}, bias {bias.shape}, expected (n, {width}) "
                    "and (n,)"
                )
            if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
                raise InputError(f"layer {at}: holds a number that is not finite")
            width = len(bias)

    @property
    def inputs(self) -> int:
        """Numbers that go in."""
        return int(self.weights[0].shape[1])

    @property
    def outputs(self) -> int:
        """Numbers that come out."""
        return len(self.biases[-1])

    @cached_property
    def flops(self) -> int:
        """FLOPs for one row: its matrix products."""
        return sum(2 * weight.size for weight in self.weights)

    def run(self, x: Floats) -> Floats:
        """Return what comes out, float32 `[rows, outputs]`, for x float32 `[rows, inputs]`."""
        if self.compiled is None:
            return self.in_numpy(x)
        import torch

        given = torch.from_numpy(np.require(x, np.float32, ["C", "W"]))
        found: Floats = self.compiled(given).numpy()
        return found

    @cached_property
    def compiled(self) -> Dense | None:
        """The network in C, where that was built; made when it first runs, for it loads torch."""
        import torch

        from adaptive_sleep.kernels import Dense

        if not Dense.serves():
            return None
        layers = ([torch.tensor(x) for x in each] for each in (self.weights, self.biases))
        return Dense(*layers, relu=self.activation == "relu")

    def __getstate__(self) -> dict[str, Any]:
        """All but what is made when it first runs."""
        return {name: value for name, value in vars(self).items() if name != "compiled"}

    def in_numpy(self, x: Floats) -> Floats:
        """`run` in NumPy."""
        between, rows = ACTIVATIONS[self.activation], len(x)
        # a stack of products of one size: one of all rows would round differently in other batches
        stack = np.zeros((-(-rows // TOGETHER), TOGETHER, x.shape[1]), np.float32)
        stack.reshape(-1, x.shape[1])[:rows] = x
        for at, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            stack = (stack if at == 0 else between(stack)) @ weight.T + bias
        return stack.reshape(-1, self.outputs)[:rows]
