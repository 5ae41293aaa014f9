"""A study that was refused, or interrupted, and goes on: as if nothing had happened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from run_cases import answering_model, make_series, series_model
from test_tune import SERIES, TASK, kept, loaded

from adaptive_sleep.checkpoint import save_model
from adaptive_sleep.experiments import tune_workers
from adaptive_sleep.experiments.tune import NO_SLEEP, tune
from adaptive_sleep.experiments.tune_bench import TuneBench
from adaptive_sleep.experiments.tune_reading import Measured
from adaptive_sleep.streams.errors import InputError


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune_workers, "POLL_SECONDS", 0.02)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """The recipe of a task, and its models."""
    for seed in (0, 1):
        save_model(answering_model(seed), tmp_path / f"m{seed}.safetensors", provenance={})
    (tmp_path / "tiny.toml").write_text(TASK.format(folder=tmp_path))
    return tmp_path / "tiny.toml"


def test_an_interrupted_study_tries_what_it_would_have_tried(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {
        "policies": ["state_change", "surprise", "uncertainty"], "budget": "9x", "trials": 4,
        "quick": True, "out": tmp_path / "out",
    }  # fmt: skip
    calm = tune(tiny, kept(tmp_path), study="calm", **given)
    run, left = TuneBench.run, [1]

    def once(self: TuneBench, name: str, spec: str, window: int | None) -> Measured:
        if spec != NO_SLEEP and left:
            left.pop()
            raise KeyboardInterrupt
        return run(self, name, spec, window)

    monkeypatch.setattr(TuneBench, "run", once)
    with pytest.raises(KeyboardInterrupt):
        tune(tiny, kept(tmp_path), study="cut", **given)
    cut = tune(tiny, kept(tmp_path), study="cut", **given)
    first, *_, last = loaded(kept(tmp_path), "cut").trials
    assert (first.state.name, last.number) == ("FAIL", 4)
    seen: dict[str, list[Any]] = {
        name: [
            (it.params, it.value, list(it.intermediate_values), it.user_attrs["stopped"])
            for it in loaded(kept(tmp_path), name).trials
            if it.state.name == "COMPLETE"
        ]
        for name in ("calm", "cut")
    }
    assert seen["calm"] == seen["cut"]
    assert [tried["policy"] for tried, *_ in seen["cut"]][:3] == [
        "state_change", "surprise", "uncertainty",
    ]  # fmt: skip
    for key in ("best", "score", "test", "stopped"):
        assert calm[key] == cut[key]


@pytest.mark.parametrize("ended", ["another folder", "a file", "seed 0", "fit", "0 of"])
def test_what_ended_before_the_first_trial_may_be_given_otherwise(
    ended: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {"quick": True, "trials": 1, "budget": "9x"}
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "file").touch()
    out = {"another folder": tmp_path / "else", "a file": tmp_path / "else" / "file"}

    def stop(done: float, total: float | None = None, note: str = "") -> None:
        if note.startswith(ended):
            raise KeyboardInterrupt

    def no_fits(bench: TuneBench, *places: Any, **named: Any) -> TuneBench:
        raise InputError("cannot be fitted")

    with monkeypatch.context() as patched:
        if ended == "fit":
            patched.setattr("adaptive_sleep.experiments.tune.with_fits", no_fits)
        with pytest.raises((InputError, KeyboardInterrupt)):
            tune(
                tiny, kept(tmp_path), out=out.get(ended, tmp_path / "out"), on_progress=stop,
                **given,
            )  # fmt: skip
    given |= {"budget": "8x", "policies": ["fixed({1, 2})"], "trials": 2}
    found = tune(tiny, kept(tmp_path), out=tmp_path / "out", **given)
    assert found["budget"] == pytest.approx(8 * found["plain_flops_per_event"])
    assert found["trials"] == 2


def test_a_folder_is_one_however_it_is_spelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Specs name the files in it that policies were fitted to."""
    save_model(series_model(), tmp_path / "s.safetensors", provenance={})
    make_series(tmp_path / "R", rows=192, streams=1)
    text = SERIES.replace("validation = [0.0, 0.5]", "fit = [0.0, 0.3]\nvalidation = [0.3, 0.5]")
    (tmp_path / "series.toml").write_text(text.format(folder=tmp_path))
    monkeypatch.chdir(tmp_path)
    given: dict[str, Any] = {
        "policies": ["predicted_gain(file={gain}, threshold=0.1)"], "trials": 1, "budget": "9x",
    }  # fmt: skip
    first, again = (
        tune("series.toml", kept(tmp_path), study=name, out=out, **given)
        for name, out in (("first", "out"), ("again", tmp_path / "x" / ".." / "out"))
    )
    assert "'out/seed-0/fit/gain.safetensors'" in first["best"]
    assert again["best"] == first["best"]
    assert again["test_by_seed"] == first["test_by_seed"]
