"""A recording's pieces come to what a running stream comes to, and cost what it costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from run_cases import make_series, series_model
from test_tune import SERIES, kept, loaded

from adaptive_sleep.checkpoint import load_model, save_model
from adaptive_sleep.experiments import tune_workers
from adaptive_sleep.experiments.compare_streams import pieces, source
from adaptive_sleep.experiments.comparing import read_comparison
from adaptive_sleep.experiments.finding import find_recipe
from adaptive_sleep.experiments.replay import replay
from adaptive_sleep.experiments.tune import COUNTED, tune
from adaptive_sleep.experiments.tune_bench import Trained, TuneBench
from adaptive_sleep.experiments.tune_storage import close, open_storage, quiet
from adaptive_sleep.experiments.tune_storage import open_study as opened
from adaptive_sleep.experiments.tune_trial import mean_loss, per_event, streams
from adaptive_sleep.streams.errors import InputError


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune_workers, "POLL_SECONDS", 0.02)


@pytest.fixture
def series(tmp_path: Path) -> Path:
    """A recipe of a recording of three streams, and its model."""
    save_model(series_model(), tmp_path / "s.safetensors", provenance={})
    make_series(tmp_path / "R", rows=400, streams=3)
    (tmp_path / "series.toml").write_text(SERIES.format(folder=tmp_path))
    return tmp_path / "series.toml"


def bench_of(recipe: Path, model: str, count: int) -> TuneBench:
    plan = read_comparison(recipe)
    cut = pieces(plan, Path("unused"), 0, count)
    named = {f"seed-0/{number}": where for number, where in enumerate(cut)}
    test = source(plan, Path("unused"), "test", 0)
    return TuneBench(plan, {0: Trained(load_model(model), {"model": model}, named, test, Path())})


@pytest.mark.parametrize(
    "spec",
    [
        "fixed(1)",
        "state_change(tolerance=0.05, max_passes=4)",
        "state_change(tolerance=0.2, max_passes=4)",
    ],
)
def test_pieces_of_a_recording_come_to_what_it_comes_to_uncut(spec: str, tmp_path: Path) -> None:
    """The model's own normaliser and fast weights take hundreds of events to settle: pieces that
    each begin anew have nearly twice the loss, and cost 10 % more under a policy that adapts."""
    bench = bench_of(find_recipe("mixed_recording"), "bundled:telemetry", 8)
    found = {name: bench.run(name, spec, None) for name in bench.recordings}
    whole = replay(
        "bundled:telemetry", bench.seeds[0].model, spec, tmp_path / "run", start=0.6, stop=0.7,
        max_passes=4,
    )  # fmt: skip
    assert sum(it.events for it in found.values()) == whole.events
    assert per_event(found) == pytest.approx(whole.flops_per_event, rel=0.02)
    assert mean_loss(streams(found)) == pytest.approx(whole.loss, rel=1e-6)


@pytest.mark.parametrize("window", [None, 6])
def test_pieces_are_told_alike_in_whatever_order_and_sum_up(
    series: Path, tmp_path: Path, window: int | None
) -> None:
    model, spec = str(tmp_path / "s.safetensors"), "random(mean=1.7, most=3)"
    bench = bench_of(series, model, 4)
    forth = {name: bench.run(name, spec, window) for name in bench.recordings}
    back = {name: bench.run(name, spec, window) for name in reversed(bench.recordings)}
    again = bench_of(series, model, 4)
    mixed = {}
    for name in (f"seed-0/{number}" for number in (2, 0, 3, 1)):
        mixed[name] = again.run(name, spec, window)
        again.run("seed-0/0", "fixed(1)", window)  # another policy in between changes nothing
    assert forth == back == mixed
    whole = replay(
        tmp_path / "R", model, spec, tmp_path / "run", stop=0.5, window=window, max_passes=3
    )
    assert sum(it.flops for it in forth.values()) == pytest.approx(
        whole.flops_per_event * whole.events, rel=1e-9
    )


def test_a_study_that_counted_otherwise_is_not_gone_on_with(series: Path, tmp_path: Path) -> None:
    given = {"trials": 1, "out": tmp_path / "out"}
    tune(series, kept(tmp_path), **given)
    now = loaded(kept(tmp_path), "series").user_attrs
    assert now["counted"] == COUNTED
    with quiet():
        storage = open_storage(kept(tmp_path))
        old = {key: now[key] for key in now if key not in ("counted", "test")}
        opened(storage, "old", 1, old)  # as an earlier version begins one
        close(storage)
    with pytest.raises(InputError, match=r"study 'old': was begun by an earlier version.*'counted"):
        tune(series, kept(tmp_path), study="old", **given)
    assert "counted" not in loaded(kept(tmp_path), "old").user_attrs
    before = "windows that end in a piece of one running stream"
    loaded(kept(tmp_path), "old").set_user_attr("counted", before)
    with pytest.raises(
        InputError, match=r"an earlier version, which kept another 'counted' \('win"
    ):
        tune(series, kept(tmp_path), study="old", **given)
    assert loaded(kept(tmp_path), "old").user_attrs["counted"] == before


def test_a_trial_comes_to_what_a_replay_of_the_whole_part_does(
    series: Path, tmp_path: Path
) -> None:
    """In the first of three parts fewer windows end than in the others."""
    series.write_text(series.read_text().replace("recordings = 2", "recordings = 3"))
    given: dict[str, Any] = {"policies": ["fixed(2)"], "trials": 1, "out": tmp_path / "out"}
    tune(series, kept(tmp_path), **given)
    (trial,) = loaded(kept(tmp_path), "series").trials
    parts = [scored for *_, scored in trial.user_attrs["recordings"].values()]
    assert len(set(parts)) > 1
    assert trial.user_attrs["window"] == 8
    whole = replay(
        tmp_path / "R", str(tmp_path / "s.safetensors"), trial.user_attrs["spec"],
        tmp_path / "run", stop=0.5, window=8, max_passes=3,
    )  # fmt: skip
    assert trial.value == pytest.approx(whole.loss, rel=1e-6)
    assert trial.user_attrs["score"] == pytest.approx(-whole.loss, rel=1e-6)
    assert trial.user_attrs["loss_per_stream"] == {"seed-0": trial.value}  # a page's intervals
    apart = trial.user_attrs["loss_per_recording"].values()
    assert sum(apart) / len(apart) != pytest.approx(whole.loss, rel=1e-6)


def test_the_first_trial_of_a_policy_has_the_models_own_window(
    series: Path, tmp_path: Path
) -> None:
    series.write_text(f"seed = 2\n{series.read_text()}")  # by lot it would be 6
    tune(series, kept(tmp_path), trials=1, out=tmp_path / "out")
    assert loaded(kept(tmp_path), "series").trials[0].user_attrs["window"] == 8
