"""A recorded task is replayed as any recording is: to the same bytes, also after a stop."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from run_cases import POLICY, SWITCH, WINDOW, lasting, make_series, token_model

from adaptive_sleep.answering import answer
from adaptive_sleep.config import ModelConfig
from adaptive_sleep.experiments.controls import prescribed, shuffled, slept_windows
from adaptive_sleep.experiments.live import run_live
from adaptive_sleep.experiments.replay import replay
from adaptive_sleep.experiments.runs import open_run
from adaptive_sleep.model import Model
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.recording import Recording
from adaptive_sleep.streams.tasks.recorded import GAP_SECONDS, record
from adaptive_sleep.streams.tasks.registry import make_task

TASK = make_task("hops", nodes=8, max_hops=3)
SAMPLES = 24
CUT: dict[str, Any] = {"gap_seconds": GAP_SECONDS, "commit_every": 5}


@pytest.fixture(scope="module")
def answering() -> Model:
    torch.manual_seed(0)
    space = TASK.space
    config = ModelConfig(
        kind="tokens", vocabulary=space.vocabulary, fields=space.fields, answers=space.answers,
        width=8, heads=2, fast_heads=1, key_dim=4, value_dim=4, window=space.window,
        sleep_attention="bidirectional",
    )  # fmt: skip
    return Model(config).eval()


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    path = tmp_path_factory.mktemp("recordings") / "task"
    return record(TASK, path, samples=SAMPLES, seed=1, part="test", streams=3)


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, task: Recording, answering: Model
) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    replay(task, answering, POLICY, out, **CUT)
    return out


def test_the_same_again_gives_the_same_trace(
    undisturbed: Path, task: Recording, answering: Model, tmp_path: Path
) -> None:
    again = replay(task, answering, POLICY, tmp_path / "again", **CUT)
    assert again.trace_sha256 == open_run(undisturbed).trace_sha256
    assert lasting(tmp_path / "again") == lasting(undisturbed)
    trace = open_run(undisturbed).trace().collect()
    assert trace["tokens"].to_list().count(9) == trace["tokens"].to_list().count(8) == SAMPLES
    assert (trace["scored"] > 0).sum() == SAMPLES
    assert trace.filter(pl.col("scored") == 0)["passes"].n_unique() > 1


def test_the_shuffled_control_spends_the_same_passes(
    undisturbed: Path, task: Recording, answering: Model, tmp_path: Path
) -> None:
    """Windows of questions take no part in it: their one pass is not the policy's."""
    trace = open_run(undisturbed).trace()
    run = replay(task, answering, shuffled(trace, seed=0), tmp_path / "run", **CUT)
    slept = [
        t.filter(pl.col("scored") == 0).select("stream", "window", "passes").collect()
        for t in (trace, open_run(tmp_path / "run").trace())
    ]
    assert sorted(slept[0]["passes"]) == sorted(slept[1]["passes"])
    assert not slept[0].equals(slept[1])
    before = open_run(undisturbed).summary
    assert before is not None
    assert run.sleep_flops_per_event == before.sleep_flops_per_event


def test_a_stopped_replay_goes_on_to_the_same_bytes(
    undisturbed: Path, task: Recording, answering: Model, tmp_path: Path
) -> None:
    SWITCH["raise"] = RuntimeError("stop")
    with pytest.raises(RuntimeError, match="stop"):
        replay(task, answering, POLICY, tmp_path / "run", **CUT)
    SWITCH["raise"] = None
    assert 0 < len(open_run(tmp_path / "run").positions) < len(open_run(undisturbed).positions)
    replay(task, answering, POLICY, tmp_path / "run", resume=True, **CUT)
    assert lasting(tmp_path / "run") == lasting(undisturbed)


def test_the_predictions_are_the_answers_of_a_batch(answering: Model, tmp_path: Path) -> None:
    """Every sample in a stream of its own, so that all start from nothing, as they do there."""
    given: dict[str, Any] = {"samples": SAMPLES, "seed": 1, "part": "test", "streams": SAMPLES}
    apart, file = record(TASK, tmp_path / "apart", **given), tmp_path / "predictions.parquet"
    summary = replay(apart, answering, "fixed(2)", tmp_path / "run", predictions=file, **CUT)
    batch = TASK.sample(np.random.default_rng(1), SAMPLES, part="test")
    with torch.no_grad():
        found = answer(answering, batch, 2)[0]
    number = pl.col("stream").str.strip_prefix("s").cast(pl.Int64)
    frame = pl.read_parquet(file).sort(number, "time")
    assert frame["target"].to_list() == found.targets.tolist()
    assert frame["answer"].to_list() == found.logits.argmax(-1).tolist()
    log_p = found.logits.log_softmax(-1).gather(-1, found.targets[:, None])[:, 0]
    np.testing.assert_allclose(frame["logprob"].to_numpy(), log_p.numpy(), atol=1e-6)
    assert summary.loss == pytest.approx(float(found.loss()), rel=1e-6)
    trace = open_run(tmp_path / "run").trace().filter(pl.col("scored") > 0).collect()
    exact = dict(zip(trace["stream"], trace["right"] == trace["scored"], strict=True))
    assert [exact[f"s{i}"] for i in range(SAMPLES)] == found.right(SAMPLES).tolist()
    hits = (frame["target"] == frame["answer"]).sum()
    assert trace["right"].sum() == hits


def test_a_model_of_next_tokens_reads_it_without_what_is_asked(
    task: Recording, tmp_path: Path
) -> None:
    model = token_model()
    larger = Model(
        ModelConfig(
            kind="tokens", vocabulary=TASK.space.vocabulary, width=8, heads=2, fast_heads=1,
            key_dim=4, value_dim=4, window=WINDOW,
        )
    ).eval()  # fmt: skip
    with pytest.raises(InputError, match=f"vocabulary={TASK.space.vocabulary}"):
        replay(task, model, "fixed(1)", tmp_path / "none", **CUT)
    replay(task, larger, "fixed(1)", tmp_path / "run", **CUT)
    assert open_run(tmp_path / "run").trace().collect()["right"].null_count() > 0


def test_in_a_trace_that_does_not_say_what_was_asked_the_scored_windows_were(
    undisturbed: Path,
) -> None:
    trace = open_run(undisturbed).trace().collect()
    old = trace.with_columns(asked=pl.lit(None, pl.Int64))
    wanted = trace.filter(pl.col("asked") == 0)
    assert 0 < len(wanted) < len(trace)
    for table in (trace, old):
        kept = slept_windows(table.lazy()).collect()
        assert kept.drop("asked").equals(wanted.drop("asked"))
    assert prescribed(trace).sha256 == prescribed(trace.drop("asked")).sha256


def test_what_an_answering_model_cannot_do_is_refused(
    task: Recording, answering: Model, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="keep=None: eviction='heaviest'"):
        replay(task, answering, "fixed(1)", tmp_path / "a", eviction="heaviest", **CUT)
    with pytest.raises(InputError, match="no next event to forecast"):
        run_live([], answering, "fixed(1)", out=tmp_path / "b")
    assert not list(tmp_path.iterdir())


def test_a_run_that_is_older_than_a_column_is_read_and_resumed(
    model: Model, tmp_path: Path
) -> None:
    """Traces did not always say how many answers were given and right."""
    recording, out = make_series(tmp_path / "recording"), tmp_path / "run"
    whole = replay(recording, model, POLICY, tmp_path / "whole", commit_every=5)
    SWITCH["raise"] = RuntimeError("stop")
    with pytest.raises(RuntimeError, match="stop"):
        replay(recording, model, POLICY, out, commit_every=5)
    SWITCH["raise"] = None
    for folder in sorted((out / "commits").iterdir()):
        trace = pl.read_parquet(folder / "trace.parquet").drop("right", "asked")
        trace.write_parquet(folder / "trace.parquet")
        _sign(folder)
    replay(recording, model, POLICY, out, commit_every=5, resume=True)
    trace = open_run(out).trace().collect()
    assert trace.equals(pl.read_parquet(whole.trace))


def _sign(folder: Path) -> None:
    """Make the commit in `folder` say that its trace is what it should be."""
    commit = json.loads((folder / "commit.json").read_text())
    data = (folder / "trace.parquet").read_bytes()
    commit["files"]["trace.parquet"] = hashlib.sha256(data).hexdigest()
    (folder / "commit.json").write_text(json.dumps(commit))
