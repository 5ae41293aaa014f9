"""Fast weights: the named tree of tensors that survives eviction.

It knows how to be copied, cut by stream, compared and checked, not how it is computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from adaptive_sleep.config import ModelConfig
from adaptive_sleep.kernels import moves, relative

CPU = torch.device("cpu")
EPSILON = 1e-6  # of the relative state change (design, section 4)


@dataclass(frozen=True, eq=False)
class FastWeights:
    """One set of fast weights for a batch of streams.

    `matrices[name]` is S of a Gated DeltaNet layer, `[B, H, K, V]` float32; `tails[name]` are the
    last inputs of its short convolution, `[B, taps - 1, D]` (absent where there is none). `name` is
    the layer's index as a string. `carried` `[B, m, d]` is what memory tokens carry, None where
    there are none.
    """

    matrices: dict[str, Tensor]
    tails: dict[str, Tensor]
    carried: Tensor | None = None

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor under its full name: "matrix.1", "tail.1", "carried"."""
        for name, tensor in self.matrices.items():
            yield f"matrix.{name}", tensor
        for name, tensor in self.tails.items():
            yield f"tail.{name}", tensor
        if self.carried is not None:
            yield "carried", self.carried

    @property
    def streams(self) -> int:
        """Streams in the batch; 0 where the model has no fast weights."""
        return next((int(t.shape[0]) for _, t in self), 0)

    def select(self, rows: Tensor) -> FastWeights:
        """The streams `rows` (int64 [n]) as a new batch."""
        return self._map(lambda t: t.index_select(0, rows))

    def clone(self) -> FastWeights:
        """A copy that shares no memory."""
        return self._map(lambda t: t.clone())

    def detach(self) -> FastWeights:
        """The same values, cut from the gradient graph."""
        return self._map(lambda t: t.detach())

    def put(self, rows: Tensor, other: FastWeights) -> FastWeights:
        """A copy in which the streams `rows` are replaced by those of `other`, in order."""
        carried = self.carried
        if carried is not None:
            assert other.carried is not None
            carried = carried.index_copy(0, rows, other.carried)
        return FastWeights(
            {n: t.index_copy(0, rows, other.matrices[n]) for n, t in self.matrices.items()},
            {n: t.index_copy(0, rows, other.tails[n]) for n, t in self.tails.items()},
            carried,
        )

    def with_tails(self, other: FastWeights) -> FastWeights:
        """These with the tails of `other`."""
        return FastWeights(self.matrices, other.tails, self.carried)

    def change_since(self, before: FastWeights) -> Tensor:
        """Relative state change ||S - S_before|| / (||S|| + 1e-6) per stream, `[B]`.

        Norms are Frobenius norms over all layers and heads together (design, section 4).
        """
        found = [_squares(now, before.matrices[name]) for name, now in self.matrices.items()]
        return relative(*found, floor=EPSILON) if found else torch.zeros(0)

    def finite_streams(self) -> Tensor:
        """Boolean `[B]`: which streams hold finite values only."""
        checks = [torch.isfinite(t).flatten(1).all(1) for _, t in self]
        return torch.stack(checks).all(0)

    def _map(self, change) -> FastWeights:  # type: ignore[no-untyped-def]
        return FastWeights(
            {n: change(t) for n, t in self.matrices.items()},
            {n: change(t) for n, t in self.tails.items()},
            None if self.carried is None else change(self.carried),
        )


def _squares(now: Tensor, before: Tensor) -> Tensor:
    """Sums of squares of what moved and of what is now, `[2, B]`, of matrices `[B, H, K, V]`: head
    by head, as a pass measures it; to the bit, where K V is a multiple of 8."""
    heads = (x.flatten(0, 1).flatten(1).unsqueeze(1) for x in (now, before))
    return moves(*heads).view(2, *now.shape[:2]).sum(-1)


def empty_fast_weights(
    config: ModelConfig, streams: int, device: torch.device = CPU
) -> FastWeights:
    """Fast weights of streams that have seen nothing: all zero, float32."""
    heads, key, value = config.fast_heads, config.key_dim, config.value_dim
    names = [str(i) for i, layer in enumerate(config.layers) if layer == "deltanet"]
    mixed = heads * (2 * key + value)
    tail = max(config.conv - 1, 0)
    carried = torch.zeros(streams, config.memory_tokens, config.width, device=device)
    return FastWeights(
        {n: torch.zeros(streams, heads, key, value, device=device) for n in names},
        {n: torch.zeros(streams, tail, mixed, device=device) for n in names} if tail else {},
        carried if config.memory_tokens else None,
    )
