"""The conformance kit against a shelf of policies that are each broken in one way."""

from __future__ import annotations

from typing import Any

import pytest
import shelf

import adaptive_sleep.testing as kit
from adaptive_sleep.policies import Capped
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.testing import Conformance, check_policy, make_progress, make_signals


@pytest.mark.parametrize(
    "sound",
    [
        shelf.Sound(), shelf.Sound(0.1), shelf.Answers(), shelf.two, Capped(shelf.Sound(), 3),
        "surprise(0.5)", shelf.MadeByReset(), "shelf:Ordinary(passes=3)", shelf.Bare(),
        "shelf:Bare", Capped(shelf.Bare(), 2), shelf.KeepsWhatIsOpen(),
    ],
)  # fmt: skip
def test_a_sound_policy_passes(sound: Any) -> None:
    check_policy(sound)


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (shelf.WrongShape(), "shape"),
        (shelf.ColumnForSeveral(), r"shape \(7, 1\)"),
        (shelf.Floats(), "expected whole numbers"),
        (shelf.Nan(), "expected whole numbers"),
        (shelf.Zero(), "planned 0 passes"),
        (shelf.IgnoresMaxPasses(), "planned 9 passes .* expected 1 .* to 8"),
        (shelf.AlwaysEight(), "planned 8 passes .* expected 1 .* to 4"),
        (shelf.AboveTheMean(), "must not look at other streams"),
        (shelf.Writes(), "writes into its WindowSignals"),
        (shelf.UnlocksAndWrites(), "changes WindowSignals.surprise"),
        (shelf.WritesProgress(), "writes into its SleepProgress"),
        (shelf.GoesOnWithNumbers(), "expected a bool"),
        (shelf.GoesOnForOneOnly(), "answered keep_going with shape"),
        (shelf.NegativeFlops(), r"flops\(2\) is -1"),
        (shelf.Unseeded(), "randomness that reset does not seed"),
        (shelf.UnseededStop(), "randomness that reset does not seed"),
        (shelf.Counts(), "after load_state_dict"),
        (shelf.CountsNotLoaded(), "after load_state_dict"),
        (shelf.CannotLoad(), "no load_state_dict"),
        (shelf.NeverForgets(), "randomness that reset does not seed"),
        (shelf.StateOfArrays(), "expected str keys"),
        (shelf.LosesWhatIsOpen(), "after load_state_dict"),
        (shelf.RememberedElsewhere(), "a new one with its state loaded plans differently"),
        (shelf.DefaultOutOfRange(), "passes: the default 1 lies outside Range"),
        (shelf.DefaultNoChoice(), "pool: the default 'sum' lies outside Choice"),
        (shelf.WrongStr(3), "its str is"),
        (shelf.UnreadableName(3), "its str is 'unreadable"),
        (shelf.StrOfAnother(), "nothing tells the passes it was made with"),
        (shelf.StrOfNothing(), "nothing tells the passes it was made with"),
        (shelf.EverySixth(), "after load_state_dict"),
        (shelf.hidden(3), "leads back to plans differently"),
        (shelf.Ordinary(3), "nothing tells the passes it was made with"),
        (shelf.SavesAlone(), "has state_dict but no load_state_dict"),
        (shelf.NoLiteral(), "does not lead back"),
        (shelf.ChangesItsParameter(), "leads back to another policy"),
        (lambda signals: 1, "does not lead back"),
    ],
    ids=lambda it: None if isinstance(it, str) else getattr(it, "__name__", type(it).__name__),
)
def test_a_broken_policy_is_found_out(broken: Any, told: str) -> None:
    with pytest.raises(AssertionError, match=told) as raised:
        check_policy(broken)
    assert str(raised.value).startswith("policy ")


class TestSound(Conformance):
    """The kit as tests to inherit, for a policy that holds all of it."""

    def policy(self) -> Any:
        return shelf.Sound(0.3)


@pytest.mark.parametrize(
    ("broken", "test"),
    [
        (shelf.Zero(), "test_answers"),
        (shelf.NegativeFlops(), "test_answers"),
        (shelf.DefaultOutOfRange(), "test_ranges"),
        (shelf.Unseeded(), "test_seed"),
        (shelf.StrOfNothing(), "test_spec"),
        (shelf.CountsNotLoaded(), "test_state"),
        (shelf.AboveTheMean(), "test_batch"),
    ],
    ids=lambda it: it if isinstance(it, str) else type(it).__name__,
)
def test_the_test_that_is_inherited_finds_it_out(broken: Any, test: str) -> None:
    class Inherited(Conformance):
        def policy(self) -> Any:
            return broken

    with pytest.raises(AssertionError, match=r"^policy "):
        getattr(Inherited(), test)()


def test_the_kit_has_a_test_for_every_check() -> None:
    """What is inherited and what is called must not drift apart."""
    asked = [name for name in vars(Conformance) if name.startswith("test_")]
    checks = [name for name in vars(kit) if name.startswith("_check_") and name != "_check_answer"]
    assert {name.removeprefix("test_") for name in asked} == {
        name.removeprefix("_check_") for name in checks
    }
    with pytest.raises(NotImplementedError, match="define policy"):
        Conformance().test_seed()


def test_a_policy_may_read_summaries_of_its_models_width() -> None:
    check_policy(shelf.ReadsSummary(6), summary_width=6)

    class Inherited(Conformance):
        summary_width = 10

        def policy(self) -> Any:
            return shelf.ReadsSummary(10)

    for name in vars(Conformance):
        if name.startswith("test_"):
            getattr(Inherited(), name)()


def test_a_spec_that_names_nothing_is_bad_input() -> None:
    with pytest.raises(InputError, match="no policy 'fixt'"):
        check_policy("fixt(3)")


def test_made_up_records_are_seeded_and_take_overrides() -> None:
    one, same, other = make_signals(3, 1), make_signals(3, 1), make_signals(3, 2)
    assert one.surprise.tolist() == same.surprise.tolist() != other.surprise.tolist()
    assert make_signals(2, 0, summary_width=4).summary.shape == (2, 4)
    assert make_progress(2, 0, summary_width=4).summary.shape == (2, 4)
    assert make_signals(2, 0, gap=[1, 2]).gap.tolist() == [1.0, 2.0]
    with pytest.raises(InputError, match="gaps: no such field"):
        make_signals(2, 0, gaps=[1, 2])
