"""Changes to one field of a recipe, as `reproduce --set` and choices make them."""

from __future__ import annotations

from pathlib import Path

import pytest

from adaptive_sleep.learning import read_task_recipe
from adaptive_sleep.streams.errors import InputError


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "r.toml"
    path.write_text('eviction = "sliding"\n[task]\nname = "hops"\n', encoding="utf-8")
    return path


def test_changes_are_made_to_fields_of_any_place_and_type(written: Path) -> None:
    for two in ("2", '"2"'):
        once = [f"training.passes={two}", "test.passes=[1]"]
        assert read_task_recipe(written, once).training.passes == "2"
    assert read_task_recipe(written, ["training.passes=2-4"]).training.passes == "2-4"
    assert read_task_recipe(written, ["training.steps=2"]).training.steps == 2
    assert read_task_recipe(written, ["eviction=hard"]).eviction == "hard"
    assert read_task_recipe(written, ["keep=20"]).keep == 20
    assert read_task_recipe(written, ["task.nodes=9", "model.width=32"]).task["nodes"] == 9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("eviction.x=sliding", "eviction='sliding' is no table; write eviction=value"),
        ("eviction=slidng", "did you mean 'sliding'"),
        ("evictoin=hard", "unknown field 'evictoin', did you mean 'eviction'"),
        ("training.eviction=hard", "'eviction': it belongs to the top"),
        ("training=3", "training=3: expected `object`"),
        ("training.steps=few", "training.steps='few': expected `int`"),
        ("a.b.c=3", "a change is written table.field=value"),
        ("hard", "a change is written table.field=value"),
    ],
)
def test_changes_that_cannot_be_made_are_named(written: Path, change: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_task_recipe(written, [change])
