"""The probe `events`, whole, on a made log: guesses, their cost, alerts, and the command."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from data_cases import EVENTS, make_log, make_sets
from run_cases import make_tokens, token_model

from adaptive_sleep.experiments.cli import main
from adaptive_sleep.experiments.commands_probe import PROBES
from adaptive_sleep.experiments.probes import events
from adaptive_sleep.experiments.probes.events_log import open_log
from adaptive_sleep.experiments.probes.guesses import joined
from adaptive_sleep.experiments.probes.log_model import Guessed, guess, tokens_of
from adaptive_sleep.streams.errors import InputError

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_sets(tmp_path_factory.mktemp("events") / "data")


@pytest.fixture(scope="module")
def found(data: Path) -> dict[str, Any]:
    out = data.parent / "out"
    got = events.run(out, seeds=range(2), jobs=1, data=data, plan=EVENTS)
    return dict(json.loads(json.dumps(got)))


def test_guesses_are_those_that_the_runtime_scored(tmp_path: Path) -> None:
    """Their mean over the windows is the loss of the trace, also of a last window that is short."""
    recording = make_tokens(tmp_path / "r", rows=203)
    tokens = tokens_of(recording.scan())
    made = guess(token_model(), str(recording.path), tokens, "fixed(2)", tmp_path / "run", most=4)
    assert len(made.guesses.logprob) == 202
    trace, at = made.trace, 0
    assert trace["passes"].to_list() == [2] * len(trace)
    for scored, loss in trace.select("scored", "loss").iter_rows():
        mean = -made.guesses.logprob[at : at + scored].mean()
        assert mean == pytest.approx(loss, abs=1e-5)
        at += scored
    assert at == 202
    assert set(made.guesses.five) <= {0.0, 1.0}
    assert 0.2 < made.guesses.five.mean() < 0.8  # five of eleven, untrained


def test_parts_and_alerts_of_a_log(tmp_path: Path) -> None:
    make_log(tmp_path / "log.csv")
    log = open_log(tmp_path / "log.csv", tmp_path / "r", 0.6, 0.7)
    assert (log.train, log.test, len(log.tokens)) == (240, 280, 400)
    assert np.flatnonzero(log.alert).tolist() == [300, 301, 330]
    assert log.windows(16).tolist() == list(range(288, 400, 16))
    facts = log.facts(16)
    assert (facts["windows"], facts["alert_lines"], facts["bursts"]) == (7, 3, 1)
    assert facts["unknown_share"] == 60 / 120  # E9 from row 340 on
    (tmp_path / "plain.csv").write_text("Timestamp,EventId\n1,a\n2,b\n")
    with pytest.raises(InputError, match="no column 'Label'"):
        open_log(tmp_path / "plain.csv", tmp_path / "p", 0.6, 0.7)


def test_the_tolerance_is_the_median_change_of_validation_windows(tmp_path: Path) -> None:
    make_log(tmp_path / "log.csv")
    log = open_log(tmp_path / "log.csv", tmp_path / "r", 0.6, 0.7)  # validation: rows 240 to 279
    trace = pl.DataFrame({"state_change": np.arange(50.0) ** 2})
    made = Guessed(joined([]), trace, 0.0, 1.0)
    assert events._tolerance(made, log, EVENTS) == 32.0**2  # windows 30 to 34 of 8 events


def test_every_predictor_is_there_with_its_cost(found: dict[str, Any]) -> None:
    rows = found["predictors"]
    assert list(rows)[:4] == ["N = 1", "N = 2", "N = 4", "state_change"]
    assert {"unigram", "bigram", "bigram, online", "repeat-last"} < set(rows)
    flops = [rows[f"N = {n}"]["flops_per_event"] for n in (1, 2, 4)]
    assert flops == sorted(set(flops))
    assert [rows[f"N = {n}"]["mean_passes"] for n in (1, 2, 4)] == [1, 2, 4]
    for name in ("N = 1", "bigram"):
        assert 0 < rows[name]["bits"]["mean"] < 2 * math.log2(5)
    assert len(rows["N = 1"]["bits"]["by_seed"]) == 2
    assert rows["bigram"]["bits"]["interval"] is None  # nothing is trained


def test_the_cycle_is_known_to_the_bigram_until_it_ends(found: dict[str, Any]) -> None:
    row = found["predictors"]["bigram"]
    assert row["bits_known"]["mean"] < 0.1 < row["bits"]["mean"]
    assert row["five"]["mean"] == pytest.approx(1.0)  # of five types


def test_alerts_are_compared_by_the_mean_over_seeds(found: dict[str, Any]) -> None:
    assert found["log"]["bursts"] == 2
    alerts = found["predictors"]["N = 1"]["alerts"]
    assert len(alerts["rise"]["by_seed"]) == 2
    assert 0 < alerts["p"] <= 1


def test_the_table_and_what_is_said_follow(found: dict[str, Any]) -> None:
    columns, rows = events.table_of(found)
    assert len(rows) == len(found["predictors"])
    assert all(len(row) == len(columns) for row in rows)
    said = events.said(found)
    assert "120 test events, 50% of types that the 240 training events lack" in said
    assert "in 2 bursts" in said
    quiet = {**found, "log": {**found["log"], "bursts": 0}}
    for row in quiet["predictors"].values():
        row["alerts"] = None
    assert "too few to ask" in events.said(quiet)


def test_the_command_writes_and_shows(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "QUICK", {n: getattr(EVENTS, n) for n in ("window", "steps")})
    given = ["probe", "events", "--quick", "--data", str(data), "--jobs", "1"]
    assert main([*given, "--out", str(tmp_path / "o"), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["seeds"] == [0]
    kept = json.loads((tmp_path / "o" / "probe_events.json").read_text(encoding="utf-8"))
    assert kept["predictors"] == shown["predictors"]
    assert main([*given, "--out", str(tmp_path / "o")]) == 0
    table = capsys.readouterr().out
    assert "bigram, online" in table
    assert "Fewest bits" in table


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["event"], "did you mean 'events'"),
        (["labels", "--quick", "--from-results"], "one of --quick and --from-results"),
        (["events", "--data", "nowhere"], "there is no such folder"),
    ],
)
def test_wrong_use_is_said(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["probe", *arguments]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("name", PROBES)
def test_kept_results_are_shown_or_missed_by_name(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = resources.files("adaptive_sleep.experiments") / "results" / f"probe_{name}.json"
    assert kept.is_file() or name not in ("detail", "recurrence")  # these have had theirs
    assert main(["probe", name, "--from-results"]) == (0 if kept.is_file() else 2)
    out, err = capsys.readouterr()
    assert ("seed(s)" in out) == kept.is_file()
    assert ("no full run has been kept" in err) != kept.is_file()


def test_the_real_log_is_read_as_it_is(real: Callable[[str], Path], tmp_path: Path) -> None:
    log = open_log(real(events.FILE), tmp_path / "r", 0.6, 0.7)
    assert len(log.tokens) == 2000
    assert log.vocabulary == 120
    assert log.alert.sum() == 143
    assert log.facts(16)["bursts"] == 4
