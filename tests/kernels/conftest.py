"""What tests of compiled kernels share: both instruction sets, and buffers that show gaps."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from adaptive_sleep.kernels import native


@pytest.fixture(params=[0, 1], ids=["plain", "avx2"])
def _level(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the compiled form on each instruction set that this processor has."""
    if native.unavailable():
        pytest.skip("not compiled here")
    if request.param > native.level():
        pytest.skip("this processor has no AVX2")
    monkeypatch.setattr(native, "level", lambda: request.param)


@pytest.fixture
def _poisoned() -> Iterator[None]:
    """Every new buffer starts as NaN, so that an element nobody wrote shows."""
    kept = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = kept
