"""A disk that fills up while rows are flushed: what fitted stays, and no file that none names."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from adaptive_sleep.streams import manifest as manifest_module
from adaptive_sleep.streams import writer as writer_module
from adaptive_sleep.streams.errors import AdaptiveSleepError
from adaptive_sleep.streams.events import Channel
from adaptive_sleep.streams.recording import Recording
from adaptive_sleep.streams.writer import RecordingWriter

X = (Channel("x"),)
NAMES = [*"aabac", *"ccdab"]
TIMES = [5, 3, 9, 4, 8, 7, 6, 1, 2, 2]


def opened(path: Path) -> Recording:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # not closed
        return Recording.open(path)


def failing(patch: pytest.MonkeyPatch, full: Callable[[int, Path], bool]) -> None:
    """Let writes find no room where `full` says so of their number, from 0, and their file."""
    real, number = manifest_module.write_atomically, -1

    def write(path: Path, data: bytes) -> None:
        nonlocal number
        number += 1
        if full(number, path):
            raise AdaptiveSleepError(f"{path}: the disk is full")
        real(path, data)

    patch.setattr(manifest_module, "write_atomically", write)
    patch.setattr(writer_module, "write_atomically", write)


@pytest.mark.parametrize("fitted", range(8))
def test_a_flush_keeps_the_shards_that_fitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fitted: int
) -> None:
    """Of five shards, each of which is written and then named."""
    path, values = tmp_path / "r", np.arange(10.0)[:, None]
    writer = RecordingWriter(path, kind="series", channels=X, shard_rows=2)
    with monkeypatch.context() as patch:
        failing(patch, lambda number, _: number >= fitted)
        with pytest.raises(AdaptiveSleepError, match="disk is full"):
            writer.append_rows(NAMES, TIMES, values=values)
    found, rows = opened(path), fitted // 2 * 2
    assert found.orphans == ()
    assert found.scan().collect()["x"].to_list() == list(range(rows))
    writer.close()

    with RecordingWriter(tmp_path / "short", kind="series", channels=X) as short:
        short.append_rows(NAMES[:rows], TIMES[:rows], values=values[:rows])
    with RecordingWriter(tmp_path / "whole", kind="series", channels=X) as whole:
        whole.append_rows(NAMES, TIMES, values=values)
    for part, name in ((found, "short"), (Recording.open(path), "whole")):
        alike = Recording.open(tmp_path / name)
        assert part.scan().collect().equals(alike.scan().collect())
        for field in ("streams", "stream_rows", "rows", "backwards", "time_range"):
            assert getattr(part.manifest, field) == getattr(alike.manifest, field)


def test_flushes_that_fail_again_and_again_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r"
    writer = RecordingWriter(path, kind="series", channels=X)
    with monkeypatch.context() as patch:
        failing(patch, lambda _, file: file.name == manifest_module.NAME)
        writer.append("a", [1, 2], values=[[1], [2]])
        for _ in range(3):
            with pytest.raises(AdaptiveSleepError, match="disk is full"):
                writer.flush()
            assert not list(path.glob("part-*"))
    writer.close()
    assert Recording.open(path).scan().collect()["x"].to_list() == [1, 2]


def test_a_shard_that_is_named_stays_though_what_came_after_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r"
    writer = RecordingWriter(path, kind="series", channels=X)
    writer.append("a", 1, values=[1])
    real = writer_module.write_manifest

    def put_then_fail(*given) -> None:
        real(*given)
        raise AdaptiveSleepError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(writer_module, "write_manifest", put_then_fail)
        with pytest.raises(AdaptiveSleepError, match="disk is full"):
            writer.flush()
    assert opened(path).scan().collect()["x"].to_list() == [1]
    writer.append("a", 2, values=[2])
    writer.close()
    assert Recording.open(path).scan().collect()["x"].to_list() == [1, 2]
    assert Recording.open(path).orphans == ()


def test_small_shards_stay_where_nothing_can_name_what_they_are_merged_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r"
    writer = RecordingWriter(path, kind="series", channels=X)
    for i in range(3):
        writer.append("a", i, values=[i])
        writer.flush()
    with monkeypatch.context() as patch:
        failing(patch, lambda _, file: file.name == manifest_module.NAME)
        with pytest.raises(AdaptiveSleepError, match="disk is full"):
            writer.close()
    assert opened(path).orphans == ()
    assert opened(path).scan().collect()["x"].to_list() == [0, 1, 2]
    writer.close()
    assert len(Recording.open(path).manifest.shards) == 1
