"""The trace and the table of predictions as frames, and the store behind them."""

from __future__ import annotations

import core_cases as cases
import numpy as np
import polars as pl
import pytest
import torch

import adaptive_sleep as asl
from adaptive_sleep.arena import Arena, blank_row
from adaptive_sleep.eviction import holding
from adaptive_sleep.trace import TRACE_SCHEMA, predictions_frame, trace_frame


def results_of(kind: str) -> tuple[asl.Runtime, list[asl.StepResult]]:
    runtime = asl.Runtime(cases.build(cases.tiny(kind)), cases.fixed(2))
    whole = cases.events(runtime.model.config, 27)
    return runtime, cases.run_all(runtime, cases.cut(whole, 12, (5, 14)))


@pytest.mark.parametrize("kind", cases.KINDS)
def test_the_trace_is_one_row_a_window(kind: str) -> None:
    runtime, results = results_of(kind)
    rows = [r for result in results for r in result.rows]
    frame = trace_frame(rows)
    assert frame.schema == TRACE_SCHEMA
    assert frame["window"].to_list() == [0, 1]
    assert frame["step"].to_list() == [1, 3]
    assert frame["cause"].to_list() == ["length", "length"]
    assert frame["sleep_flops"].sum() == runtime.ledger.sleep
    whole = cases.events(runtime.model.config, 27).time
    assert frame["first_time"].to_list() == [whole[0], whole[12]]
    assert frame["last_time"].to_list() == [whole[11], whole[23]]
    assert trace_frame([]).schema == TRACE_SCHEMA
    assert not [name for name in TRACE_SCHEMA if "second" in name]


def test_a_window_without_predictions_has_no_loss() -> None:
    runtime = asl.Runtime(cases.build(cases.tiny("tokens")), cases.fixed(1))
    result = runtime.step([asl.Piece("s", cases.events(runtime.model.config, 1), closes=True)])
    assert trace_frame(result.rows)["loss"].to_list() == [None]


def test_predictions_of_tokens() -> None:
    runtime, results = results_of("tokens")
    whole = cases.events(runtime.model.config, 27)
    frame = pl.concat(
        predictions_frame(p, runtime.model.config) for r in results for p in r.predictions
    )
    assert frame.columns == ["stream", "time", "token", "logprob", "entropy"]
    assert frame["token"].to_list() == whole.tokens[1:].tolist()
    assert frame["time"].dtype == pl.Datetime("ns", "UTC")
    assert frame["time"].to_physical().to_list() == whole.time[1:].tolist()


def test_predictions_of_a_series_in_its_units() -> None:
    """Event by event, in order, missing targets null; the first patch is not predicted."""
    runtime, results = results_of("series")
    whole = cases.events(runtime.model.config, 27)
    frame = pl.concat(
        predictions_frame(p, runtime.model.config) for r in results for p in r.predictions
    )
    count = 24  # three events wait for their patch
    assert frame["time"].to_physical().to_list() == whole.time[4:count].tolist()
    assert frame.columns[2:9] == ["a", "a_mean", "a_q10", "a_q25", "a_q50", "a_q75", "a_q90"]
    for i, name in enumerate("abc"):
        truth = whole.values[4:count, i].astype(np.float64)
        assert frame[name].null_count() == np.isnan(truth).sum() > 0
        np.testing.assert_array_equal(frame[name].fill_null(np.nan).to_numpy(), truth)
    assert "u" not in frame.columns


def test_an_arena_grows_and_forgets_what_is_undone() -> None:
    config = cases.tiny("series")
    arena = Arena(blank_row(config, 3, holding(config, "hard", window=3)))
    first = arena.index(["a", "b"])
    arena.scatter(first, {"loss": torch.tensor([1.0, 2.0], dtype=torch.float64)})
    arena.commit()
    many = arena.index([f"s{i}" for i in range(20)])
    arena.scatter(many, {"loss": torch.ones(20, dtype=torch.float64)})
    arena.scatter(first, {"loss": torch.zeros(2, dtype=torch.float64)})
    arena.rollback()
    assert arena.names == ["a", "b"]
    assert arena.tensors["loss"][:3].tolist() == [0.0, 1.0, 2.0]
    assert not arena.tensors["loss"][3:].any()
    assert torch.isnan(arena.tensors["waiting.values"]).all()
    assert arena.index(["s7"]).tolist() == [3]


def test_pieces_may_come_from_a_generator() -> None:
    runtime = asl.Runtime(cases.build(cases.tiny("tokens")), cases.fixed(1))
    whole = cases.events(runtime.model.config, 3)
    runtime.step(asl.Piece(name, whole) for name in "ab")  # type: ignore[arg-type]
    assert runtime.ledger.events == 6


def test_a_stream_that_is_named_twice_has_one_row() -> None:
    runtime = asl.Runtime(
        cases.build(cases.tiny("tokens")), cases.fixed(1), streams=["a", "a", "b", "a"]
    )
    assert runtime.streams == ("a", "b")
    events = cases.events(runtime.model.config, 3)
    runtime.step([asl.Piece("c", events)])
    assert runtime.streams == ("a", "b", "c")
    assert int(cases.row(runtime, "b")["seen"]) == 0
    assert len(set(runtime._arena.rows.values())) == 3
