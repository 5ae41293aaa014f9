"""What attention holds of a stream, and what of it outlives a boundary.

`hard` drops all of it; `sliding` keeps the last positions, of which a query sees as many;
`heaviest` keeps those that the window read last looked at most, for each head by itself, as H2O
(arXiv 2306.14048) and SnapKV (arXiv 2404.14469) do; `retrieve` stores the last positions, of which
each query of each head searches all and brings back the few that it scores highest, as Memorizing
Transformers (arXiv 2203.08913) do.
"""

from __future__ import annotations

import typing
from dataclasses import dataclass, replace

import numpy as np
import torch

from adaptive_sleep.attention import CPU, KVCache, empty_cache
from adaptive_sleep.config import Eviction, ModelConfig
from adaptive_sleep.ledger import IntArray, past_pairs
from adaptive_sleep.streams.errors import InputError, nearest

EVICTIONS: tuple[str, ...] = typing.get_args(Eviction)
BROUGHT = 32  # stored events that a query brings back, as lucidrains/memorizing-transformers does


@dataclass(frozen=True)
class Holding:
    """What attention holds of one stream at most: `events`, and `slots` positions, of which a query
    sees `reach` (None: all) and `kept` outlive a boundary. Of those that did a query attends to
    the `brought` that it scores highest (None: to all that it sees)."""

    eviction: Eviction
    events: int
    slots: int
    reach: int | None
    kept: int
    brought: int | None = None

    def nothing(
        self, config: ModelConfig, streams: int, device: torch.device = CPU
    ) -> KVCache | None:
        """What streams hold that have seen nothing; None where nothing outlives a boundary."""
        return self.ready(empty_cache(config, streams, device)) if self.kept else None

    def ready(self, cache: KVCache) -> KVCache:
        """A cache that the next window is read behind: what that window looks at is counted from
        here on, where it decides what is kept, and how many a query brings back is said."""
        if self.eviction == "heaviest":
            return cache.counting()
        return cache if self.brought is None else replace(cache, brought=self.brought)

    def after(self, cache: KVCache | None, new: KVCache) -> KVCache | None:
        """What outlives the boundary of a window that left `new` behind `cache`."""
        if cache is None:
            return None
        if self.eviction == "heaviest":
            return self.ready(cache.extended(new, self.slots).heaviest(self.kept))
        return cache.extended(new, self.kept)

    def pairs(self, held: IntArray, new: IntArray) -> tuple[IntArray, IntArray]:
        """Pairs of `new` positions with the `held` ones before them (each int64 `[n]`): those that
        are attended to, and those that are only searched."""
        if self.brought is None:
            return past_pairs(held, new, self.reach), np.zeros_like(new)
        brought = np.minimum(held, self.brought)
        return brought * new, (held - brought) * new


def holding(
    config: ModelConfig, eviction: Eviction, keep: int | None = None, window: int | None = None
) -> Holding:
    """What attention holds under an eviction; `keep` events outlive a boundary (sliding: default
    the window), and `window` closes a window (default the model's). Raises InputError."""
    window = config.window if window is None else window
    _check(config, eviction, keep, window)
    places = -(-window // config.patch)
    if eviction == "hard":
        return Holding(eviction, window, places, None, 0)
    events = window if keep is None else keep
    kept = -(-events // config.patch)
    if eviction == "sliding":
        return Holding(eviction, events, kept, kept, kept)
    brought = BROUGHT if eviction == "retrieve" else None
    return Holding(eviction, events + window, kept + places, None, kept, brought)


_WHOLE = {  # why these are for windows that are run whole
    "heaviest": "a window must be read whole before it is known what it looked at",
    "retrieve": "what is stored is searched by windows that are read whole, behind it",
}


def _check(config: ModelConfig, eviction: str, keep: int | None, window: int) -> None:
    """Refuse what a model cannot run under, naming field, value and repair."""
    if eviction not in EVICTIONS:
        words = " or ".join(repr(word) for word in EVICTIONS)
        raise InputError(f"eviction={eviction!r}: {words}{nearest(str(eviction), EVICTIONS)}")
    if eviction == "hard":
        if keep is not None:
            raise InputError(f"keep={keep}: eviction='hard' keeps nothing; leave it out")
        return
    if config.memory_tokens:
        raise InputError(
            f"eviction={eviction!r}: memory_tokens={config.memory_tokens} are all that a window "
            "leaves beside the fast weights; use eviction='hard'"
        )
    if config.positions in ("learned", "relative"):
        raise InputError(
            f"eviction={eviction!r}: positions={config.positions!r} restart at every window; "
            "use eviction='hard' or a model with rotary positions"
        )
    if eviction == "sliding" and keep is not None and keep < window:
        raise InputError(f"keep={keep}: at least the {window} events of a window")
    if eviction == "sliding":
        return
    if keep is None or keep < 1:
        raise InputError(f"keep={keep}: eviction={eviction!r} keeps a number of events, at least 1")
    if not config.answers:
        raise InputError(
            f"eviction={eviction!r}: {_WHOLE[eviction]}; use it for a model with answers, or "
            "eviction='sliding'"
        )
