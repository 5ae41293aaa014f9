"""A counterfactual replay leaves the run as it was, and its table says what other passes gave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from run_cases import POLICY, SWITCH, contents, lasting

from adaptive_sleep.experiments import counterfactual
from adaptive_sleep.experiments.cli import main
from adaptive_sleep.experiments.controls import prescribed
from adaptive_sleep.experiments.counterfactual import (
    TABLE_SCHEMA,
    Counterfactuals,
    counterfactuals,
    open_counterfactuals,
)
from adaptive_sleep.experiments.oracle import oracle, regret, value
from adaptive_sleep.experiments.replay import replay
from adaptive_sleep.experiments.runs import open_run
from adaptive_sleep.model import Model
from adaptive_sleep.streams.errors import InputError, IntegrityError
from adaptive_sleep.streams.recording import Recording

CHAIN = "bundled:chain"
FIRST: dict[str, Any] = {"gap_seconds": 0.5, "stop": 144}  # a window and its questions, 4 streams
SIGNED = "state_change(tolerance=0.45, max_passes=3)"


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Counterfactuals]:
    out = tmp_path_factory.mktemp("chain") / "what-if"
    return out, counterfactuals(CHAIN, CHAIN, SIGNED, out, most=4, **FIRST)


def test_the_run_is_what_replay_makes(chain: tuple[Path, Counterfactuals], tmp_path: Path) -> None:
    out, found = chain
    plain = replay(CHAIN, CHAIN, SIGNED, tmp_path / "plain", **FIRST)
    assert plain.trace_sha256 == found.trace_sha256 == open_run(out / "run").trace_sha256
    assert lasting(out / "run") == lasting(tmp_path / "plain")
    assert json.loads((out / "run" / "run.json").read_text())["summary"]["trace"] == str(
        out / "run" / "commits" / "*" / "trace.parquet"
    )


@pytest.mark.parametrize("passes", [1, 2, 3, 4])
def test_a_row_is_a_replay_with_so_many_passes(
    chain: tuple[Path, Counterfactuals], tmp_path: Path, passes: int
) -> None:
    """Of a recording of one window and its questions in every stream."""
    _, found = chain
    run = replay(CHAIN, CHAIN, f"fixed({passes})", tmp_path / "run", **FIRST)
    trace = open_run(tmp_path / "run").trace().sort("stream", "window").collect()
    slept, answered = trace.filter(pl.col("asked") == 0), trace.filter(pl.col("asked") > 0)
    mine = found.table.filter(pl.col("passes") == passes).sort("stream")
    assert mine["stream"].to_list() == slept["stream"].to_list() == ["s0", "s1", "s2", "s3"]
    assert mine["sleep_flops"].to_list() == slept["sleep_flops"].to_list()
    assert mine["right"].to_list() == answered["right"].to_list()
    assert mine["scored"].to_list() == mine["asked"].to_list() == answered["asked"].to_list()
    np.testing.assert_allclose(mine["loss"], answered["loss"], rtol=1e-5)
    np.testing.assert_allclose(mine["state_change"], slept["last_state_change"], rtol=1e-5)
    assert run.loss == pytest.approx(mine["loss"].mean(), rel=1e-5)
    for name in ("state_change", "tokens", "gap", "surprise"):
        np.testing.assert_allclose(mine[f"signal_{name}"], slept[name], rtol=1e-6)


def test_the_oracle_of_a_table_is_as_good_as_it_says(
    chain: tuple[Path, Counterfactuals], tmp_path: Path
) -> None:
    out, found = chain
    best = oracle(found.table, tolerance=0.0)
    assert best.optimistic
    assert (
        best.passes["loss_after"].to_list()
        == found.table.filter(pl.col("loss") == pl.col("best_loss"))["loss"].to_list()
    )
    run = replay(CHAIN, CHAIN, prescribed(best.passes), tmp_path / "run", **FIRST)
    assert run.loss == pytest.approx(best.loss, rel=1e-5)
    assert run.mean_passes == best.mean_passes
    lost = regret(found.table, out / "run", tolerance=0.0)
    assert lost.loss == pytest.approx(open_run(out / "run").summary.loss - run.loss, abs=1e-6)
    assert regret(found.table, best.passes, tolerance=0.0).loss == 0.0
    by_half = oracle(found.table, halves=True)
    assert not by_half.optimistic
    assert by_half.passes["scored_after"].to_list() == [9] * 4
    worth = value(found.table).filter(pl.col("passes") == 1)
    assert (worth["value"] > 0).all()  # this model was taught to need more than one


def test_windows_that_are_all_scored(tmp_path: Path) -> None:
    name = "bundled:telemetry"
    given: dict[str, Any] = {"start": 0.96}
    plain = replay(name, name, "fixed(2)", tmp_path / "plain", **given)
    found = counterfactuals(name, name, "fixed(2)", tmp_path / "out", most=3, horizon=2, **given)
    assert found.trace_sha256 == plain.trace_sha256
    table = found.table
    assert dict(table.schema) == TABLE_SCHEMA
    trace = open_run(tmp_path / "plain").trace().collect()
    assert found.unfinished == 2
    assert len(table) == 3 * (len(trace) - 2)
    assert found.drift is not None
    assert found.drift < 1e-6
    loss, scored = trace["loss"].to_numpy(), trace["scored"].to_numpy()
    pooled = (loss * scored)[1:-1] + (loss * scored)[2:]
    here = table.filter(pl.col("passes") == 2)
    np.testing.assert_allclose(here["loss"], pooled / (scored[1:-1] + scored[2:]), rtol=1e-6)
    assert set(table["summary"].list.len()) == {128}
    for column in ("right", "asked", "scored_a", "loss_b"):
        assert table[column].null_count() == len(table)
    with pytest.raises(InputError, match="halves=True: only for a model that answers"):
        oracle(table, halves=True)


def test_what_was_written_is_read(chain: tuple[Path, Counterfactuals], tmp_path: Path) -> None:
    out, found = chain
    again = open_counterfactuals(out)
    assert again.table.equals(found.table)
    assert (again.trace_sha256, again.drift) == (found.trace_sha256, found.drift)
    with pytest.raises(InputError, match=r"no counterfactual\.json there"):
        open_counterfactuals(tmp_path)
    for file in out.glob("*.*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "table.parquet").write_bytes(b"something else")
    with pytest.raises(IntegrityError, match=r"table\.parquet: missing, or not what was written"):
        open_counterfactuals(tmp_path)


def test_a_policy_that_raises_leaves_nothing(
    recording: Recording, model: Model, tmp_path: Path
) -> None:
    SWITCH["raise"] = RuntimeError("stop")
    with pytest.raises(RuntimeError, match="stop"):
        counterfactuals(recording, model, POLICY, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    SWITCH["raise"] = None
    found = counterfactuals(recording, model, POLICY, tmp_path / "out", most=2, stop=0.5)
    assert found.drift is not None
    assert found.drift < 1e-6
    assert found.table["chosen"].n_unique() > 1


def test_an_interrupt_while_its_manifest_is_written_leaves_nothing(
    recording: Recording, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(counterfactual, "write_manifest", interrupted)
    with pytest.raises(KeyboardInterrupt):
        counterfactuals(recording, model, "fixed(1)", tmp_path / "out", most=2, stop=0.3)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_is_refused(recording: Recording, model: Model, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    before = contents(tmp_path)
    for given, said in (
        ({"out": "there"}, "exists already"),
        ({"most": 1}, "most=1"),
        ({"horizon": 0}, "horizon=0"),
        ({"start": 2.0}, r"start=2\.0"),
    ):
        settings: dict[str, Any] = {"out": "new"} | given
        out = tmp_path / settings.pop("out")
        with pytest.raises(InputError, match=said):
            counterfactuals(recording, model, "fixed(1)", out, **settings)
    assert contents(tmp_path) == before


def test_passes_beyond_the_table_say_nothing_of_drift(
    recording: Recording, model: Model, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    found = counterfactuals(recording, model, "fixed(5)", out, most=2, stop=0.3)
    assert found.drift is None
    with pytest.raises(InputError, match="make it with most=5"):
        regret(found.table, out / "run")


def test_the_command_prints_what_the_table_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = ["counterfactual", CHAIN, "--model", CHAIN, "--gap", "0.5", "--stop", "0.04"]
    assert main([*asked, "--policy", "fixed(1)", "--most", "3", "--out", "a", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    table = pl.read_parquet(told["table"])
    assert told["windows"] == 8
    assert told["loss_by_passes"][0] > told["loss_by_passes"][2]
    assert told["optimistic"] is False
    best, lost = oracle(table, halves=True), regret(table, "a/run", halves=True)
    assert (told["oracle_passes"], told["regret"]) == (best.mean_passes, lost.loss)
    assert told["extra_passes"] == 1 - best.mean_passes

    assert main([*asked, "--policy", "fixed(5)", "--most", "2", "--out", "b"]) == 0
    lines = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["windows"].strip() == "8"
    assert main([*asked, "--out", "b"]) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]
