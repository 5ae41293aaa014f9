"""Dataclasses whose fields do not tell what they were made with: named as ordinary classes are."""

from __future__ import annotations

import sys
from dataclasses import InitVar, dataclass
from pathlib import Path
from typing import Any

import core_cases as cases
import pytest

import adaptive_sleep as asl
import adaptive_sleep.policies as shipped
from adaptive_sleep.catalogue import by_fields, usage
from adaptive_sleep.contract import plan_passes
from adaptive_sleep.spec import format_spec, resolve
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.testing import check_policy, make_signals

MODULE = __name__


@dataclass
class More:
    """Takes what is no field."""

    base: int = 1
    extra: InitVar[int] = 0

    def __post_init__(self, extra: int) -> None:
        self._passes = self.base + extra

    def plan(self, signals: asl.WindowSignals) -> int:
        return self._passes


class Louder(shipped.Surprise):
    """Inherits the fields of another, not its constructor."""

    def __init__(self, bonus: int = 1) -> None:
        super().__init__(threshold=-1.0, passes=2)
        object.__setattr__(self, "bonus", bonus)

    def plan(self, signals: asl.WindowSignals) -> Any:
        return super().plan(signals) + self.bonus  # type: ignore[attr-defined]


class Through(shipped.Surprise):
    """Hands on all that it is given."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)


class Plainly(shipped.Surprise):
    """Takes nothing."""

    def __init__(self) -> None:
        super().__init__(threshold=2.0)


class Tells:
    """No dataclass, but its repr is its spec."""

    def __init__(self, passes: int) -> None:
        self._passes = passes

    def plan(self, signals: asl.WindowSignals) -> int:
        return self._passes

    def __repr__(self) -> str:
        return f"{MODULE}:Tells(passes={self._passes})"


class Keeps(Tells):
    """Takes anything and says nothing of it."""

    def __init__(self, *rest: int) -> None:
        super().__init__(1 + len(rest))

    def __repr__(self) -> str:
        return "keeps"


class Derived(asl.SleepPolicy):
    """Takes nothing, whatever the protocol's own constructor looks like."""

    def plan(self, signals: asl.WindowSignals) -> int:
        return 1

    def __repr__(self) -> str:
        return "derived"


CASES = [(More(2, extra=1), "More", "base=2, extra=1"), (Louder(bonus=1), "Louder", "bonus=1")]


@pytest.mark.parametrize(("made", "name", "given"), CASES, ids=["InitVar", "constructor"])
def test_it_is_known_by_the_spec_that_made_it_alone(made: Any, name: str, given: str) -> None:
    spec = f"{MODULE}:{name}({given})"
    found = resolve(spec)
    assert format_spec(found) == spec
    assert plan_passes(found, make_signals(1, 0)).tolist() == [3]
    assert format_spec(shipped.Capped(found, 2)) == f"capped({spec!r}, max_passes=2)"
    check_policy(spec)
    with pytest.raises(InputError, match=rf"{name}: nothing tells the \w+.* fields of a dataclass"):
        format_spec(made)
    with pytest.raises(AssertionError, match=f"policy .*{name}.*does not lead back"):
        check_policy(made)


def test_a_name_that_this_process_alone_knows_is_not_kept() -> None:
    asl.policy("test_spec_fields_more")(More)
    spec = f"{MODULE}:More(base=2, extra=1)"
    assert format_spec(resolve("test_spec_fields_more(base=2, extra=1)")) == spec


def test_what_is_taken_without_a_name_is_not_left_out() -> None:
    class Starred(shipped.Surprise):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)

    with pytest.raises(InputError, match="Starred: nothing tells the given it was made with"):
        format_spec(Starred(1.0, 2))


def test_an_own_repr_that_leads_back_is_the_spec() -> None:
    assert format_spec(Tells(3)) == f"{MODULE}:Tells(passes=3)"
    check_policy(Tells(3))


class PassesOn(Derived):
    """Takes by name what it only passes on."""

    def __init__(self, **more: int) -> None:
        super().__init__(**more)


class NeedsAFile(Derived):
    """Cannot be made again from what it says of itself."""

    def __init__(self, path: str) -> None:
        if path != "here":
            raise FileNotFoundError(path)

    def __repr__(self) -> str:
        return f"{MODULE}:NeedsAFile(path='gone')"


class Foreign(Derived):
    """Says the name of a module that is not its own."""

    def __init__(self, *rest: int) -> None:
        pass

    def __repr__(self) -> str:
        return "antigravity:policy"


def test_a_repr_imports_and_makes_nothing_of_others() -> None:
    assert format_spec(PassesOn()) == f"{MODULE}:PassesOn()"
    with pytest.raises(InputError, match="nothing tells the path it was made with"):
        format_spec(NeedsAFile("here"))
    with pytest.raises(InputError, match="nothing tells the rest"):
        format_spec(Foreign())
    assert "antigravity" not in sys.modules


def test_an_own_repr_does_not_hide_what_was_taken_without_a_name() -> None:
    with pytest.raises(InputError, match="Keeps: nothing tells the rest it was made with"):
        format_spec(Keeps(2))
    assert format_spec(resolve(f"{MODULE}:Keeps")) == f"{MODULE}:Keeps()"
    assert format_spec(Derived()) == f"{MODULE}:Derived()"


def test_another_value_does_not_go_on(tmp_path: Path) -> None:
    model = cases.build(cases.tiny())
    asl.Runtime(model, f"{MODULE}:Louder(bonus=2)").save(tmp_path)
    for other in (f"{MODULE}:Louder(bonus=1)", Louder(bonus=2)):
        with pytest.raises(InputError, match="bonus"):
            asl.Runtime.resume(tmp_path, model, other)
    asl.Runtime.resume(tmp_path, model, f"{MODULE}:Louder(bonus=2)")


def test_its_arguments_are_those_of_its_constructor() -> None:
    assert usage(Louder) == "Louder(bonus: 'int' = 1) -> 'None'"
    with pytest.raises(InputError, match=r"bonus='2' \(str\) for Louder: expected int"):
        resolve(f"{MODULE}:Louder(bonus='2')")
    with pytest.raises(InputError, match="Louder has no parameter 'passes'"):
        resolve(f"{MODULE}:Louder(passes=2)")


def test_a_constructor_that_takes_the_fields_changes_nothing() -> None:
    spec = f"{MODULE}:Through(threshold=2.0, passes=3)"
    assert format_spec(Through(threshold=2.0, passes=3)) == format_spec(resolve(spec)) == spec
    assert format_spec(Plainly()) == format_spec(resolve(f"{MODULE}:Plainly"))
    assert format_spec(Plainly()) == f"{MODULE}:Plainly()"
    assert resolve(f"{MODULE}:Plainly") == Plainly()


def test_all_that_we_ship_are_told_by_their_fields() -> None:
    assert all(by_fields(getattr(shipped, name)) for name in shipped.__all__)
    assert not by_fields(More)
    assert not by_fields(cases.ByName)
