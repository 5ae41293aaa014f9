"""What an agent sees: the moments are those of all windows, and a row is seen by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from environment_cases import view
from hypothesis import given
from hypothesis import strategies as st

from adaptive_sleep.policies.environment_view import Moments, View, numbers
from adaptive_sleep.signals import WindowSignals
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.testing import make_signals

NAMES = ("surprise", "tokens")


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_running_moments_are_those_of_all_rows(sizes: list[int]) -> None:
    moments = Moments(NAMES, 4)
    batches = [make_signals(size, at, summary_width=4) for at, size in enumerate(sizes)]
    for batch in batches:
        moments.add(batch)
    rows = np.concatenate([numbers(batch, NAMES, 4) for batch in batches])
    found = moments.view()
    assert moments.count == len(rows)
    assert np.allclose(found.mean, rows.mean(axis=0), rtol=1e-12)
    if len(rows) > 1:
        assert np.allclose(found.scale, rows.std(axis=0), rtol=1e-9)
    else:
        assert found.scale.tolist() == [1.0] * 6


def test_signals_are_taken_by_name() -> None:
    signals = make_signals(5, 0)
    both = numbers(signals, NAMES, 0)
    assert np.array_equal(both[:, ::-1], numbers(signals, NAMES[::-1], 0))
    assert np.array_equal(both[:, :1], numbers(signals, NAMES[:1], 0))


def test_a_row_is_seen_as_if_it_were_alone_and_inside_the_box() -> None:
    own = view(16)
    signals = make_signals(7, 3, gap=np.geomspace(1, 1e300, 7))
    seen = own.see(signals)
    assert np.abs(seen).max() == own.clip
    alone = [own.see(signals.select([row]))[0] for row in range(7)]
    assert np.array_equal(seen, alone)


def test_what_never_changed_is_seen_as_it_is_when_it_does() -> None:
    moments = Moments(("budget_left",), 0)
    moments.add(make_signals(5, 0, budget_left=np.full(5, 0.25)))
    seen = moments.view().see(make_signals(2, 0, budget_left=[0.25, 1.0]))
    assert seen.tolist() == [[0.0], [0.75]]


def test_two_views_are_the_same_only_in_everything() -> None:
    assert view(4).same(view(4))
    assert not view(4).same(view())
    assert not view(4).same(view(4, model="f" * 64))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"signals": ("suprise",)}, "no signal 'suprise'.*did you mean 'surprise'"),
        ({"signals": (), "mean": np.zeros(0), "scale": np.ones(0)}, "at least one signal"),
        ({"mean": np.zeros(3)}, r"mean: shape \(3,\), expected \(2,\)"),
        ({"mean": np.array([0.0, np.nan])}, "mean: .* finite"),
        ({"scale": np.array([1.0, 0.0])}, "above 0"),
        ({"clip": 0.0}, "clip=0.0"),
        ({"summary": -1}, "summary=-1"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], told: str) -> None:
    sound: dict[str, Any] = {"signals": NAMES, "summary": 0, "mean": np.zeros(2)}
    sound |= {"scale": np.ones(2)}
    View(**sound)
    with pytest.raises(InputError, match=told):
        View(**(sound | changes))


def test_a_summary_of_another_width_is_refused() -> None:
    with pytest.raises(InputError, match="16 numbers from this model, expected 4"):
        view(4).see(make_signals(2, 0))
    assert view().see(make_signals(2, 0)).shape == (2, len(WindowSignals.SCALARS))
