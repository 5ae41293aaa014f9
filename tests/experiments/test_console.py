"""How a command ends: one message, the right exit code, one JSON object, no progress in a pipe."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path

import pytest
import typer

from adaptive_sleep.experiments import console
from adaptive_sleep.experiments.console import (
    DEBUG,
    FOLDED,
    guarded,
    print_json,
    print_table,
    progress,
)
from adaptive_sleep.streams.errors import AdaptiveSleepError, InputError, IntegrityError


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (InputError("window=0: at least 1"), 2, "error: window=0: at least 1"),
        (IntegrityError("x.parquet: damaged"), 2, "error: x.parquet: damaged"),
        (AdaptiveSleepError("the disk is full"), 1, "error: the disk is full"),
        (PermissionError(13, "Permission denied", "/x"), 1, "error: /x: Permission denied"),
        (ModuleNotFoundError("no", name="plotly"), 1, "needs the module plotly"),
        (ZeroDivisionError("by zero"), 1, f"ZeroDivisionError: by zero (set {DEBUG}=1"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (SystemExit(3), 3, ""),
    ],
)
def test_an_error_is_one_message_and_an_exit_code(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    assert guarded(fail) == code
    out, err = capsys.readouterr()
    assert said in err
    assert out == ""
    assert "Traceback" not in err
    assert len(err.splitlines()) <= 1


def test_an_interrupt_inside_a_command_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    app = typer.Typer(rich_markup_mode=None)

    @app.command()
    def wait() -> None:
        raise KeyboardInterrupt

    assert guarded(lambda: app(args=[])) == 130
    assert "interrupted" in capsys.readouterr().err


def test_the_traceback_is_there_for_who_asks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DEBUG, "1")

    def fail() -> None:
        raise ZeroDivisionError

    assert guarded(fail) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_warning_is_said_once_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    def warn() -> None:
        for shard in ("a", "b", "a"):
            warnings.warn(f"{shard} is cut off", stacklevel=2)

    assert guarded(warn) == 0
    assert capsys.readouterr() == ("", "warning: a is cut off\nwarning: b is cut off\n")


def test_json_is_one_object_without_nan(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"loss": math.nan, "deep": [{"path": Path("x"), "n": (1, True, None)}]})
    out = capsys.readouterr().out
    assert json.loads(out) == {"loss": None, "deep": [{"path": "x", "n": [1, True, None]}]}
    assert out.count("\n") == 1


def test_progress_is_silent_where_stderr_is_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with progress("work") as advance:
        advance(1, 2, "half")
        advance(2)
    assert capsys.readouterr() == ("", "")


def test_a_table_shows_square_brackets_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("policy", "loss"), [("capped([bold]x[/bold])", "1.0")])
    assert "capped([bold]x[/bold])" in capsys.readouterr().out


@pytest.mark.parametrize("width", [20, 80, 160, 400])
def test_figures_are_never_cut_and_text_is_folded(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "PIPED", width)
    columns = ["policy", *(f"gain of N={n} on all" for n in range(12))]
    names = [f"policy-{n}" * 2 * n for n in range(1, 9)]  # 16 to 128 characters without a space
    rows = [[name, *[f"0.99{n} ±0.00{n}"] * 12] for n, name in enumerate(names)]
    print_table(columns, rows)
    out = capsys.readouterr().out
    lines = out.splitlines()
    room = max(FOLDED, width - 12 * (2 + len(rows[0][1])))
    assert max(map(len, lines)) <= max(width, FOLDED + 12 * (2 + len(rows[0][1])))
    for name, *figures in rows:
        (row,) = (line for line in lines if figures[0] in line)
        assert row.count(figures[0]) == 12
        assert row.startswith(name[: min(room, FOLDED)])
    folded = "".join(line[:room].strip() for line in lines)
    assert all(name in folded for name in names)
    assert all(f"N={n}" in out for n in range(12))
