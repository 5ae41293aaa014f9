"""How a command ends when it is told to, and what it says where its terminal cannot show it."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from run_cases import series_model

from adaptive_sleep.checkpoint import save_model
from adaptive_sleep.experiments.cli import main
from adaptive_sleep.experiments.console import guarded, print_json
from adaptive_sleep.experiments.runs import open_run
from adaptive_sleep.streams.events import Channel
from adaptive_sleep.streams.host import HOST_CHANNELS
from adaptive_sleep.streams.manifest import new_folder
from adaptive_sleep.streams.recording import Recording
from adaptive_sleep.streams.writer import RecordingWriter


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(30)


def test_sigterm_ends_a_command_as_ctrl_c_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def record() -> None:
        with new_folder(tmp_path / "R") as part:
            (part / "half").touch()
            terminate()

    before = signal.getsignal(signal.SIGTERM)
    assert guarded(record) == 143
    assert "interrupted; nothing is left half written" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_ending_that_a_command_takes_well_is_no_failure() -> None:
    def run() -> None:
        try:
            terminate()
        except KeyboardInterrupt:
            return

    assert guarded(run) == 0


def test_sigterm_ends_the_jobs_too() -> None:
    job = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))

    def run() -> None:
        job.start()
        try:
            terminate()
        finally:
            job.join(30)  # as a pool waits for its own

    assert guarded(run) == 143
    assert job.exitcode not in (None, 0)


def test_sigterm_ends_what_a_shell_has_put_into_the_background() -> None:
    """It ignores Ctrl-C there."""
    job = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)

    def run() -> None:
        job.start()
        try:
            terminate()
        finally:
            job.join(30)

    try:
        assert guarded(run) == 143
    finally:
        signal.signal(signal.SIGINT, before)
    assert job.exitcode not in (None, 0)


def test_a_command_that_is_told_to_ignore_sigterm_ignores_it() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        assert guarded(lambda: os.kill(os.getpid(), signal.SIGTERM)) == 0
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("command", ["record", "run"])
def test_telemetry_is_kept_when_a_service_is_stopped(command: str, tmp_path: Path) -> None:
    names = tuple(channel.name for channel in HOST_CHANNELS)
    model = series_model(channels=names, actions=())
    save_model(model, tmp_path / "m.safetensors", provenance={"made": "up"})
    given = {
        "record": ["record", "host", "--out", "R", "--seconds", "60"],
        "run": ["run", "host", "--model", "m.safetensors", "--record", "R", "--out", "run"],
    }[command]
    started = subprocess.Popen(
        [sys.executable, "-m", "adaptive_sleep.experiments.cli", *given, "--hz", "20", "--json"],
        cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    while not (tmp_path / "R" / "manifest.json").exists():
        assert started.poll() is None
        time.sleep(0.02)
    time.sleep(2.0)
    started.send_signal(signal.SIGTERM)
    out, err = started.communicate(timeout=60)
    assert started.returncode == 0, err
    recording = Recording.open(tmp_path / "R")
    assert recording.manifest.closed
    assert 0 < recording.rows == json.loads(out)["rows" if command == "record" else "events"]
    if command == "run":
        assert open_run(tmp_path / "run").manifest.finished


# ---------------------------------------------------------------- what stdout can hold

NAME = "\u6e29\u5ea6 \U0001f321 \u00e9"


def in_latin(patch: pytest.MonkeyPatch) -> io.BytesIO:
    """What goes to stdout from now on, which is in Latin-1."""
    written = io.BytesIO()
    patch.setattr(sys, "stdout", io.TextIOWrapper(written, "latin-1", write_through=True))
    return written


def test_a_name_that_stdout_cannot_show_is_escaped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    latin = in_latin(monkeypatch)
    with RecordingWriter(tmp_path / "R", kind="series", channels=[Channel(NAME)]) as writer:
        writer.append("a", 1, values=np.zeros(1, np.float32))
    assert main(["inspect", str(tmp_path / "R")]) == 0
    shown = latin.getvalue().decode("latin-1")
    assert r"\u6e29\u5ea6" in shown
    assert len(shown.splitlines()) > 5


def test_json_says_it_in_any_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    latin = in_latin(monkeypatch)
    print_json({NAME: NAME})
    assert json.loads(latin.getvalue().decode("ascii")) == {NAME: NAME}


@pytest.mark.parametrize("closed", [False, True])
def test_a_closed_stdin_is_said(
    closed: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save_model(series_model(), tmp_path / "m.safetensors", provenance={"made": "up"})
    stdin = io.StringIO()
    stdin.close()
    monkeypatch.setattr(sys, "stdin", stdin if closed else None)
    assert main(["run", "-", "--model", str(tmp_path / "m.safetensors")]) == 2
    assert "source='-': stdin is closed" in capsys.readouterr().err
