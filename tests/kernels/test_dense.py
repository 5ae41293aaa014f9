"""Small networks in C: what torch's layers give, row by row."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from adaptive_sleep.kernels import Dense
from adaptive_sleep.streams.errors import InputError

Layers = list[tuple[Tensor, Tensor]]


def drawn(sizes: list[int], rows: int, seed: int) -> tuple[Layers, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    layers = [
        (torch.randn(b, a, generator=rng) / a**0.5, torch.randn(b, generator=rng))
        for a, b in itertools.pairwise(sizes)
    ]
    return layers, torch.randn(rows, sizes[0], generator=rng)


def made(layers: Layers, *, relu: bool) -> Dense:
    weights, biases = zip(*layers, strict=True)
    return Dense(weights, biases, relu=relu)


def slowly(layers: Layers, x: Tensor, *, relu: bool) -> Tensor:
    x = x.double()
    for at, (weight, bias) in enumerate(layers):
        if at:
            x = x.relu() if relu else x.tanh()
        x = F.linear(x, weight.double(), bias.double())
    return x


@pytest.mark.usefixtures("_level")
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("sizes", [[3, 2], [133, 128, 128, 3], [1, 17, 16, 33, 1]])
@pytest.mark.parametrize("rows", [0, 1, 3, 4, 11])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 2e-6), (torch.float64, 1e-14)])
def test_equal_the_layers(
    sizes: list[int], rows: int, dtype: torch.dtype, bound: float, *, relu: bool
) -> None:
    assert Dense.serves()
    layers, x = drawn(sizes, rows, seed=len(sizes))
    layers, x = [(w.to(dtype), b.to(dtype)) for w, b in layers], x.to(dtype)
    found = made(layers, relu=relu)(x)
    assert (found.shape, found.dtype) == ((rows, sizes[-1]), dtype)
    assert torch.allclose(found.double(), slowly(layers, x, relu=relu), rtol=bound, atol=bound)


@pytest.mark.usefixtures("_level")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 40), min_size=2, max_size=4), st.integers(1, 9), st.booleans())
def test_a_row_gives_the_same_in_any_batch(sizes: list[int], rows: int, relu: bool) -> None:
    layers, x = drawn(sizes, rows, seed=rows)
    network = made(layers, relu=relu)
    whole = network(x)
    for row in range(rows):
        assert torch.equal(network(x[row : row + 1])[0], whole[row])
    assert torch.equal(network(x.flip(0)).flip(0), whole)


@pytest.mark.usefixtures("_level")
def test_it_keeps_what_it_was_given() -> None:
    layers, x = drawn([4, 5, 2], 3, seed=0)
    network = made(layers, relu=True)
    wanted = network(x)
    for weight, bias in layers:
        weight.zero_()
        bias.zero_()
    assert torch.equal(network(x), wanted)
    assert torch.equal(network(x.t().contiguous().t()), wanted)


@pytest.mark.usefixtures("_level")
def test_what_is_not_finite_comes_through() -> None:
    layers, x = drawn([3, 4, 2], 5, seed=0)
    x[1, 0], x[4, 2] = torch.nan, torch.nan
    for relu in (True, False):
        found = made(layers, relu=relu)(x)
        assert torch.equal(found.isnan().any(1), x.isnan().any(1))


@pytest.mark.usefixtures("_level")
@pytest.mark.parametrize(
    ("x", "shown"),
    [
        (torch.zeros(3, 2), r"torch\.float32 of shape \(3, 2\)"),
        (torch.zeros(3), r"of shape \(3,\)"),
        (torch.zeros(2, 3, dtype=torch.float64), r"torch\.float64 of shape \(2, 3\)"),
    ],
)
def test_another_x_is_refused(x: Tensor, shown: str) -> None:
    layers, _ = drawn([3, 2], 1, seed=0)
    with pytest.raises(InputError, match=rf"x: .*{shown}, expected torch\.float32 .*\(rows, 3\)"):
        made(layers, relu=True)(x)
