"""What a live run does where the reader of its forecasts has gone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from run_cases import series_model
from test_live import Polite, live, some_events

from adaptive_sleep.experiments.runs import open_run
from adaptive_sleep.streams.recording import Recording


@pytest.mark.parametrize("every", [False, True])
def test_a_reader_that_has_gone_ends_a_run_well(every: bool, tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []

    def emit(forecast: dict[str, Any]) -> None:
        told.append(forecast)
        if len(told) == 2:
            raise BrokenPipeError

    source = Polite(some_events(200), burst=4)
    with pytest.raises(BrokenPipeError):
        live(
            source, series_model(), "fixed(1)", emit=emit, every=every,
            out=tmp_path / "run", record=tmp_path / "R",
        )  # fmt: skip
    run, recording = open_run(tmp_path / "run"), Recording.open(tmp_path / "R")
    assert len(told) == 2
    assert run.manifest.finished
    assert run.summary is not None
    assert 0 < run.summary.events == recording.rows < 200
    assert run.manifest.recording.sha256 == recording.sha256
