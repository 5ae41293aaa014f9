"""A study end to end, on tiny untrained models: budget, best, test once, refusals, the command.

What the policies are worth is not tested here; that the figures are the runs' own is.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import astuple
from pathlib import Path
from typing import Any

import optuna
import pytest
from postgres_server import new_database
from run_cases import answering_model, make_series, series_model

from adaptive_sleep.checkpoint import save_model
from adaptive_sleep.experiments import tune_workers
from adaptive_sleep.experiments.cli import main
from adaptive_sleep.experiments.compare_streams import pieces
from adaptive_sleep.experiments.comparing import read_comparison
from adaptive_sleep.experiments.replay import replay
from adaptive_sleep.experiments.runs import open_run
from adaptive_sleep.experiments.tune import tune
from adaptive_sleep.experiments.tune_bench import TuneBench
from adaptive_sleep.experiments.tune_reading import Measured, measured
from adaptive_sleep.experiments.tune_space import space_of
from adaptive_sleep.spec import parse_spec
from adaptive_sleep.streams.errors import AdaptiveSleepError, InputError

TASK = """
max_passes = 3
[models]
paths = ["{folder}/m0.safetensors", "{folder}/m1.safetensors"]
[task]
name = "hops"
parameters = {{ nodes = 4, max_hops = 2 }}
streams = 4
samples = 16
quick_samples = 8
[tune]
recordings = 2
trials = 5
budget = "1.5x"
policies = ["random(mean=range(1.0, 2.5), most=3)"]
[[policies]]
name = "lot"
spec = "random(mean={{mean}}, most=3)"
grid = {{ mean = [1.5, 2.5] }}
"""
SERIES = """
max_passes = 3
[models]
paths = ["{folder}/s.safetensors"]
[recording]
path = "{folder}/R"
validation = [0.0, 0.5]
test = [0.5, 1.0]
[tune]
recordings = 2
windows = [6, 8]
budget = "3x"
policies = ["random(mean=range(1.0, 3.0), most=3)"]
[[policies]]
name = "lot"
spec = "random(mean=1.5, most=3)"
"""
KEYS = {
    "best", "score", "flops_per_event", "budget", "trials", "test", "recipe_sha256", "commit",
    "window", "plain_flops_per_event", "stopped", "front", "params", "space", "seeds", "models",
    "model_hashes", "quick", "pareto", "versions",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune_workers, "POLL_SECONDS", 0.02)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two models that answer, one of a series, and a recipe for each kind."""
    folder = tmp_path_factory.mktemp("tune")
    for seed in (0, 1):
        save_model(answering_model(seed), folder / f"m{seed}.safetensors", provenance={})
    save_model(series_model(), folder / "s.safetensors", provenance={})
    make_series(folder / "R", rows=96, streams=1)
    (folder / "tiny.toml").write_text(TASK.format(folder=folder))
    (folder / "series.toml").write_text(SERIES.format(folder=folder))
    return folder


def kept(place: Path, name: str = "s") -> str:
    return f"sqlite:///{place}/{name}.db"


def loaded(url: str, name: str) -> optuna.Study:
    return optuna.load_study(storage=url, study_name=name)


@pytest.fixture(scope="module")
def found(place: Path) -> dict[str, Any]:
    return tune(place / "tiny.toml", kept(place), out=place / "out")


def test_the_best_is_the_best_within_the_budget(found: dict[str, Any], place: Path) -> None:
    assert set(found) >= KEYS
    assert found["trials"] == 5
    assert found["flops_per_event"] <= found["budget"]
    assert found["budget"] == pytest.approx(1.5 * found["plain_flops_per_event"])
    parse_spec(found["best"])
    trials = loaded(kept(place), "tiny").trials
    whole = [it for it in trials if it.user_attrs["stopped"] is None]
    within = [it for it in whole if it.user_attrs["flops_per_event"] <= found["budget"]]
    assert found["score"] == max(it.user_attrs["score"] for it in within)
    assert trials[0].params == {"random.mean": 2.5, "max_passes": 3}  # the policy as it is, untuned
    for trial in trials:
        assert len(trial.user_attrs["loss_per_recording"]) == len(trial.intermediate_values)
        assert trial.value == pytest.approx(1.0 - trial.user_attrs["score"])
        parse_spec(trial.user_attrs["spec"])


def test_a_trial_over_budget_stops_at_once_and_is_not_feasible(
    found: dict[str, Any], place: Path
) -> None:
    trials = loaded(kept(place), "tiny").trials
    stopped = [it for it in trials if it.user_attrs["stopped"] == "budget"]
    assert found["stopped"]["budget"] == len(stopped) > 0
    for trial in trials:
        costs = [trial.constraints[key] for key in sorted(trial.constraints)]
        assert len(costs) == len(trial.intermediate_values)
        assert costs == sorted(costs)  # what a whole trial takes at least only grows
        over = [cost > 0 for cost in costs]
        assert over[:-1] == [False] * (len(over) - 1)
        assert (trial in stopped) == (over[-1] and len(over) < len(found["loss_per_recording"]))
    whole = next(it for it in trials if it.user_attrs["stopped"] is None)
    last = whole.constraints[max(whole.constraints)]
    assert (1 + last) * found["budget"] == pytest.approx(whole.user_attrs["flops_per_event"])


def test_what_a_recording_came_to_is_what_a_replay_says(
    found: dict[str, Any], place: Path, tmp_path: Path
) -> None:
    recipe = read_comparison(place / "tiny.toml")
    trials = loaded(kept(place), "tiny").trials
    trial = next(it for it in trials if it.user_attrs["spec"] == found["best"])
    for seed in (0, 1):
        where = pieces(recipe, place / "out" / f"seed-{seed}" / "streams", seed, 2)[1]
        replay(
            where.recording, place / f"m{seed}.safetensors", found["best"], tmp_path / str(seed),
            gap_seconds=recipe.gap, max_passes=3,
        )  # fmt: skip
        own = measured(open_run(tmp_path / str(seed)))
        told = trial.user_attrs["recordings"][f"seed-{seed}/1"]
        assert told == list(astuple(own))


def test_the_test_is_run_once_and_kept(found: dict[str, Any], place: Path) -> None:
    runs = sorted((place / "out").glob("seed-*/test/tuned-*"))
    assert [run.parts[-3] for run in runs] == ["seed-0", "seed-1"]
    scores = []
    for run in runs:
        assert open_run(run).manifest.policy == found["best"]
        scores.append(measured(open_run(run)).score)
    assert found["test"] == pytest.approx(sum(scores) / 2)
    before = {file: file.stat().st_mtime_ns for file in (place / "out").rglob("*.parquet")}
    again = tune(place / "tiny.toml", kept(place), out=place / "out")
    assert again == found
    assert before == {file: file.stat().st_mtime_ns for file in (place / "out").rglob("*.parquet")}
    assert len(loaded(kept(place), "tiny (test)").trials) == 1
    with pytest.raises(InputError, match=r"trials=9: .* ended with 5"):
        tune(place / "tiny.toml", kept(place), out=place / "out", trials=9)


def test_recordings_of_validation_are_other_samples_in_equal_parts(place: Path) -> None:
    recipe = read_comparison(place / "tiny.toml")
    cut = pieces(recipe, place / "cut", 0, 2)
    opened = [where.open() for where in cut]
    assert [len(one.streams) for one in opened] == [2, 2]
    assert opened[0].rows == opened[1].rows
    assert opened[0].sha256 != opened[1].sha256
    rows = pieces(read_comparison(place / "series.toml"), place / "cut", 0, 4)
    assert [(where.start, where.stop) for where in rows] == [
        (0.0, 0.125), (0.125, 0.25), (0.25, 0.375), (0.375, 0.5),
    ]  # fmt: skip


def test_a_window_is_tuned_and_both_figures_are_shown_by_the_command(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "tune", str(place / "series.toml"), "--storage", kept(tmp_path), "--trials", "4",
        "--pareto", "--out", str(tmp_path / "out"),
    ]  # fmt: skip
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["trials"] == 4
    assert found["pareto"] is True
    trials = loaded(kept(tmp_path), "series-pareto").trials
    assert {it.user_attrs["window"] for it in trials} == {6, 8}
    for trial in trials:
        assert trial.user_attrs["stopped"] is None
        assert trial.values == [
            pytest.approx(-trial.user_attrs["score"]), trial.user_attrs["flops_per_event"],
        ]  # fmt: skip
        assert not trial.constraints
    costs = [it["flops_per_event"] for it in found["front"]]
    assert costs == sorted(costs)
    assert [it["score"] for it in found["front"]] == sorted(it["score"] for it in found["front"])
    (run,) = (tmp_path / "out").glob("seed-0/test/tuned-*")
    assert open_run(run).manifest.settings.window == found["window"]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert found["best"] in shown
    assert "x the plain hybrid's" in shown


def test_the_same_policy_is_not_run_twice(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, taken = TuneBench.run, list[tuple[str, str]]()

    def counted(self: TuneBench, name: str, spec: str, window: int | None) -> Measured:
        taken.append((name, spec))
        return run(self, name, spec, window)

    monkeypatch.setattr(TuneBench, "run", counted)
    found = tune(
        place / "tiny.toml", kept(tmp_path), policies=["fixed({1, 2})"], budget="9x", trials=5,
        quick=True, out=tmp_path / "out",
    )  # fmt: skip
    trials = loaded(kept(tmp_path), "tiny-quick").trials
    assert len({trial.user_attrs["written"] for trial in trials}) < len(trials)
    in_trials = taken[2:]  # after the two recordings without sleep, which say what costs are
    assert len(set(in_trials)) == len(in_trials) > 0
    assert found["seeds"] == [0]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"budget": "0.5x"}, "below the cheapest run"),
        ({"budget": "10"}, "below the cheapest run"),
        ({"budget": "lots"}, "budget='lots'"),
        ({"trials": 0}, "Invalid value for '--trials'"),
        ({"policies": ["fixed(range(4, 2))"]}, "excludes everything"),
        ({"policies": ["random(mean=range(3.0, 4.0), most=2)"]}, "excludes everything"),
        ({"policies": ["surprize"]}, "did you mean 'surprise'"),
        ({"storage": "sqlite:////no/such/s.db"}, "cannot be reached"),
        ({"storage": "postgresql://u@h:port/db"}, "a URL is expected"),
        ({"storage": "sqlite:///s.db?timeout=xx"}, "what is behind the ? cannot be read"),
        ({"out": "/dev/null"}, "out='/dev/null': is a file; give a folder"),
        ({"out": "/dev/null/it"}, "give a folder, new or of this recipe"),
    ],
)
def test_bad_input_is_one_error_and_exit_code_2(
    given: dict[str, Any],
    said: str,
    place: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("adaptive_sleep.experiments.tune_storage.OPENINGS", 1)
    arguments = ["tune", str(place / "tiny.toml"), "--quick"]
    arguments += ["--out", given.get("out", str(tmp_path / "out"))]
    arguments += ["--storage", given.get("storage", kept(tmp_path))]
    for name in ("budget", "trials"):
        arguments += [f"--{name}", str(given[name])] if name in given else []
    for policy in given.get("policies", ()):
        arguments += ["--policy", policy]
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert "Traceback" not in err


def test_a_budget_that_was_refused_may_be_put_right(place: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {"quick": True, "trials": 1, "out": tmp_path / "out"}
    with pytest.raises(InputError, match=r"give more, such as 1\.5x"):
        tune(place / "tiny.toml", kept(tmp_path), budget="0.1x", **given)
    found = tune(place / "tiny.toml", kept(tmp_path), budget="9x", **given)
    assert found["budget"] == pytest.approx(9 * found["plain_flops_per_event"])


def test_pieces_too_short_to_predict_anything_are_named(place: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "short.toml"
    recipe.write_text(
        (place / "series.toml").read_text().replace("recordings = 2", "recordings = 48")
    )
    with pytest.raises(InputError, match=r"R, rows from 0 to 0.01042 of all: .* than 48, or make"):
        tune(recipe, kept(tmp_path), trials=1, out=tmp_path / "out")


def test_what_could_not_be_deployed_is_not_tuned(place: Path, tmp_path: Path) -> None:
    text = (place / "tiny.toml").read_text().replace("policies = [", "# policies = [")
    seen = tmp_path / "seen.toml"
    seen.write_text(text + '[[policies]]\nname = "seer"\nspec = "surprise"\nonline = false\n')
    assert list(space_of(read_comparison(seen)).policies) == ["random"]
    seen.write_text(text.replace('name = "lot"', 'name = "lot"\nonline = false'))
    with pytest.raises(InputError, match="online = false"):
        space_of(read_comparison(seen))


def test_a_study_of_another_recipe_is_refused(found: dict[str, Any], place: Path) -> None:
    other = place / "other"
    other.mkdir()
    text = (place / "tiny.toml").read_text()
    (other / "tiny.toml").write_text(text + "# a word\n")
    with pytest.raises(InputError, match=r"study 'tiny': was begun with another recipe_sha256"):
        tune(other / "tiny.toml", kept(place), out=place / "out")
    with pytest.raises(InputError, match="another budget"):
        tune(place / "tiny.toml", kept(place), budget="1.3x", out=place / "out")
    assert tune(place / "tiny.toml", kept(place), budget=" 1.50X", out=place / "out") == found
    with pytest.raises(InputError, match="another space"):
        tune(place / "tiny.toml", kept(place), policies=["fixed"])


def test_a_front_is_shown_where_nothing_is_within_the_budget(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "tune", str(place / "tiny.toml"), "--quick", "--pareto", "--trials", "2",
        "--policy", "fixed(passes={2, 3})", "--budget", "1.01x", "--storage", kept(tmp_path),
        "--out", str(tmp_path / "out"),
    ]  # fmt: skip
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["front"]
    assert min(it["flops_per_event"] for it in found["front"]) > found["budget"]
    for key in ("best", "score", "flops_per_event", "params", "test", "test_by_seed"):
        assert found[key] is None
    assert not list((tmp_path / "out").glob("seed-*/test"))
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "none is within the budget" in shown
    assert found["front"][0]["spec"] in shown


def test_nothing_within_the_budget_is_said_and_more_trials_may_be_asked_for(
    place: Path, tmp_path: Path
) -> None:
    for trials in (1, 2):
        with pytest.raises(AdaptiveSleepError, match=f"none of its {trials} trials") as caught:
            tune(
                place / "tiny.toml", kept(tmp_path), trials=trials, policies=["fixed(3)"],
                budget="1.01x", quick=True, out=tmp_path / "out",
            )  # fmt: skip
        assert not isinstance(caught.value, InputError)  # nothing was wrong with what was given
    assert len(loaded(kept(tmp_path), "tiny-quick").trials) == 2
    assert not list((tmp_path / "out").glob("seed-*/test"))


def test_other_models_are_not_mixed_into_a_study(place: Path, tmp_path: Path) -> None:
    text = (place / "tiny.toml").read_text()
    for number, name in enumerate(("one", "two")):
        (tmp_path / name).mkdir()
        model = tmp_path / "m.safetensors"
        model.unlink(missing_ok=True)
        save_model(answering_model(number), model, provenance={})
        recipe = tmp_path / "tiny.toml"
        recipe.write_text(text.replace(f"{place}/m0.safetensors", str(model)))
        given: dict[str, Any] = {"trials": 2, "budget": "9x", "quick": True, "study": "same"}
        if number == 0:
            interrupted(recipe, kept(tmp_path), out=tmp_path / name, **given)
        else:
            with pytest.raises(InputError, match="another model_hashes"):
                tune(recipe, kept(tmp_path), out=tmp_path / name, **given)


def interrupted(recipe: Path, storage: str, **given: Any) -> None:
    """A worker that Ctrl-C ends after its first trial."""

    def stop(done: float, total: float | None = None, note: str = "") -> None:
        if note.startswith("1 of"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(recipe, storage, on_progress=stop, **given)


def test_loading_the_command_loads_no_optuna() -> None:
    code = (
        "import sys; import adaptive_sleep, adaptive_sleep.experiments.commands_tune;"
        "import adaptive_sleep.experiments.tune_space;"
        "print(sorted({'optuna', 'sqlalchemy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.services
def test_a_server_keeps_a_study_as_a_file_does(place: Path, tmp_path: Path, postgres: str) -> None:
    server = new_database(postgres, "tiny")
    found, same = (
        tune(place / "tiny.toml", url, quick=True, trials=4, out=tmp_path / "out")
        for url in (server, kept(tmp_path))
    )
    assert found == same
