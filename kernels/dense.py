"""A small fully connected network in C: many rows at once, each as if it were alone.

The arithmetic is in `native_dense.h`. It is for networks that are asked so often, about so little,
that calling a product costs more than the product. There are no gradients.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from adaptive_sleep.streams.errors import InputError

from . import native
from .native_structs import Network

LANES = 16  # outputs are padded to a multiple of it


class Dense:
    """x -> W_n f(... f(W_1 x + b_1) ...) + b_n, with f tanh or ReLU; on a CPU.

    weights `[out, in]` as torch's Linear has them, biases `[out]`, layer by layer, all float32 or
    all float64; copied. What a row gives is the same to the bit in any batch. Only where
    `Dense.serves()`. Raises InputError for layers that do not fit one another.
    """

    @staticmethod
    def serves() -> bool:
        """Whether the library was compiled."""
        return not native.unavailable()

    def __init__(self, weights: Sequence[Tensor], biases: Sequence[Tensor], *, relu: bool) -> None:
        _check(weights, biases)
        sizes = [weights[0].shape[1], *(len(bias) for bias in biases)]
        wide = [math.ceil(size / LANES) * LANES for size in sizes[1:]]
        held = [_padded(w.t(), out) for w, out in zip(weights, wide, strict=True)]
        held += [_padded(b, out) for b, out in zip(biases, wide, strict=True)]
        places = (ctypes.c_void_p * len(held))(*(each.data_ptr() for each in held))
        spans = (ctypes.c_int64 * len(sizes))(*sizes)
        self._kept, self._dtype = (held, places, spans), weights[0].dtype  # and their addresses
        at, half = ctypes.addressof(places), ctypes.sizeof(places) // 2
        self._given = (len(wide), max(wide), relu, ctypes.addressof(spans), at, at + half)
        self._inputs, self._outputs = sizes[0], sizes[-1]

    def __call__(self, x: Tensor) -> Tensor:
        """Return `[rows, outputs]` for x `[rows, inputs]` of the type of the weights. Raises
        InputError for another x."""
        if x.dim() != 2 or x.shape[1] != self._inputs or x.dtype != self._dtype:
            raise InputError(
                f"x: {x.dtype} of shape {tuple(x.shape)}, expected {self._dtype} of shape "
                f"(rows, {self._inputs})"
            )
        x = x.contiguous()
        y = x.new_empty(len(x), self._outputs)
        self._run(Network(len(x), *self._given, x.data_ptr(), y.data_ptr()))
        return y

    def joined(
        self,
        width: int,
        x: bytes,
        one: bytes,
        other: bytes | None,
        which: bytes,
        *,
        least: float,
        most: float,
    ) -> Tensor:
        """Return e to the power of what the network gives, within -most..most, float64 `[rows,
        outputs]`, for rows that are put together here: x float32 `[rows, width]`, the logarithms of
        `one` and of `other` float64 `[rows]`, taken as at least `least` (0 where there is no
        `other`), and 1 for the one of 1, 2, ... that `which` int64 `[rows]` is, 0 for the others.

        All are handed over as bytes: of so little a copy costs less than asking where it lies. Only
        for weights of float32. Raises InputError for sizes that do not fit.
        """
        count = len(which) // 8
        sizes = [len(x), len(one), 8 * count if other is None else len(other), len(which)]
        room = 0 < width <= self._inputs - 2
        if (
            self._dtype != torch.float32
            or not room
            or sizes != [4 * count * width, *3 * [8 * count]]
        ):
            raise InputError(
                f"width={width}, x, one, other, which: {sizes} bytes, for weights of "
                f"{self._dtype}; expected 1 to {self._inputs - 2} numbers of float32 a row, one "
                "and other float64, which int64, and weights of float32"
            )
        y = torch.empty(count, self._outputs, dtype=torch.float64)
        call = Network(count, *self._given, x, y.data_ptr(), None, width, least, most, one, other)
        call.which = which
        self._run(call)
        return y

    def _run(self, call: Network) -> None:
        library = native._library()
        assert not isinstance(library, str)
        wide = int(self._dtype == torch.float64)
        if library.adaptive_sleep_dense(ctypes.byref(call), wide, native.level()):
            raise MemoryError("kernels.Dense: no memory for what lies between layers")


def _check(weights: Sequence[Tensor], biases: Sequence[Tensor]) -> None:
    if not weights or len(weights) != len(biases):
        raise InputError(
            f"{len(weights)} weights and {len(biases)} biases: one of each for every layer, at "
            "least one layer"
        )
    dtype = weights[0].dtype
    inputs = weights[0].shape[-1]
    for layer, (w, b) in enumerate(zip(weights, biases, strict=True)):
        shapes = w.dim() == 2 and w.shape[1] == inputs and b.shape == w.shape[:1]
        types = w.dtype == b.dtype == dtype and dtype in (torch.float32, torch.float64)
        if not (shapes and types):
            raise InputError(
                f"layer {layer}: weights {w.dtype} {tuple(w.shape)}, biases {b.dtype} "
                f"{tuple(b.shape)}; expected (out, {inputs}) and (out,), all float32 or all float64"
            )
        inputs = len(w)


def _padded(x: Tensor, size: int) -> Tensor:
    """A copy of x with zeros behind, up to `size` numbers in its last dimension."""
    return F.pad(x, (0, size - x.shape[-1])).contiguous().clone()
