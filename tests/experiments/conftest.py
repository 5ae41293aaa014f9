"""What tests of replays share: a model, a recording, and a run of both that nothing disturbed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from run_cases import POLICY, SWITCH, make_series, series_model

from adaptive_sleep.experiments.replay import replay
from adaptive_sleep.model import Model
from adaptive_sleep.streams.recording import Recording


@pytest.fixture(scope="module")
def model() -> Model:
    return series_model()


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    return make_series(tmp_path_factory.mktemp("recordings") / "series")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, recording: Recording, model: Model) -> Path:
    """A run that nothing disturbed."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    replay(recording, model, POLICY, out, commit_every=5)
    return out


@pytest.fixture(autouse=True)
def _calm() -> Iterator[None]:
    SWITCH["raise"] = None
    yield
    SWITCH["raise"] = None
