"""A recorded task that asks in a text is replayed with the answers that a batch gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from run_cases import POLICY, SWITCH, lasting

from adaptive_sleep.answering import go_on, unread
from adaptive_sleep.config import ModelConfig
from adaptive_sleep.experiments.replay import replay
from adaptive_sleep.experiments.runs import open_run
from adaptive_sleep.model import Model
from adaptive_sleep.streams.recording import Recording
from adaptive_sleep.streams.tasks.recorded import GAP_SECONDS, record_batch
from adaptive_sleep.streams.tasks.registry import make_task
from adaptive_sleep.streams.tasks.task import TaskBatch

TASKS = {
    "depo-small": make_task("depo-small", max_nodes=6, max_hops=4),
    "gsm_symbolic": make_task("gsm_symbolic", lines=4, max_op=4, windows=2, name_digits=3),
}
STREAMS, ROUNDS = 5, 3
CUT: dict[str, Any] = {"gap_seconds": GAP_SECONDS, "commit_every": 5}


def model_of(name: str) -> Model:
    torch.manual_seed(0)
    space = TASKS[name].space
    config = ModelConfig(
        kind="tokens", vocabulary=space.vocabulary, fields=space.fields, answers=space.answers,
        questions=space.questions, width=8, heads=2, fast_heads=1, key_dim=4, value_dim=4,
        window=space.window, sleep_attention="bidirectional",
    )  # fmt: skip
    return Model(config).eval()


def drawn(name: str) -> TaskBatch:
    return TASKS[name].sample(np.random.default_rng(1), STREAMS * ROUNDS, part="test")


def written(name: str, path: Path, streams: int) -> Recording:
    return record_batch(drawn(name), TASKS[name].space, path, streams=streams)


def rows_of(batch: TaskBatch, rows: slice) -> TaskBatch:
    return TaskBatch(
        tokens=tuple(x[rows] for x in batch.tokens),
        targets=tuple(x[rows] for x in batch.targets),
        lengths=tuple(x[rows] for x in batch.lengths),
        difficulty=batch.difficulty[rows],
        diagonal=batch.diagonal,
    )


@pytest.mark.parametrize("streams", [1, STREAMS])
@pytest.mark.parametrize("name", TASKS)
def test_the_predictions_are_the_answers_of_a_batch(
    name: str, streams: int, tmp_path: Path
) -> None:
    """Sample i is dealt to stream i mod `streams`, which goes on from the samples before it."""
    recording, model = written(name, tmp_path / "recording", streams), model_of(name)
    file = tmp_path / "predictions.parquet"
    summary = replay(recording, model, "fixed(3)", tmp_path / "run", predictions=file, **CUT)
    wanted: dict[str, list[tuple[int, int, float]]] = {f"s{i}": [] for i in range(streams)}
    state = unread(model, streams)
    with torch.no_grad():
        for first in range(0, STREAMS * ROUNDS, streams):
            batch = rows_of(drawn(name), slice(first, first + streams))
            (found,), state = go_on(model, batch, 3, state)
            log_p = found.logits.log_softmax(-1).gather(-1, found.targets[:, None])[:, 0]
            each = found.rows, found.targets, found.logits.argmax(-1), log_p
            for row, *said in zip(*(x.tolist() for x in each), strict=True):
                wanted[f"s{row}"].append(tuple(said))
    frame = pl.read_parquet(file).sort("time")
    for stream, said in wanted.items():
        mine = frame.filter(stream=stream).select("target", "answer", "logprob").rows()
        assert [row[:2] for row in mine] == [row[:2] for row in said]
        np.testing.assert_allclose(
            [row[2] for row in mine], [row[2] for row in said], rtol=1e-6, atol=1e-6
        )
    losses = [-row[2] for said in wanted.values() for row in said]
    assert summary.loss == pytest.approx(np.mean(losses), rel=1e-5)
    assert summary.mean_passes == 3.0
    trace = open_run(tmp_path / "run").trace().collect()
    assert trace["asked"].sum() == trace["scored"].sum() == len(losses)
    # windows close side by side, but for those that are full before the gap shows
    assert trace["step"].n_unique() < 2 * len(trace) / streams


def test_the_same_again_and_a_stopped_replay_give_the_same_bytes(tmp_path: Path) -> None:
    recording, model = written("depo-small", tmp_path / "recording", 1), model_of("depo-small")
    whole = replay(recording, model, POLICY, tmp_path / "whole", **CUT)
    again = replay(recording, model, POLICY, tmp_path / "again", **CUT)
    assert again.trace_sha256 == whole.trace_sha256
    assert lasting(tmp_path / "again") == lasting(tmp_path / "whole")
    SWITCH["raise"] = RuntimeError("stop")
    with pytest.raises(RuntimeError, match="stop"):
        replay(recording, model, POLICY, tmp_path / "run", **CUT)
    SWITCH["raise"] = None
    assert open_run(tmp_path / "run").positions
    replay(recording, model, POLICY, tmp_path / "run", resume=True, **CUT)
    assert lasting(tmp_path / "run") == lasting(tmp_path / "whole")


def test_a_model_reads_questions_as_it_says_whatever_the_recording(tmp_path: Path) -> None:
    recording, text = written("gsm_symbolic", tmp_path / "recording", 3), model_of("gsm_symbolic")
    shape = {f: getattr(text.config, f) for f in text.config.__dataclass_fields__}
    alone = Model(ModelConfig(**(shape | {"questions": "alone"}))).eval()
    alone.load_state_dict(text.state_dict())
    losses = [
        replay(recording, model, "fixed(2)", tmp_path / name, **CUT).loss or 0.0
        for name, model in (("text", text), ("alone", alone))
    ]
    assert abs(losses[0] - losses[1]) > 1e-4
