"""What blocks do row by row: the compiled forms are those of torch, forward and backward."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from rule_cases import error
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from adaptive_sleep.kernels import (
    gated_norm,
    keys_and_values,
    native_rows,
    rms_norm,
    rows,
    squared_relu,
)
from adaptive_sleep.streams.errors import InputError

Form = Callable[..., Any]


def split(x: Tensor) -> tuple[Tensor, ...]:
    return keys_and_values(x, 2, 8, 16)


def torch_split(x: Tensor) -> tuple[Tensor, ...]:
    return rows.torch_keys_and_values(x, 2, 8, 16)


# The compiled form, torch's, and the shapes of what they are given after [3, n].
FORMS = [
    pytest.param(rms_norm, rows.torch_rms_norm, [(3, 7, 24), (24,)], id="rms_norm"),
    pytest.param(
        gated_norm, rows.torch_gated_norm, [(3, 7, 2, 16), (16,), (3, 7, 2, 16)], id="gated_norm"
    ),
    pytest.param(squared_relu, rows.torch_squared_relu, [(3, 50, 8)], id="squared_relu"),
    pytest.param(split, torch_split, [(3, 7, 64)], id="keys_and_values"),
]


def draw(shapes: list[tuple[int, ...]], dtype: torch.dtype, size: float = 1.0) -> list[Tensor]:
    rng = torch.Generator().manual_seed(0)
    drawn = (torch.randn(s, generator=rng, dtype=torch.float64) * size for s in shapes)
    return [x.to(dtype).requires_grad_() for x in drawn]


def results(form: Form, given: list[Tensor]) -> list[Tensor]:
    """Outputs and gradients of a form."""
    found = form(*given)
    outputs = list(found) if isinstance(found, tuple) else [found]
    weights = [torch.linspace(-1, 2, x.numel(), dtype=x.dtype).view(x.shape) for x in outputs]
    gradients = torch.autograd.grad(outputs, given, weights)
    return [x.detach() for x in (*outputs, *gradients)]


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs a C compiler at installation")
def test_the_compiled_form_serves() -> None:
    x = torch.zeros(2, 8)
    assert native_rows.serves(8, x)
    assert not native_rows.serves(7, x)
    assert not native_rows.serves(8, x, x.double())
    assert not native_rows.serves(8, x.half())
    assert not native_rows.serves(8, x[:0])
    assert not native_rows.serves(8, x.to("meta"))


@pytest.mark.usefixtures("_level", "_poisoned")
@pytest.mark.parametrize("size", [1e-3, 1.0, 30.0])
@pytest.mark.parametrize(("form", "wanted", "shapes"), FORMS)
def test_equals_the_torch_form(
    form: Form, wanted: Form, shapes: list[tuple[int, ...]], size: float
) -> None:
    found = results(form, draw(shapes, torch.float32, size))
    exact = results(wanted, draw(shapes, torch.float64, size))
    for x, y in zip(found, exact, strict=True):
        assert x.shape == y.shape
        assert error(x.double(), y) < 1e-6


@pytest.mark.usefixtures("_level")
@pytest.mark.parametrize(("form", "wanted", "shapes"), FORMS)
def test_gradients_by_differences(form: Form, wanted: Form, shapes: list[tuple[int, ...]]) -> None:
    given = draw(shapes, torch.float64)
    for x, y in zip(results(form, given), results(wanted, given), strict=True):
        assert error(x, y) < 1e-13
    few = [x[:1, :2].detach().requires_grad_() if x.dim() > 1 else x for x in given]
    assert torch.autograd.gradcheck(form, few)


@pytest.mark.parametrize(("form", "wanted", "shapes"), FORMS)
def test_views_without_gradient_and_recomputed_alike(
    form: Form, wanted: Form, shapes: list[tuple[int, ...]]
) -> None:
    given = draw(shapes, torch.float32)
    plain = results(form, given)
    turned = [x.mT.contiguous().mT if x.dim() > 1 else x for x in given]
    again = results(lambda *x: checkpoint(form, *x, use_reentrant=False), turned)
    with torch.no_grad():
        found = form(*turned)
    outputs = list(found) if isinstance(found, tuple) else [found]
    assert all(torch.equal(x, y) for x, y in zip(plain, again, strict=True))
    assert all(torch.equal(x, y) for x, y in zip(outputs, plain, strict=False))


@pytest.mark.parametrize(("form", "wanted", "shapes"), FORMS)
def test_threads_do_not_change_a_bit(
    form: Form, wanted: Form, shapes: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native_rows, "WORTH_A_THREAD", 1)
    many = [(100, *s[1:]) if len(s) > 1 else s for s in shapes]
    found = []
    for threads in (1, 2, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        found.append(results(form, draw(many, torch.float32)))
    for others in found[1:]:
        assert all(torch.equal(x, y) for x, y in zip(found[0], others, strict=True))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e30, 0.0])
@pytest.mark.parametrize(("form", "wanted", "shapes"), FORMS)
def test_what_is_not_finite_does_not_pass_for_finite(
    form: Form, wanted: Form, shapes: list[tuple[int, ...]], value: float
) -> None:
    given = [x.detach() for x in draw(shapes, torch.float32)]
    given[0][0, 0] = value
    outputs = [x if isinstance(x, tuple) else (x,) for x in (form(*given), wanted(*given))]
    for x, y in zip(*outputs, strict=True):
        assert torch.equal(torch.isfinite(x), torch.isfinite(y))


def test_a_key_of_zeros_stays_zeros() -> None:
    x = torch.zeros(1, 1, 64, requires_grad=True)
    for y, z in zip(results(split, [x]), results(torch_split, [x]), strict=True):
        torch.testing.assert_close(y, z)


def test_other_sizes_run_in_torch() -> None:
    x, gain = torch.randn(2, 5), torch.rand(5)
    assert torch.equal(rms_norm(x, gain), F.rms_norm(x, (5,), gain, eps=1e-6))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rms_norm(torch.zeros(2, 8), torch.ones(4)), r"gain: shape \(4,\), but \(8,\)"),
        (
            lambda: gated_norm(torch.zeros(2, 8), torch.ones(8), torch.zeros(3, 8)),
            r"gate: shape \(3, 8\), but \(2, 8\)",
        ),
        (lambda: keys_and_values(torch.zeros(2, 8), 1, 2, 2), r"x: shape \(2, 8\), but \(2, 6\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()
