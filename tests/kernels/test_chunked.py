"""The chunked form in torch: its runs of chunks, its inverse and its decays."""

from __future__ import annotations

import pytest
import torch
from rule_cases import error, make_case
from test_rule import check

from adaptive_sleep.kernels import gated_delta_rule, layout


@pytest.mark.parametrize("run", [1, 3])
def test_chunks_may_be_worked_on_in_runs(run: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adaptive_sleep.kernels.chunked.chunks_at_once", lambda *_: run)
    check(make_case(1, steps=32 * 5 + 7, lengths=True), "torch")


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


def test_no_rows_give_no_rows() -> None:
    given = [x[:0] for x in make_case(seed=0, steps=20, key=8, value=4).inputs()]
    o, state = gated_delta_rule(*given, backend="torch")[:2]
    assert o.shape == given[2].shape
    assert state.shape == (0, 2, 8, 4)
