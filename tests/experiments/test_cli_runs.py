"""The commands end to end, on a tiny model: record, inspect, replay, resume, report, run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
import torch
from synthetic_runs import make_recording

from adaptive_sleep.checkpoint import save_model
from adaptive_sleep.config import ModelConfig
from adaptive_sleep.experiments.cli import main
from adaptive_sleep.model import Model


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a recording R and a model m.safetensors, which is the working directory."""
    torch.manual_seed(0)
    make_recording(tmp_path / "R")
    config = ModelConfig(
        kind="series", channels=("load",), width=16, heads=2, fast_heads=1, key_dim=8, value_dim=8
    )
    save_model(Model(config), tmp_path / "m.safetensors", provenance={"made": "up"})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_replay_report_and_inspect(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    replay = ["replay", "R", "--model", "m.safetensors", "--policy", "fixed(2)", "--out", "run"]
    assert main([*replay, "--predictions", "p.parquet", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["mean_passes"] == 2.0
    assert summary["windows"] == 60
    trace = pl.scan_parquet(summary["trace"]).collect()
    assert len(trace) == 60
    assert len(pl.read_parquet(place / "p.parquet")) == trace["scored"].sum()

    assert main(replay) == 2  # it is there
    assert "--resume" in capsys.readouterr().err
    assert main([*replay, "--predictions", "p.parquet", "--resume", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["trace_sha256"] == summary["trace_sha256"]

    assert main(["inspect", "run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["trace_sha256"] == summary["trace_sha256"]
    assert main(["report", "run", "--out", "r.html"]) == 0
    assert "fixed(passes=2)" in (place / "r.html").read_text(encoding="utf-8")


def test_replay_for_a_person_says_the_same(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["replay", "R", "--model", "m.safetensors", "--stop", "0.25"]
    assert main([*arguments, "--out", "a", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert main([*arguments, "--out", "b"]) == 0
    out = capsys.readouterr().out
    assert f"{summary['loss']:.6g}" in out
    assert summary["trace_sha256"] in out


def test_inspect_says_what_a_model_is(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "m.safetensors", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["what"] == "model"
    assert found["config"]["channels"] == ["load"]
    assert found["provenance"] == {"made": "up"}
    data = bytearray((place / "m.safetensors").read_bytes())
    data[-1] ^= 1
    (place / "m.safetensors").write_bytes(data)
    assert main(["inspect", "m.safetensors"]) == 2


def test_run_reads_ndjson_and_prints_forecasts(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [
        json.dumps({"stream": "a", "time": 10**18 + i * 10**9, "values": {"load": i % 7}}) + "\n"
        for i in range(130)
    ]
    (place / "events.ndjson").write_text("".join(lines))
    arguments = ["run", "-", "--model", "m.safetensors", "--horizon", "3", "--record", "seen"]
    with open(place / "events.ndjson") as events:
        monkeypatch.setattr(sys, "stdin", events)
        assert main(arguments) == 0
    out, err = capsys.readouterr()
    forecasts = [json.loads(line) for line in out.splitlines()]
    assert len(forecasts) >= 2
    assert all(forecast["stream"] == "a" for forecast in forecasts)
    assert "events: 130" in err
    assert main(["inspect", "seen", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 130


def test_ctrl_c_leaves_a_run_that_resumes(place: Path) -> None:
    def command(*more: str) -> list[str]:
        return [
            sys.executable, "-m", "adaptive_sleep.experiments.cli", "replay", "R", "--model",
            "m.safetensors", "--policy", "fixed(2)", "--out", "run", "--json", *more,
        ]  # fmt: skip

    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    # Slow enough to be interrupted on any machine: 960 s of recording in about 19 s.
    started = subprocess.Popen(
        command("--speed", "50"), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    while not (place / "run" / "run.json").exists():
        assert started.poll() is None
        time.sleep(0.02)
    time.sleep(0.5)
    started.send_signal(signal.SIGINT)
    out, err = started.communicate(timeout=60)
    assert started.returncode == 130
    assert out == b""
    assert b"interrupted" in err
    assert b"--resume" in err
    assert b"Traceback" not in err
    done = subprocess.run(
        command("--resume"), env=environment, capture_output=True, check=True, timeout=60
    )
    assert json.loads(done.stdout)["windows"] == 60


def test_train_takes_a_recipe_or_a_recording(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from adaptive_sleep import training

    asked: list[tuple[object, ...]] = []

    def pretend(*what: object, on_progress: object) -> training.Trained:
        asked.append(what)
        return training.Trained(place / "m.safetensors", 7, {1: 0.5, 4: 0.25}, [], 1.0, 640, 1e9)

    monkeypatch.setattr(training, "train_preset", pretend)
    monkeypatch.setattr(training, "train_recipe", pretend)
    (place / "mine.toml").touch()
    assert main(["train", "--recording", "R", "--out", "new.safetensors", "--json"]) == 0
    assert asked == [("R", None, Path("new.safetensors"))]
    found = json.loads(capsys.readouterr().out)
    assert found["validation"] == {"1": 0.5, "4": 0.25}
    assert found["step"] == 7
    assert main(["train", "mine.toml", "--out", "new.safetensors"]) == 0
    assert asked[1:] == [(Path("mine.toml"), Path("new.safetensors"))]
    assert main(["train", "mine.toml", "--out", "m.safetensors"]) == 2  # it is there
    capsys.readouterr()
    for what in (["mine.toml"], ["--recording", "R"]):
        for option in (["--seed", "1"], ["--device", "cpu"]):
            assert main(["train", *what, "--out", "new.safetensors", *option]) == 2
            assert f"{' '.join(option)}: goes with the recipe of a task" in capsys.readouterr().err
    assert len(asked) == 2


def test_a_task_is_recorded_in_bursts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    record = ["record", "task", "chain", "--samples", "64"]
    assert main([*record, "--power", "16", "--bursts", "4,4", "--out", "B", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 64 * 32
    seen = pl.read_parquet(tmp_path / "B" / "*.parquet")["difficulty"]
    assert (seen == 3).mean() > 0.2  # the easiest, hardly ever drawn in the hard bursts
    assert (seen > 8).mean() > 0.2
    zero = ["record", "task", "lead_lag", "--power", "1", "--samples", "8", "--out", "L"]
    assert main(zero) == 0  # its least difficulty is 0
    for options, said in (
        (["--bursts", "32"], "two mean lengths"),
        (["--bursts", "0.5,3"], "at least 1"),
        (["--hard-power", "3"], "goes with --bursts"),
        (["--power", "-700"], "--power=-700.0: a number from -16 to 16"),
        (["--bursts", "4,4", "--hard-power", "nan"], "--hard-power=nan"),
    ):
        assert main([*record, *options, "--out", "C"]) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "C").exists()
