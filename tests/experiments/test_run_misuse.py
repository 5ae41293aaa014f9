"""What Python hands over that no argument takes is answered with the field, the value and what is
allowed; what NumPy calls a number is one."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_cases import ORIGIN, SECOND, contents

from adaptive_sleep.experiments.live import run_live
from adaptive_sleep.experiments.live_event import LiveEvent
from adaptive_sleep.experiments.replay import replay
from adaptive_sleep.experiments.runs import open_run
from adaptive_sleep.model import Model
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.recording import Recording


def event(number: int) -> LiveEvent:
    return LiveEvent("a", ORIGIN + number * SECOND, np.zeros(3, np.float32))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"commit_every": 2.0}, r"commit_every=2\.0 \(float\): a whole number"),
        ({"commit_every": None}, "commit_every=None: a commit takes at least 1 step"),
        ({"commit_every": 0}, "commit_every=0: a commit takes at least 1 step"),
        ({"start": "0.5"}, r"start='0\.5': a fraction from 0\.0 to 1\.0, or a whole row number"),
        ({"start": None}, r"start=None: a fraction"),
        ({"stop": True}, r"stop=True: a fraction"),
        ({"speed": None}, "speed=None: 'max' or a multiple of real time"),
        ({"speed": [1]}, r"speed=\[1\]: 'max' or a multiple"),
        ({"speed": 10**400}, r"speed=10+: 'max' or a multiple"),
        ({"predictions": 3}, r"predictions=3 \(int\): a path"),
        ({"out": None}, r"out=None \(NoneType\): a path"),
        ({"recording": 3}, r"recording=3 \(int\): a path"),
        ({"window": 0}, "^window=0: 1 to 8"),
        ({"gap_seconds": 1e300}, r"gap_seconds=1e\+300: above 0 and at most 1e\+18"),
        ({"gap_seconds": 10**400}, r"gap_seconds=10+: above 0 and at most 1e\+18"),
    ],
)
def test_a_replay_names_what_it_cannot_take(
    recording: Recording, model: Model, tmp_path: Path, given: dict[str, Any], told: str
) -> None:
    arguments: dict[str, Any] = {"recording": recording, "out": tmp_path / "run"} | given
    with pytest.raises(InputError, match=told):
        replay(model=model, policy="fixed(2)", **arguments)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("number", [np.float64(2.5), np.float32(2.5), np.int64(3)], ids=repr)
def test_a_gap_may_be_a_number_of_numpy(
    recording: Recording, model: Model, tmp_path: Path, number: Any
) -> None:
    replay(recording, model, "fixed(2)", tmp_path / "run", gap_seconds=number, commit_every=5)
    replay(recording, model, "fixed(2)", tmp_path / "own", gap_seconds=number.item())
    found, own = (open_run(tmp_path / name) for name in ("run", "own"))
    assert found.trace().collect().equals(own.trace().collect())
    again = replay(
        recording, model, "fixed(2)", tmp_path / "run", gap_seconds=number, commit_every=5,
        resume=True,
    )  # fmt: skip
    assert again == found.summary


def test_a_replay_below_a_file_is_refused(
    recording: Recording, model: Model, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    for out in (tmp_path / "file" / "run", tmp_path / "file" / "runs" / "run"):
        with pytest.raises(InputError, match=r"^out=.*: cannot be made there: "):
            replay(recording, model, "fixed(2)", out)


@pytest.mark.parametrize(
    "source", [Path("x.ndjson"), None, 3, event(0)], ids=["path", "none", "number", "event"]
)
def test_what_is_no_source_is_named(model: Model, tmp_path: Path, source: Any) -> None:
    told = rf"^source=.* \({type(source).__name__}\): 'host' .*'-' .*LiveEvents"
    with pytest.raises(InputError, match=told):
        run_live(source, model, "fixed(2)", out=tmp_path / "run", record=tmp_path / "record")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"commit_every": 0}, "commit_every=0: a commit takes at least 1 step"),
        ({"gap_seconds": 1e300}, r"gap_seconds=1e\+300: above 0"),
        ({"out": 3}, r"out=3 \(int\): a path"),
        ({"record": 3}, r"record=3 \(int\): a path"),
    ],
)
def test_a_live_run_refuses_what_a_replay_does(
    model: Model, tmp_path: Path, given: dict[str, Any], told: str
) -> None:
    events = map(event, itertools.count())
    with pytest.raises(InputError, match=told):
        run_live(events, model, "fixed(2)", **({"out": tmp_path / "run"} | given))
    assert not any(tmp_path.iterdir())


def test_a_live_run_is_not_said_to_be_resumable(
    recording: Recording, model: Model, tmp_path: Path
) -> None:
    run_live([event(0)], model, "fixed(2)", out=tmp_path / "run")
    before = contents(tmp_path)
    with pytest.raises(InputError, match="a live run, which cannot be resumed; choose another"):
        replay(recording, model, "fixed(2)", tmp_path / "run", resume=True)
    assert contents(tmp_path) == before
