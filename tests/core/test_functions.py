"""Plain functions as policies: a run names the very one, or none; no object loses its methods."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import core_cases as cases
import pytest

import adaptive_sleep as asl
from adaptive_sleep.contract import plan_passes
from adaptive_sleep.policies import Capped
from adaptive_sleep.spec import format_spec, resolve
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.testing import check_policy, make_signals

MODULE = __name__


def rule(signals: asl.WindowSignals, passes: int = 2) -> int:
    return passes


def giving(passes: int) -> Callable[[asl.WindowSignals], int]:
    def plan(signals: asl.WindowSignals) -> int:
        return passes

    return plan


class Rule:
    """A callable object, and a class with methods that plan."""

    def __init__(self, passes: int) -> None:
        self.passes = passes

    def __call__(self, signals: asl.WindowSignals) -> int:
        return self.passes

    def decide(self, signals: asl.WindowSignals) -> int:
        return self.passes

    @staticmethod
    def twice(signals: asl.WindowSignals) -> int:
        return 2

    @classmethod
    def always(cls, signals: asl.WindowSignals) -> int:
        return 2


eager = functools.partial(rule, passes=3)
closed = giving(3)
called = Rule(3)
bound = Rule(3).decide
NAMES = ["eager", "closed", "called", "bound"]


@pytest.mark.parametrize("name", NAMES)
def test_what_was_looked_up_is_spelled_as_it_was(name: str) -> None:
    spec = f"{MODULE}:{name}"
    found = resolve(spec)
    assert plan_passes(found, make_signals(1, 0)).tolist() == [3]
    assert format_spec(found) == str(found) == spec
    assert format_spec(Capped(found, 2)) == f"capped({spec!r}, max_passes=2)"
    check_policy(spec)


@pytest.mark.parametrize("name", NAMES)
def test_what_no_name_leads_back_to_names_no_run(name: str, tmp_path: Path) -> None:
    given = globals()[name]
    for policy in (given, resolve(given), Capped(given, 2)):
        with pytest.raises(InputError, match=r"no name leads back .* give the spec string"):
            format_spec(policy)
    runtime = asl.Runtime(cases.build(cases.tiny()), given)
    assert runtime.step([asl.Piece("s", cases.events(cases.tiny(), 3), closes=True)]).rows
    with pytest.raises(InputError, match="no name leads back"):
        runtime.save(tmp_path)


def test_another_partial_object_does_not_go_on(tmp_path: Path) -> None:
    model = cases.build(cases.tiny())
    asl.Runtime(model, f"{MODULE}:eager").save(tmp_path)
    for other in (functools.partial(rule, passes=2), eager, f"{MODULE}:rule"):
        with pytest.raises(InputError, match="policy"):
            asl.Runtime.resume(tmp_path, model, other)
    asl.Runtime.resume(tmp_path, model, f"{MODULE}:eager")


@pytest.mark.parametrize(
    ("function", "path"),
    [(rule, "rule"), (Rule.twice, "Rule.twice"), (Rule.always, "Rule.always")],
    ids=["function", "static method", "class method"],
)
def test_a_function_that_its_name_leads_back_to_has_that_name(function: Any, path: str) -> None:
    assert format_spec(function) == format_spec(resolve(function)) == f"{MODULE}:{path}"
    assert format_spec(resolve(f"{MODULE}:{path}")) == f"{MODULE}:{path}"


def test_another_name_for_a_function_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "alias", rule)
    assert format_spec(resolve(f"{MODULE}:alias")) == f"{MODULE}:rule"
    monkeypatch.setitem(globals(), "rule", lambda signals: 1)
    assert format_spec(resolve(f"{MODULE}:alias")) == f"{MODULE}:alias"


def test_what_is_no_policy_has_no_spec() -> None:
    with pytest.raises(InputError, match="expected an object with plan"):
        format_spec(3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name", ["keep_going", "observe", "reset", "state_dict", "load_state_dict", "flops"]
)
def test_an_object_whose_methods_nobody_would_call_is_refused(name: str) -> None:
    kind = type("Careful", (Rule,), {name: lambda self, given=None: None})
    told = rf"policy .*Careful has {name} but no plan.*name its `__call__` `plan`"
    with pytest.raises(InputError, match=told):
        resolve(kind(2))
    with pytest.raises(InputError, match=told):
        Capped(kind(2), 3)


def test_a_callable_that_belongs_to_a_model_is_refused() -> None:
    kind = type("Fitted", (Rule,), {"model_hash": "a" * 64})
    with pytest.raises(InputError, match="policy Fitted has model_hash but no plan"):
        resolve(kind(2))
