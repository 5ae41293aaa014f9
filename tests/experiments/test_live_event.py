"""Events from Python are checked once where they come in; what is none is named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from run_cases import series_model, token_model

from adaptive_sleep.experiments.live import run_live
from adaptive_sleep.experiments.live_event import LiveEvent, checked_events
from adaptive_sleep.streams.errors import InputError

GOOD: dict[str, Any] = {"stream": "a", "time": 1}
WIDTH = r"3 number\(s\), of load, heat, fan; NaN is missing"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"values": np.zeros(1)}, rf"values=\[0.0\] of shape \[1\]: {WIDTH}"),
        ({"values": np.zeros((1, 3))}, rf".* of shape \[1, 3\]: {WIDTH}"),
        ({"values": 0.5}, rf"values=0.5 of shape \[\]: {WIDTH}"),
        ({"values": None}, rf"values=None .*: {WIDTH}"),
        ({"values": ["1", "2", "3"]}, rf"values=\['1', '2', '3'\] .*: {WIDTH}"),
        ({"values": [[1], [2, 3]]}, rf"values=\[\[1\], \[2, 3\]\]: {WIDTH}"),
        ({"values": [0.0, 1e39, 0.0]}, r"values: heat=1e\+39 is not finite as float32"),
        ({"values": [0.0, 0.0, -np.inf]}, "values: fan=-inf is not finite"),
        ({"time": None}, "time=None: whole ns"),
        ({"time": 1.5}, r"time=1.5 \(float\): a whole number"),
        ({"time": 2**63}, "time=9223372036854775808: beyond 64 bits"),
        ({"stream": 7}, "stream=7: a text"),
        ({"stream": ""}, "stream='': a stream has a name"),
        ({"stream": "\ud800"}, "stream=.*: a text that UTF-8 can hold"),
        ({"token": 1}, "token=1: the model reads channels"),
    ],
    ids=str,
)
def test_what_is_no_event_of_a_series_is_named(changes: dict[str, Any], named: str) -> None:
    given = {**GOOD, "values": np.zeros(3, np.float32)}
    events = [LiveEvent(**given), None, LiveEvent(**{**given, **changes})]
    with pytest.raises(InputError, match=f"^event 2: {named}"):
        run_live(events, series_model(), "fixed(1)")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"token": 2.7}, r"token=2.7 \(float\): a whole number"),
        ({"token": None}, "token=None: a whole number from 0 to 10"),
        ({"token": True}, r"token=True \(bool\)"),
        ({"token": 11}, "token=11: a whole number from 0 to 10"),
        ({"token": -1}, "token=-1: a whole number from 0 to 10"),
        ({"values": np.zeros(1)}, "values: the model reads tokens"),
    ],
    ids=str,
)
def test_what_is_no_token_is_named(changes: dict[str, Any], named: str) -> None:
    events = [LiveEvent(**GOOD, token=3), LiveEvent(**{**GOOD, "token": 3, **changes})]
    with pytest.raises(InputError, match=f"^event 2: {named}"):
        run_live(events, token_model(), "fixed(1)")


def test_what_is_an_event_is_read_as_it_means() -> None:
    config = series_model().config
    row = np.array([1.0, np.nan, 3.0])
    events = checked_events([LiveEvent("a", np.int64(7), row)], config)  # type: ignore[arg-type]
    (event,) = [next(events)]
    row[:] = 0.0  # the one who gave it uses it again
    assert event is not None
    assert type(event.time) is int
    assert event.values is not None
    assert event.values.dtype == np.float32
    np.testing.assert_array_equal(event.values, np.float32([1.0, np.nan, 3.0]))
    (token,) = checked_events([LiveEvent("a", 7, token=np.int32(4))], token_model().config)  # type: ignore[arg-type]
    assert token is not None
    assert type(token.token) is int
    with pytest.raises(InputError, match=r"^event 1: 'a' \(str\): a LiveEvent, or None"):
        next(checked_events("a", config))


def test_what_is_masked_is_missing() -> None:
    masked = np.ma.array([99, 1, 2], mask=[1, 0, 0])
    (event,) = checked_events([LiveEvent("a", 1, masked)], series_model().config)
    assert event is not None
    assert event.values is not None
    assert np.isnan(event.values[0])
    assert event.values[1:].tolist() == [1.0, 2.0]
