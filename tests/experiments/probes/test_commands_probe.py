"""`adaptive-sleep probe`: what it prints and writes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import probe_cases
import pytest

from adaptive_sleep.experiments import reproduce
from adaptive_sleep.experiments.cli import main
from adaptive_sleep.experiments.commands_probe import PROBES, find_probe
from adaptive_sleep.experiments.finding import shipped_recipes
from adaptive_sleep.experiments.probes import recurrence


def test_every_probe_has_what_the_command_calls() -> None:
    for name in PROBES:
        module = find_probe(name)
        assert all(callable(getattr(module, part)) for part in ("run", "table_of", "said"))


@pytest.mark.parametrize("name", ["detail", "recurrence"])
def test_our_own_recipes_can_be_read(name: str) -> None:
    assert f"probe_{name}" in shipped_recipes()
    module = find_probe(name)
    recipe = module.read_recipe(module.find_recipe(module.NAME))
    assert recipe.test.passes == (1, 2, 3, 4)
    assert recipe.training.passes == "1-4"


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["probe", "--help"]) == 0
    assert "Example: adaptive-sleep probe" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["detial"], "no such probe, did you mean 'detail'?"),
        (["detail", "--quick", "--from-results"], "give one of --quick and --from-results"),
        (["detail", "--seeds", "0"], "seeds"),
        (["detail", "--quick", "--seeds", "3"], "runs the first seed alone; leave out --seeds 3"),
        (["detail", "--seeds", "3", "--from-results"], "takes no --seeds"),
        (
            ["detail", "--data", "there"],
            "detail makes its own; labels, events, spending",
        ),
        ([], "Missing argument"),
    ],
    ids=" ".join,
)
def test_wrong_use_is_2_with_a_message(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["probe", *arguments]) == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_run_is_written_and_shown_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = probe_cases.write(tmp_path, probe_cases.RECURRENCE)
    monkeypatch.setattr(recurrence, "find_recipe", lambda name: recipe)
    out = tmp_path / "out"
    given = ["probe", "recurrence", "--seeds", "2", "--jobs", "1", "--out", str(out)]
    assert main([*given, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    written = json.loads((out / "probe_recurrence.json").read_text(encoding="utf-8"))
    assert shown == written
    assert shown["seeds"] == [0, 1]
    monkeypatch.setattr(reproduce, "kept_result", lambda name: {"probe_recurrence": written}[name])
    assert main(["probe", "recurrence", "--from-results"]) == 0
    table = capsys.readouterr().out
    for words in ("M=2", "unseen", "injected", "saved", "better than the control by"):
        assert words in table
