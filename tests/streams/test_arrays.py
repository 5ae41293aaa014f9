"""Archives of arrays become one stream: train before test, labels where there are some."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adaptive_sleep.streams.arrays import record_arrays
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.recording import Recording


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    train = np.array([[0.0, 1.0], [0.5, np.nan], [0.5, 1.0]], np.float32)
    test = np.array([[0.1, 1.0], [0.2, 1.0]], np.float32)
    return {"train": train, "test": test, "test_label": np.array([1, 0], np.uint8)}


def recorded(tmp_path: Path, arrays: dict[str, np.ndarray], **options: Any) -> Recording:
    np.savez(tmp_path / "host.npz", **arrays)
    chosen = {"step_seconds": 300} | options
    return Recording.open(record_arrays(tmp_path / "host.npz", tmp_path / "r", **chosen))


def test_parts_follow_one_another(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    recording = recorded(tmp_path, arrays)
    assert recording.streams == ("host",)
    assert [channel.name for channel in recording.inputs] == ["c0", "c1"]
    frame = recording.scan().collect()
    assert frame["c0"].to_list() == np.float32([0, 0.5, 0.5, 0.1, 0.2]).tolist()
    assert frame["c1"].to_list() == [1, None, 1, 1, 1]
    assert frame["anomaly"].to_list() == [None, None, None, 1, 0]
    step = 300 * 10**9
    assert frame["time"].to_physical().to_list() == [i * step for i in range(5)]
    [label] = recording.labels
    assert label.delay_ns == step
    assert "test to row 5" in recording.manifest.provenance["parts"]


def test_without_labels_there_is_no_label(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    recording = recorded(tmp_path, arrays, parts=["train"], channels=["load", "heat"])
    assert [channel.name for channel in recording.channels] == ["load", "heat"]
    assert recording.rows == 3


def test_one_name_needs_no_list(tmp_path: Path) -> None:
    recording = recorded(tmp_path, {"load": np.zeros((2, 1))}, parts="load", channels="mean")
    assert [channel.name for channel in recording.channels] == ["mean"]


@pytest.mark.parametrize(
    ("change", "options", "told"),
    [
        ({}, {"parts": ["trian"]}, r"no array 'trian', did you mean 'train'\?"),
        ({"test": np.zeros((2, 3))}, {}, r"parts of \[2, 3\] columns"),
        ({"test": np.zeros((2, 2, 1))}, {}, r"'test' is float64 \[2, 2, 1\]; numbers \[n, C\]"),
        ({"test": np.array([["a", "b"]] * 2)}, {}, "numbers .n, C. are read"),
        ({"test_label": np.array([0, 2])}, {}, "each 0 or 1"),
        ({"test_label": np.array([0])}, {}, r"labels are \[2\]"),
        ({"test": np.array([[1.0, np.inf]] * 2)}, {}, "'c1' is infinite"),
        ({}, {"channels": ["a"]}, "1 names, but .* has 2 columns"),
        ({}, {"step_seconds": 0.0}, "step_seconds=0.0"),
        (
            {"train": np.zeros((2000, 2))},
            {"step_seconds": 5e6},
            r"step_seconds=5000000.0: 2002 rows would end after the year 2262.*at most 4.60",
        ),
        ({}, {"parts": []}, "name at least 1 array"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_left(
    tmp_path: Path, arrays: dict[str, np.ndarray], change: dict, options: dict, told: str
) -> None:
    with pytest.raises(InputError, match=told):
        recorded(tmp_path, arrays | change, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["host.npz"]


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_text("no archive")
    with pytest.raises(InputError, match="cannot be read as a NumPy archive"):
        record_arrays(tmp_path / "x.npz", tmp_path / "r", step_seconds=1)
    (tmp_path / "empty.npz").touch()
    with pytest.raises(InputError, match=r"empty\.npz: cannot be read as a NumPy archive"):
        record_arrays(tmp_path / "empty.npz", tmp_path / "r", step_seconds=1)
    np.save(tmp_path / "one.npy", np.zeros((2, 2)))
    with pytest.raises(InputError, match=r"an archive .* of named ones is needed"):
        record_arrays(tmp_path / "one.npy", tmp_path / "r", step_seconds=1)
    np.savez(tmp_path / "objects.npz", train=np.array([{}, {}], dtype=object))
    with pytest.raises(InputError, match="cannot be read"):
        record_arrays(tmp_path / "objects.npz", tmp_path / "r", step_seconds=1, parts=["train"])


def test_server_telemetry_itself(tmp_path: Path, real: Callable[[str], Path]) -> None:
    out = record_arrays(real("asd/omi-1.npz"), tmp_path / "r", step_seconds=300)
    recording = Recording.open(out)
    assert recording.rows == 8640 + 4320
    assert len(recording.inputs) == 19
    label = recording.scan().select("anomaly").collect()["anomaly"]
    assert label.null_count() == 8640
    assert label.mean() == pytest.approx(0.102, abs=0.001)
