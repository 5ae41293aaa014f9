"""A recipe of another command is not trained: who takes it is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from adaptive_sleep.config import read_toml
from adaptive_sleep.experiments.cli import main
from adaptive_sleep.experiments.finding import command_of, find_recipe, shipped_recipes

STARTS = {  # of the names of recipes that are not trained, and the command that takes them
    "mixed_": "compare", "matched_": "compare", "choices_": "choices", "probe_": "probe",
    "demo": "demo --recipe", "etth1": "reproduce etth1",
}  # fmt: skip


@pytest.mark.parametrize("name", shipped_recipes())
def test_the_command_of_every_shipped_recipe_is_known(name: str) -> None:
    wanted = [command for start, command in STARTS.items() if name.startswith(start)]
    assert [command_of(read_toml(find_recipe(name)))] == (wanted or ["train"])


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("mixed_chain", "compare"),
        ("matched_recording", "compare"),
        ("choices_hops", "choices"),
        ("probe_detail", "probe"),
        ("demo", "demo --recipe"),
        ("etth1", "reproduce etth1"),
    ],
)
def test_a_recipe_of_another_command_is_not_trained(
    name: str, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", name, "--out", str(tmp_path / "m.safetensors")]) == 2
    assert f"{name} is a recipe of `adaptive-sleep {command}`" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "command"),
    [("mixed_chain", "compare"), ("telemetry", "train"), ("choices_hops", "choices")],
)
def test_a_recipe_of_another_command_is_not_reproduced(
    name: str, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reproduce", name, "--out", str(tmp_path / "X")]) == 2
    told = f"{name} is a recipe of `adaptive-sleep {command}`; reproduce takes one of a task"
    assert told in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_trained_is_told_with_its_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "r.toml"
    path.write_text(
        "[data]\nrecording = 'bundled:telemetry'\n[training]\nsteps = 0\n", encoding="utf-8"
    )
    assert main(["train", str(path), "--out", str(tmp_path / "m.safetensors")]) == 2
    assert f"{path}: [training] steps=0: at least 1" in capsys.readouterr().err


def test_a_misspelt_table_is_still_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "r.toml"
    path.write_text("[task]\nname = 'hops'\n[models]\nwidth = 8\n", encoding="utf-8")
    assert main(["train", str(path), "--out", str(tmp_path / "run")]) == 2
    assert "unknown field 'models', did you mean 'model'" in capsys.readouterr().err
