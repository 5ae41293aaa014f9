"""A replay killed at any moment resumes to the bytes of one that never was; so does a full disk."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Callable
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from run_cases import contents, lasting, make_series, series_model

from adaptive_sleep.experiments import commits
from adaptive_sleep.experiments.replay import replay
from adaptive_sleep.experiments.runs import open_run
from adaptive_sleep.model import Model
from adaptive_sleep.streams.errors import AdaptiveSleepError
from adaptive_sleep.streams.recording import Recording

GIVEN: dict[str, Any] = {"policy": "run_cases:Fragile(at=20)", "commit_every": 1, "seed": 5}
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["adaptive_sleep.experiments.replay"])


def run_alone(
    begun: Event,
    recording: Path,
    out: Path,
    predictions: Path,
    die_at: int | None = None,
    **changes: Any,
) -> None:
    """The target of a process of its own; with `die_at` it kills itself at that write."""
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("highest")
    if die_at is not None:
        die_before(die_at)
    given, model = {**GIVEN, **changes}, series_model()
    begun.set()
    replay(recording, model, out=out, resume=True, predictions=predictions, **given)


def die_before(count: int) -> None:
    """Send SIGKILL to this process before its `count`th call of what changes the disk."""
    left = count

    def deadly(call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return called

    for name in ("rename", "replace", "fsync", "mkdir", "unlink", "rmdir"):
        setattr(os, name, deadly(getattr(os, name)))


def start(recording: Recording, folder: Path, **given: Any) -> Any:
    """A process that is just about to begin its replay."""
    begun = CONTEXT.Event()
    process = CONTEXT.Process(
        target=run_alone,
        args=(begun, recording.path, folder / "run", folder / "predictions.parquet"),
        kwargs=given,
    )
    process.start()
    assert begun.wait(60)
    return process


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    return make_series(tmp_path_factory.mktemp("recordings") / "series", rows=500)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, recording: Recording) -> tuple[Path, float]:
    """A run never killed, in a process like the others, and how long its replay took."""
    folder = tmp_path_factory.mktemp("whole")
    start(recording, tmp_path_factory.mktemp("warm"), stop=50).join()  # the fork server is up now
    process = start(recording, folder)
    since = time.monotonic()
    process.join()
    assert process.exitcode == 0
    return folder, time.monotonic() - since


def same(folder: Path, whole: Path) -> bool:
    """Whether trace, state, predictions and hash are the same, byte for byte."""
    assert lasting(folder / "run")["commits/000002/trace.parquet"]
    alike = lasting(folder / "run") == lasting(whole / "run")
    file = "predictions.parquet"
    assert (folder / file).read_bytes() == (whole / file).read_bytes()
    hashes = [open_run(path / "run").trace_sha256 for path in (folder, whole)]
    return alike and hashes[0] == hashes[1]


def commits_in(folder: Path) -> int:
    return len(list(folder.glob("run/commits/0*")))


def kill_at_random(
    recording: Recording, whole: tuple[Path, float], folder: Path, kills: int, seed: int
) -> None:
    """Kill a run, and its resumptions, `kills` times at random moments; then let it end.

    A moment is a random commit and a random spell after it, so that a slow machine does not move
    all kills to the beginning.
    """
    reference, seconds = whole
    rng = np.random.default_rng(seed)
    total = commits_in(reference)
    moments = sorted(rng.integers(0, total, kills).tolist())
    reached: list[int] = []  # commits that were there at each kill
    while moments:
        process = start(recording, folder)
        while process.is_alive() and commits_in(folder) < moments[0]:
            time.sleep(0.0005)
        time.sleep(rng.uniform(0.0, 2 * seconds / total))
        process.kill()
        process.join()
        if process.exitcode == -signal.SIGKILL:
            moments.pop(0)
            reached.append(commits_in(folder))
            continue
        assert process.exitcode == 0
        assert same(folder, reference)
        folder = folder / "again"  # it ended before its time: begin afresh, and kill that one
        folder.mkdir()
    process = start(recording, folder)
    process.join()
    assert process.exitcode == 0
    assert same(folder, reference)
    assert len(set(reached)) > kills // 3, f"killed at one place only: {reached}"


def test_killed_at_random_moments(
    recording: Recording, whole: tuple[Path, float], tmp_path: Path
) -> None:
    kill_at_random(recording, whole, tmp_path, kills=6, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_killed_at_twenty_random_moments(
    recording: Recording, whole: tuple[Path, float], tmp_path: Path, seed: int
) -> None:
    kill_at_random(recording, whole, tmp_path, kills=20, seed=seed + 1)


def test_killed_at_every_write_of_the_first_commits(
    recording: Recording, whole: tuple[Path, float], tmp_path: Path
) -> None:
    """The moments that a random kill seldom meets: between two changes of the disk."""
    for count in range(1, 36, 2):  # clearing up after a kill, and one commit, are some 25 changes
        process = start(recording, tmp_path, die_at=count)
        process.join()
        assert process.exitcode == -signal.SIGKILL
    process = start(recording, tmp_path)
    process.join()
    assert process.exitcode == 0
    assert same(tmp_path, whole[0])


# ---------------------------------------------------------------- a full disk

SHORT = {**GIVEN, "commit_every": 4, "stop": 200}


@pytest.fixture(scope="module")
def model() -> Model:
    return series_model()


@pytest.fixture(scope="module")
def unfilled(
    tmp_path_factory: pytest.TempPathFactory, recording: Recording, model: Model
) -> dict[str, str]:
    """What a run with room enough leaves."""
    out = tmp_path_factory.mktemp("unfilled") / "run"
    replay(recording, model, out=out, **SHORT)
    return lasting(out)


def full_after(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the `count`th fsync find no room."""
    left, real = count, os.fsync

    def fsync(descriptor: int) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.parametrize("count", [1, 2, 5, 14, 41])
def test_a_full_disk_keeps_what_was_committed(
    recording: Recording, model: Model, unfilled: dict[str, str], tmp_path: Path, count: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        full_after(count, patch)
        with pytest.raises(AdaptiveSleepError, match="disk is full"):
            replay(recording, model, out=tmp_path / "run", **SHORT)
    if count < 3:  # nothing of run.json was in place, and so nothing is left
        assert not (tmp_path / "run").exists()
    else:
        left = contents(tmp_path / "run")
        assert not [name for name in left if "tmp" in name]
        open_run(tmp_path / "run").verify()
    replay(recording, model, out=tmp_path / "run", resume=True, **SHORT)
    assert lasting(tmp_path / "run") == unfilled


def test_a_small_disk(
    recording: Recording, model: Model, unfilled: dict[str, str], tmp_path: Path
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(small)]
    try:
        mounted = subprocess.run(mount, capture_output=True, timeout=10).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("no right to mount a tmpfs here")
    try:
        with pytest.raises(AdaptiveSleepError, match="disk is full"):
            replay(recording, model, out=small / "run", **SHORT)
        run = open_run(small / "run")
        assert run.positions
        assert run.summary is None
        run.verify()
        assert not [name for name in contents(small) if "tmp" in name]
        subprocess.run(["mount", "-o", "remount,size=64m", str(small)], check=True)
        replay(recording, model, out=small / "run", resume=True, **SHORT)
        assert lasting(small / "run") == unfilled
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_the_disk_is_only_full_when_it_is() -> None:
    with pytest.raises(OSError, match="denied"), commits.said_when_full(Path("x")):
        raise OSError(errno.EACCES, "denied")
