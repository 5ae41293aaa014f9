"""What a trigger looks at, where its threshold comes from, and how its passes are judged."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from adaptive_sleep.experiments.probes.landing import judged, landed
from adaptive_sleep.experiments.probes.triggers import RANDOM, TRIGGERS, rows_of, signal, spec_of
from adaptive_sleep.policies.drift import Drift
from adaptive_sleep.policies.page_hinkley import PageHinkley
from adaptive_sleep.spec import format_spec, resolve

LOSSES = [0.1, 0.1, None, 0.9, 0.9, 0.1, 0.1, 0.1, 0.1, 0.1]


@pytest.fixture
def trace() -> pl.DataFrame:
    steps = np.arange(10.0)
    return pl.DataFrame(
        {
            "loss": LOSSES,
            "surprise": [loss or 0.0 for loss in LOSSES],
            "uncertainty": steps,
            "state_change": steps[::-1],
            "event_density": np.ones(10),
            "tokens": [8] * 9 + [3],
        }
    )


def test_a_threshold_is_what_a_share_of_windows_exceed(trace: pl.DataFrame) -> None:
    spec = spec_of("uncertainty", trace, 0.2)
    level = float(spec.split("threshold=")[1].split(",")[0])
    assert int((trace["uncertainty"] > level).sum()) == 2


@pytest.mark.parametrize("trigger", TRIGGERS)
def test_every_trigger_is_a_policy_of_the_shelf(trigger: str, trace: pl.DataFrame) -> None:
    policy = resolve(spec_of(trigger, trace, 0.1))
    assert format_spec(policy).startswith(trigger)
    found = signal(trigger, trace)
    assert (found is None) == (trigger == RANDOM)
    assert found is None or (found.shape == (10,) and np.isfinite(found).all())


def test_drift_is_what_its_detector_sums_and_unscored_windows_add_nothing(
    trace: pl.DataFrame,
) -> None:
    detector = PageHinkley(100.0, Drift().delta)
    expected = []
    for loss in LOSSES:
        if loss is not None:
            detector.update(loss)
        expected.append(detector.rise)
    found = signal("drift", trace)
    assert found is not None
    assert found.tolist() == expected
    assert found[2] == found[1] < found[4]


def test_windows_are_found_in_the_rows(trace: pl.DataFrame) -> None:
    first, end = rows_of(trace, 100)
    assert first.tolist() == list(range(100, 180, 8))
    assert (end - first).tolist() == trace["tokens"].to_list()


def seed(signal: list[float] | None, passes: list[int]) -> dict[str, Any]:
    labels = np.array([False, False, False, True, True, False, False, False, False, False] * 3)
    given = None if signal is None else np.array(signal * 3)
    return judged(given, np.array(passes * 3), labels, shuffles=200)


def test_a_signal_that_knows_lands_and_one_that_does_not_does_not() -> None:
    knows = seed([0, 0, 0, 9, 9, 0, 0, 0, 0, 0], [1, 1, 1, 4, 4, 1, 1, 1, 1, 1])
    blind = seed([0, 9, 9, 0, 0, 0, 0, 0, 0, 0], [1, 4, 4, 1, 1, 1, 1, 1, 1, 1])
    lot = seed(None, [1, 2, 1, 1, 2, 1, 1, 1, 1, 1])
    assert knows["base"] == pytest.approx(0.2)
    assert knows["share"] == 0.2
    assert knows["signal"]["precision"] == 1.0
    row = landed([knows, knows], [lot, lot])
    assert row["signal"]["by_seed"] == [1.0, 1.0]
    assert row["passes_to_random"]["mean"] == 1.0 - lot["passes"]["precision"]
    assert not landed([blind, blind], [lot, lot])["lands"]
    assert landed([lot, lot], [lot, lot])["signal"] is None
    assert landed([lot, lot], [lot, lot])["passes_to_random"]["interval"] == [0.0, 0.0]


def test_it_lands_by_every_seed_and_by_p() -> None:
    knows = seed([0, 0, 0, 9, 9, 0, 0, 0, 0, 0], [1] * 10)
    sure = {**knows, "signal": {"precision": 1.0, "p_shuffled": 0.001, "p_rotated": 0.01}}
    below = {**knows, "signal": {"precision": 0.1, "p_shuffled": 0.9, "p_rotated": 0.9}}
    assert landed([sure] * 3, [knows] * 3)["lands"]
    assert not landed([sure, sure, below], [knows] * 3)["lands"]
    # a pattern that repeats meets itself when it is rotated by its period, and p says so
    assert knows["signal"]["p_shuffled"] < 0.01 < knows["signal"]["p_rotated"]
