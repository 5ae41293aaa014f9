"""What every test stands on: one thread, exact products, the same random numbers each time."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

# derandomize: a red example is red for everybody, and no database is left in the checkout.
settings.register_profile("seeded", derandomize=True, database=None, deadline=None)
settings.load_profile("seeded")

# Products over one thread round the same way on every run.
torch.set_num_threads(1)
torch.set_float32_matmul_precision("highest")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    random.seed(0)
    np.random.seed(0)  # for code that still reads the global state
    torch.manual_seed(0)


@pytest.fixture
def real() -> Callable[[str], Path]:
    """Where a public data set lies, by its name such as "ett/ETTh1.csv": in the folder of
    ADAPTIVE_SLEEP_DATA, in data/ here, or in shared/data beside the checkout. A test that asks for
    one that is nowhere is skipped."""
    checkout = Path(__file__).resolve().parents[1]
    places = [checkout / "data", checkout.parent / "shared" / "data"]
    if folder := os.environ.get("ADAPTIVE_SLEEP_DATA"):
        places.insert(0, Path(folder))

    def find(name: str) -> Path:
        for place in places:
            if (place / name).exists():
                return place / name
        pytest.skip(f"the data set {name} is not here; set ADAPTIVE_SLEEP_DATA to its folder")

    return find


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take longest first, so that no worker ends alone with one of them."""
    items.sort(key=lambda item: item.path.name not in ("test_ahead_of_time.py", "test_triton.py"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a device that is not there."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
