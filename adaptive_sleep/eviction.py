"""What attention holds of a stream, and what of it outlives a boundary.

`hard` drops all of it; `sliding` keeps the last positions, of which a query sees as many;
`heaviest` keeps those that the window read last looked at most, for each head by itself, as H2O
(arXiv 2306.14048) and SnapKV (arXiv 2404.14469) do.
"""

from __future__ import annotations

import typing
from dataclasses import dataclass

import torch

from adaptive_sleep.attention import CPU, KVCache, empty_cache
from adaptive_sleep.config import Eviction, ModelConfig
from adaptive_sleep.streams.errors import InputError, nearest

EVICTIONS: tuple[str, ...] = typing.get_args(Eviction)


@dataclass(frozen=True)
class Holding:
    """What attention holds of one stream at most: `events`, and `slots` positions, of which a query
    sees `reach` (None: all) and `kept` outlive a boundary."""

    eviction: Eviction
    events: int
    slots: int
    reach: int | None
    kept: int

    def nothing(
        self, config: ModelConfig, streams: int, device: torch.device = CPU
    ) -> KVCache | None:
        """What streams hold that have seen nothing; None where nothing outlives a boundary."""
        return self.ready(empty_cache(config, streams, device)) if self.kept else None

    def ready(self, cache: KVCache) -> KVCache:
        """A cache that the next window is read behind: what that window looks at is counted from
        here on, where it decides what is kept."""
        return cache.counting() if self.eviction == "heaviest" else cache

    def after(self, cache: KVCache | None, new: KVCache) -> KVCache | None:
        """What outlives the boundary of a window that left `new` behind `cache`."""
        if cache is None:
            return None
        grown = cache.extended(new, self.slots)
        return self.ready(grown.heaviest(self.kept)) if self.eviction == "heaviest" else grown


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
    return Holding(eviction, events + window, kept + places, None, kept)


def _check(config: ModelConfig, eviction: str, keep: int | None, window: int) -> None:
    """Refuse what a model cannot run under, naming field, value and repair."""
    if eviction not in EVICTIONS:
        words = " or ".join(repr(word) for word in EVICTIONS)
        raise InputError(f"eviction={eviction!r}: {words}{nearest(str(eviction), EVICTIONS)}")
    if eviction == "hard":
        if keep is not None:
            raise InputError(f"keep={keep}: eviction='hard' keeps nothing; leave it out")
        return
    if config.positions in ("learned", "relative"):
        raise InputError(
            f"eviction={eviction!r}: positions={config.positions!r} restart at every window; "
            "use eviction='hard' or a model with rotary positions"
        )
    if eviction == "sliding" and keep is not None and keep < window:
        raise InputError(f"keep={keep}: at least the {window} events of a window")
    if eviction == "heaviest" and (keep is None or keep < 1):
        raise InputError(f"keep={keep}: eviction='heaviest' keeps a number of events, at least 1")
    if eviction == "heaviest" and not config.answers:
        raise InputError(
            "eviction='heaviest': a window must be read whole before it is known what it looked "
            "at; use it for a model with answers, or eviction='sliding'"
        )
