"""The records that a policy sees: read-only, of one length, finite or refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from adaptive_sleep.signals import SleepProgress, WindowOutcome, WindowSignals, check_finite
from adaptive_sleep.streams.errors import AdaptiveSleepError, InputError
from adaptive_sleep.testing import make_progress, make_signals


def outcome(**overrides: object) -> WindowOutcome:
    values = {
        "stream": ["a"],
        "window": [3],
        "passes": [2],
        "loss": [0.5],
        "scored": [8],
        "lag": [1],
    }
    return WindowOutcome(**(values | overrides))  # type: ignore[arg-type]


@pytest.mark.parametrize("record", [make_signals(3, 0), make_progress(3, 0), outcome()])
def test_every_field_is_read_only(record: WindowSignals | SleepProgress | WindowOutcome) -> None:
    for name in type(record).__annotations__:
        if name == "SCALARS":
            continue
        with pytest.raises(ValueError, match="read-only"):
            getattr(record, name)[...] = getattr(record, name)


def test_the_arrays_are_copies_of_what_was_given() -> None:
    surprise = np.array([1.0, 2.0])
    signals = make_signals(2, 0, surprise=surprise)
    surprise[0] = 9.0
    assert signals.surprise[0] == 1.0


def test_types_are_those_of_the_contract() -> None:
    signals = make_signals(2, 0)
    assert signals.summary.dtype == np.float32
    assert signals.summary.shape == (2, 16)
    for name in ("window", "tokens", "scored", "wake_flops", "pass_flops", "max_passes"):
        assert getattr(signals, name).dtype == np.int64, name
    for name in ("uncertainty", "surprise", "state_change", "gap", "price", "budget_left"):
        assert getattr(signals, name).dtype == np.float64, name
    assert signals.stream.dtype == object


def test_scalars_are_the_one_dimensional_numeric_signals_in_order() -> None:
    fields = [name for name in WindowSignals.__annotations__ if name != "SCALARS"]
    assert list(WindowSignals.SCALARS) == [
        name for name in fields if name not in ("stream", "window", "summary")
    ]


@pytest.mark.parametrize(
    ("rows", "index"),
    [
        ([2, 0], [2, 0]),
        (np.array([False, True, True]), [1, 2]),
        (slice(1, 3), [1, 2]),
        ([], []),
    ],
)
def test_select_takes_the_same_rows_of_every_field(rows: Any, index: list[int]) -> None:
    signals = make_signals(3, 0)
    part = signals.select(rows)
    np_index = np.array(index, dtype=np.int64)
    assert len(part) == len(index)
    assert part.stream.tolist() == [f"s{row}" for row in index]
    for name in WindowSignals.SCALARS:
        np.testing.assert_array_equal(getattr(part, name), getattr(signals, name)[np_index])
    np.testing.assert_array_equal(part.summary, signals.summary[np_index])


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("surprise", np.zeros(2), r"WindowSignals.surprise has shape \(2,\): expected \(3,\)"),
        ("summary", np.zeros(3), r"WindowSignals.summary has shape \(3,\): expected \(3, 2d\)"),
        ("tokens", np.array([1.5, 2.0, 3.0]), "WindowSignals.tokens holds float64"),
        ("surprise", np.array(["a", "b", "c"]), "WindowSignals.surprise holds"),
        ("scored", np.array([True, False, True]), "WindowSignals.scored holds bool"),
    ],
)
def test_a_wrong_shape_or_type_is_named(field: str, value: object, message: str) -> None:
    wrong: Any = {field: value}
    with pytest.raises(InputError, match=message):
        make_signals(3, 0, **wrong)


@pytest.mark.parametrize("name", ["uncertainty", "surprise", "gap", "event_density", "price"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_signal_that_is_not_finite_is_named_with_stream_and_window(
    name: str, value: float
) -> None:
    check_finite(make_signals(2, 0))
    wrong: Any = {name: [0.0, value]}
    signals = make_signals(2, 0, window=[4, 5], **wrong)
    with pytest.raises(AdaptiveSleepError, match=rf"stream 's1', window 5: signal {name} is"):
        check_finite(signals)


def test_a_summary_that_is_not_finite_is_named() -> None:
    summary = np.zeros((2, 4))
    summary[1, 2] = np.nan
    with pytest.raises(AdaptiveSleepError, match="stream 's1', window 7: signal summary is nan"):
        check_finite(make_progress(2, 0, window=[6, 7], summary=summary))


def test_no_stream_at_all_is_a_record_too() -> None:
    none = make_signals(0, 0)
    assert len(none) == 0
    check_finite(none)
