"""Models run in float32: where torch is told otherwise, that is said, and nothing is half done."""

from __future__ import annotations

from collections.abc import Iterator

import core_cases as cases
import pytest
import torch

import adaptive_sleep as asl


@pytest.fixture
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("double")
def test_another_default_dtype_is_told() -> None:
    for made in (
        lambda: asl.load_model("bundled:chain"),
        lambda: asl.Runtime(cases.build(cases.tiny("series")), "fixed(1)"),
    ):
        with pytest.raises(asl.InputError, match=r"default dtype is torch\.float64; models run in"):
            made()


def test_a_step_under_autocast_is_refused_and_none_is_lost() -> None:
    model = cases.build(cases.tiny("series"))
    runtime = asl.Runtime(model, "fixed(2)")
    piece = asl.Piece("a", cases.events(model.config, 12, 0), closes=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with pytest.raises(asl.InputError, match=r"step: under torch\.autocast to torch\.bfloat16"):
            runtime.step([piece])
        with pytest.raises(asl.InputError, match=r"load_model: under torch\.autocast"):
            asl.load_model("bundled:chain")
    assert len(runtime.step([piece]).rows) == 1
    with (
        torch.autocast("cpu", dtype=torch.bfloat16),
        pytest.raises(asl.InputError, match=r"predict: under torch\.autocast"),
    ):
        runtime.predict("a", horizon=2)
