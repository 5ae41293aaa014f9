"""The planned phases meet the bundled recording's needs, and the work is real and cleaned up."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
import threading
import time
from collections import Counter

import psutil
import pytest

from adaptive_sleep.experiments.phases import (
    KINDS,
    SPLITS,
    main,
    plan_phases,
    record_phases,
    run_phases,
)
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.recording import Recording


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("minutes", [1, 20, 64, 75])
def test_every_phase_occurs_twice_in_every_split(minutes: int, seed: int) -> None:
    phases = plan_phases(minutes, seed)
    for split, _ in SPLITS:
        counted = Counter(phase.kind for phase in phases if phase.split == split)
        assert all(counted[kind] >= 2 for kind in KINDS)


@pytest.mark.parametrize("seed", range(8))
def test_phases_fill_the_splits_exactly_and_differ_from_their_neighbours(seed: int) -> None:
    phases = plan_phases(64, seed)
    border = 0.0
    for split, share in SPLITS:
        mine = [phase for phase in phases if phase.split == split]
        assert mine[0].start == pytest.approx(border)
        border += 64 * 60 * share
        assert mine[-1].start + mine[-1].seconds == pytest.approx(border)
    for one, two in itertools.pairwise(phases):
        assert one.start + one.seconds == pytest.approx(two.start)
        assert one.kind != two.kind


@pytest.mark.parametrize("seed", range(8))
def test_phases_are_of_varied_length_and_random_order(seed: int) -> None:
    lengths = [phase.seconds for phase in plan_phases(64, seed)]
    assert min(lengths) >= 15
    assert max(lengths) <= 60
    assert max(lengths) - min(lengths) > 20
    kinds = [phase.kind for phase in plan_phases(64, seed)]
    assert kinds == [phase.kind for phase in plan_phases(64, seed)]
    assert kinds != [phase.kind for phase in plan_phases(64, seed + 1)]


@pytest.mark.parametrize(
    ("minutes", "seed", "said"),
    [
        (0, 1, "minutes=0: a finite number above 0"),
        (-1.0, 1, r"minutes=-1\.0"),
        (math.inf, 1, "minutes=inf"),
        (math.nan, 1, "minutes=nan"),
        (1, -1, "seed=-1: 0 or more"),
    ],
)
def test_what_cannot_be_planned_is_refused(minutes: float, seed: int, said: str) -> None:
    with pytest.raises(InputError, match=said):
        plan_phases(minutes, seed)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--minutes", "-1"], "error: minutes=-1.0: a finite number above 0\n"),
        (["--minutes", "inf", "--plan-only"], "error: minutes=inf: a finite number above 0\n"),
        (["--seed", "-1"], "error: seed=-1: 0 or more\n"),
        (["--hz", "0", "--minutes", "0.1"], "hz=0.0: seconds > 0, and hz above 0"),
    ],
)
def test_wrong_use_is_one_error(arguments: list[str], said: str, tmp_path, capsys) -> None:
    assert main([*arguments, "--out", str(tmp_path / "r")]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert "Traceback" not in told
    assert not list(tmp_path.iterdir())


def test_a_short_recording_names_every_phase(tmp_path) -> None:
    made = record_phases(tmp_path / "r", minutes=0.15, seed=3, hz=20)
    recording = Recording.open(made)
    label = recording.labels[0]
    assert label.name == "phase"
    assert set(label.categories) == set(KINDS)
    assert recording.rows >= 100  # of 180; samples missed under load are not made up
    assert "--seed 3" in recording.manifest.provenance["made_by"]
    assert [path.name for path in tmp_path.iterdir()] == ["r"]  # no working files are left


def test_work_ends_when_it_is_stopped(tmp_path) -> None:
    stop = threading.Event()
    phases = [phase for phase in plan_phases(64, 1) if phase.kind == "mixed"]
    first = phases[0].__class__(**{**phases[0].__dict__, "start": 0.0})
    worker = threading.Thread(target=run_phases, args=([first], tmp_path, tmp_path / "l", stop))
    worker.start()
    try:
        assert _eventually(lambda: len(_workers(psutil.Process())) >= 2)
    finally:
        stop.set()
        worker.join()
    assert not _workers(psutil.Process())
    assert [path.name for path in tmp_path.iterdir()] == ["l"]


def test_work_ends_when_its_parent_is_killed(tmp_path) -> None:
    command = [sys.executable, "-m", "adaptive_sleep.experiments.phases"]
    parent = subprocess.Popen(
        [*command, "--out", str(tmp_path / "r"), "--minutes", "1", "--seed", "7"]
    )
    try:
        assert _eventually(lambda: _workers(psutil.Process(parent.pid)))
        children = _workers(psutil.Process(parent.pid))
    finally:
        parent.kill()
        parent.wait()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive


def _workers(process: psutil.Process) -> list[psutil.Process]:
    found = []
    for child in process.children():
        try:
            if "-I" in child.cmdline():
                found.append(child)
        except psutil.Error:
            continue
    return found


def _eventually(true, seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.05)
    return False
