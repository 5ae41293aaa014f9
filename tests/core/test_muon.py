"""Muon makes every matrix's update nearly orthogonal, head by head, and touches nothing else."""

from __future__ import annotations

import pytest
import torch

from adaptive_sleep.config import ModelConfig
from adaptive_sleep.model import Model
from adaptive_sleep.muon import Muon, matrices, orthogonal

CONFIG = ModelConfig(kind="tokens", vocabulary=7, width=32, window=8)


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 8, 32), (2, 32, 8), (1, 64, 128)])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
def test_singular_values_end_near_one(shape: tuple[int, ...], scale: float) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * scale
    values = torch.linalg.svdvals(orthogonal(x))
    assert float(values.max()) < 1.3
    assert float(values.median()) > 0.6


def test_directions_stay() -> None:
    x = torch.randn(2, 12, 20, generator=torch.Generator().manual_seed(1))
    u, _, v = torch.linalg.svd(x, full_matrices=False)
    aligned = torch.einsum("nri,nrc,nic->ni", u, orthogonal(x), v)
    assert float(aligned.min()) > 0.3  # each singular direction keeps its sign and its place


def test_each_head_is_updated_apart() -> None:
    whole = torch.nn.Parameter(torch.zeros(8, 6))
    first, second = torch.nn.Parameter(torch.zeros(3, 6)), torch.nn.Parameter(torch.zeros(5, 6))
    grad = torch.randn(8, 6, generator=torch.Generator().manual_seed(2))
    whole.grad, first.grad, second.grad = grad, grad[:3].clone(), grad[3:].clone()
    Muon([{"params": [whole], "dim": 0, "sizes": (3, 5)}], lr=0.1).step()
    Muon([{"params": [p], "dim": 0, "sizes": ()} for p in (first, second)], lr=0.1).step()
    torch.testing.assert_close(whole, torch.cat([first, second]))


def test_columns_can_be_cut_too() -> None:
    tall = torch.nn.Parameter(torch.zeros(6, 8))
    tall.grad = torch.randn(6, 8, generator=torch.Generator().manual_seed(3))
    Muon([{"params": [tall], "dim": 1, "sizes": (4, 4)}], lr=1.0).step()
    for half in tall.detach().split(4, 1):
        assert torch.linalg.svdvals(half).median() > 0.6


def test_every_block_matrix_is_found_once_and_sizes_add_up() -> None:
    model = Model(CONFIG)
    groups = matrices(model)
    found = [id(p) for group in groups for p in group["params"]]
    wanted = {
        id(p)
        for name, p in model.blocks.named_parameters()
        if p.dim() == 2 and name.split(".")[-1] == "weight" and "gates" not in name
    }
    assert len(found) == len(set(found))
    assert set(found) == wanted
    for group in groups:
        if group["sizes"]:
            assert sum(group["sizes"]) == group["params"][0].shape[group["dim"]]
