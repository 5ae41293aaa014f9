"""A run folder is of one run: begun by one, held by one, read as itself, and small."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest
from run_cases import ORIGIN, SECOND, contents, lasting, make_series, series_model

from adaptive_sleep.experiments import commits, counterfactual, live, runs
from adaptive_sleep.experiments import replay as replaying
from adaptive_sleep.experiments.live import run_live
from adaptive_sleep.experiments.live_event import LiveEvent
from adaptive_sleep.experiments.replay import replay
from adaptive_sleep.experiments.runs import open_run
from adaptive_sleep.model import Model
from adaptive_sleep.streams.errors import AdaptiveSleepError, InputError, IntegrityError
from adaptive_sleep.streams.manifest import held
from adaptive_sleep.streams.recording import Recording

pytestmark = pytest.mark.filterwarnings("ignore::adaptive_sleep.streams.errors.OverloadWarning")


@pytest.fixture(scope="module")
def model() -> Model:
    return series_model()


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    return make_series(tmp_path_factory.mktemp("recordings") / "series", rows=80)


def events(count: int = 20) -> list[LiveEvent]:
    values = series_model().config.inputs
    return [
        LiveEvent("a", ORIGIN + i * SECOND, [0.1 * i] * len(values))  # type: ignore[arg-type]
        for i in range(count)
    ]


def meanwhile(module: Any, do: Callable[[], Any], patch: pytest.MonkeyPatch) -> None:
    """Let something happen once, after the first look at the folder and before it is begun."""
    real = module.make_runtime

    def make(*given: Any) -> Any:
        patch.setattr(module, "make_runtime", real)
        do()
        return real(*given)

    patch.setattr(module, "make_runtime", make)


@pytest.mark.parametrize(("resume", "said"), [(False, "exists already"), (True, "policy was")])
def test_of_two_replays_begun_together_one_is_refused(
    recording: Recording, model: Model, tmp_path: Path, resume: bool, said: str
) -> None:
    out = tmp_path / "run"
    left: dict[str, str] = {}

    def other() -> None:
        replay(recording, model, "fixed(2)", out, resume=resume)
        left.update(contents(out))

    with pytest.MonkeyPatch.context() as patch:
        meanwhile(replaying, other, patch)
        with pytest.raises(InputError, match=said):
            replay(recording, model, "fixed(1)", out, resume=resume)
    assert contents(out) == left
    run = open_run(out)
    assert run.manifest.policy.startswith("fixed(passes=2")
    assert set(run.trace().collect()["planned"]) == {2}


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_that_another_holds_is_left_alone(
    recording: Recording, model: Model, tmp_path: Path, resume: bool
) -> None:
    """The other has made the folder, holds it, and has not come to write run.json."""
    out = tmp_path / "run"
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:

        def other() -> None:
            out.mkdir()
            stack.enter_context(held(out))

        meanwhile(replaying, other, patch)
        with pytest.raises(InputError, match=r"out=.*(another process|exists already)"):
            replay(recording, model, "fixed(1)", out, resume=resume)
        assert contents(tmp_path) == {"run": "folder"}


def test_a_folder_that_is_removed_meanwhile_is_said(
    recording: Recording, model: Model, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    out.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commits, "_made", lambda run: run.rmdir())
        with pytest.raises(InputError, match="another process removed it"):
            replay(recording, model, "fixed(1)", out, resume=True)


def test_a_live_run_leaves_the_folder_of_another_alone(model: Model, tmp_path: Path) -> None:
    out, record = tmp_path / "run", tmp_path / "R"
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:

        def other() -> None:
            out.mkdir()
            (out / "run.json").write_text("of another")
            stack.enter_context(held(out))

        meanwhile(live, other, patch)
        with pytest.raises(InputError, match=r"out=.*(another process|exists already)"):
            run_live(events(), model, "fixed(1)", out=out, record=record)
    assert set(contents(tmp_path)) == {"run", "run/run.json"}  # and no recording of nothing
    assert (out / "run.json").read_text() == "of another"


@pytest.mark.parametrize(("out", "record"), [("run", "run/R"), ("R/run", "R"), ("x", "x/../x/R")])
def test_a_recording_and_a_run_lie_side_by_side(
    model: Model, tmp_path: Path, out: str, record: str
) -> None:
    with pytest.raises(InputError, match="one lies inside the other"):
        run_live(events(), model, "fixed(1)", out=tmp_path / out, record=tmp_path / record)
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    with pytest.raises(InputError, match="one lies inside the other"):
        run_live(events(), model, "fixed(1)", out=link / out, record=tmp_path / record)
    assert [path.name for path in tmp_path.iterdir()] == ["link"]


def test_the_trace_of_a_run_is_its_own_whatever_its_name(
    recording: Recording, model: Model, tmp_path: Path
) -> None:
    plain = replay(recording, model, "fixed(1)", tmp_path / "run1")
    odd = replay(recording, model, "fixed(2)", tmp_path / "run[1]")
    assert set(pl.read_parquet(plain.trace)["planned"]) == {1}
    assert set(pl.read_parquet(odd.trace)["planned"]) == {2}
    again = open_run(tmp_path / "run[1]").summary
    assert again == odd
    policy = f"prescribed(path={str(open_run(tmp_path / 'run[1]').last / 'trace.parquet')!r})"  # type: ignore[operator]
    told = replay(recording, model, policy, tmp_path / "prescribed")
    assert told.mean_passes == 2
    given = {"stop": 40, "most": 2}
    counterfactual.counterfactuals(recording, model, "fixed(1)", tmp_path / "what1", **given)  # type: ignore[arg-type]
    found = counterfactual.counterfactuals(
        recording,
        model,
        "fixed(2)",
        tmp_path / "what[1]",
        **given,  # type: ignore[arg-type]
    )
    assert counterfactual.open_counterfactuals(tmp_path / "what[1]").table.equals(found.table)


def test_a_tilde_is_a_name_as_any_other(
    recording: Recording, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    Path("~").mkdir()
    summary = replay(recording, model, "fixed(2)", "~/run", predictions="~/p.csv")
    assert set(pl.read_parquet(summary.trace)["planned"]) == {2}
    assert open_run("~/run").summary == summary
    assert len(open_run("~/run").timings().collect())
    assert (Path("~") / "p.csv").read_text().startswith("stream,")
    live = run_live(events(), model, "fixed(1)", out="~/live", record="~/recorded")
    assert pl.read_parquet(live.run.trace).height == live.run.windows
    assert sorted(path.name for path in tmp_path.iterdir()) == ["~"]


def test_what_is_damaged_is_named_and_a_copy_beside_it_is_let_be(
    recording: Recording, model: Model, tmp_path: Path
) -> None:
    replay(recording, model, "fixed(1)", tmp_path / "run")
    (tmp_path / "run" / "commits" / "000001.bak").mkdir()
    assert len(open_run(tmp_path / "run").positions) == 1
    (tmp_path / "run" / "commits" / "000007").mkdir()
    with pytest.raises(IntegrityError, match="000002: missing, though commit 000007 is there"):
        open_run(tmp_path / "run")
    file = tmp_path / "run" / "run.json"
    file.write_bytes(file.read_bytes().replace(b"replay", b"repl\xe1y"))
    with pytest.raises(IntegrityError, match=r"run\.json: damaged"):
        open_run(tmp_path / "run")


def no_room(patch: pytest.MonkeyPatch, after: int, why: int = errno.ENOSPC) -> None:
    """Let every fsync after so many find no room, or fail for another reason."""
    left, real = after, os.fsync

    def fsync(descriptor: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(why, os.strerror(why))
        real(descriptor)

    patch.setattr(os, "fsync", fsync)


@pytest.mark.parametrize("after", [0, 3])
def test_a_full_disk_is_not_answered_with_a_resume_that_there_is_not(
    recording: Recording, model: Model, tmp_path: Path, after: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        no_room(patch, after)
        with pytest.raises(AdaptiveSleepError, match="disk is full; a live run does not go on"):
            run_live(events(), model, "fixed(1)", out=tmp_path / "run", commit_every=1)
    with pytest.MonkeyPatch.context() as patch:
        no_room(patch, after)
        with pytest.raises(AdaptiveSleepError, match="disk is full; nothing is left of it"):
            counterfactual.counterfactuals(recording, model, "fixed(1)", tmp_path / "what-if")
    assert not (tmp_path / "what-if").exists()
    with pytest.MonkeyPatch.context() as patch:
        no_room(patch, after, errno.EFBIG)
        with pytest.raises(AdaptiveSleepError, match="larger than files may be here; nothing is"):
            counterfactual.counterfactuals(recording, model, "fixed(1)", tmp_path / "what-if")
        with pytest.raises(AdaptiveSleepError, match=r"so raise the limit \(ulimit -f\) and begin"):
            run_live(events(), model, "fixed(1)", out=tmp_path / "again", commit_every=1)


def test_how_streams_are_cut_is_kept_once(
    recording: Recording, model: Model, tmp_path: Path
) -> None:
    given: dict[str, Any] = {"commit_every": 1, "gap_seconds": 60.0}
    replay(recording, model, "fixed(1)", tmp_path / "run", **given)
    run = open_run(tmp_path / "run")
    assert len(run.positions) > 3
    assert all(position.windower == {} for position in run.positions)
    kept = sorted((tmp_path / "run").rglob(runs.CUTTING))
    assert kept == [run.last / runs.CUTTING]  # type: ignore[operator]
    assert set(run.windower["streams"]) == set(recording.streams)


def test_a_run_that_keeps_it_in_every_commit_goes_on(
    recording: Recording, model: Model, tmp_path: Path
) -> None:
    """As runs were written before."""
    given: dict[str, Any] = {"commit_every": 1, "gap_seconds": 60.0}
    whole = replay(recording, model, "fixed(1)", tmp_path / "whole", **given)

    def stop(at: replaying.Progress) -> None:
        if at.rows > 70:
            raise RuntimeError("no")

    out = tmp_path / "run"
    with pytest.raises(RuntimeError, match="no"):
        replay(recording, model, "fixed(1)", out, on_progress=stop, **given)
    run = open_run(out)
    assert len(run.positions) > 1
    windower = run.windower
    for position in run.positions:
        folder = runs.commit_folder(out, position.commit)
        files = {name: hash_ for name, hash_ in position.files.items() if name != runs.CUTTING}
        (folder / runs.CUTTING).unlink(missing_ok=True)
        old = msgspec.structs.replace(position, files=files, windower=windower)
        (folder / "commit.json").write_bytes(msgspec.json.encode(old))
    run = open_run(out)
    assert [bool(position.windower) for position in run.positions[-2:]] == [False, True]
    again = replay(recording, model, "fixed(1)", out, resume=True, **given)
    assert again.trace_sha256 == whole.trace_sha256
    assert lasting(out) == lasting(tmp_path / "whole")


def test_a_run_that_began_between_the_folder_and_its_lock_is_not_gone_on_with(
    recording: Recording, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, made = tmp_path / "run", commits._made

    def make(run: Path) -> bool:
        monkeypatch.setattr(commits, "_made", made)
        mine = made(run)
        replay(recording, model, "fixed(3)", run, resume=True)
        return mine

    monkeypatch.setattr(commits, "_made", make)
    with pytest.raises(InputError, match="another process began there"):
        replay(recording, model, "fixed(1)", out)
    assert open_run(out).manifest.policy == "fixed(passes=3)"
