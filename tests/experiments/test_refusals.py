"""What a replay refuses it refuses before it writes; damage is found before it goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from run_cases import POLICY, SWITCH, contents, make_series, make_tokens, series_model, token_model

from adaptive_sleep.checkpoint import named_tokens, save_model
from adaptive_sleep.experiments.replay import replay
from adaptive_sleep.experiments.runs import open_run
from adaptive_sleep.model import Model
from adaptive_sleep.streams.errors import InputError, IntegrityError
from adaptive_sleep.streams.events import Channel
from adaptive_sleep.streams.manifest import held
from adaptive_sleep.streams.recording import Recording
from adaptive_sleep.streams.writer import RecordingWriter


def test_tokens_that_stand_for_something_else_are_refused(tmp_path: Path) -> None:
    names = [f"activity {number}" for number in range(11)]
    path = tmp_path / "m.safetensors"
    save_model(token_model(), path, provenance=named_tokens(names))

    def logged(name: str, categories: list[str]) -> Path:
        with RecordingWriter(
            tmp_path / name, kind="tokens", tokenizer="categories", vocabulary=len(categories),
            categories=categories,
        ) as writer:  # fmt: skip
            writer.append("s", range(20), tokens=[0, 1] * 10)
        return tmp_path / name

    told = r"token 1 is 'lost', but 'activity 1' to the model; .*record eventlog --like"
    with pytest.raises(InputError, match=told):
        replay(logged("other", [names[0], "lost"]), path, "fixed", tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert replay(logged("fewer", names[:2]), path, "fixed", tmp_path / "run").events == 20
    bare = make_tokens(tmp_path / "bare", rows=20)  # nobody says what its tokens stand for
    assert replay(bare, path, "fixed", tmp_path / "again").events == 20


@pytest.fixture
def half(recording: Recording, model: Model, tmp_path: Path) -> Path:
    """A run that stopped half-way."""
    SWITCH["raise"] = RuntimeError("stop")
    with pytest.raises(RuntimeError, match="stop"):
        replay(recording, model, POLICY, tmp_path / "half", commit_every=5)
    SWITCH["raise"] = None
    return tmp_path / "half"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"policy": "fixed(2)"}, "policy"),
        ({"policy": "run_cases:Fragile(at=21)"}, "policy"),
        ({"model": 1}, "model.hash"),
        ({"recording": 1}, "recording.sha256"),
        ({"seed": 1}, "seed"),
        ({"stop": 0.5}, "recording.stop"),
        ({"commit_every": 6}, "settings.commit_every"),
        ({"max_passes": 7}, "settings.max_passes"),
        ({"window": 4}, "settings.window"),
        ({"budget": 1.0}, "settings.budget"),
        ({"predictions": "p.parquet"}, "settings.predictions"),
        ({"threads": 2}, "machine.threads"),
        ({"precision": "high"}, "machine.matmul_precision"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_resume_of_another_run_is_refused(
    half: Path,
    recording: Recording,
    model: Model,
    tmp_path: Path,
    changes: dict[str, Any],
    named: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: dict[str, Any] = {"recording": recording, "model": model, "policy": POLICY}
    given |= {"out": half, "commit_every": 5, "resume": True} | changes
    if "model" in changes:
        given["model"] = series_model(seed=1)
    if "recording" in changes:
        given["recording"] = make_series(tmp_path / "other", seed=1)
    if "predictions" in changes:
        given["predictions"] = tmp_path / "p.parquet"
    if threads := given.pop("threads", None):
        monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    if precision := given.pop("precision", None):
        monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: precision)
    before = contents(tmp_path)
    with pytest.raises(InputError, match=named):
        replay(**given)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"policy": "surprize(threshold=1.0)"}, "surprise"),
        ({"policy": "__import__('os')"}, "__import__"),
        ({"window": 0}, "window"),
        ({"eviction": "soft"}, "eviction"),
        ({"gap_seconds": -1.0}, "gap_seconds"),
        ({"max_passes": 0}, "max_passes"),
        ({"commit_every": 0}, "commit_every"),
        ({"speed": 0.0}, "speed"),
        ({"speed": 1e-12}, "speed=1e-12: 'max' or a multiple of real time, 1e-06 or more"),
        ({"speed": "fast"}, "speed"),
        ({"start": 0.5, "stop": 0.5}, "start"),
        ({"start": -1}, "start"),
        ({"stop": 1.5}, "stop"),
        ({"predictions": "nowhere/p.parquet"}, "predictions"),
        ({"predictions": "p.txt"}, "predictions"),
        ({"recording": "nowhere"}, "nowhere"),
    ],
    ids=str,
)
def test_bad_input_writes_nothing(
    recording: Recording, model: Model, tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    if "predictions" in changes:
        changes = {"predictions": tmp_path / changes["predictions"]}
    given: dict[str, Any] = {"recording": recording, "model": model, "policy": "fixed(1)"}
    with pytest.raises(InputError, match=named):
        replay(**{**given, "out": tmp_path / "run", **changes})
    assert contents(tmp_path) == {}


def test_an_existing_folder_is_refused(
    whole: Path, recording: Recording, model: Model, tmp_path: Path
) -> None:
    before = contents(whole)
    with pytest.raises(InputError, match="exists already"):
        replay(recording, model, POLICY, whole, commit_every=5)
    assert contents(whole) == before
    (tmp_path / "photographs").mkdir()
    (tmp_path / "photographs" / "cat.jpg").write_text("cat")
    for resume in (False, True):
        with pytest.raises(InputError, match=r"exists already|not a run"):
            replay(recording, model, POLICY, tmp_path / "photographs", resume=resume)
    assert set(contents(tmp_path)) == {"photographs", "photographs/cat.jpg"}


def test_a_recording_that_the_model_cannot_read_is_refused(
    recording: Recording, model: Model, tmp_path: Path
) -> None:
    tokens = make_tokens(tmp_path / "tokens")
    wide = make_tokens(tmp_path / "wide", vocabulary=12)
    cases: list[tuple[Recording, Model, str]] = [
        (tokens, model, "tokens"),
        (recording, token_model(), "series"),
        (wide, token_model(), "vocabulary=12"),
        (recording, series_model(channels=("load", "heat", "rain")), "rain"),
        (recording, series_model(channels=("load", "fan"), actions=("heat",)), "action"),
    ]
    for given_, reader, named in cases:
        with pytest.raises(InputError, match=named):
            replay(given_, reader, "fixed(1)", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("channels", "column"), [(("t_mean", "t"), "t_mean"), (("x", "x_q50"), "x_q50")]
)
def test_predictions_that_would_share_a_column_are_refused(
    tmp_path: Path, channels: tuple[str, str], column: str
) -> None:
    with RecordingWriter(
        tmp_path / "recording", kind="series", channels=[Channel(name) for name in channels]
    ) as writer:
        writer.append("a", range(8), values=[[1.0, 2.0]] * 8)
    model = series_model(channels=channels, actions=())
    before = contents(tmp_path)
    given: dict[str, Any] = {"recording": tmp_path / "recording", "model": model}
    given |= {"policy": "fixed(1)", "out": tmp_path / "run"}
    with pytest.raises(
        InputError, match=f"channels '{channels[0]}' and '{channels[1]}': .*{column}"
    ):
        replay(**given, predictions=tmp_path / "p.parquet")
    assert contents(tmp_path) == before
    assert replay(**given).events == 8  # without predictions nothing is in the way


@pytest.mark.parametrize(
    "name", ["trace.parquet", "timings.parquet", "state.safetensors", "state.json"]
)
def test_a_flipped_bit_is_found_before_going_on(
    half: Path, recording: Recording, model: Model, name: str
) -> None:
    run = open_run(half)
    assert run.last is not None
    data = bytearray((run.last / name).read_bytes())
    data[len(data) // 2] ^= 1
    (run.last / name).write_bytes(data)
    with pytest.raises(IntegrityError, match=name):
        replay(recording, model, POLICY, half, commit_every=5, resume=True)


def test_a_damaged_run_is_named(half: Path) -> None:
    first = half / "commits" / "000001"
    first.rename(half / "commits" / "gone")
    with pytest.raises(IntegrityError, match="000001"):
        open_run(half)
    plain = msgspec.json.decode((half / "run.json").read_bytes())
    (half / "run.json").write_bytes(msgspec.json.encode({**plain, "schema": 2}))
    with pytest.raises(IntegrityError, match="upgrade"):
        open_run(half)
    (half / "run.json").write_bytes(b"{")
    with pytest.raises(IntegrityError, match=r"run\.json"):
        open_run(half)
    (half / "run.json").unlink()
    with pytest.raises(InputError, match=r"run\.json"):
        open_run(half)


def test_two_do_not_write_one_run(half: Path, recording: Recording, model: Model) -> None:
    before = contents(half)
    with held(half), pytest.raises(InputError, match="another process"):
        replay(recording, model, POLICY, half, commit_every=5, resume=True)
    assert contents(half) == before
