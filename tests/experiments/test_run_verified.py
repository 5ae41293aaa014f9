"""What of a run is read is held to its hashes, wherever it is read: a changed or cut file is named,
not believed."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from adaptive_sleep.experiments.commands_run import replay as replay_command
from adaptive_sleep.experiments.console import WRONG_USE, guarded
from adaptive_sleep.experiments.controls import Prescribed
from adaptive_sleep.experiments.replay import replay
from adaptive_sleep.experiments.report_given import write_given
from adaptive_sleep.experiments.runs import open_run
from adaptive_sleep.model import Model
from adaptive_sleep.streams.errors import InputError, IntegrityError
from adaptive_sleep.streams.recording import Recording

TRACE = "commits/000001/trace.parquet"


def rewritten(file: Path) -> None:
    pl.read_parquet(file).with_columns(passes=pl.lit(4)).write_parquet(file)


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, recording: Recording, model: Model) -> Path:
    out = tmp_path_factory.mktemp("finished") / "run"
    replay(recording, model, "fixed(2)", out, predictions=out.with_suffix(".csv"))
    return out


@pytest.fixture(params=[rewritten, cut_short], ids=["rewritten", "cut short"])
def damaged(finished: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A copy of a finished run whose trace is not what was written."""
    copy = shutil.copytree(finished, tmp_path / "run")
    request.param(copy / TRACE)
    return copy


def test_a_finished_run_is_verified_before_its_summary_is_given(
    damaged: Path, recording: Recording, model: Model, tmp_path: Path
) -> None:
    with pytest.raises(IntegrityError, match=f"{re.escape(TRACE)}: not what was written"):
        replay(recording, model, "fixed(2)", damaged, resume=True, predictions=tmp_path / "p.csv")
    assert not (tmp_path / "p.csv").exists()


def test_passes_are_not_prescribed_by_a_damaged_trace(damaged: Path) -> None:
    with pytest.raises(IntegrityError, match=f"{re.escape(TRACE)}: not what was written"):
        Prescribed(str(damaged))


def test_a_report_does_not_draw_a_damaged_trace(damaged: Path, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match=f"{re.escape(TRACE)}: not what was written"):
        write_given([str(damaged)], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("name", ["trace", "timings", "predictions"])
def test_every_file_that_is_read_is_held_to_its_hash(
    finished: Path, tmp_path: Path, name: str
) -> None:
    run = open_run(shutil.copytree(finished, tmp_path / "run"))
    read: Callable[[], pl.LazyFrame] = getattr(run, name)
    assert len(read().collect())
    cut_short(run.path / "commits" / "000001" / f"{name}.parquet")
    with pytest.raises(IntegrityError, match=rf"{name}\.parquet: not what was written"):
        read()


def test_the_commands_answer_as_inspect_does(
    damaged: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def run() -> None:
        replay_command(
            "bundled:telemetry", "bundled:telemetry", tmp_path / "out",
            policy=f"prescribed(path={str(damaged)!r})",
        )  # fmt: skip

    assert guarded(run) == WRONG_USE
    assert f"{damaged / TRACE}: not what was written" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_trace_file_that_is_damaged_within_is_said(finished: Path, tmp_path: Path) -> None:
    file = tmp_path / "trace.parquet"
    data = bytearray((finished / TRACE).read_bytes())
    data[4:400] = bytes(396)  # pages; the footer, which says what there is, stays
    file.write_bytes(data)
    with pytest.raises(InputError, match=r"prescribed\(path=.*\): cannot be read"):
        Prescribed(str(file))
