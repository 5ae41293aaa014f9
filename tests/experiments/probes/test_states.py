"""States are those that the runtime keeps, and what is asked of windows is what was in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from adaptive_sleep import snapshot
from adaptive_sleep.config import ModelConfig
from adaptive_sleep.experiments.probes.asked import (
    NEXT,
    OFFSETS,
    QUESTIONS,
    aged,
    answers,
    as_read,
)
from adaptive_sleep.experiments.probes.states import SECOND, read_streams
from adaptive_sleep.model import Model
from adaptive_sleep.runtime import Runtime
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.events import Events, Piece

WINDOW = 8
CONFIG = ModelConfig(
    kind="series", channels=("a", "b"), patch=4, window=WINDOW, width=8, heads=2, fast_heads=1,
    key_dim=4, value_dim=6, norm_memory=30,
)  # fmt: skip
WINDOWS, STREAMS = 5, 3


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    return Model(CONFIG).eval()


@pytest.fixture(scope="module")
def values() -> np.ndarray:
    random = np.random.default_rng(0)
    return random.normal(size=(STREAMS, WINDOWS * WINDOW, 2)).astype(np.float32)


@pytest.mark.parametrize("passes", [1, 3])
def test_states_are_what_a_runtime_keeps(
    model: Model, values: np.ndarray, passes: int, tmp_path: Path
) -> None:
    found = read_streams(model, values, passes)
    runtime = Runtime(model, f"fixed({passes})")
    for w in range(2):
        rows = slice(w * WINDOW, (w + 1) * WINDOW)
        time = np.arange(rows.start, rows.stop) * SECOND
        done = runtime.step([Piece("one", Events(time, values=values[1, rows]), closes=True)])
        assert done.rows[0].loss == pytest.approx(found.loss[1, w], rel=1e-5)
    runtime.save(tmp_path)
    _, tensors = snapshot.read(tmp_path)
    kept = [tensors["now.matrix.1"][1].flatten(), tensors["now.tail.1"][1].flatten()]
    np.testing.assert_allclose(found.states[1, 1], torch.cat(kept), atol=1e-5)
    assert found.states.shape == (STREAMS, WINDOWS, 4 * 6 + 3 * (4 + 4 + 6))
    assert found.flops_per_event == pytest.approx(runtime.ledger.flops_per_event, rel=0.05)


def test_passes_may_differ_by_window(model: Model, values: np.ndarray) -> None:
    plain = read_streams(model, values, 1)
    mixed = read_streams(model, values, [1, 3, 1, 1, 1])
    np.testing.assert_array_equal(mixed.states[:, 0], plain.states[:, 0])
    np.testing.assert_array_equal(mixed.loss[:, :2], plain.loss[:, :2])  # wake comes before sleep
    assert np.all(np.abs(mixed.states[:, 1:] - plain.states[:, 1:]).max(-1) > 0)
    assert np.all(mixed.loss[:, 2] != plain.loss[:, 2])
    dear = read_streams(model, values, 3, keep=False)
    assert plain.flops_per_event < mixed.flops_per_event < dear.flops_per_event
    assert dear.states.shape == (STREAMS, WINDOWS, 0)


def test_streams_and_passes_must_fit(model: Model, values: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"values: 39 events a stream; give whole windows of 8"):
        read_streams(model, values[:, 1:], 1)
    with pytest.raises(InputError, match=r"passes=\[1, 2\]: 5 numbers"):
        read_streams(model, values, [1, 2])
    with pytest.raises(InputError, match="at least 1"):
        read_streams(model, values, 0)


def test_windows_are_as_the_model_reads_them(model: Model, values: np.ndarray) -> None:
    """The embedding is linear in them: what it is given is found again in a step of the runtime."""
    lacking = values.copy()
    lacking[0, 3, 1] = np.nan
    read = as_read(lacking, CONFIG)
    assert read.shape == (STREAMS, WINDOWS, WINDOW, 2)
    assert read[0, 0, 3, 1] == 0.0
    runtime = Runtime(model, "fixed(1)")
    for w in range(2):
        rows = slice(w * WINDOW, (w + 1) * WINDOW)
        piece = Piece("s", Events(np.arange(WINDOW) + w * 100, values=lacking[0, rows]), True)
        (boundary,) = runtime.step([piece], boundaries=True).boundaries
        z = torch.from_numpy(read[0, w]).float().view(2, -1)
        mask = torch.from_numpy(np.isfinite(lacking[0, rows])).float().view(2, -1)
        with torch.no_grad():
            embedded = model.series.read(torch.cat([z, mask], -1))
        torch.testing.assert_close(boundary.closed.embedded[0], embedded)


def test_a_patch_that_is_cut_short_is_read_to_its_end() -> None:
    config = ModelConfig(kind="series", channels=("a",), patch=4, window=6)
    values = np.arange(12, dtype=np.float32).reshape(1, 12, 1)
    read = as_read(values, config)
    assert read.shape == (1, 2, 6, 1)
    assert np.isfinite(read).all()
    assert np.all(np.diff(read[0, 1, 4:, 0]) > 0)


def test_answers_are_what_is_in_a_window() -> None:
    time = np.arange(16, dtype=np.float64)
    window = 3.0 + 2.0 * time  # a line: rises by 30 from the first event to the last
    found = dict(zip(QUESTIONS, answers(window[None, None, :, None])[0, 0, :, 0], strict=True))
    assert found["mean"] == pytest.approx(18.0)
    assert found["slope"] == pytest.approx(30.0)
    assert (found["highest"], found["lowest"]) == (33.0, 3.0)
    for offset in OFFSETS:
        assert found[f"value@{offset:g}"] == 3.0 + 2.0 * int(16 * offset)


def test_an_age_counts_from_the_window_that_has_just_been_evicted() -> None:
    windows = np.arange(6.0)[None, :, None, None]
    found = aged(windows, (0, 2, NEXT), first=2)[0, :, :, 0, 0]
    np.testing.assert_array_equal(found, [[2, 0, 3], [3, 1, 4], [4, 2, 5]])
