"""The store of every stream's state: one tensor per quantity, one row per stream.

Reads copy, writes keep an undo journal until they are committed: a step either happens or does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from adaptive_sleep.config import ModelConfig
from adaptive_sleep.eviction import Holding

Rows = dict[str, Tensor]


@dataclass(eq=False)
class _Journal:
    """Old rows of every write since the last commit, in order, and the stream names before it."""

    writes: list[tuple[Tensor, Rows]] = field(default_factory=list)
    rows: dict[str, int] | None = None


class Arena:
    """State of many streams. Row 0 of every tensor is the blank state of a stream never seen."""

    def __init__(self, blank: Rows) -> None:
        """blank: the state of a fresh stream, every tensor with a leading axis of 1.

        What is stored is made outside `torch.inference_mode`, in which the caller may be for one
        step and not for the next.
        """
        with torch.inference_mode(False):
            self.tensors: Rows = {n: t.clone() for n, t in blank.items()}
        self.rows: dict[str, int] = {}
        self._journal = _Journal()

    def like(self) -> Arena:
        """A store of the same quantities, of streams that have seen nothing."""
        return Arena({name: tensor[:1] for name, tensor in self.tensors.items()})

    @property
    def names(self) -> list[str]:
        """Streams in the order of their rows."""
        return sorted(self.rows, key=self.rows.__getitem__)

    def index(self, streams: Sequence[str]) -> Tensor:
        """Rows of `streams`, int64 [n]; unknown streams get a blank row."""
        fresh = list(dict.fromkeys(s for s in streams if s not in self.rows))
        if fresh:
            self._grow(len(self.rows) + len(fresh) + 1)
            if self._journal.rows is None:
                self._journal.rows = self.rows
            start = len(self.rows) + 1
            self.rows = self.rows | {s: start + i for i, s in enumerate(fresh)}
        return torch.tensor([self.rows[s] for s in streams], dtype=torch.int64)

    def gather(self, index: Tensor, names: Sequence[str], size: int | None = None) -> Rows:
        """Copies of the named tensors for the rows `index`; `size` cuts their second axis."""
        found = {n: self.tensors[n] for n in names}
        if size is not None:
            found = {n: t[:, :size] for n, t in found.items()}
        return {n: t.index_select(0, index) for n, t in found.items()}

    def scatter(self, index: Tensor, values: Mapping[str, Tensor]) -> None:
        """Write rows; a value with a shorter second axis leaves the rest of the row as it was."""
        old: Rows = {}
        for name, value in values.items():
            target = self._target(name, value)
            old[name] = target.index_select(0, index)
        self._journal.writes.append((index, old))
        for name, value in values.items():
            self._target(name, value).index_copy_(0, index, value.to(self.tensors[name].dtype))

    def commit(self) -> None:
        """Make all writes since the last commit final."""
        self._journal = _Journal()  # one assignment: an interrupt finds all of it or none

    def rollback(self) -> None:
        """Undo all writes since the last commit. Safe to repeat if it is interrupted."""
        for index, old in reversed(self._journal.writes):
            for name, value in old.items():
                self._target(name, value).index_copy_(0, index, value)
        before = self._journal.rows
        if before is not None:
            gone = [r for s, r in self.rows.items() if s not in before]
            for tensor in self.tensors.values():
                tensor[gone] = tensor[0].clone()
            self.rows = before
        self.commit()

    def load(self, tensors: Rows, names: Sequence[str]) -> None:
        """Replace everything by saved tensors (row 0 included) and stream names in row order."""
        with torch.inference_mode(False):
            self.tensors = {n: tensors[n].clone() for n in self.tensors}
        self.rows = {s: i + 1 for i, s in enumerate(names)}
        self.commit()

    def saved(self) -> Rows:
        """The tensors without spare rows, contiguous."""
        return {n: t[: len(self.rows) + 1].contiguous() for n, t in self.tensors.items()}

    def _target(self, name: str, value: Tensor) -> Tensor:
        tensor = self.tensors[name]
        short = value.dim() > 1 and value.shape[1] < tensor.shape[1]
        return tensor[:, : value.shape[1]] if short else tensor

    def _grow(self, needed: int) -> None:
        """Make room for `needed` rows by doubling; new rows are blank."""
        have = next(iter(self.tensors.values())).shape[0]
        if needed <= have:
            return
        size = max(needed, 2 * have)
        with torch.inference_mode(False):
            self.tensors = {
                n: torch.cat([t, t[:1].expand(size - have, *t.shape[1:])])
                for n, t in self.tensors.items()
            }


# What a row holds. Names with a dot are trees: "now.matrix.1", "before.tail.1", "keys.0".
COUNTERS = (
    "window",  # index of the open window
    "open",  # events in it
    "held",  # events that attention holds, or will once their window is run whole
    "positions",  # positions of the open window
    "cached",  # positions that attention holds
    "pending",  # series: events of the unfinished patch
    "has_last",  # 1 once a position has made a forecast
    "scored",  # predictions scored in the open window (series: values; answers: 0 until it closes)
    "first_time",  # ns, of the open window
    "last_time",  # ns, of the stream
    "before_time",  # ns, last event before the open window
    "seen",  # events of the stream in all
    "wake_flops",  # of the open window
)
HELD = ("tokens", "targets", "times")  # of the events of an open window, `open` of them
SUMS = ("loss", "spread", "balance", "density_events", "density_seconds")


def blank_row(config: ModelConfig, window: int, holds: Holding) -> Rows:
    """The state of a stream that has seen nothing; `window`: events of a window at most."""
    width, places = config.width, config.window_positions
    head = (config.heads, width // config.heads)
    row: Rows = {n: torch.zeros(1, dtype=torch.int64) for n in COUNTERS}
    row |= {n: torch.zeros(1, dtype=torch.float64) for n in SUMS}
    if config.answers:  # windows are held as they came until they close
        row |= {f"waiting.{n}": torch.zeros(1, window, dtype=torch.int64) for n in HELD}
    else:
        row |= {n: torch.zeros(1, places, width) for n in ("embedded", "hidden")}
        row["last_hidden"] = torch.zeros(1, width)
    mixed = config.fast_heads * (2 * config.key_dim + config.value_dim)
    for i, layer in enumerate(config.layers):
        if layer == "attention":  # windows that are run whole hold only what outlives them
            slots = holds.kept if config.answers else holds.slots
            if slots:
                row |= {f"{n}.{i}": torch.zeros(1, slots, *head) for n in ("keys", "values")}
            continue
        for when in ("now", "before"):
            shape = (1, config.fast_heads, config.key_dim, config.value_dim)
            row[f"{when}.matrix.{i}"] = torch.zeros(shape)
            if config.conv:
                row[f"{when}.tail.{i}"] = torch.zeros(1, config.conv - 1, mixed)
    if config.memory_tokens:
        for when in ("now", "before"):
            row[f"{when}.carried"] = torch.zeros(1, config.memory_tokens, width)
    if config.kind == "series":
        channels = len(config.inputs)
        for name in ("origin", "count", "total", "squares", "last"):
            row[f"stats.{name}"] = torch.zeros(1, channels, dtype=torch.float64)
        if config.skip:
            row["stats.recent"] = torch.full((1, config.skip, channels), torch.nan)
        row["waiting.values"] = torch.full((1, config.patch, channels), torch.nan)
        row["waiting.times"] = torch.zeros(1, config.patch, dtype=torch.int64)
    return row
