"""The log of the probe `events`: its recording, its parts by time, and where its alerts are."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adaptive_sleep.experiments.probes.alerts import Quiet, quiet_windows
from adaptive_sleep.experiments.probes.counts import Parts
from adaptive_sleep.experiments.probes.guesses import BoolArray, IntArray
from adaptive_sleep.experiments.probes.log_model import tokens_of
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.eventlog import record_loghub
from adaptive_sleep.streams.manifest import NAME as MANIFEST
from adaptive_sleep.streams.recording import Recording

NONE = "-"  # the label of a line that is no alert


@dataclass(frozen=True, eq=False)
class Log:
    """A log of one stream: `tokens` and `alert` `[rows]`; training rows end at `train`, the test
    begins at `test`."""

    recording: str
    sha256: str
    vocabulary: int
    tokens: IntArray
    alert: BoolArray
    train: int
    test: int

    @property
    def parts(self) -> Parts:
        """The rows of each part."""
        return Parts(self.train, self.test, len(self.tokens))

    @property
    def known(self) -> BoolArray:
        """Which test events `[n]` are of a type that occurs in the training rows."""
        return np.isin(self.tokens[self.test :], self.tokens[: self.train])

    def windows(self, window: int) -> IntArray:
        """The first rows of the windows that lie in the test part; windows count from row 0, and
        the last may be short."""
        return np.arange(-(-self.test // window) * window, len(self.tokens), window)

    def quiet(self, window: int) -> Quiet:
        """Which of these windows are quiet, before an alert begins or as usual."""
        starts = self.windows(window)
        return quiet_windows(np.array([self.alert[a : a + window].any() for a in starts]))

    def facts(self, window: int) -> dict[str, Any]:
        """What the parts hold, for a result."""
        quiet = self.quiet(window)
        return {
            "vocabulary": self.vocabulary,
            "train_events": self.train,
            "test_events": len(self.tokens) - self.test,
            "unknown_share": float(1 - self.known.mean()),
            "alert_lines": int(self.alert[self.test :].sum()),
            "windows": len(self.windows(window)),
            "window": window,
            "bursts": int(quiet.before.sum()),
            "usual": int(quiet.usual.sum()),
        }


def open_log(file: Path, out: Path, train: float, test: float) -> Log:
    """Record a structured log of loghub in `out` (anew: the file may be another), and split it at
    the shares `train` and `test` of its rows. Raises InputError for a log without `Label`."""
    if (out / MANIFEST).is_file():
        shutil.rmtree(out)
    recording = Recording.open(record_loghub(file, out))
    if not recording.labels:
        raise InputError(f"{file}: no column 'Label', which says what is an alert")
    label = recording.labels[0]
    codes = recording.scan().select(label.name).collect()[label.name].to_numpy()
    names = label.categories
    alert = codes != names.index(NONE) if NONE in names else np.ones(len(codes), dtype=np.bool_)
    vocabulary = recording.manifest.vocabulary
    assert vocabulary is not None
    rows = recording.rows
    tokens = tokens_of(recording.scan())
    ends = round(train * rows), round(test * rows)
    return Log(str(recording.path), recording.sha256, vocabulary, tokens, alert, *ends)
