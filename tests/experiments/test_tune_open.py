"""A spec is read with parameters open as policies declare them; a range of nothing is one error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import optuna
import pytest

import adaptive_sleep as asl
from adaptive_sleep.experiments.comparing import read_comparison
from adaptive_sleep.experiments.finding import find_recipe
from adaptive_sleep.experiments.tune_open import Open, Reader
from adaptive_sleep.experiments.tune_space import Space, space_of
from adaptive_sleep.experiments.tune_table import read_budget
from adaptive_sleep.spec import resolve
from adaptive_sleep.streams.errors import InputError

HERE = "test_tune_open"


@dataclass(frozen=True)
class Theirs:
    """A policy that is registered nowhere."""

    share: Annotated[float, asl.Range(0.5, 2.0, log=True)] = 1.0
    kind: Annotated[str, asl.Choice("mean", "max")] = "mean"
    even: Annotated[int, asl.Range(2, 8, step=2)] = 4
    between: Annotated[int, asl.Range(1.5, 3.5)] = 2
    quiet: bool = False

    def plan(self, signals: asl.WindowSignals) -> int:
        return 1


@dataclass(frozen=True)
class Hollow:
    """A policy whose range holds no whole number."""

    passes: Annotated[int, asl.Range(2.2, 2.8)] = 2

    def plan(self, signals: asl.WindowSignals) -> int:
        return self.passes


class Built:
    """No dataclass; its constructor takes what it is made of."""

    def __init__(
        self,
        passes: Annotated[int, asl.Range(1, 4)],
        quiet: bool,
        share: Annotated[float, asl.Range(0.5, 2.0)] = 1.0,
        **more: int,
    ) -> None:
        self.passes, self.quiet, self.share, self.more = passes, quiet, share, more

    def plan(self, signals: asl.WindowSignals) -> int:
        return self.passes


def opened(spec: str, **given: Any) -> dict[str, Open]:
    part = Reader(spec, **given).read("it")
    return {it.name: it for it in part.opens()}


def written(spec: str, values: Mapping[str, Any], **given: Any) -> str:
    return Reader(spec, **given).read("it").written(values)


def test_what_is_left_out_is_open_as_declared() -> None:
    found = opened("state_change(max_passes=3)")
    assert found == {"it.tolerance": Open("it.tolerance", 0.001, 1.0, log=True, usual=0.05)}
    assert written("state_change(max_passes=3)", {"it.tolerance": 0.25}) == (
        "state_change(tolerance=0.25, max_passes=3)"
    )
    assert not opened("surprise(threshold=1, passes=4)")
    assert not opened(f"{HERE}:Hollow(passes=2)")  # its range is not asked for


def test_a_third_partys_policy_needs_no_more_than_its_ranges() -> None:
    found = opened(f"{HERE}:Theirs")
    assert found["it.kind"].options == ("mean", "max")
    assert (found["it.even"].step, found["it.even"].whole) == (2, True)
    assert (found["it.between"].low, found["it.between"].high) == (2, 3)
    assert "it.quiet" not in found
    values = {"it.share": 0.7, "it.kind": "max", "it.even": 6, "it.between": 3}
    made = resolve(written(f"{HERE}:Theirs(quiet=True)", values))
    assert made == Theirs(0.7, "max", 6, 3, quiet=True)


def test_an_ordinary_class_declares_ranges_in_its_constructor() -> None:
    found = opened(f"{HERE}:Built(quiet=True)")
    share = Open("it.share", 0.5, 2.0, usual=1.0)
    assert found == {"it.passes": Open("it.passes", 1, 4, whole=True), "it.share": share}
    with pytest.raises(InputError, match=f"{HERE}:Built needs quiet, which declares no range"):
        opened(f"{HERE}:Built")
    made = resolve(written(f"{HERE}:Built(quiet=True)", {"it.passes": 3, "it.share": 0.7}))
    assert isinstance(made, Built)
    assert (made.passes, made.quiet, made.share) == (3, True, 0.7)


def test_what_is_usual_is_what_a_policy_takes_untuned_where_it_may_be_tried() -> None:
    found = opened(f"{HERE}:Theirs")
    assert {name: it.usual for name, it in found.items()} == {
        "it.share": 1.0, "it.kind": "mean", "it.even": 4, "it.between": 2
    }  # fmt: skip
    narrowed = f"{HERE}:Theirs(share=range(1.5, 2.0), kind={{'max', 3}}, even=range(3, 7, step=2))"
    assert [it.usual for it in opened(narrowed).values()] == [None, None, None, 2]


def test_the_first_trials_are_of_every_policy_untuned() -> None:
    inner = f"capped('{HERE}:Theirs(kind={{\"max\"}})', max_passes=2)"
    parts = {name: Reader(it).read(name) for name, it in {"b": "state_change", "a": inner}.items()}
    space = Space(parts, (2, 4), (), 4)
    assert space.usual(0) == {
        "policy": "b", "max_passes": 4, "b.tolerance": 0.05, "b.max_passes": 4
    }  # fmt: skip
    assert space.usual(1)["a.policy.share"] == 1.0
    assert "a.policy.kind" not in space.usual(1)
    assert space.usual(2) == {}
    alone = Space({"b": parts["b"]}, (2,), (), 4)
    assert alone.usual(0) == {"b.tolerance": 0.05, "b.max_passes": 4}
    lengths = Space({"b": parts["b"]}, (2,), (20, 60), 4)
    assert lengths.usual(0, 60)["window"] == 60  # the models' own
    assert "window" not in lengths.usual(0, 40)
    assert lengths.usual(1, 60) == {}


def test_wrappers_open_what_is_within() -> None:
    spec = f"either(capped(state_change), '{HERE}:Theirs(kind=\"max\", even=2)')"
    found = opened(spec)
    assert set(found) == {
        "it.first.max_passes", "it.first.policy.tolerance", "it.first.policy.max_passes",
        "it.second.share", "it.second.between",
    }  # fmt: skip
    made = resolve(written(spec, {name: it.at(0.5) for name, it in found.items()}))
    assert "capped(state_change(" in str(made)
    spec = "per_stream({'pump-*': surprise(passes=2)}, fixed(1))"
    (name,) = opened(spec)
    assert name == "it.policies[pump-*].threshold"
    made = resolve(written(spec, {name: 0.5}))
    assert str(made) == (
        "per_stream(policies={'pump-*': surprise(threshold=0.5, passes=2)}, "
        "otherwise=fixed(passes=1))"
    )


def test_ranges_and_choices_are_narrowed_in_the_spec() -> None:
    found = opened("state_change(tolerance=range(0.2, 0.6), max_passes={2, 4})")
    assert found["it.tolerance"] == Open("it.tolerance", 0.2, 0.6, log=True)
    assert found["it.max_passes"].options == (2, 4)
    stepped = opened("random(mean=range(1.0, 2.0, step=0.4))")["it.mean"]
    assert (stepped.step, stepped.high) == (0.4, 1.8)  # Optuna warns of what no step reaches
    steps = opened("state_change(tolerance=range(0.2, 0.6, step=0.2))")["it.tolerance"]
    assert (steps.step, steps.log) == (0.2, False)  # though it declares a logarithmic range
    even = opened("state_change(tolerance=range(0.2, 0.6, log=False))")["it.tolerance"]
    assert (even.step, even.log) == (None, False)
    assert opened("random(most=range(2, 5), mean=range(1, 2))") == {
        "it.mean": Open("it.mean", 1, 2),
        "it.most": Open("it.most", 2, 5, whole=True, usual=4),
    }


def test_places_stay_and_a_comparisons_values_are_opened() -> None:
    spec = "predicted_gain(file={gain}, threshold={threshold})"
    reader: dict[str, Any] = {"places": ("gain",), "reopen": True, "grid": {"threshold": (1, 2)}}
    assert set(opened(spec, **reader)) == {"it.threshold"}
    assert written(spec, {"it.threshold": 0.1}, **reader) == (
        "predicted_gain(file={gain}, threshold=0.1)"
    )
    # `most` declares no range, so the values of the grid are what may be tried
    grid = {"most": (3, 5)}
    assert opened("random(mean=2.0, most={most})", reopen=True, grid=grid)["it.most"].options == (
        3, 5,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("state_chang", "did you mean 'state_change'"),
        ("state_change(tolerence=0.1)", "did you mean 'tolerance'"),
        ("state_change(tolerance=range(0.6, 0.2))", "excludes everything"),
        ("state_change(tolerance=range(0.2))", "write range(low, high)"),
        ("state_change(max_passes=range(2.2, 2.8))", "no whole number"),
        ("state_change(tolerance=range(0.0, 1.0, log=True))", "low must be positive"),
        ("state_change(tolerance=range(0.1, 1e999))", "finite"),
        ("state_change(tolerance=range(0.1, 1.0, step=0))", "above 0"),
        ("state_change(tolerance=range(0.1, 1.0, step='a'))", "write range(low, high)"),
        ("state_change(tolerance=range(low, 1.0))", "expected a literal"),
        ("state_change(tolerance=range(0.1, 1.0, log=True, step=0.1))", "goes without step"),
        ("state_change(tolerance=range(0.1, 1.0, log='a'))", "log is True or False"),
        (f"{HERE}:Hollow", "no whole number"),
        ("capped", "needs policy: write the policy"),
        ("predicted_gain", "needs file, which declares no range: write file=... (file={gain})"),
        ("predicted_gain(file={gian})", "did you mean '{gain}'"),
    ],
)
def test_what_cannot_be_searched_is_one_error(spec: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        Reader(spec, ("gain",)).read("it")
    assert said in str(caught.value)


@pytest.mark.parametrize("name", ["mixed_chain", "mixed_hops", "mixed_rule110", "mixed_recording"])
def test_every_value_of_a_shipped_space_can_be_made(name: str) -> None:
    space = space_of(read_comparison(find_recipe(name)))
    assert space.places() == {"gain"}
    assert {"state_change", "bandit", "predicted_gain"} <= set(space.policies)
    space.check({})  # all but predicted_gain
    for label, part in space.policies.items():
        assert part.opens(), label


def test_a_trial_gets_a_spec_capped_and_a_window() -> None:
    part = Reader("state_change(max_passes=4)").read("state_change")
    space = Space({"state_change": part}, caps=(2, 3, 4), windows=(8, 16), most=4)
    given = {"state_change.tolerance": 0.5, "max_passes": 2, "window": 16}
    candidate = space.suggest(optuna.trial.FixedTrial(given))  # type: ignore[arg-type]
    assert candidate.window == 16
    assert candidate.spec({}) == ("capped(state_change(tolerance=0.5, max_passes=4), max_passes=2)")
    given["max_passes"] = 4
    free = space.suggest(optuna.trial.FixedTrial(given))  # type: ignore[arg-type]
    assert free.spec({}) == "state_change(tolerance=0.5, max_passes=4)"


def test_a_policy_that_is_not_ours_is_capped_at_what_is_run() -> None:
    def tried(spec: str) -> str:
        space = Space({"it": Reader(spec).read("it")}, caps=(2, 4), windows=(), most=4)
        given = {"max_passes": 4, "it.max_passes": 4}
        return space.suggest(optuna.trial.FixedTrial(given)).spec({})  # type: ignore[arg-type]

    theirs = f"'{HERE}:Built(passes=9, quiet=True, share=1.0)'"
    assert tried(theirs.strip("'")) == f"capped({theirs}, max_passes=4)"
    inner = f"warmup({theirs}, windows=4, passes=1)"
    assert tried(inner) == f"capped({inner}, max_passes=4)"
    listed = f"per_stream({{'a': {theirs}}}, fixed(1))"
    assert tried(listed).startswith("capped(per_stream(")
    ours = "warmup(fixed(passes=9), windows=4, passes=1)"  # ours plan what is run at the most
    assert tried(ours) == ours


def test_policies_of_one_name_are_told_apart() -> None:
    recipe = read_comparison(find_recipe("mixed_chain"))
    given = ["state_change(max_passes=4)", "state_change(max_passes=2)", "drift"]
    space = space_of(recipe, given)
    assert list(space.policies) == sorted(given)
    assert space_of(recipe, given[::-1]) == space  # in whatever order they are given
    names = [it.name for part in space.policies.values() for it in part.opens()]
    assert len(set(names)) == len(names)


def test_a_policy_that_refuses_all_it_may_be_given_is_one_error() -> None:
    part = Reader("random(mean=range(3.0, 4.0), most=2)").read("random")
    with pytest.raises(InputError, match=r"random.mean 3 to 4\) excludes everything: mean="):
        Space({"random": part}, (4,), (), 4).check({})
    some = Reader("random(mean=range(1.0, 4.0), most=2)").read("random")
    Space({"random": some}, (4,), (), 4).check({})


@pytest.mark.parametrize(
    ("it", "values"),
    [
        (Open("a", 1, 8, whole=True), (1, 4, 8)),
        (Open("a", 0.01, 100.0, log=True), (0.01, 1.0, 100.0)),
        (Open("a", 0.0, 0.8, step=0.4), (0.0, 0.4, 0.8)),
        (Open("a", options=("x", "y", "z")), ("x", "y", "z")),
    ],
)
def test_shares_reach_from_end_to_end(it: Open, values: tuple[Any, ...]) -> None:
    assert [it.at(share) for share in (0.0, 0.5, 1.0)] == pytest.approx(values)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(5):
        tried = it.suggest(study.ask())
        assert tried in it.options if it.options else it.low <= tried <= it.high


def test_budgets_are_flops_or_times_the_plain_hybrid() -> None:
    assert read_budget("1.5x").flops(100.0) == 150.0
    assert read_budget("2e5").flops(100.0) == 2e5
    for wrong in ("x", "0x", "-1", "nan", "inf", "much"):
        with pytest.raises(InputError, match=r"budget=.*or 1\.5x"):
            read_budget(wrong)


def test_a_wrong_table_is_named(tmp_path: Path) -> None:
    text = find_recipe("mixed_chain").read_text(encoding="utf-8")
    file = tmp_path / "wrong.toml"
    for line, said in (
        ("recordings = 0", "recordings=0"),
        ("recordigns = 8", "did you mean 'recordings'"),
        ('budget = "lots"', "[tune] budget='lots'"),
        ("pass_caps = [5]", "at most max_passes=4"),
        ("windows = [8]", "windows of a [task] are its own"),
        ("pass_caps = [2, 2]", "each once"),
    ):
        file.write_text(f"{text}\n[tune]\n{line}\n", encoding="utf-8")
        with pytest.raises(InputError) as caught:
            read_comparison(file)
        assert said in str(caught.value)
        assert str(file) in str(caught.value)
