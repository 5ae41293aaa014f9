"""Small networks in C: what torch's layers give, row by row."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from adaptive_sleep.kernels import Dense
from adaptive_sleep.streams.errors import InputError

Layers = list[tuple[Tensor, Tensor]]
Part = np.ndarray[Any, Any]


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


@pytest.mark.parametrize(
    ("second", "shown"),
    [
        ((torch.zeros(2, 200), torch.zeros(2)), r"layer 1: .*\(2, 200\).*expected \(out, 8\)"),
        ((torch.zeros(2, 8), torch.zeros(3)), r"layer 1: .*biases torch\.float32 \(3,\)"),
        ((torch.zeros(2, 8).double(), torch.zeros(2).double()), r"layer 1: weights torch\.float64"),
    ],
)
def test_layers_that_do_not_fit_are_refused(second: tuple[Tensor, Tensor], shown: str) -> None:
    """They would be read beyond what is there."""
    with pytest.raises(InputError, match=shown):
        Dense([torch.zeros(8, 4), second[0]], [torch.zeros(8), second[1]], relu=True)
    with pytest.raises(InputError, match=r"1 weights and 0 biases"):
        Dense([torch.zeros(8, 4)], [], relu=True)


def parts(rows: int, seed: int) -> tuple[Part, ...]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 4)).astype(np.float32)
    one, other = np.exp(rng.normal(size=(2, rows)) * 9)
    return x, one, other, rng.integers(1, 4, rows)


def together(network: Dense, given: Sequence[Part | None], most: float = 9.0) -> Part:
    held = (None if each is None else each.tobytes() for each in given)
    return network.joined(4, *held, least=1e-2, most=most).numpy()  # type: ignore[arg-type]


def put_together(x: Part, one: Part, other: Part | None, which: Part, least: float) -> Tensor:
    logs = [np.log(np.maximum(one, least)), np.zeros(len(one))]
    if other is not None:
        logs[1] = np.log(np.maximum(other, least))
    columns = [x, *(each[:, None] for each in logs), which[:, None] == np.arange(1, 4)]
    return torch.from_numpy(np.concatenate(columns, 1, dtype=np.float32))


@pytest.mark.usefixtures("_level")
@pytest.mark.parametrize("rows", [0, 1, 7])
@pytest.mark.parametrize("second", [True, False])
def test_rows_that_are_put_together_give_what_whole_ones_give(rows: int, *, second: bool) -> None:
    layers, _ = drawn([9, 17, 3], 1, seed=0)
    network = made(layers, relu=True)
    x, one, other, which = parts(rows, seed=rows)
    given = x, one, other if second else None, which
    found = together(network, given, most=0.3)
    whole = network(put_together(*given, least=1e-2)).double().clamp(-0.3, 0.3).exp()
    assert (found.shape, found.dtype) == ((rows, 3), np.float64)
    assert np.allclose(found, whole.numpy(), rtol=1e-5)
    if rows == 7:  # both ends are reached, and what lies between
        assert found.max() == pytest.approx(np.exp(0.3))
        assert found.min() == pytest.approx(np.exp(-0.3))
        assert (abs(np.log(found)) < 0.29).any()
    for row in range(rows):
        alone = [None if each is None else each[row : row + 1] for each in given]
        assert np.array_equal(together(network, alone, most=0.3)[0], found[row])


@pytest.mark.usefixtures("_level")
@pytest.mark.parametrize(
    ("at", "wrong", "said"),
    [
        (0, np.zeros((6, 3), np.float32), r"\[72, 48, 48, 48\] bytes"),
        (0, np.zeros((6, 4)), r"\[192, 48, 48, 48\] bytes"),
        (1, np.ones(5), r"\[96, 40, 48, 48\] bytes"),
        (1, np.ones(6, np.float32), r"\[96, 24, 48, 48\] bytes"),
        (2, np.ones(7), r"\[96, 48, 56, 48\] bytes"),
        (3, np.ones(5, np.int64), r"\[96, 48, 48, 40\] bytes"),
    ],
)
def test_parts_that_do_not_fit_are_refused(at: int, wrong: Part, said: str) -> None:
    layers, _ = drawn([9, 5, 3], 1, seed=0)
    given = list(parts(6, seed=0))
    given[at] = wrong
    with pytest.raises(InputError, match=said):
        together(made(layers, relu=True), given)


@pytest.mark.usefixtures("_level")
def test_rows_are_put_together_for_a_network_that_takes_them() -> None:
    layers, _ = drawn([9, 5, 3], 1, seed=0)
    doubles = [(w.double(), b.double()) for w, b in layers]
    with pytest.raises(InputError, match=r"for weights of torch\.float64"):
        together(made(doubles, relu=True), parts(6, seed=0))
    narrow, _ = drawn([5, 5, 3], 1, seed=0)
    with pytest.raises(InputError, match=r"width=4, .* expected 1 to 3 numbers of float32 a row"):
        together(made(narrow, relu=True), parts(6, seed=0))
