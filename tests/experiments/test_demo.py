"""The demo runs what its recipe says, adds the controls, and leaves nothing half done."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from synthetic_runs import make_recording

from adaptive_sleep.checkpoint import save_model
from adaptive_sleep.config import ModelConfig
from adaptive_sleep.experiments import demo
from adaptive_sleep.experiments.demo import result_json, run_demo, table_rows
from adaptive_sleep.experiments.finding import find_recipe, shipped_recipes
from adaptive_sleep.experiments.runs import open_run
from adaptive_sleep.model import Model
from adaptive_sleep.spec import parse_spec
from adaptive_sleep.streams.errors import InputError

RECIPE = """
recording = "{folder}/R"
model = "{folder}/m.safetensors"
start = 0.5
max_passes = 3
control_seeds = [0, 1]
[[policies]]
name = "still"
spec = "fixed(1)"
[[policies]]
name = "long"
spec = "fixed(3)"
[[policies]]
name = "rule"
spec = "{rule}"
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe for a tiny model, whose rule sleeps on some windows and not on others."""
    make_recording(tmp_path / "R")
    config = ModelConfig(
        kind="series", channels=("load",), width=16, heads=2, fast_heads=1, key_dim=8, value_dim=8
    )
    save_model(Model(config), tmp_path / "m.safetensors", provenance={})
    file = tmp_path / "tiny.toml"
    rule = "budgeted(fixed(3), flops_per_event=3000.0)"
    file.write_text(RECIPE.format(folder=tmp_path, rule=rule))
    return file


def test_the_demo_runs_policies_and_shuffled_controls(recipe: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    result = run_demo(tmp_path / "out", recipe=recipe, on_progress=lambda *what: told.append(what))
    assert [row.name for row in result.rows] == ["still", "long", "rule", "rule-shuffled"]
    rule, control = result.rows[2:]
    assert control.control_of == "rule"
    assert len(control.losses) == 2
    traces = {
        name: open_run(tmp_path / "out" / "runs" / name).trace().collect()["passes"]
        for name in ("still", "rule", "rule-shuffled-0", "rule-shuffled-1")
    }
    assert set(traces["still"]) == {1}
    for name in control.runs:  # the policy's own histogram, in another order
        assert traces[name].sort().equals(traces["rule"].sort())
        assert not traces[name].equals(traces["rule"])
    assert control.mean_passes == rule.mean_passes
    assert told[-1][0] == told[-1][1]
    assert result.report.read_text(encoding="utf-8").count("plotly.js v") == 1


def test_the_table_compares_with_the_first_row(recipe: Path, tmp_path: Path) -> None:
    result = run_demo(tmp_path / "out", recipe=recipe)
    table = table_rows(result)
    assert len(table) == len(result.rows)
    assert table[0][2] == ""
    found = result_json(result)
    assert found["rows"][0]["relative"] == 0.0
    first, second = found["rows"][:2]
    assert second["relative"] == pytest.approx(second["loss"] / first["loss"] - 1)
    assert found["reading"][0].startswith("Sleeping longer")


def test_an_earlier_demo_is_replaced_and_nothing_else(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_demo(out, recipe=recipe)
    (out / "report.html").write_text("an earlier one")
    run_demo(out, recipe=recipe)
    assert (out / "report.html").read_text(encoding="utf-8") != "an earlier one"
    for mine in ("mine.txt", "runs/mine"):
        (out / mine).touch()
        with pytest.raises(InputError, match=f"holds {mine} beside an earlier demo"):
            run_demo(out, recipe=recipe)
        (out / mine).unlink()
    assert sorted(it.name for it in out.iterdir()) == ["demo.json", "report.html", "runs"]
    assert not list(tmp_path.glob(".out*"))
    other = tmp_path / "other"
    other.mkdir()
    (other / "precious.txt").write_text("keep me")
    with pytest.raises(InputError, match="no demo"):
        run_demo(other, recipe=recipe)
    assert (other / "precious.txt").read_text() == "keep me"


def test_an_interrupt_leaves_nothing(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "write_report", interrupted)
    before = set(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt):
        run_demo(tmp_path / "out", recipe=recipe)
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("renames", [1, 2])
def test_an_interrupt_while_it_is_replaced_loses_neither(
    renames: int, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the earlier demo was moved, and after."""
    out, done, rename = tmp_path / "out", 0, os.rename
    run_demo(out, recipe=recipe)
    before = (out / "report.html").stat().st_ino

    def interrupted(old: Path, new: Path) -> None:
        nonlocal done
        done += 1
        if done == renames:
            raise KeyboardInterrupt
        rename(old, new)

    def replaced(out: Path, new: Path) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(demo.os, "rename", interrupted)
            replace(out, new)

    replace = demo._replace
    monkeypatch.setattr(demo, "_replace", replaced)
    with pytest.raises(KeyboardInterrupt):
        run_demo(out, recipe=recipe)
    assert (out / "report.html").stat().st_ino == before
    assert not list(tmp_path.glob(".out*"))


def test_what_cannot_be_replaced_is_refused_before_anything_is_run(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "replay", lambda *_, **__: pytest.fail("something was run"))
    (tmp_path / "there" / "in").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "there" / "in")
    monkeypatch.chdir(tmp_path / "there" / "in")
    for out in (tmp_path / "link", Path(), Path(".."), Path("../in"), Path("/")):
        with pytest.raises(InputError, match=r"out=.* cannot be replaced"):
            run_demo(out, recipe=recipe)
    assert not list((tmp_path / "there").glob(".*"))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('name = "long"', 'name = "../long"', r"name='\.\./long': the name of a folder"),
        ('name = "long"', 'name = ".."', r"name='\.\.': the name of a folder"),
        ('name = "long"', 'name = ""', "name='': the name of a folder"),
        ('name = "long"', 'name = "rule-shuffled"', "the shuffled control of 'rule' has this name"),
        ('name = "long"', 'name = "still-shuffled-1"', "control of 'still' has this name"),
        ("[0, 1]", "[1, 1]", "each seed once"),
        ("max_passes", "max_pases", "did you mean 'max_passes'"),
        ('name = "long"', 'name = "still"', "each name once"),
        ("fixed(1)", "fixt(1)", "did you mean 'fixed'"),
        ("start = 0.5", 'start = "half"', "start"),
    ],
)
def test_a_wrong_recipe_is_refused_and_nothing_written(
    old: str, new: str, said: str, recipe: Path, tmp_path: Path
) -> None:
    recipe.write_text(recipe.read_text().replace(old, new))
    before = set(tmp_path.iterdir())
    with pytest.raises(InputError, match=said):
        run_demo(tmp_path / "out", recipe=recipe)
    assert set(tmp_path.iterdir()) == before


def test_recipes_are_found_by_name_and_by_path(recipe: Path) -> None:
    assert find_recipe(recipe) == recipe
    assert find_recipe("demo").name == "demo.toml"
    assert "demo" in shipped_recipes()
    with pytest.raises(InputError, match="did you mean 'demo'"):
        find_recipe("demoo")
    with pytest.raises(InputError, match="no such file"):
        find_recipe("nowhere.toml")


def test_the_shipped_recipe_is_whole() -> None:
    plan = demo._read_recipe(find_recipe("demo"))
    assert plan.start == 0.7  # what comes before is for training and validation
    specs = [entry.spec for entry in plan.policies]
    assert specs[:2] == ["fixed(1)", "fixed(4)"]
    assert {spec.partition("(")[0] for spec in specs} >= {"fixed", "state_change", "budgeted"}
    for spec in specs:
        parse_spec(spec)


@pytest.fixture(autouse=True)
def _seeded_model() -> None:
    torch.manual_seed(0)
