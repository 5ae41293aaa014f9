"""What tests of replays share: a model, a recording, and a run of both that nothing disturbed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres_server import missing, new_database, server
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


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """A PostgreSQL server, as the URL of its databases; skipped where there is none."""
    if why := missing():
        pytest.skip(why)
    with server() as where:
        yield where


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.services)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database for studies: a file, and, marked `services`, one of a server."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/s.db"
    words = re.sub(r"\W+", "_", request.node.name).lower()
    name = f"{words[:50]}_{hashlib.sha256(words.encode()).hexdigest()[:8]}"  # 63 at the most
    return new_database(request.getfixturevalue("postgres"), name)
