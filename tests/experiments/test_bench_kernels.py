"""The kernel benchmark reports a speed only where the results are right, and in keys that stay."""

from __future__ import annotations

import builtins
from typing import Any

import pytest
import torch

from adaptive_sleep.experiments import bench_kernels
from adaptive_sleep.kernels import chosen_backend
from adaptive_sleep.streams.errors import AdaptiveSleepError, InputError

TINY = ((1, 20, 1, 8, 8), (2, 16, 2, 4, 4))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small shapes, and the reference in the place of transformers' form."""
    monkeypatch.setattr(bench_kernels, "SHAPES", TINY)
    monkeypatch.setattr(bench_kernels, "_theirs", lambda _: bench_kernels._wanted)


@pytest.mark.usefixtures("quick")
def test_the_report_has_its_keys() -> None:
    lines: list[str] = []
    found = bench_kernels.run_bench(shapes=TINY, seconds=0.0, report=lines.append)
    assert found["gate"] == "passed"
    assert found["backend"] == chosen_backend(torch.device("cpu"), torch.float32)
    assert [tuple(row["shape"]) for row in found["shapes"]] == list(TINY)
    for row in found["shapes"]:
        for key in ("forward_ratio", "train_ratio", "ceiling_fraction", "peak_bytes_ratio"):
            assert row[key] > 0
    assert found["forward_ratio_geomean"] > 0
    assert found["train_ratio_geomean"] > 0
    assert len(lines) == len(TINY)


@pytest.mark.usefixtures("quick")
def test_a_wrong_result_has_no_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = bench_kernels._ours

    def wrong(backend: str) -> Any:
        def rule(*inputs: torch.Tensor) -> Any:
            o, state = right(backend)(*inputs)
            return o, state * (1 + 1e-3)

        return rule

    monkeypatch.setattr(bench_kernels, "_ours", wrong)
    with pytest.raises(AdaptiveSleepError, match=r"state is .* off the reference"):
        bench_kernels.run_bench(shapes=TINY, seconds=0.0)


def test_peak_bytes_are_those_alive_at_once() -> None:
    def rule(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        for _ in range(10):
            y = x + 1
        return y, y * 2

    peak = bench_kernels._peak_bytes(rule, [torch.zeros(1000, requires_grad=True)])
    assert 4 * 4000 <= peak <= 9 * 4000


def test_without_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str, *_: object) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(bench_kernels.importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(bench_kernels.importlib, "import_module", missing)
    with pytest.raises(InputError, match=r"adaptive-sleep\[bench\]"):
        bench_kernels.run_bench(shapes=TINY)
    monkeypatch.setattr(bench_kernels.importlib.util, "find_spec", lambda _: builtins)
    with pytest.raises(InputError, match="hands over"):
        bench_kernels.run_bench(shapes=TINY)
