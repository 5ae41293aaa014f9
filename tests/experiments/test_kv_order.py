"""With a KV budget windows are cut by the order of events alone, live or replayed."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from run_cases import ORIGIN, SECOND, WINDOW, series_model

from adaptive_sleep.experiments import replay as replaying
from adaptive_sleep.experiments.live import run_live
from adaptive_sleep.experiments.live_event import LiveEvent
from adaptive_sleep.experiments.replay import replay
from adaptive_sleep.experiments.runs import Run, open_run
from adaptive_sleep.streams.events import Channel
from adaptive_sleep.streams.writer import RecordingWriter

MODEL = series_model()
CUT = ["stream", "window", "cause", "tokens", "last_time"]


def cut(run: Run) -> list[tuple[Any, ...]]:
    return run.trace().select(CUT).sort("stream", "window").collect().rows()


def as_they_came(owners: list[int], gaps: list[bool]) -> list[LiveEvent]:
    rng = np.random.default_rng(0)
    times = ORIGIN + SECOND * np.cumsum(np.where(gaps, 100, 1))
    return [
        LiveEvent(f"s{s}", int(time), rng.normal(size=3).astype(np.float32))
        for s, time in zip(owners, times, strict=True)
    ]


def record(events: list[LiveEvent], folder: Path) -> Path:
    channels = [Channel(name) for name in MODEL.config.channels]
    channels += [Channel(name, role="action") for name in MODEL.config.actions]
    with RecordingWriter(folder, kind="series", channels=channels) as writer:
        for event in events:
            assert event.values is not None
            writer.append(event.stream, event.time, values=event.values[None])
    return folder


@settings(max_examples=12, deadline=None)
@given(data=st.data(), eviction=st.sampled_from(["hard", "sliding"]))
def test_windows_are_cut_alike_however_rows_are_batched(data: st.DataObject, eviction: str) -> None:
    count = data.draw(st.integers(20, 90))
    owners = data.draw(st.lists(st.integers(0, 3), min_size=count, max_size=count))
    gaps = data.draw(
        st.lists(st.sampled_from([False] * 15 + [True]), min_size=count, max_size=count)
    )
    budget = data.draw(st.integers(1, 3 * WINDOW))
    given_: dict[str, Any] = {"gap_seconds": 60.0, "kv_budget": budget, "eviction": eviction}
    events = as_they_came(owners, gaps)
    found = []
    with tempfile.TemporaryDirectory() as place, pytest.MonkeyPatch.context() as patch:
        recording = record(events, Path(place) / "R")
        for rows in (1, 5, 8192):
            patch.setattr(replaying, "MAX_ROWS", rows)
            out = Path(place) / f"{rows}"
            replay(recording, MODEL, "fixed(1)", out, **given_)
            found.append(cut(open_run(out)))
    assert found[0] == found[1] == found[2]
    assert all(tokens <= min(WINDOW, budget) for _, _, cause, tokens, _ in found[0])
    assert all(tokens == WINDOW for _, _, cause, tokens, _ in found[0] if cause == "length")


@pytest.mark.filterwarnings("ignore::adaptive_sleep.streams.errors.OverloadWarning")
@pytest.mark.parametrize("eviction", ["hard", "sliding"])
@pytest.mark.parametrize("every", [False, True])
def test_a_live_run_that_lags_is_cut_as_its_replay(
    eviction: str, every: bool, tmp_path: Path
) -> None:
    """All events are there at once, so that steps are as large as they can be."""
    rng = np.random.default_rng(1)
    events = as_they_came(rng.integers(4, size=300).tolist(), (rng.random(300) < 0.03).tolist())
    given_: dict[str, Any] = {"gap_seconds": 60.0, "kv_budget": 2 * WINDOW, "eviction": eviction}
    run_live(
        events, MODEL, "fixed(2)", out=tmp_path / "live", record=tmp_path / "R", every=every,
        emit=lambda said: None, **given_,
    )  # fmt: skip
    replay(tmp_path / "R", MODEL, "fixed(2)", tmp_path / "replayed", **given_)
    live, again = open_run(tmp_path / "live"), open_run(tmp_path / "replayed")
    assert cut(live) == cut(again)
    assert {"pressure", "length", "gap"} <= set(live.trace().collect()["cause"])
    spec = f"prescribed(path={str(tmp_path / 'live')!r})"
    replay(tmp_path / "R", MODEL, spec, tmp_path / "prescribed", **given_)
    ours, theirs = (
        run.trace().sort("stream", "window").select("passes", "loss").collect()
        for run in (live, open_run(tmp_path / "prescribed"))
    )
    assert ours["passes"].equals(theirs["passes"])
    assert ours["loss"].is_null().equals(theirs["loss"].is_null())
    np.testing.assert_allclose(
        ours["loss"].fill_null(0.0), theirs["loss"].fill_null(0.0), rtol=1e-4, atol=1e-6
    )


def test_a_window_is_kept_until_the_budget_needs_its_place(tmp_path: Path) -> None:
    """Two streams in turn, room for one window and a half: the longest closes when nothing fits."""
    events = as_they_came([0, 1] * 15, [False] * 30)
    recording = record(events, tmp_path / "R")
    budget = WINDOW + WINDOW // 2
    replay(recording, MODEL, "fixed(1)", tmp_path / "run", kv_budget=budget)
    trace = open_run(tmp_path / "run").trace().sort("last_time").collect()
    first = trace.filter(pl.col("cause") == "pressure").row(0, named=True)
    assert (first["stream"], first["tokens"]) == ("s0", -(-budget // 2))
    assert first["cache_pressure"] == 1.0


def test_gaps_that_show_together_close_together_where_all_fits(tmp_path: Path) -> None:
    """A budget that nothing comes near costs no step more."""
    events = as_they_came([0, 1, 2, 3] * 12, ([True] + [False] * 7) * 6)
    recording = record(events, tmp_path / "R")
    steps = []
    for budget in (None, 4 * WINDOW + len(events)):
        out = tmp_path / f"{budget}"
        replay(recording, MODEL, "fixed(2)", out, gap_seconds=60.0, kv_budget=budget)
        trace = open_run(out).trace().collect()
        steps.append((cut(open_run(out)), sorted(trace["step"])))
    assert steps[0] == steps[1]


def test_what_one_closed_window_makes_place_for_is_one_step(tmp_path: Path) -> None:
    events = as_they_came([0, 1] * 60, [False] * 120)
    recording = record(events, tmp_path / "R")
    replay(recording, MODEL, "fixed(1)", tmp_path / "run", kv_budget=WINDOW)
    trace = open_run(tmp_path / "run").trace().sort("step").collect()
    closed = len(trace.filter(pl.col("cause") == "pressure"))
    assert closed > 20
    assert trace["step"].max() <= 1.2 * closed  # two for each, if what is freed waited for the next
