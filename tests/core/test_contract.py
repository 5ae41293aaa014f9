"""The contract: what the runtime takes from a policy, and what it refuses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pytest

from adaptive_sleep.contract import (
    Choice,
    PolicyError,
    Range,
    SleepPolicy,
    check_memory,
    keep_going,
    label,
    load_policy_state,
    observe,
    plan_passes,
    policy,
    policy_flops,
    policy_state,
    registered,
    reset_policy,
)
from adaptive_sleep.signals import SleepProgress, WindowOutcome, WindowSignals
from adaptive_sleep.streams.errors import AdaptiveSleepError, InputError
from adaptive_sleep.testing import make_progress, make_signals


@dataclass(frozen=True)
class Says:
    """Answers what it was given."""

    plan_answer: Any = 1
    going_answer: Any = True
    state: Any = None
    cost: Any = 0

    def plan(self, signals: WindowSignals) -> Any:
        return self.plan_answer

    def keep_going(self, progress: SleepProgress) -> Any:
        return self.going_answer

    def state_dict(self) -> Any:
        return self.state

    def flops(self, streams: int) -> Any:
        return self.cost


SIGNALS = make_signals(3, 0, window=[7, 8, 9], max_passes=[4, 4, 2])


@pytest.mark.parametrize(
    ("answer", "passes"),
    [
        (2, [2, 2, 2]),
        (np.int32(1), [1, 1, 1]),
        (np.array(2), [2, 2, 2]),
        (np.array([1, 4, 2]), [1, 4, 2]),
        (np.array([1, 4, 2], dtype=np.uint8), [1, 4, 2]),
    ],
)
def test_an_int_or_an_integer_array_is_taken(answer: object, passes: list[int]) -> None:
    taken = plan_passes(Says(answer), SIGNALS)
    assert taken.dtype == np.int64
    assert taken.tolist() == passes


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (0, "planned 0 passes for stream 's0', window 7: expected 1"),
        (-1, "planned -1 passes"),
        (3, r"planned 3 passes for stream 's2', window 9: expected 1 \(no sleep\) to 2"),
        (np.array([1, 5, 1]), "planned 5 passes for stream 's1', window 8"),
        (np.array([1, 1, 2**63], dtype=np.uint64), "planned 9223372036854775808 passes"),
        (2.0, r"planned 2.0 \(float\)"),
        (float("nan"), r"planned nan \(float\)"),
        (np.array([1.0, 1.0, np.nan]), "planned nan .array of float64. for stream 's2', window 9"),
        (np.array([1.0, 1.5, 2.0]), "planned 1.5 .* for stream 's1', window 8"),
        (np.array([1.0, 2.0, 2.0]), "array of float64"),
        (True, r"planned True \(bool\)"),
        (np.ones(3, dtype=bool), "array of bool"),
        (np.array([1, 1]), r"shape \(2,\) for stream 's0', window 7 and 2 more: expected \(3,\)"),
        (np.ones((3, 1), dtype=int), r"shape \(3, 1\)"),
        (np.array([1]), r"shape \(1,\)"),
        ([1, 1, 1], "list"),
        (None, r"planned None \(NoneType\)"),
        ("2", "str"),
        (np.array([1, 2, 2], dtype=object), "array of object"),
    ],
)
def test_anything_else_is_refused_by_name(answer: object, told: str) -> None:
    with pytest.raises(PolicyError, match=told) as raised:
        plan_passes(Says(answer), SIGNALS)
    assert "policy Says(" in str(raised.value)
    assert isinstance(raised.value, AdaptiveSleepError)


def test_a_plain_function_is_a_policy() -> None:
    assert plan_passes(lambda signals: 2, SIGNALS).tolist() == [2, 2, 2]
    assert not isinstance(lambda signals: 2, SleepPolicy)


def test_a_policy_is_not_asked_about_signals_that_are_not_finite() -> None:
    with pytest.raises(AdaptiveSleepError, match="signal surprise is nan"):
        plan_passes(Says(1), make_signals(1, 0, surprise=[np.nan]))


def test_the_answer_is_no_view_of_the_policys_own_array() -> None:
    own = np.array([1, 1, 1])
    plan_passes(Says(own), SIGNALS)[0] = 2
    assert own[0] == 1


@pytest.mark.parametrize(
    ("answer", "going"),
    [
        (True, [True, True]),
        (np.False_, [False, False]),
        (np.array([True, False]), [True, False]),
    ],
)
def test_keep_going_takes_bools(answer: object, going: list[bool]) -> None:
    assert keep_going(Says(going_answer=answer), make_progress(2, 0)).tolist() == going


@pytest.mark.parametrize("answer", [1, None, np.array([1, 0]), np.array([True]), [True, False]])
def test_keep_going_refuses_all_else(answer: object) -> None:
    with pytest.raises(PolicyError, match=r"policy Says.* answered keep_going .* stream 's0'"):
        keep_going(Says(going_answer=answer), make_progress(2, 0))


def test_what_a_policy_leaves_out_has_defaults() -> None:
    def bare(signals: WindowSignals) -> int:
        return 1

    outcome = WindowOutcome(["a"], [0], [1], [0.1], [1], [1])  # type: ignore[arg-type]
    assert keep_going(bare, make_progress(2, 0)).tolist() == [True, True]
    assert policy_state(bare) == {}
    assert policy_flops(bare, 3) == 0
    observe(bare, outcome)
    reset_policy(bare, 0)
    load_policy_state(bare, {})
    with pytest.raises(PolicyError, match="no load_state_dict"):
        load_policy_state(bare, {"count": 1})


def test_a_state_is_a_deep_copy() -> None:
    own = {"seen": {"a": [1, 2.5, None, True, "x"]}}
    copy = policy_state(Says(state=own))
    assert copy == own
    copy["seen"]["a"].append(3)
    assert own["seen"]["a"] == [1, 2.5, None, True, "x"]


@pytest.mark.parametrize(
    "state",
    [{"a": {1: 2}}, {"a": (1, 2)}, {"a": np.ones(2)}, {"a": np.int64(1)}, {"a": float("nan")}, [1]],
)
def test_a_state_that_json_would_change_is_refused(state: object) -> None:
    with pytest.raises(PolicyError, match=r"state_dict\(\)"):
        policy_state(Says(state=state))


@pytest.mark.parametrize("cost", [-1, 1.5, True, None])
def test_flops_are_a_whole_number_from_zero_up(cost: object) -> None:
    with pytest.raises(PolicyError, match=r"flops\(3\)"):
        policy_flops(Says(cost=cost), 3)


def test_a_name_belongs_to_one_class() -> None:
    @policy("test_policy_taken")
    @dataclass(frozen=True)
    class One:
        def plan(self, signals: WindowSignals) -> int:
            return 1

    @dataclass(frozen=True)
    class Two(One):
        pass

    assert registered()["test_policy_taken"] is One
    assert str(One()) == "test_policy_taken()"
    assert policy("test_policy_taken")(One) is One  # again is no second class
    with pytest.raises(InputError, match=r"two policies are named .*One and .*Two; rename"):
        policy("test_policy_taken")(Two)
    registered().clear()  # a copy
    assert "test_policy_taken" in registered()


def test_only_dataclasses_with_plan_are_registered_under_plain_names() -> None:
    with pytest.raises(InputError, match="lower-case identifier"):
        policy("Not a name")
    for name in ("pass", "lambda", "none", "range"):  # no spec could be read
        with pytest.raises(InputError, match=f"policy name '{name}': .* no keyword and none of"):
            policy(name)
    with pytest.raises(InputError, match="expected a dataclass with a method plan"):
        policy("test_policy_int")(int)


def test_to_inherit_from_a_dataclass_does_not_make_one() -> None:
    class Louder(Says):
        bonus: int = 2

    with pytest.raises(InputError, match="Louder: expected a dataclass with a method plan"):
        policy("test_policy_louder")(Louder)
    assert "test_policy_louder" not in registered()

    class Same(Says):  # adds no field, so that its spec tells all of it
        note: ClassVar[str] = "same"

        def plan(self, signals: Any) -> int:
            return 1

    assert policy("test_policy_same")(Same) is registered()["test_policy_same"]


def test_a_policy_that_no_spec_spells_is_told_by_its_class() -> None:
    @policy("test_policy_weighty")
    @dataclass(frozen=True)
    class Weighty:
        weights: Any = field(default_factory=lambda: np.ones(3))

        def plan(self, signals: WindowSignals) -> float:
            return 2.5

    assert label(Weighty()).endswith("<locals>.Weighty")
    with pytest.raises(PolicyError, match=r"policy .*Weighty planned 2.5 \(float\)"):
        plan_passes(Weighty(), SIGNALS)
    with pytest.raises(InputError, match="parameter weights is array"):
        str(Weighty())


def test_a_class_keeps_a_str_of_its_own() -> None:
    @policy("test_policy_own_str")
    @dataclass(frozen=True)
    class Own:
        def plan(self, signals: WindowSignals) -> int:
            return 1

        def __str__(self) -> str:
            return "mine"

    assert str(Own()) == "mine"


def test_ranges_and_choices() -> None:
    assert 2 in Range(1, 8)
    assert 9 not in Range(1, 8)
    assert "max" in Choice("mean", "max")
    for wrong in (
        lambda: Range(2, 1),
        lambda: Range(0, 1, log=True),
        lambda: Range(0, 1, step=0),
        lambda: Choice(),
    ):
        with pytest.raises(InputError):
            wrong()


class _OnlySaves:
    def plan(self, signals: WindowSignals) -> int:
        return 1

    def state_dict(self) -> dict[str, int]:
        return {}


class _OnlyLoads:
    def plan(self, signals: WindowSignals) -> int:
        return 1

    def load_state_dict(self, state: dict[str, int]) -> None:
        pass


@pytest.mark.parametrize(
    ("policy", "missing"), [(_OnlySaves(), "load_state_dict"), (_OnlyLoads(), "state_dict")]
)
def test_a_policy_that_cannot_be_put_back_is_refused(policy: Any, missing: str) -> None:
    with pytest.raises(PolicyError, match=f"but no {missing}:"):
        check_memory(policy)
    check_memory(lambda signals: 1)


@dataclass(frozen=True)
class _Wraps:
    parts: Any
    remembered: Any = field(default=_OnlySaves(), init=False)

    def plan(self, signals: WindowSignals) -> int:
        return 1


class _Dear:
    def plan(self, signals: WindowSignals) -> int:
        return 1

    def flops(self, streams: int) -> int:
        return 10**5000


def test_flops_that_no_ledger_holds_are_refused() -> None:
    assert policy_flops(Says(cost=2**60 - 1), 1) == 2**60 - 1
    with pytest.raises(PolicyError, match=rf"flops\(1\) is {2**70}, expected .* below 2\*\*60"):
        policy_flops(Says(cost=2**70), 1)
    with pytest.raises(PolicyError, match=r"flops\(1\) is a number of 16610 bits"):
        policy_flops(_Dear(), 1)


def test_numpys_numbers_lie_in_a_range() -> None:
    assert np.float32(0.5) in Range(0.1, 1.0)
    assert np.int64(3) in Range(2, 4)
    assert np.int64(5) not in Range(2, 4)


def test_a_policy_is_refused_for_one_that_it_wraps() -> None:
    check_memory(_Wraps([_Wraps(None), {"a": 3}]))
    for parts in (_OnlySaves(), [_Wraps({"a": (1, _OnlySaves())})]):
        with pytest.raises(PolicyError, match=r"_OnlySaves has state_dict but no load_state_dict"):
            check_memory(_Wraps(parts))


class _Remembers:
    def plan(self, signals: WindowSignals) -> int:
        return 1

    def state_dict(self) -> dict[str, int]:
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Nothing is in it."""


class _Seeded:
    def plan(self, signals: WindowSignals) -> int:
        return 1

    def reset(self, seed: int) -> None:
        """Nothing is drawn."""


class _Learns:
    def plan(self, signals: WindowSignals) -> int:
        return 1

    def observe(self, outcome: WindowOutcome) -> None:
        """Nothing is learned."""


@pytest.mark.parametrize(
    ("inner", "told"),
    [
        (_Remembers(), "has no state_dict, but wraps _Remembers.* pass the other's on"),
        (_Seeded(), "has no reset, but wraps _Seeded"),
        (_Learns(), "has no observe, but wraps _Learns"),
    ],
    ids=["state_dict", "reset", "observe"],
)
def test_a_policy_passes_on_the_memory_of_one_that_it_wraps(inner: Any, told: str) -> None:
    for outer in (_Wraps({"a": [inner]}), _Wraps(_Wraps(inner))):
        with pytest.raises(PolicyError, match=told):
            check_memory(outer)
    check_memory(inner)
