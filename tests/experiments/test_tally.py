"""A live run that nobody keeps has the figures of one that is kept, and writes nothing."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from run_cases import ORIGIN, SECOND, contents, series_model

from adaptive_sleep.experiments.live import run_live
from adaptive_sleep.experiments.live_event import LiveEvent
from adaptive_sleep.experiments.runs import RunSummary, open_run
from adaptive_sleep.model import Model

TIMED = ("seconds", "wake_p50", "wake_p99", "longest_stall", "trace")


class Polite:
    """Hands out one event after the other, each when those before it have been run."""

    def __init__(self, events: list[LiveEvent]) -> None:
        self.events, self.done = events, 0

    def progress(self, events: int, windows: int) -> None:
        self.done = events
        assert not contents(Path(tempfile.gettempdir()))  # nor is anything left meanwhile

    def __iter__(self) -> Iterator[LiveEvent | None]:
        for sent, event in enumerate(self.events):
            while self.done < sent:
                yield None
            yield event


def both(model: Model, events: list[LiveEvent], folder: Path) -> list[RunSummary]:
    found = []
    for out in (folder / "run", None):
        source = Polite(events)
        found.append(
            run_live(
                source, model, "fixed(2)", out=out, commit_every=5, on_progress=source.progress
            ).run
        )
    return found


def test_figures_are_those_of_a_run_that_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    rng = np.random.default_rng(0)
    times = [ORIGIN + i * SECOND for i in range(60)]
    rows = rng.normal(size=(60, 3)).astype(np.float32)
    events = [LiveEvent(f"s{i % 2}", at, rows[i]) for i, at in enumerate(times)]
    kept, forgotten = both(series_model(), events, tmp_path)
    assert len(open_run(tmp_path / "run").positions) > 5
    assert forgotten.loss == pytest.approx(kept.loss, rel=1e-12)
    assert forgotten.trace == ""
    assert 0 < forgotten.wake_p50 <= forgotten.wake_p99
    assert 0 < forgotten.longest_stall < forgotten.seconds
    same = dict.fromkeys((*TIMED, "loss"))
    assert dataclasses.replace(kept, **same) == dataclasses.replace(forgotten, **same)  # type: ignore[arg-type]
    assert not contents(tmp_path / "temporary")


def test_nothing_came() -> None:
    run = run_live([], series_model(), "fixed(1)").run
    assert (run.events, run.windows, run.loss, run.wake_p50) == (0, 0, None, 0.0)
