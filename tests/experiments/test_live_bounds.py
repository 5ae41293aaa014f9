"""A live run holds a bounded number of events, loses none by it, and refuses what cannot be."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_cases import series_model

from adaptive_sleep.experiments import inbox
from adaptive_sleep.experiments.live import run_live
from adaptive_sleep.experiments.sources import LiveEvent
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.events import Events, Piece


def test_a_full_inbox_waits_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox, "MOST", 10)
    taken = 0

    def source() -> Iterator[LiveEvent]:
        nonlocal taken
        for taken in range(1, 101):
            yield LiveEvent("a", taken, token=taken)

    box = inbox.Inbox(source(), None, threading.Event())
    time.sleep(0.3)
    assert taken <= 11  # one may be in hand
    seen: list[int] = []
    while box.wait():
        events = box.look({}, 7, 1000)["a"]
        seen += [event.time for event in events]
        box.drop([Piece("a", Events(np.zeros(len(events), np.int64)))])
    assert seen == list(range(1, 101))
    assert box.largest <= 10


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"seconds": -1.0}, "seconds=-1"),
        ({"seconds": float("nan")}, "seconds=nan"),
        ({"out": "x", "record": "./x"}, "also the folder to record into"),
    ],
)
def test_what_cannot_be_run_is_refused(
    given: dict[str, Any], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=words):
        run_live([], series_model(), "fixed(1)", **given)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("good", [0, 3])
def test_bad_input_before_the_first_event_leaves_nothing(good: int, tmp_path: Path) -> None:
    def source() -> Iterator[LiveEvent]:
        for time_ns in range(good):
            yield LiveEvent("a", time_ns, values=(0.5, 0.5, 0.5, 0.5)[: len(model.config.inputs)])
        raise InputError("line 1: no JSON")

    model = series_model()
    with pytest.raises(InputError, match="no JSON"):
        run_live(source(), model, "fixed(1)", out=tmp_path / "run", record=tmp_path / "R")
    assert {path.name for path in tmp_path.iterdir()} == ({"run", "R"} if good else set())
