"""Spec strings: they name a policy, give it back, and are never evaluated."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Dict, List, Literal  # noqa: UP035

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import adaptive_sleep.policies as shipped
from adaptive_sleep.catalogue import installed
from adaptive_sleep.contract import Range, SleepPolicy, plan_passes, policy
from adaptive_sleep.signals import WindowSignals
from adaptive_sleep.spec import FromCallable, format_spec, parse_spec, resolve
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.testing import make_signals


@policy("spec_all_types")
@dataclass(frozen=True)
class AllTypes:
    """One parameter of each kind."""

    number: float = 1.0
    whole: int = 1
    text: str = "a"
    flag: bool = False
    maybe: int | None = None
    mode: Literal["mean", "max"] = "mean"
    pair: tuple[float, float] = (0.0, 1.0)
    many: list[int] = field(default_factory=list)
    table: dict[str, float] = field(default_factory=dict)

    def plan(self, signals: WindowSignals) -> int:
        return 1


@dataclass(frozen=True)
class Undecorated:
    """Known by its module only."""

    threshold: float = 1.0
    inner: SleepPolicy | None = None

    def plan(self, signals: WindowSignals) -> int:
        return 1


class NoDataclass:
    """Takes its parameters as an ordinary class does."""

    def __init__(self, passes: int = 1, *, slow: bool = False) -> None:
        self.passes = passes

    def plan(self, signals: WindowSignals) -> int:
        return self.passes


class Slotted:
    """An ordinary class whose objects remember nothing but what they say."""

    __slots__ = ("passes",)

    def __init__(self, passes: int = 1) -> None:
        self.passes = passes

    def plan(self, signals: WindowSignals) -> int:
        return self.passes


class Loose:
    """Its annotations say little."""

    def __init__(self, weights: List = (), names: Dict = {}) -> None:  # type: ignore[type-arg]  # noqa: B006, UP006
        self.weights, self.names = weights, names

    def plan(self, signals: WindowSignals) -> int:
        return 1


FOUR = NoDataclass(4)


def always_two(signals: WindowSignals) -> int:
    return 2


MODULE = __name__
floats = st.floats(allow_nan=False)
finite = st.floats(allow_nan=False, allow_infinity=False)
passes = st.integers(1, 10**6)
leaves = st.one_of(
    st.builds(shipped.Fixed, passes),
    st.builds(shipped.Surprise, finite, passes),
    st.builds(shipped.StateChange, finite, passes),
    st.builds(Undecorated, floats),
    st.builds(
        AllTypes,
        floats,
        st.integers(),
        st.text(max_size=8),
        st.booleans(),
        st.none() | st.integers(),
        st.sampled_from(["mean", "max"]),
        st.tuples(floats, floats),
        st.lists(st.integers(), max_size=3),
        st.dictionaries(st.text(max_size=3), floats, max_size=3),
    ),
)
policies = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(shipped.Capped, inner, passes),
        st.builds(shipped.Either, inner, inner),
        st.builds(shipped.Both, inner, inner),
        st.builds(shipped.Budgeted, inner, st.floats(0, 1e12), st.floats(1, 100)),
        st.builds(Undecorated, floats, inner),
    ),
    max_leaves=4,
)


@settings(max_examples=100, deadline=None)
@given(policies)
def test_a_spec_string_gives_the_policy_back(policy: Any) -> None:
    spec = format_spec(policy)
    assert resolve(spec) == policy
    assert format_spec(resolve(spec)) == spec


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("fixed", shipped.Fixed(1)),
        ("fixed(3)", shipped.Fixed(3)),
        ("  fixed( passes = 3 ) ", shipped.Fixed(3)),
        ("surprise(2, passes=3)", shipped.Surprise(2.0, 3)),
        ("surprise(threshold=-0.5)", shipped.Surprise(-0.5)),
        (
            "capped(surprise(threshold=0.8), max_passes=6)",
            shipped.Capped(shipped.Surprise(0.8), 6),
        ),
        ("capped(max_passes=6, policy=fixed)", shipped.Capped(shipped.Fixed(), 6)),
        ("capped('fixed(2)', 3)", shipped.Capped(shipped.Fixed(2), 3)),
        (f"{MODULE}:Undecorated(threshold=2)", Undecorated(2.0)),
        (f"capped('{MODULE}:Undecorated(2)', 3)", shipped.Capped(Undecorated(2.0), 3)),
        (f"{MODULE}:Undecorated", Undecorated()),
        (f"{MODULE}:always_two", FromCallable(always_two)),
    ],
)
def test_a_spec_string_names_a_policy(spec: str, expected: object) -> None:
    assert parse_spec(spec) == expected


def test_str_of_a_registered_policy_is_its_spec_string() -> None:
    capped = shipped.Capped(shipped.Surprise(threshold=0.8), max_passes=6)
    assert str(capped) == "capped(surprise(threshold=0.8, passes=4), max_passes=6)"
    assert str(shipped.Surprise(threshold=1)) == "surprise(threshold=1.0, passes=4)"
    assert str(shipped.Surprise(threshold=np.float64(0.5))) == "surprise(threshold=0.5, passes=4)"


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("__import__('os')", "no policy '__import__'"),
        ("__import__('os').system('true')", "not allowed"),
        ("fixed(__import__('os'))", "no policy '__import__'"),
        ("fixed(passes=(lambda: 1)())", "not allowed"),
        ("fixed(passes=[x for x in (1,)])", "not allowed"),
        ("fixed(passes=f'{1}')", "not allowed"),
        ("fixed(passes=1 + 1)", "not allowed"),
        ("fixed(passes=fixed.passes)", "not allowed"),
        ("fixed(passes=1j)", "not allowed"),
        ("fixed(**{'passes': 1})", "not allowed"),
        ("fixed(*[1])", "not allowed"),
        ("fixed(1).plan", "not allowed"),
        ("3", "not allowed"),
        ("os:system('true')", "is no class that takes arguments"),
        ("subprocess:Popen(['true'])", "Popen has no method plan"),
        ("sys:version", "is no class that takes arguments"),
        ("", "not readable"),
        ("fixed(", "not readable"),
        ("capped(a.b:C(1), 2)", r"quoted inside another policy: capped\('module:Class"),
        (f"surprise(threshold={'9' * 400})", "threshold has 400 digits"),
        ("fixed(1); fixed(2)", "not readable"),
        ("fixed(" + "(" * 500 + ")", "not readable"),
        ("f" * 20_000, "at most 10000"),
        ("suprise()", "no policy 'suprise', did you mean 'surprise'"),
        ("fixed(pases=2)", "Fixed has no parameter 'pases', did you mean 'passes'"),
        ("fixed(1, 2)", r"2 unnamed arguments; it is written Fixed\(passes: int = 1\)"),
        ("fixed(1, passes=2)", "given twice"),
        ("fixed(1.5)", r"passes=1.5 \(float\) for Fixed: expected int"),
        ("fixed('2')", "expected int"),
        ("fixed(True)", "expected int"),
        ("fixed(None)", "expected int"),
        ("fixed(0)", "passes=0"),
        ("surprise(threshold=True)", "expected float"),
        ("surprise(threshold='high')", "expected float"),
        ("capped(3)", "expected SleepPolicy"),
        ("capped()", "missing 1 required positional argument: 'policy'"),
        ("spec_all_types(mode='min')", "expected Literal"),
        ("spec_all_types(maybe='x')", "expected int | None"),
        ("spec_all_types(pair=(1, 2, 3))", "expected tuple"),
        ("spec_all_types(many=[1, 'x'])", "expected list"),
        ("spec_all_types(table={'a': 'b'})", "expected dict"),
        ("spec_all_types(table={[1]: 2})", "not allowed"),
        ("spec_all_types(table={**{}})", "not allowed"),
        ("fixed(range(2, 4))", r"'range\(2, 4\)' is not allowed, expected one value; .* tune"),
        ("capped(fixed, {2, 3})", r"'\{2, 3\}' is not allowed, expected one value; .* tune"),
        ("no_such_module_here:Policy()", "cannot be imported: ModuleNotFoundError"),
        ("adaptive_sleep.policies:Fixd()", "has no 'Fixd', did you mean 'Fixed'"),
        ("adaptive_sleep.policies:Fixed(1)(2)", "expected one call"),
    ],
)
def test_anything_else_is_refused_with_the_repair(spec: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        parse_spec(spec)


def test_an_object_is_taken_as_it_is_and_a_function_is_wrapped() -> None:
    fixed = shipped.Fixed(2)
    assert resolve(fixed) is fixed
    wrapped = resolve(always_two)
    assert str(wrapped) == f"{MODULE}:always_two"
    assert plan_passes(wrapped, make_signals(2, 0)).tolist() == [2, 2]
    with pytest.raises(InputError, match=r"Fixed is a class: give an object, Fixed\(passes"):
        resolve(shipped.Fixed)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="expected an object with plan"):
        resolve(3)  # type: ignore[arg-type]


def test_what_has_a_plan_that_cannot_be_called_is_no_policy() -> None:
    class Planned:
        plan = 3

    with pytest.raises(InputError, match="expected an object with plan"):
        resolve(Planned())  # type: ignore[arg-type]


def test_a_numpy_integer_is_written_as_the_float_that_it_stands_for() -> None:
    made = shipped.Surprise(threshold=np.int64(1))
    spec = format_spec(made)
    assert spec.startswith("surprise(threshold=1.0")
    assert format_spec(resolve(spec)) == spec


class Reprs:
    """Its repr is what it was told."""

    def __init__(self, text: str) -> None:
        self.text = text

    def plan(self, signals: WindowSignals) -> Any:
        return np.ones(len(signals), int)

    def __repr__(self) -> str:
        return self.text


@pytest.mark.parametrize(
    "text", ["my policy", "fixed(passes=1)", "", f"{__name__}:Reprs('another')"]
)
def test_an_own_repr_is_no_name_unless_it_leads_back(text: str) -> None:
    with pytest.raises(InputError, match="nothing tells the text it was made with"):
        format_spec(Reprs(text))


def test_an_ordinary_class_takes_its_constructors_arguments() -> None:
    made = resolve(f"{MODULE}:NoDataclass(3, slow=True)")
    assert plan_passes(made, make_signals(1, 0)).tolist() == [3]
    with pytest.raises(InputError, match="expected int"):
        resolve(f"{MODULE}:NoDataclass('3')")
    with pytest.raises(InputError, match="did you mean 'slow'"):
        resolve(f"{MODULE}:NoDataclass(slo=True)")


def test_an_ordinary_class_is_spelled_as_it_was_made() -> None:
    spec = f"{MODULE}:NoDataclass(3, slow=True)"
    spelled = f"{MODULE}:NoDataclass(passes=3, slow=True)"
    assert format_spec(resolve(spec)) == spelled
    assert resolve(spelled).passes == 3  # type: ignore[attr-defined]
    capped = resolve(f"capped({spec!r}, max_passes=2)")
    assert format_spec(capped) == f"capped({spelled!r}, max_passes=2)"
    assert format_spec(resolve(f"{MODULE}:FOUR")) == f"{MODULE}:FOUR"
    loose = f"{MODULE}:Loose(weights=[1.0, 'a'], names={{'a': 1}})"
    assert format_spec(resolve(loose)) == loose
    told = rf"{MODULE}:NoDataclass: nothing tells the passes, slow it was made with"
    with pytest.raises(InputError, match=told):
        format_spec(NoDataclass(3))
    with pytest.raises(InputError, match="nothing tells the passes"):
        format_spec(resolve(f"{MODULE}:Slotted(3)"))


def test_a_parameter_that_no_literal_spells_is_refused() -> None:
    with pytest.raises(InputError, match="Undecorated: parameter threshold is nan"):
        format_spec(Undecorated(threshold=float("nan")))


def test_a_third_partys_ten_lines_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_policy.py").write_text(
        "from dataclasses import dataclass\n"
        "import numpy as np\n\n"
        "@dataclass\n"
        "class Night:\n"
        "    threshold: float = 10.0\n"
        "    passes: int = 4\n\n"
        "    def plan(self, signals):\n"
        "        return np.where(signals.gap > self.threshold, self.passes, 1)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "their_policy", raising=False)
    night = resolve("their_policy:Night(threshold=1)")
    assert plan_passes(night, make_signals(2, 0, gap=[0.5, 2.0])).tolist() == [1, 4]
    assert format_spec(night) == "their_policy:Night(threshold=1.0, passes=4)"
    assert resolve(format_spec(night)) == night


def test_a_name_that_another_process_would_not_know_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """README's way to register a policy, in a module that nothing but --policy imports."""
    (tmp_path / "dawn_policy.py").write_text(
        "from dataclasses import dataclass\n"
        "import adaptive_sleep as asl\n\n"
        "@asl.policy('test_dawn')\n"
        "@dataclass\n"
        "class Dawn:\n"
        "    passes: int = 4\n\n"
        "    def plan(self, signals):\n"
        "        return self.passes\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    dawn = resolve("dawn_policy:Dawn(passes=2)")
    assert str(dawn) == format_spec(dawn) == "dawn_policy:Dawn(passes=2)"
    assert resolve("test_dawn(passes=2)") == dawn  # in this process the name is known
    code = f"import adaptive_sleep as asl; print(asl.resolve({str(dawn)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.stdout.strip() == str(dawn)


@pytest.fixture
def distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Install a made-up distribution `theirs` with one module and the given entry points."""

    def install(module: str, points: str, name: str = "theirs") -> None:
        (tmp_path / f"{name}_code.py").write_text(module)
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[adaptive_sleep.policies]\n{points}\n")
        monkeypatch.syspath_prepend(str(tmp_path))

    yield install
    for module in ("theirs_code", "others_code"):
        sys.modules.pop(module, None)


THEIRS = '''
from dataclasses import dataclass

@dataclass(frozen=True)
class Theirs:
    """Sleep as they like."""
    passes: int = 2

    def plan(self, signals):
        return self.passes
'''


def test_an_entry_point_is_found_by_its_name_when_asked_for(distribution: Any) -> None:
    distribution(THEIRS, "test_theirs = theirs_code:Theirs")
    assert "theirs_code" not in sys.modules
    made = resolve("capped(test_theirs(passes=3), 2)")
    assert plan_passes(made, make_signals(1, 0)).tolist() == [2]
    [info] = [info for info in installed() if info.name == "test_theirs"]
    assert (info.origin, info.summary, info.error) == (
        "distribution theirs",
        "Sleep as they like.",
        "",
    )
    assert [(it.name, it.type, it.default) for it in info.parameters] == [("passes", "int", 2)]


def test_a_broken_entry_point_names_its_distribution(distribution: Any) -> None:
    distribution("raise OSError('no licence')", "test_broken = theirs_code:Theirs")
    told = "'test_broken' of distribution theirs .* cannot be loaded: OSError: no licence"
    with pytest.raises(InputError, match=told):
        resolve("test_broken()")
    [info] = [info for info in installed() if info.name == "test_broken"]
    assert "no licence" in info.error
    resolve("fixed(2)")  # and does not stand in the way of the others


def test_one_name_of_two_distributions_is_refused(distribution: Any) -> None:
    distribution(THEIRS, "test_twice = theirs_code:Theirs\nfixed = theirs_code:Theirs")
    distribution(THEIRS, "test_twice = others_code:Theirs", name="others")
    with pytest.raises(InputError, match=r"named 'test_twice': .*theirs.*others|others.*theirs"):
        resolve("test_twice()")
    with pytest.raises(InputError, match=r"two policies are named 'fixed': .* distribution theirs"):
        resolve("fixed(2)")
    resolve("theirs_code:Theirs(1)")  # the long form tells them apart


def test_installed_tells_parameters_and_ranges() -> None:
    [info] = [info for info in installed() if info.name == "surprise"]
    assert info.summary.startswith("Sleep on the windows that the model found surprising")
    threshold, passes = info.parameters
    assert (threshold.name, threshold.type, threshold.default) == ("threshold", "float", 1.0)
    assert threshold.tune == Range(0.01, 10.0, log=True)
    assert (passes.required, passes.tune) == (False, Range(2, 8))
    [info] = [info for info in installed() if info.name == "capped"]
    assert [it.required for it in info.parameters] == [True, False]


def test_annotations_that_cannot_be_resolved_leave_the_word_to_the_constructor() -> None:
    @dataclass
    class Local:
        value: Annotated[NotImportedAnywhere, Range(0, 1)] = 0.5  # type: ignore[name-defined]  # noqa: F821

        def plan(self, signals: WindowSignals) -> int:
            return 1

    globals()["Local"] = Local
    try:
        assert resolve(f"{MODULE}:Local(value='x')").value == "x"  # type: ignore[attr-defined]
    finally:
        del globals()["Local"]
