"""The log of a live run that nobody keeps: its figures are added up, and its commits forgotten.

What is kept is in commits.py. Memory grows by 8 bytes a step (for the quantiles of wake seconds)
and by the hash of a trace shard a commit; no file is written.
"""

from __future__ import annotations

import hashlib
from array import array
from pathlib import Path
from typing import Any

import numpy as np

from adaptive_sleep.config import ModelConfig
from adaptive_sleep.experiments.commits import Log, as_parquet, summarised, summed
from adaptive_sleep.experiments.runs import Manifest, RecordingRef, Run, RunSummary, hash_of_shards
from adaptive_sleep.ledger import Ledger
from adaptive_sleep.runtime import Runtime


class Tally(Log):
    """Takes in steps as a `Log` does, and has the figures that `finish` finds in a run folder."""

    def __init__(self, manifest: Manifest, config: ModelConfig) -> None:
        super().__init__(Run(Path(), manifest, ()), config)
        self._sums: tuple[Any, ...] = (0, 0, 0, 0.0, 0)
        self._total = self._stall = 0.0
        self._wakes = array("d")
        self._shards: list[str] = []

    def commit(self, runtime: Runtime, row: int, windower: dict[str, Any]) -> None:
        """Add up all since the last commit, and forget it."""
        frames = self._frames()
        sums = summed(frames["trace"].lazy()).collect().row(0)
        self._sums = tuple(a + b for a, b in zip(self._sums, sums, strict=True))
        for step in self._timings:
            self._wakes.append(step["wake"])
            self._total += step["total"]
            self._stall = max(self._stall, step["sleep"])
        self._shards.append(hashlib.sha256(as_parquet(frames["trace"])).hexdigest())
        self.commits += 1
        self._start()

    def finish(self, ledger: Ledger, recording: RecordingRef | None = None) -> RunSummary:
        """The figures of all that was committed; no trace is left to read, but its hash is told."""
        wakes = np.frombuffer(self._wakes) if self._wakes else np.zeros(1)
        p50, p99 = np.quantile(wakes, (0.5, 0.99)).tolist()
        seconds = (self._total, p50, p99, self._stall)
        told = ("", hash_of_shards(self._shards))
        windows, passes, planned, lost, predictions = self._sums
        return summarised(ledger, (windows, passes, planned, lost, predictions), seconds, told)
