"""Policies of somebody else's in a study: what they do wrong ends a trial, and is told."""

from __future__ import annotations

import copy
import re
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from run_cases import answering_model
from test_tune import TASK, kept, loaded

from adaptive_sleep.checkpoint import save_model
from adaptive_sleep.contract import PolicyError, policy_flops
from adaptive_sleep.experiments import tune_bench, tune_workers
from adaptive_sleep.experiments.tune import tune
from adaptive_sleep.experiments.tune_policy import Guarded, guarded
from adaptive_sleep.runtime import Runtime
from adaptive_sleep.spec import format_spec, resolve
from adaptive_sleep.streams.errors import AdaptiveSleepError, InputError

OWN = """
from dataclasses import dataclass
from typing import Annotated
import adaptive_sleep as asl

@dataclass(frozen=True)
class Eager:
    "Plans what it is given, though the runtime allows 3 passes here."
    passes: Annotated[int, asl.Range(2, 8)] = 2
    def plan(self, signals):
        return self.passes

@dataclass(frozen=True)
class Strict:
    "Refuses in a way of its own."
    passes: Annotated[int, asl.Range(1, 8)] = 1
    def __post_init__(self):
        if self.passes > 2:
            raise ValueError("that is too many")
    def plan(self, signals):
        return self.passes

@dataclass(frozen=True)
class Halves:
    "Plans what is no whole number."
    share: Annotated[float, asl.Range(1.0, 2.0)] = 1.0
    def plan(self, signals):
        return self.share

@dataclass(frozen=True)
class Broken:
    "Raises in one of its methods."
    where: Annotated[str, asl.Choice("plan", "keep_going", "observe", "")] = ""
    def plan(self, signals):
        if self.where == "plan":
            raise ValueError("it broke")
        return 3
    def keep_going(self, progress):
        if self.where == "keep_going":
            raise KeyError("it broke")
        return True
    def observe(self, outcome):
        if self.where == "observe":
            raise RuntimeError("it broke")

@dataclass(frozen=True)
class Interrupted:
    "Is interrupted, or has no memory."
    how: str = "KeyboardInterrupt"
    share: Annotated[float, asl.Range(0.0, 1.0)] = 0.5
    def plan(self, signals):
        raise {"KeyboardInterrupt": KeyboardInterrupt, "SystemExit": SystemExit,
               "MemoryError": MemoryError}[self.how]
"""


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune_workers, "POLL_SECONDS", 0.02)


@pytest.fixture(autouse=True)
def _theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The policies above as a module that can be imported, and two models that answer."""
    (tmp_path / "own_tuned.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_tuned", raising=False)
    for seed in (0, 1):
        save_model(answering_model(seed), tmp_path / f"m{seed}.safetensors", provenance={})
    (tmp_path / "tiny.toml").write_text(TASK.format(folder=tmp_path))


def tuned(folder: Path, policy: str, trials: int = 4, **given: Any) -> dict[str, Any]:
    return tune(
        folder / "tiny.toml", kept(folder), policies=[policy], budget="9x", trials=trials,
        quick=True, out=folder / "out", **given,
    )  # fmt: skip


def refused(folder: Path) -> list[optuna.trial.FrozenTrial]:
    trials = loaded(kept(folder), "tiny-quick").trials
    return [it for it in trials if it.user_attrs["stopped"] == "refused"]


@pytest.mark.parametrize(
    ("policy", "why"),
    [
        ("random(mean=range(1.0, 3.0), most=2)", "mean"),
        ("own_tuned:Strict", "refused: that is too many"),
        (
            "own_tuned:Broken(where={'plan', ''})",
            r"policy .*own_tuned:Broken\(where=\\?'plan.*: plan raised ValueError: it broke",
        ),
        ("own_tuned:Broken(where={'keep_going', ''})", "keep_going raised KeyError: 'it broke'"),
        ("own_tuned:Broken(where={'observe', ''})", "observe raised RuntimeError: it broke"),
    ],
)
def test_what_a_policy_refuses_or_raises_ends_a_trial_not_the_study(
    tmp_path: Path, policy: str, why: str
) -> None:
    found = tuned(tmp_path, policy)
    assert found["stopped"]["refused"] > 0
    assert found["trials"] == 4
    ended = refused(tmp_path)
    assert {it.state.name for it in ended} == {"PRUNED"}
    assert all(max(it.constraints.values()) > 0 for it in ended)
    assert all(re.search(why, it.user_attrs["refused"]) for it in ended)


def test_a_policy_that_plans_more_than_is_run_is_cut_off(tmp_path: Path) -> None:
    found = tuned(tmp_path, "own_tuned:Eager(passes=range(4, 8))")
    assert found["stopped"]["refused"] == 0
    assert found["best"].startswith("capped('own_tuned:Eager(passes=")


@pytest.mark.parametrize(
    ("policy", "why"),
    [
        ("own_tuned:Broken(where='plan')", "ValueError: it broke"),
        ("own_tuned:Halves", r"planned \d.* expected whole numbers"),
    ],
)
@pytest.mark.parametrize("pareto", [False, True])
def test_where_all_is_refused_spec_and_reason_are_said(
    tmp_path: Path, policy: str, why: str, pareto: bool
) -> None:
    said = f"all of its 2 trials were refused, .*trial 0, .*own_tuned:[BH].*{why}"
    with pytest.raises(AdaptiveSleepError, match=said) as caught:
        tuned(tmp_path, policy, 2, pareto=pareto)
    assert not isinstance(caught.value, InputError)


@pytest.mark.parametrize("how", [KeyboardInterrupt, SystemExit, MemoryError])
def test_what_is_no_fault_of_a_policy_is_not_taken_for_one(
    tmp_path: Path, how: type[BaseException]
) -> None:
    with pytest.raises(how):
        tuned(tmp_path, f"own_tuned:Interrupted(how='{how.__name__}')")


def test_a_bug_of_the_runtime_is_no_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Runtime.step

    def broken(self: Runtime, *given: Any, **named: Any) -> Any:
        if "random" in self.spec:
            raise ValueError("ours")
        return step(self, *given, **named)

    monkeypatch.setattr(Runtime, "step", broken)
    with pytest.raises(ValueError, match=r"^ours"):
        tuned(tmp_path, "random(mean=range(1.0, 2.5), most=3)")


def test_what_fails_in_the_test_is_told_with_its_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune_bench, "guarded", lambda spec, model: Guarded(resolve(BROKEN)))
    with pytest.raises(PolicyError, match=r"policy own_tuned:Broken.*: plan raised ValueError"):
        tuned(tmp_path, "fixed({1, 2})", 1)


BROKEN = "own_tuned:Broken(where='plan')"


def test_a_guarded_policy_is_the_policy_in_all_else() -> None:
    model = answering_model()
    spec = "capped(bandit(passes=3), max_passes=2)"
    policy = guarded(spec, model)
    plain = resolve(spec)
    assert format_spec(policy) == format_spec(plain)
    assert policy_flops(policy, 3) == policy_flops(plain, 3)
    fixed = guarded("fixed(2)", model)
    assert not any(hasattr(fixed, name) for name in ("keep_going", "observe", "state_dict"))
    assert Runtime(model, fixed).spec == "fixed(passes=2)"
    assert format_spec(copy.deepcopy(fixed)) == "fixed(passes=2)"
