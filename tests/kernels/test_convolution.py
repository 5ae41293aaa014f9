"""The short convolution: causal, and the same however the input is cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import conv1d

from adaptive_sleep.kernels import causal_conv, convolution
from adaptive_sleep.streams.errors import InputError


def draw(
    seed: int, batch: int, steps: int, channels: int, width: int
) -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    shapes = ((batch, steps, channels), (channels, width), (batch, width - 1, channels))
    x, weight, tail = (torch.randn(*s, generator=rng, dtype=torch.float64) for s in shapes)
    return x, weight, tail


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.integers(0, 999),
    st.integers(0, 20),
    st.integers(1, 6),
    st.lists(st.integers(0, 20), max_size=3),
)
def test_cut_anywhere_it_is_the_depthwise_convolution(
    seed: int, steps: int, width: int, cuts: list[int]
) -> None:
    x, weight, tail = draw(seed, 2, steps, 3, width)
    joined = torch.cat((tail, x), 1).transpose(1, 2)
    wanted = conv1d(joined, weight[:, None], groups=3).transpose(1, 2) if steps else x
    edges = sorted({0, steps, *(c for c in cuts if c < steps)})
    now, pieces = tail, [x[:, :0]]
    for a, b in pairwise(edges):
        y, now = causal_conv(x[:, a:b], weight, now)
        pieces.append(y)
    torch.testing.assert_close(torch.cat(pieces, 1), wanted)
    torch.testing.assert_close(now, torch.cat((tail, x), 1)[:, steps:])


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(0, 999), st.integers(1, 6), st.lists(st.integers(0, 9), min_size=1, max_size=5))
def test_padding_enters_neither_outputs_nor_tail(seed: int, width: int, lengths: list[int]) -> None:
    x, weight, tail = draw(seed, len(lengths), 9, 3, width)
    for b, length in enumerate(lengths):
        x[b, length:] = float("nan")
    y, after = causal_conv(x, weight, tail, torch.tensor(lengths))
    for b, length in enumerate(lengths):
        alone, kept = causal_conv(x[b : b + 1, :length], weight, tail[b : b + 1])
        torch.testing.assert_close(y[b : b + 1, :length], alone)
        torch.testing.assert_close(after[b : b + 1], kept)


@pytest.mark.parametrize("lengths", [None, [0, 2, 4]])
@pytest.mark.parametrize("block", [1, 1 << 16])
def test_gradients(lengths: list[int] | None, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolution, "BLOCK", block)
    parts = [p.requires_grad_() for p in draw(1, 3, 4, 2, 3)]
    given_lengths = None if lengths is None else torch.tensor(lengths)
    assert torch.autograd.gradcheck(lambda *p: causal_conv(*p, given_lengths), parts)


def test_a_tail_of_another_width_is_refused() -> None:
    x, weight, tail = draw(1, 2, 4, 3, 3)
    with pytest.raises(InputError, match="tail"):
        causal_conv(x, weight, tail[:, 1:])
