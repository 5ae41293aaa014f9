"""A replay is what its recording, model, policy and seed say, whatever happens on the way."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from run_cases import (
    POLICY,
    SWITCH,
    WINDOW,
    Fragile,
    contents,
    lasting,
    make_series,
    make_tokens,
    token_model,
)

from adaptive_sleep.experiments import replay as replaying
from adaptive_sleep.experiments.replay import Progress, replay
from adaptive_sleep.experiments.runs import open_run
from adaptive_sleep.model import Model
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.events import Events, Piece
from adaptive_sleep.streams.recording import Recording


def test_the_summary_is_what_the_trace_says(whole: Path, recording: Recording) -> None:
    run = open_run(whole)
    assert run.summary is not None
    trace = run.trace().collect()
    scored = trace.filter(pl.col("scored") > 0)
    assert run.summary.loss == pytest.approx(
        (scored["loss"] * scored["scored"]).sum() / scored["scored"].sum()
    )
    assert run.summary.mean_passes == pytest.approx(trace["passes"].mean())
    assert run.summary.windows == len(trace)
    assert run.summary.events == recording.rows == trace["tokens"].sum()
    flops = trace.select(pl.col("^.*_flops$")).sum().sum_horizontal()[0]
    assert run.summary.flops_per_event == pytest.approx(flops / recording.rows)
    assert run.summary.sleep_flops_per_event == trace["sleep_flops"].sum() / recording.rows
    assert trace["passes"].n_unique() > 1
    assert pl.read_parquet(run.summary.trace).equals(trace)
    timings = run.timings().collect()
    assert timings["events"].sum() == recording.rows
    assert timings["windows"].sum() == len(trace)
    assert run.summary.longest_stall == timings["sleep"].max()
    named = json.loads(run.summary.to_json())
    assert {
        "loss", "mean_passes", "events", "windows", "flops_per_event", "seconds", "wake_p50",
        "wake_p99", "longest_stall", "trace", "trace_sha256",
    } <= named.keys()  # fmt: skip


def test_it_commits_as_it_goes_and_keeps_one_state(whole: Path) -> None:
    run = open_run(whole)
    assert len(run.positions) > 5
    steps = [position.steps for position in run.positions]
    assert steps[:-1] == list(range(5, steps[-1], 5))
    assert run.last is not None
    assert sorted(whole.rglob("state.*")) == sorted(run.last.glob("state.*")) != []
    run.verify()


def test_the_same_again_gives_the_same_bytes(
    whole: Path, recording: Recording, model: Model, tmp_path: Path
) -> None:
    replay(recording, model, Fragile(20), tmp_path / "again", commit_every=5)
    assert lasting(tmp_path / "again") == lasting(whole)


def test_labels_change_nothing(whole: Path, model: Model, tmp_path: Path) -> None:
    unlabelled = make_series(tmp_path / "unlabelled", labels=0)
    replay(unlabelled, model, POLICY, tmp_path / "run", commit_every=5)
    assert lasting(tmp_path / "run") == lasting(whole)


def test_channels_are_found_by_name(whole: Path, model: Model, tmp_path: Path) -> None:
    turned = make_series(tmp_path / "turned", order=("fan", "heat", "phase", "load"))
    summary = replay(turned, model, POLICY, tmp_path / "run", commit_every=5)
    assert summary.trace_sha256 == open_run(whole).trace_sha256


def test_speed_changes_nothing_but_the_clock(
    whole: Path, recording: Recording, model: Model, tmp_path: Path
) -> None:
    began = time.monotonic()
    paced = replay(recording, model, POLICY, tmp_path / "paced", commit_every=5, speed=100.0)
    took = time.monotonic() - began
    assert took >= 0.95 * (recording.rows - 1) / 4 / 100
    assert lasting(tmp_path / "paced") == lasting(whole)
    assert paced.seconds < took  # waiting is not work


@pytest.mark.parametrize(
    "error", [RuntimeError("no"), KeyboardInterrupt()], ids=["error", "ctrl-c"]
)
def test_what_a_policy_raises_leaves_the_run_resumable(
    whole: Path, recording: Recording, model: Model, tmp_path: Path, error: BaseException
) -> None:
    SWITCH["raise"] = error
    with pytest.raises(type(error)):
        replay(recording, model, POLICY, tmp_path / "run", commit_every=5)
    run = open_run(tmp_path / "run")
    assert run.summary is None
    assert not run.manifest.finished
    assert 0 < len(run.positions) < len(open_run(whole).positions)
    SWITCH["raise"] = None
    replay(recording, model, POLICY, tmp_path / "run", commit_every=5, resume=True)
    assert lasting(tmp_path / "run") == lasting(whole)


def test_a_finished_run_resumes_to_its_summary(
    whole: Path, recording: Recording, model: Model
) -> None:
    before = contents(whole)
    summary = replay(recording, model, POLICY, whole, commit_every=5, resume=True)
    assert summary == open_run(whole).summary
    assert contents(whole) == before


def test_resume_of_nothing_begins(
    whole: Path, recording: Recording, model: Model, tmp_path: Path
) -> None:
    (tmp_path / "run" / "commits").mkdir(parents=True)  # what a kill in the first moment leaves
    (tmp_path / "run" / "run.json.tmp").write_text("{")
    replay(recording, model, POLICY, tmp_path / "run", commit_every=5, resume=True)
    assert lasting(tmp_path / "run") == lasting(whole)


def test_predictions_are_kept_and_change_nothing_else(
    whole: Path, recording: Recording, model: Model, tmp_path: Path
) -> None:
    file = tmp_path / "predictions.parquet"
    summary = replay(recording, model, POLICY, tmp_path / "run", commit_every=5, predictions=file)
    assert summary.trace_sha256 == open_run(whole).trace_sha256
    frame = pl.read_parquet(file)
    assert {"stream", "time", "load", "load_mean", "load_q10", "heat_q90"} <= set(frame.columns)
    values = frame.select(pl.col("load", "heat").count()).sum_horizontal()[0]
    assert values == open_run(whole).trace().select("scored").sum().collect().item()
    file.unlink()
    given_ = {"commit_every": 5, "predictions": file, "resume": True}
    replay(recording, model, POLICY, tmp_path / "run", **given_)  # type: ignore[arg-type]
    assert pl.read_parquet(file).equals(frame)
    replay(recording, model, POLICY, tmp_path / "run", **given_)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="exists already"):
        replay(recording, model, POLICY, tmp_path / "other", predictions=file)
    file.write_text("mine")
    with pytest.raises(InputError, match="exists already, and is not what this run writes"):
        replay(recording, model, POLICY, tmp_path / "run", **given_)  # type: ignore[arg-type]
    assert file.read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"run", "predictions.parquet"}
    replay(recording, model, POLICY, tmp_path / "csv", predictions=tmp_path / "p.csv")
    assert len(pl.read_csv(tmp_path / "p.csv")) == len(frame)


def test_a_resume_of_nothing_leaves_the_file_of_another(
    recording: Recording, model: Model, tmp_path: Path
) -> None:
    (tmp_path / "mine.csv").write_text("mine")
    given: dict[str, Any] = {"predictions": tmp_path / "mine.csv", "resume": True}
    with pytest.raises(InputError, match=r"predictions=.*exists already"):
        replay(recording, model, POLICY, tmp_path / "run", **given)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.csv"]
    assert (tmp_path / "mine.csv").read_text() == "mine"


@pytest.mark.parametrize("eviction", ["hard", "sliding"])
def test_gaps_and_the_kv_budget_close_windows_and_resume(
    model: Model, tmp_path: Path, eviction: str
) -> None:
    recording = make_series(tmp_path / "recording", gap_after=150)
    given: dict[str, Any] = {"gap_seconds": 60.0, "kv_budget": 12, "eviction": eviction}
    given |= {"commit_every": 3}
    whole = replay(recording, model, POLICY, tmp_path / "whole", **given)
    trace = open_run(tmp_path / "whole").trace().collect()
    assert {"length", "gap", "pressure", "end"} == set(trace["cause"])
    assert trace["tokens"].sum() == recording.rows
    assert trace["tokens"].max() <= WINDOW
    SWITCH["raise"] = RuntimeError("stop")
    with pytest.raises(RuntimeError, match="stop"):
        replay(recording, model, POLICY, tmp_path / "run", **given)
    SWITCH["raise"] = None
    again = replay(recording, model, POLICY, tmp_path / "run", **given, resume=True)
    assert again.trace_sha256 == whole.trace_sha256
    assert lasting(tmp_path / "run") == lasting(tmp_path / "whole")


def test_part_of_a_recording(recording: Recording, model: Model, tmp_path: Path) -> None:
    told: list[Progress] = []
    part = replay(
        recording, model, "fixed(1)", tmp_path / "a", start=0.25, stop=0.75, on_progress=told.append
    )
    rows = replay(recording, model, "fixed(1)", tmp_path / "b", start=100, stop=300)
    assert part.events == 200
    assert part.trace_sha256 == rows.trace_sha256
    assert told[-1].rows == told[-1].total == 200
    assert told[-1].windows == part.windows


def test_tokens(tmp_path: Path) -> None:
    recording = make_tokens(tmp_path / "tokens")
    file = tmp_path / "p.parquet"
    summary = replay(recording, token_model(), "fixed(2)", tmp_path / "run", predictions=file)
    frame = pl.read_parquet(file)
    assert summary.loss == pytest.approx(-frame["logprob"].mean(), rel=1e-6)  # type: ignore[operator]
    assert len(frame) == recording.rows - 1
    assert summary.mean_passes == 2.0


def test_a_wait_is_never_longer_than_the_system_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    now, longest = 0.0, 0.0

    def sleep(seconds: float) -> None:
        nonlocal now, longest
        longest = max(longest, seconds)
        now += seconds * 1e12  # so that the test ends

    monkeypatch.setattr(replaying.time, "sleep", sleep)
    monkeypatch.setattr(replaying.time, "monotonic", lambda: now)
    clock = replaying._Clock(replaying.SLOWEST)
    times = np.array([-9 * 10**18, 9 * 10**18])
    clock.wait([Piece("a", Events(times[:1], tokens=np.zeros(1, np.int64)))])
    waited = clock.wait([Piece("a", Events(times[1:], tokens=np.zeros(1, np.int64)))])
    assert waited == pytest.approx(18e15)
    assert 0 < longest <= threading.TIMEOUT_MAX
