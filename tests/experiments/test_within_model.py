"""Differences within one model: paired over streams, and nothing said where nothing can be."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from adaptive_sleep.experiments.within_model import FEWEST, Paired, of_differences, paired, scores


def run(**columns: Any) -> Any:
    """A finished run with this trace."""
    return SimpleNamespace(trace=lambda: pl.DataFrame(columns).lazy())


def test_a_stream_scores_its_share_of_windows_all_right() -> None:
    found = scores(
        run(
            stream=["b", "a", "a", "a"],
            scored=[2, 3, 3, 0],
            right=[1, 3, 2, None],
            loss=[0.0, 0.0, 0.0, 0.0],
        )
    )
    assert dict(found.iter_rows()) == {"a": 0.5, "b": 0.0}


def test_a_stream_scores_minus_its_mean_loss_where_nothing_is_asked() -> None:
    found = scores(
        run(stream=["a", "a", "a"], scored=[1, 3, 0], right=[None] * 3, loss=[4.0, 2.0, 9.0])
    )
    assert dict(found.iter_rows()) == {"a": -2.5}


def test_differences_are_paired_by_the_stream() -> None:
    names = [f"s{i}" for i in range(12)]
    rng = np.random.default_rng(0)
    asked, first, second = 8, rng.integers(4, 9, 12), rng.integers(0, 5, 12)

    def of(order: Any, right: Any) -> Any:
        windows = [(names[i], int(w < right[i])) for i in order for w in range(asked)]
        stream, hits = zip(*windows, strict=True)
        return run(stream=stream, scored=[1] * len(hits), right=hits, loss=[0.0] * len(hits))

    found = paired(of(range(12), first), of(range(11, -1, -1), second))
    differences = (first - second)[np.argsort(names)] / asked
    assert found == of_differences(differences)
    assert found.streams == 12
    assert found.p_value == pytest.approx(stats.wilcoxon(differences).pvalue)


def test_the_interval_is_that_of_the_mean() -> None:
    values = np.random.default_rng(1).normal(0.3, 1.0, 400)
    found = of_differences(values)
    assert found.low is not None
    assert found.high is not None
    half = 1.96 * values.std(ddof=1) / 20
    assert found.low == pytest.approx(values.mean() - half, abs=0.2 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.2 * half)


@pytest.mark.parametrize("values", [[], [*map(float, range(FEWEST - 1))], [0.0] * 20, [0.25] * 20])
def test_what_is_degenerate_has_no_interval(values: list[float]) -> None:
    assert of_differences(np.array(values)) == Paired(len(values))


@given(
    st.lists(st.integers(-8, 8), min_size=FEWEST, max_size=40),
    st.sampled_from([0.125, 1.0, 4.0]),
)
@settings(max_examples=30, deadline=None)
def test_it_turns_with_its_sign_and_grows_with_its_scale(values: list[int], scale: float) -> None:
    one, other = (of_differences(f * np.array(values, float)) for f in (1.0, scale))
    assert (one.low is None) == (other.low is None)
    if one.low is None or one.high is None:
        return
    assert other.low == pytest.approx(scale * one.low)
    assert other.high == pytest.approx(scale * one.high)
    assert one.low <= np.mean(values) <= one.high
    turned = of_differences(-np.array(values, float))
    assert turned.p_value == pytest.approx(one.p_value)
