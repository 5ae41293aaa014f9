"""A recipe of a comparison is decoded strictly; what is wrong is named once, with what is right."""

from __future__ import annotations

from pathlib import Path

import pytest

from adaptive_sleep.experiments.compare_models import models_of
from adaptive_sleep.experiments.comparing import PolicyEntry, names_of, read_comparison
from adaptive_sleep.experiments.finding import find_recipe
from adaptive_sleep.streams.errors import InputError

TASK = """
max_passes = 3
[models]
paths = ["a.safetensors", "b.safetensors"]
[task]
name = "hops"
parameters = { nodes = 8, max_hops = 3 }
[changes]
mixes = { hard = -1.0 }
[[policies]]
name = "rule"
spec = "state_change(tolerance={tolerance}, max_passes=3)"
grid = { tolerance = [0.1, 0.5] }
"""
RECORDED = """
[models]
recipe = "telemetry"
seeds = [0, 1]
[recording]
path = "bundled:telemetry"
fit = [0.0, 0.6]
validation = [0.6, 0.7]
test = [0.7, 1.0]
[[policies]]
name = "rule"
spec = "surprise(threshold=0.3, passes=4)"
"""


@pytest.mark.parametrize("name", ["mixed_chain", "mixed_hops", "mixed_rule110", "mixed_recording"])
def test_the_shipped_recipes_can_be_read(name: str) -> None:
    recipe = read_comparison(find_recipe(name))
    assert recipe.max_passes == 4
    assert recipe.models.seeds == (0, 1, 2, 3, 4)
    assert "state-change" in names_of(recipe)


def test_a_grid_is_every_choice_in_order() -> None:
    entry = PolicyEntry("rule", "rule(a={a}, b={b}, file={gain})", grid={"a": (1, 2), "b": ("x",)})
    points = list(entry.points())
    assert points == [{"a": 1, "b": "x"}, {"a": 2, "b": "x"}]
    written = entry.written({**points[1], "gain": "it's.st"})
    assert written == """rule(a=2, b='x', file="it's.st")"""


def test_places_are_filled_in_quoted_policies_too() -> None:
    spec = "capped('m:P(file={gain}, a={a}, said={other})', max_passes={a})"
    wanted = """capped("m:P(file='x y.st', a=2, said={other})", max_passes=2)"""
    values = {"gain": "x y.st", "a": 2}
    assert PolicyEntry("it", spec).written(values) == wanted
    assert PolicyEntry("it", f"warmup({spec!r}, 4)").written(values) == f"warmup({wanted!r}, 4)"
    assert PolicyEntry("it", "m:P(at='{gain}.txt')").written(values) == "m:P(at='x y.st.txt')"
    for plain in ("m:P(said='{other}')", r"m:P(said='\N{gain {a')", "m:P(said='{a}"):
        assert PolicyEntry("it", plain).written({"gain": 1}) == plain


@pytest.mark.parametrize(
    ("text", "old", "new", "said"),
    [
        (TASK, "max_passes = 3", "max_pases = 3", "did you mean 'max_passes'"),
        (TASK, "max_passes = 3", "max_passes = 1", "max_passes=1"),
        (TASK, "max_passes = 3", "within = -1.0", "within=-1.0"),
        (TASK, "max_passes = 3", "control_seeds = []", "control_seeds"),
        (TASK, "max_passes = 3", "control_seeds = [0, 0]", "each once"),
        (TASK, "paths =", "pathes =", "did you mean 'paths'"),
        (TASK, 'paths = ["a.safetensors", "b.safetensors"]', "", "give paths, or recipe"),
        (TASK, '"b.safetensors"', '"a.safetensors"', "each once"),
        (TASK, "[task]", "seeds = [0]\n[task]", "seeds: they go with recipe"),
        (TASK, 'name = "hops"', 'name = "hop"', "did you mean 'hops'"),
        (TASK, 'name = "hops"', 'name = "hops"\nsamples = 0', "samples=0"),
        (TASK, 'name = "hops"', 'name = "hops"\npower = nan', "power=nan"),
        (TASK, "hard = -1.0", "Hard = -1.0", "small letters"),
        (TASK, "mixes = { hard = -1.0 }", "price = 0.0", "price=0.0"),
        (TASK, "mixes = { hard = -1.0 }", "bursts = [6.0, 3.0]", "of the two mixes of switch"),
        (TASK, "mixes = { hard", "switch = [1, -1]\nbursts = [0, 3]\nmixes = { hard", "from 1"),
        (
            TASK,
            "max_hops = 3 }\n[changes]",
            "max_hops = 3 }\nsamples = 64\n[changes]\nswitch = [1, -1]\nbursts = [6, 3]",
            "streams=64 and samples=64 leave",
        ),
        (RECORDED, "[recording]", "[changes]\nbursts = [6.0, 3.0]\n[recording]", "need a [task]"),
        (TASK, "grid =", "gird =", "did you mean 'grid'"),
        (TASK, "{tolerance}", "{tolerence}", "did you mean 'tolerance'"),
        (TASK, "{tolerance}", "0.1", "not in its spec"),
        (TASK, "[0.1, 0.5]", "[]", "at least one value"),
        (TASK, "[0.1, 0.5]", str([0.1] * 257), "at most 256"),
        (TASK, "state_change", "state_chang", "did you mean 'state_change'"),
        (TASK, 'name = "rule"', 'name = "fixed-9"', "is taken"),
        (TASK, 'name = "rule"', 'name = "forks"', "is taken"),
        (TASK, 'name = "rule"', 'name = "rule"\nfit = "gian"', "did you mean 'gain'"),
        (TASK, 'name = "rule"', 'name = "rule"\nfit = "gain"', "{gain} is not in its spec"),
        (RECORDED, "test = [0.7, 1.0]", "test = [0.65, 1.0]", "overlap"),
        (RECORDED, "test = [0.7, 1.0]", "test = [1.0, 0.7]", "two rising fractions"),
        (RECORDED, "[recording]", "[changes]\nswitch = [0.0, 1.0]\n[recording]", "need a [task]"),
        (RECORDED, "seeds = [0, 1]", "", "go with recipe"),
        (RECORDED, "seeds = [0, 1]", "seeds = [0, -1]", "seeds=[0, -1]: whole numbers from 0"),
        (RECORDED, "threshold=0.3", "threshhold=0.3", "did you mean 'threshold'"),
    ],
)
def test_a_wrong_recipe_is_one_error(
    tmp_path: Path, text: str, old: str, new: str, said: str
) -> None:
    assert old in text
    file = tmp_path / "wrong.toml"
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(InputError) as caught:
        read_comparison(file)
    assert said in str(caught.value)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(("name", "command"), [("chain", "train"), ("probe_detail", "probe")])
def test_a_recipe_of_another_command_is_told(name: str, command: str) -> None:
    with pytest.raises(InputError, match=f"is a recipe of `adaptive-sleep {command}`; compare"):
        read_comparison(find_recipe(name))


def test_a_policy_is_named_once(tmp_path: Path) -> None:
    file = tmp_path / "twice.toml"
    file.write_text(RECORDED + '[[policies]]\nname = "rule"\nspec = "fixed(2)"\n')
    with pytest.raises(InputError, match="each name once"):
        read_comparison(file)


@pytest.mark.parametrize("ending", ["", "-compute", "-below", "-above-compute", "-most"])
def test_a_policy_has_not_the_name_of_a_baselines_row(tmp_path: Path, ending: str) -> None:
    text = "targets = [1.5]\n" + RECORDED + '[[baselines]]\nname = "deeper"\n'
    file = tmp_path / "twice.toml"
    file.write_text(text)
    assert names_of(read_comparison(file)) == ["rule"]
    file.write_text(text.replace('name = "rule"', f'name = "deeper{ending}"'))
    with pytest.raises(InputError, match=f"name 'deeper{ending}' is that of a row of the baseline"):
        read_comparison(file)


def test_what_is_fitted_needs_a_part_to_fit_on(tmp_path: Path) -> None:
    entry = '[[policies]]\nname = "gain"\nspec = "rule(file={gain})"\nfit = "gain"\n'
    file = tmp_path / "unfit.toml"
    file.write_text(RECORDED + entry)
    assert names_of(read_comparison(file)) == ["rule", "gain"]
    file.write_text(RECORDED.replace("fit = [0.0, 0.6]", "") + entry)
    with pytest.raises(InputError, match="a part to fit on"):
        read_comparison(file)


def test_a_policy_fitted_to_errors_has_no_price_and_answers(tmp_path: Path) -> None:
    entry = '[[policies]]\nname = "errors"\nspec = "rule(file={gain_of_errors})"\n'
    file = tmp_path / "errors.toml"
    file.write_text(TASK + entry + 'fit = "gain_of_errors"\n')
    assert names_of(read_comparison(file)) == ["rule", "errors"]
    priced = TASK.replace("[changes]", "[changes]\nprice = 1e-9")
    file.write_text(priced + entry + 'fit = "gain_of_errors"\n')
    with pytest.raises(InputError, match="price is in units of loss; fit to losses"):
        read_comparison(file)
    file.write_text(RECORDED + entry + 'fit = "gain_of_errors"\n')
    with pytest.raises(InputError, match=r"\[models\] telemetry answers no questions, so none is"):
        models_of(read_comparison(file), quick=False)
