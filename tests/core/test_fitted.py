"""Which policies belong to a model, however they are wrapped."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from adaptive_sleep.fitted import check_fitted, fitted_to
from adaptive_sleep.signals import WindowSignals
from adaptive_sleep.streams.errors import InputError


@dataclass(frozen=True)
class Fitted:
    """Belongs to a model."""

    model_hash: str | None

    def plan(self, signals: WindowSignals) -> int:
        return 1


@dataclass(frozen=True)
class Wrapper:
    """Somebody's own, which knows nothing of models."""

    parts: Any
    remembered: Any = field(default=Fitted("forgotten"), init=False)

    def plan(self, signals: WindowSignals) -> int:
        return 1


def hashes(policy: object) -> list[str]:
    return [own for _, own in fitted_to(policy)]


def test_policies_are_found_among_the_parameters_of_others() -> None:
    one, two, none = Fitted("one"), Fitted("two"), Fitted(None)
    assert hashes(one) == ["one"]
    assert hashes(none) == hashes(Wrapper("one")) == hashes(lambda signals: 1) == []
    deep = Wrapper({"a": Wrapper(one), "b": [none, (Wrapper(two), 3)]})
    assert hashes(deep) == ["one", "two"]
    assert [part for part, _ in fitted_to(deep)] == [one, two]


def test_another_model_is_refused_with_both_hashes() -> None:
    mine, other = (SimpleNamespace(hash=it * 64) for it in "ab")
    policy = Wrapper([Fitted(None), Fitted("a" * 64)])
    check_fitted(policy, mine)
    with pytest.raises(InputError, match=r"Fitted.* fitted to model a{12}, this is b{12};"):
        check_fitted(policy, other)


def test_a_model_is_hashed_only_if_somebody_asks() -> None:
    check_fitted(Wrapper([Fitted(None)]), object())  # type: ignore[arg-type]
