"""Other people's detectors: what they are given is their memory."""

from __future__ import annotations

import json

import pytest
from foreign_detectors import Jump, Rising, rising
from hypothesis import given
from hypothesis import strategies as st

import adaptive_sleep.policies.replayed as replayed
from adaptive_sleep.policies.replayed import Replayed, factory
from adaptive_sleep.streams.errors import InputError

values = st.lists(st.floats(-2, 2), max_size=20)


@given(values, values)
def test_it_goes_on_as_the_detector_would_have(before: list[float], after: list[float]) -> None:
    there, here, bare = Replayed(Jump), Replayed(Jump), Jump()
    for value in before:
        here.update(value)
        bare.update(value)
    there.load_state_dict(json.loads(json.dumps(here.state_dict())))
    assert there.drift_detected == here.drift_detected
    for value in after:
        for it in (here, there, bare):
            it.update(value)
        assert here.drift_detected == there.drift_detected == bare.drift_detected
    assert here.state_dict() == {"values": before + after} == there.state_dict()


def test_its_memory_is_bounded_and_stays_what_a_new_one_would_be_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replayed, "MEMORY", 8)
    detector = Replayed(Rising)
    for value in range(100):
        detector.update(float(value))
        kept = detector.state_dict()["values"]
        assert len(kept) <= 8
        assert kept == [float(it) for it in range(value + 1 - len(kept), value + 1)]
        assert isinstance(detector.detector, Rising)
        assert detector.detector.given == kept
        assert value < 8 or len(kept) > 4


def test_a_factory_is_a_class_or_a_function() -> None:
    assert factory("detector", "foreign_detectors:Jump") is Jump
    assert factory("detector", "foreign_detectors:rising") is rising


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("Jump", 'expected "module:Class"'),
        (":Jump", 'expected "module:Class"'),
        ("no_such_module:Jump", "module 'no_such_module' cannot be imported"),
        ("foreign_detectors:Jmp", "has no 'Jmp', did you mean 'Jump'"),
        ("foreign_detectors:Picky", "cannot be made with no arguments .*name a function"),
        ("foreign_detectors:Deaf", r"no 'drift_detected', did you mean 'drift_detect'\?"),
    ],
)
def test_what_makes_no_detector_is_refused(place: str, message: str) -> None:
    with pytest.raises(InputError, match=rf"detector='{place}': .*{message}"):
        factory("detector", place)
