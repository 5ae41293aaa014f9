"""What flows through a stream: channels, events, pieces for a step, blocks of a recording.

Data only. How it is stored is in `manifest`, `writer` and `recording`; how it is cut, in
`cutting`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .errors import InputError

Role = Literal["observed", "action", "label"]
Cause = Literal["length", "gap", "end", ""]


@dataclass(frozen=True)
class Channel:
    """One named column of a series.

    `observed` is forecast, `action` is an input known at its time, `label` is never shown to a
    model or a policy. A label's codes 0..n-1 are named by `categories`; it becomes available
    `delay_ns` nanoseconds after its event.
    """

    name: str
    role: Role = "observed"
    unit: str = ""
    categories: tuple[str, ...] = ()
    delay_ns: int = 0


@dataclass(frozen=True)
class Events:
    """Events of one stream in arrival order.

    `time` is `[n]` int64, nanoseconds UTC. A series has `values` `[n, C]` float32 (observed and
    action channels, NaN = missing); a token stream has `tokens` `[n]` int64. `targets` `[n]` int64
    are what is scored and never shown to a model or a policy: the class that is asked for at an
    event, -1 where nothing is asked, -2 where the answer is not known; None asks nothing at all.
    """

    time: NDArray[np.int64]
    values: NDArray[np.float32] | None = None
    tokens: NDArray[np.int64] | None = None
    targets: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        for name in ("values", "tokens", "targets"):
            array = getattr(self, name)
            if array is not None and len(array) != len(self.time):
                raise InputError(
                    f"{name}: {len(array)} rows, but time has {len(self.time)}; give one per event"
                )

    def __len__(self) -> int:
        return len(self.time)

    def __getitem__(self, rows: slice) -> Events:
        return Events(
            self.time[rows],
            None if self.values is None else self.values[rows],
            None if self.tokens is None else self.tokens[rows],
            None if self.targets is None else self.targets[rows],
        )


def checked_name(stream: object) -> str:
    """A stream's name as a plain str; raises InputError unless it is text that UTF-8 can hold."""
    if not isinstance(stream, str):
        raise InputError(f"stream={stream!r}: a name is a str, not {type(stream).__name__}")
    if not stream:
        raise InputError("stream '': a stream has a name")
    try:
        stream.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"stream={stream!r}: UTF-8 cannot hold this name: {error.reason}"
        ) from None
    return str.__str__(stream)  # of a subclass (np.str_, an enum) the text alone


@dataclass(frozen=True)
class Piece:
    """The next events of one stream, and whether its window closes after them.

    `events` may be empty when `closes` is true. `cause` says why it closes.
    """

    stream: str
    events: Events
    closes: bool = False
    cause: Cause = ""

    def __post_init__(self) -> None:
        """Take NumPy's text as Python's; raises InputError for a name that is no text."""
        if type(self.stream) is not str:
            object.__setattr__(self, "stream", checked_name(self.stream))


@dataclass(frozen=True)
class Block:
    """Contiguous rows of a recording, of any streams, in arrival order.

    `start` is the row offset of the first row; `stream` `[n]` indexes `Recording.streams`;
    `sequence` and `time` are `[n]` int64. `values` `[n, C]` has all channels, labels too.
    """

    start: int
    stream: NDArray[np.int64]
    sequence: NDArray[np.int64]
    time: NDArray[np.int64]
    values: NDArray[np.float32] | None = None
    tokens: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.time)
