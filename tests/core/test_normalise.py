"""Causal normalisation against sums over the whole past, and what it does with odd streams."""

from __future__ import annotations

import core_cases as cases
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptive_sleep.normalise import RunningStats, advance, fresh_stats


def by_hand(values: np.ndarray, counts: np.ndarray, memory: int) -> tuple[np.ndarray, ...]:
    """Mean, scale and last value of every channel after every patch, from all patches up to it."""
    patches, _, channels = values.shape
    mean, scale, last = (np.zeros((patches, channels)) for _ in range(3))
    for t in range(patches):
        for c in range(channels):
            weight, seen = [], []
            for i in range(t + 1):
                age = counts[i + 1 : t + 1].sum()
                for value in values[i, :, c]:
                    if np.isfinite(value):
                        weight.append(np.exp(-age / memory))
                        seen.append(float(value))
            if seen:
                mean[t, c] = np.average(seen, weights=weight)
                spread = np.sqrt(np.average((np.array(seen) - mean[t, c]) ** 2, weights=weight))
                scale[t, c] = max(spread, 1e-3 * abs(mean[t, c]) + 1e-6)
                last[t, c] = seen[-1]
            else:
                scale[t, c] = 1e-6
    return mean, scale, last


@given(
    seed=st.integers(0, 1000),
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    offset=st.sampled_from([0.0, -3.0, 1e6]),
    missing=st.sampled_from([0.0, 0.5, 0.9]),
)
@settings(max_examples=25)
def test_running_statistics(seed: int, sizes: list[int], offset: float, missing: float) -> None:
    random = np.random.default_rng(seed)
    total, patch = sum(sizes), 3
    values = (random.normal(size=(total, patch, 2)) + offset).astype(np.float32)
    values[random.random(values.shape) < missing] = np.nan
    counts = random.integers(1, patch + 1, total)
    for t, count in enumerate(counts):
        values[t, count:] = np.nan
    mean, scale, last = by_hand(values, counts, 20)
    stats, start = fresh_stats(1, 2), 0
    for size in sizes:
        rows = slice(start, start + size)
        each, stats = advance(
            stats, torch.from_numpy(values[rows])[None], torch.from_numpy(counts[rows])[None], 20
        )
        location, width = each.scale()
        np.testing.assert_allclose(location[0].numpy(), mean[rows], rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(width[0].numpy(), scale[rows], rtol=1e-5)
        np.testing.assert_array_equal(each.last[0].numpy(), last[rows])
        start += size
    assert cases.distance(stats.scale()[0], mean[None, -1]) < 1e-9


def test_a_stream_is_padded_without_a_trace() -> None:
    values = torch.randn(2, 3, 4, 2)
    values[1, 1:] = torch.nan
    counts = torch.tensor([[4, 4, 4], [4, 0, 0]])
    _, both = advance(fresh_stats(2, 2), values, counts, 20)
    _, alone = advance(fresh_stats(1, 2), values[1:, :1], counts[1:, :1], 20)
    for name, tensor in alone.tensors().items():
        assert torch.equal(both.tensors()[name][1:], tensor), name


def test_a_channel_long_absent_keeps_its_mean_and_scale() -> None:
    """The sums decay towards nothing, their ratios do not."""
    values = torch.tensor([[2.0], [4.0], [6.0]])[None, None]
    _, stats = advance(fresh_stats(1, 1), values, torch.tensor([[3]]), 10)
    known = stats.scale()
    for _ in range(40):
        _, stats = advance(stats, torch.full((1, 1, 3, 1), torch.nan), torch.tensor([[10]]), 10)
    assert float(stats.count) < 1e-15
    for before, after in zip(known, stats.scale(), strict=True):
        assert torch.allclose(before, after, rtol=1e-9)


def test_a_constant_channel_has_a_scale() -> None:
    values = torch.full((1, 1, 4, 1), 5.0)
    _, stats = advance(fresh_stats(1, 1), values, torch.tensor([[4]]), 10)
    location, scale = stats.scale()
    assert float(location) == 5.0
    assert 0.004 < float(scale) < 0.006
    assert isinstance(stats, RunningStats)


@pytest.mark.parametrize("outlier", [-(2.0**31), 1e8, 1e30])
def test_an_outlier_that_comes_first_is_forgotten(outlier: float) -> None:
    """As one that comes later: the sums move away from it before they lose their digits."""
    values = np.random.default_rng(0).normal(size=(64, 64, 1, 1)).astype(np.float32)
    values[0, 0] = outlier
    stats, later = fresh_stats(1, 1), fresh_stats(1, 1)
    counts = torch.ones(1, 64, dtype=torch.int64)
    for part in values:
        _, stats = advance(stats, torch.from_numpy(part)[None], counts, 16)
    for part in values[32:]:
        _, later = advance(later, torch.from_numpy(part)[None], counts, 16)
    for found, wanted in zip(stats.scale(), later.scale(), strict=True):
        assert torch.allclose(found, wanted, rtol=1e-6, atol=1e-9)


def test_a_channel_that_was_observed_stays_known() -> None:
    values = torch.tensor([[2.0], [4.0], [6.0]])[None, None]
    _, stats = advance(fresh_stats(1, 1), values, torch.tensor([[3]]), 10)
    known = stats.scale()
    silent = torch.full((1, 1, 100, 1), torch.nan)
    for _ in range(100):  # a thousand memories
        _, stats = advance(stats, silent, torch.tensor([[100]]), 10)
    assert stats.known.all()
    for before, after in zip(known, stats.scale(), strict=True):
        assert torch.allclose(before, after, rtol=1e-9)
    _, after_it = advance(stats, values + 100, torch.tensor([[3]]), 10)
    assert torch.allclose(after_it.scale()[0], known[0] + 100, rtol=1e-9)  # the old weighs nothing


def test_silence_of_any_length_in_one_call_leaves_a_channel_known() -> None:
    _, stats = advance(fresh_stats(1, 1), torch.tensor([2.0, 4.0, 6.0])[None, None, :, None],
                       torch.tensor([[3]]), 16)  # fmt: skip
    for silent in (11_850, 13_000):  # where exp(-n / 16) is denormal, and nothing
        _, after = advance(stats, torch.full((1, 1, 1, 1), torch.nan), torch.tensor([[silent]]), 16)
        for before, found in zip(stats.scale(), after.scale(), strict=True):
            assert torch.allclose(before, found, rtol=1e-9)
