"""Which quiet windows come before an alert, and whether a rise of surprise is seen where it is."""

from __future__ import annotations

import numpy as np
import pytest

from adaptive_sleep.experiments.probes.alerts import Quiet, quiet_windows, rise
from adaptive_sleep.streams.errors import InputError


def windows(text: str) -> np.ndarray:
    return np.array([mark == "!" for mark in text], dtype=np.bool_)


def marks(quiet: Quiet) -> str:
    both = zip(quiet.before, quiet.usual, strict=True)
    return "".join("b" if before else "u" if usual else "-" for before, usual in both)


@pytest.mark.parametrize(
    ("alerts", "expected"),
    [
        ("..!!..!.", "ub--ub--"),
        ("!.!", "-b-"),
        ("....", "uuu-"),
        ("!!", "--"),
        (".", "-"),
        ("", ""),
    ],
)
def test_a_window_before_an_alert_is_quiet_and_what_follows_is_known(
    alerts: str, expected: str
) -> None:
    assert marks(quiet_windows(windows(alerts))) == expected


def test_a_rise_is_seen_and_none_is_not() -> None:
    quiet = quiet_windows(windows("...!" * 8 + "."))
    random = np.random.default_rng(0)
    noise = random.normal(size=33)
    found = rise(noise + 3.0 * quiet.before, quiet)
    assert found is not None
    assert found[0] == pytest.approx((noise[quiet.before] + 3.0).mean() - noise[quiet.usual].mean())
    assert found[1] < 0.001
    flat = rise(noise, quiet)
    assert flat is not None
    assert flat[1] > 0.05
    fall = rise(noise - 3.0 * quiet.before, quiet)
    assert fall is not None
    assert fall[1] > 0.99  # one-sided: a fall is no rise


def test_windows_with_alerts_are_not_compared() -> None:
    alerts = windows("..!..!..")
    quiet, surprise = quiet_windows(alerts), np.arange(8.0)
    assert rise(surprise, quiet) == rise(np.where(alerts, 99.0, surprise), quiet)


def test_without_both_kinds_nothing_is_said() -> None:
    assert rise(np.zeros(4), quiet_windows(windows("...."))) is None
    assert rise(np.zeros(3), quiet_windows(windows("!.!"))) is None
    with pytest.raises(InputError, match="3 windows, but 4"):
        rise(np.zeros(3), quiet_windows(windows("....")))
