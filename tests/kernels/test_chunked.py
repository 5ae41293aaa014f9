"""The chunked form in torch: its gradient, its chunks and runs of chunks, and its inverse."""

from __future__ import annotations

import pytest
import torch
from rule_cases import error, make_case
from test_rule import check

from adaptive_sleep.kernels import gated_delta_rule, layout
from adaptive_sleep.kernels.gradient import chunked_gated_delta_rule


@pytest.mark.parametrize("steps", [2, 19, 40])
def test_gradient_by_finite_differences(steps: int) -> None:
    case = make_case(steps, batch=1, steps=steps, heads=1, key=2, value=3).cast(
        torch.float64, grad=True
    )
    assert torch.autograd.gradcheck(
        chunked_gated_delta_rule, (*case.inputs(), case.state), fast_mode=True
    )


@pytest.mark.parametrize(("key", "value"), [(64, 64), (128, 128), (96, 256)])
@pytest.mark.parametrize("steps", [45, 128])
def test_large_heads(key: int, value: int, steps: int) -> None:
    check(make_case(key, batch=1, steps=steps, heads=2, key=key, value=value, gate=0.2))


def test_a_long_sequence_of_few_rows() -> None:
    check(make_case(5, batch=1, steps=1030, heads=1, key=16, value=16, gate=0.1))


@pytest.mark.parametrize("run", [1, 3])
def test_chunks_may_be_worked_on_in_runs(run: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adaptive_sleep.kernels.chunked.chunks_at_once", lambda *_: run)
    check(make_case(1, steps=32 * 5 + 7, lengths=True))


def test_the_same_call_gives_the_same_bits() -> None:
    case = make_case(2, steps=70).cast(torch.float32)
    first = gated_delta_rule(*case.inputs(), initial_state=case.state)
    for a, b in zip(first, gated_delta_rule(*case.inputs(), initial_state=case.state), strict=True):
        assert torch.equal(a, b)


def test_with_and_without_gradient_the_bits_are_the_same() -> None:
    case = make_case(3, steps=70)
    plain, leaves = case.cast(torch.float32), case.cast(torch.float32, grad=True)
    for a, b in zip(
        gated_delta_rule(*plain.inputs(), initial_state=plain.state),
        gated_delta_rule(*leaves.inputs(), initial_state=leaves.state),
        strict=True,
    ):
        assert torch.equal(a, b)


@pytest.mark.parametrize("size", [1, 2, 8, 16, 32, 64])
def test_the_inverse_ignores_the_diagonal_and_above(size: int) -> None:
    rng = torch.Generator().manual_seed(size)
    below = torch.randn(3, size, size, generator=rng, dtype=torch.float64).tril(-1) / size
    system = below + torch.full_like(below, float("nan")).triu()
    system = torch.where(torch.ones_like(below).tril(-1) > 0, below, system)
    wanted = torch.linalg.inv(torch.eye(size, dtype=torch.float64) + below)
    assert error(layout.inverse(system), wanted) < 1e-12


def test_decays_are_sums_over_segments() -> None:
    gates = torch.zeros(1, 64)
    gates[0, :40] = -25.0
    gates[0, 40:] = -1e-3
    decay = layout.decays(gates)[0, : 64 * 64].view(64, 64)
    wanted = torch.tensor(-1e-3, dtype=torch.float64).mul(23).exp()
    assert error(decay[63, 40], wanted) < 2e-7
    assert not decay.triu(1).any()
