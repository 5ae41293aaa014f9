"""A page about a study says what its storage holds; the storage is read and never written."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from test_report import CHROMIUM, Page, drawn_in, legible, looked_at, on_a_phone
from test_report_comparison import Links

from adaptive_sleep.experiments.cli import main
from adaptive_sleep.experiments.report_given import write_given
from adaptive_sleep.experiments.report_study import render
from adaptive_sleep.experiments.report_study_data import StudyFound, open_study, trials_frame
from adaptive_sleep.experiments.report_study_figures import progress_figure, tradeoff_figure
from adaptive_sleep.experiments.reproduce import interval
from adaptive_sleep.streams.errors import InputError

RECORDINGS = ("seed-0/0", "seed-0/1", "seed-1/0", "seed-1/1")
DISTRIBUTIONS = {
    "policy": CategoricalDistribution(["surprise", "random"]),
    "surprise.threshold": FloatDistribution(0.0, 1.0),
    "random.mean": FloatDistribution(1.0, 3.0),
}
SAID = {
    "recipe": "tiny", "recipe_sha256": "ab" * 32, "quick": False, "pareto": False,
    "budget": "1.5x", "budget_flops_per_event": 150.0, "plain_flops_per_event": 100.0,
    "space": {"surprise": "surprise(threshold='?'); surprise.threshold 0 to 1"}, "trials": 24,
    "begun_at_commit": "beef00123456", "models": {"0": "m0.safetensors", "1": "trained"},
    "model_hashes": {"0": "d" * 64, "1": "e" * 64},
}  # fmt: skip
TEST = {
    "spec": "surprise(threshold=0.5)", "trial": 0, "score": 0.75, "flops_per_event": 140.0,
    "by_seed": {seed: {"score": 0.75, "flops": 1400, "events": 10, "asked": True}
                for seed in ("0", "1")},
}  # fmt: skip


def tried(
    losses: Sequence[float], cost: float, params: dict[str, Any], *, stopped: str | None = None
) -> FrozenTrial:
    """A trial as `tune` tells of it: its loss on the recordings that it saw."""
    seen = dict(zip(RECORDINGS, losses, strict=False))
    label = params["policy"]
    values = ", ".join(f"{k.partition('.')[2]}={v}" for k, v in params.items() if "." in k)
    return create_trial(
        value=float(np.mean(losses)),
        params=params,
        distributions={name: DISTRIBUTIONS[name] for name in params},
        user_attrs={
            "written": label, "spec": f"{label}({values})", "window": None, "stopped": stopped,
            "score": 1.0 - float(np.mean(losses)), "flops_per_event": cost, "seconds": 1.0,
            "loss_per_recording": seen, "worker": "here:1",
        },
    )  # fmt: skip


def surprise(threshold: float, **more: Any) -> FrozenTrial:
    """A trial whose loss its threshold decides, and its cost too."""
    losses = [0.2 + threshold / 2 + 0.01 * at for at in range(4)]
    return tried(losses, 200.0 - 100.0 * threshold, named(threshold), **more)


def named(threshold: float) -> dict[str, Any]:
    return {"policy": "surprise", "surprise.threshold": threshold}


def refused() -> FrozenTrial:
    said = {"written": "surprise(threshold=0.1)", "window": None, "stopped": "refused"}
    return create_trial(
        state=TrialState.PRUNED, params=named(0.1), user_attrs=said,
        distributions={name: DISTRIBUTIONS[name] for name in named(0.1)},
    )  # fmt: skip


def many() -> list[FrozenTrial]:
    """Twenty whole trials in an order of their own, and three that stopped."""
    thresholds = np.random.default_rng(0).permutation(np.linspace(0.05, 1.0, 20))
    return [
        tried([0.01], 160.0, named(0.0), stopped="budget"),  # a low loss that does not count
        *(surprise(float(it)) for it in thresholds),
        tried([0.9, 0.9], 120.0, {"policy": "random", "random.mean": 1.5}, stopped="worse"),
        refused(),
    ]


def store(
    folder: Path, trials: Sequence[FrozenTrial], name: str = "tiny", /, **changes: Any
) -> str:
    """Keep a study in a storage in a folder, and return its URL."""
    url = f"sqlite:///{folder}/study.db"
    study = optuna.create_study(storage=RDBStorage(url), study_name=name)
    for key, value in {**SAID, "test": TEST, **changes}.items():
        study.set_user_attr(key, value)
    study.add_trials(trials)
    return url


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A storage with a study, its test, and a study that is not of `tune`."""
    folder = tmp_path_factory.mktemp("study")
    where = store(folder, many())
    optuna.create_study(storage=where, study_name="theirs")
    optuna.create_study(storage=where, study_name="tiny (test)").set_user_attr("test_of", "tiny")
    return where


@pytest.fixture(scope="module")
def found(url: str) -> StudyFound:
    return open_study(url, None)


@pytest.fixture(scope="module")
def text(found: StudyFound) -> str:
    return render(found)


def test_best_front_and_best_so_far_are_of_whole_trials(found: StudyFound) -> None:
    whole = [it for it in found.trials if not it.stopped]
    assert [it.within for it in whole] == [
        it.flops is not None and it.flops <= found.budget for it in whole
    ]
    best = min((it for it in whole if it.within), key=lambda it: it.loss or 0.0)
    assert found.best == best.number
    assert best.params["surprise.threshold"] == pytest.approx(0.5)  # the dearest within the budget
    assert all(it.front for it in whole)  # here what costs more always has a lower loss
    assert not any(it.front or it.within for it in found.trials if it.stopped)
    lowest, expected = math.inf, []
    for it in found.trials:
        lowest = min(lowest, it.loss if it.within and it.loss is not None else math.inf)
        expected.append(None if math.isinf(lowest) else lowest)
    assert found.best_so_far()["best"].to_list() == expected
    assert [it.stopped for it in found.trials if it.stopped] == ["budget", "worse", "refused"]


def test_intervals_are_over_trained_models(found: StudyFound) -> None:
    it = found.trials[1]
    assert it.loss is not None
    by_seed = [it.loss - 0.01, it.loss + 0.01]  # two recordings each
    assert list(it.ends or ()) == pytest.approx(interval(by_seed))
    assert found.trials[0].ends is None


def test_the_parameter_that_decides_comes_first(found: StudyFound) -> None:
    assert found.importance is not None
    first = found.importance.row(0, named=True)
    assert first["parameter"] == "surprise.threshold"
    assert first["loss"] > 0.9
    assert first["flops"] > 0.9
    assert first["trials"] == 20
    assert "random.mean" not in found.importance["parameter"].to_list()  # of no whole trial


def test_few_trials_are_not_weighed(tmp_path: Path) -> None:
    several = [surprise(0.1 * it) for it in range(1, 5)]
    study = open_study(store(tmp_path, several), "tiny")
    assert study.importance is None
    page = render(study)
    assert "4 trials ran to their end, too few to weigh the parameters" in page
    assert "importance" not in Page(page).ids


def test_the_page_loads_nothing_and_gives_every_table(text: str, found: StudyFound) -> None:
    page = Links(text)
    assert {tag for tag, _ in page.loads} == {"a"}
    assert set(page.frames) == {f"tiny-{it}.parquet" for it in ("trials", "importance", "test")}
    assert page.frames["tiny-trials.parquet"].equals(trials_frame(found))
    frame = page.frames["tiny-trials.parquet"]
    assert frame["param.surprise.threshold"].null_count() == 1
    assert {"trials", "importance", "test", "tradeoff", "progress"} <= page.ids
    cells = [row for row in page.rows if len(row) == 12]
    assert len(cells) == len(found.trials)
    assert [row[0] for row in cells if "best" in row[0]] == [f"{found.best} (best)"]


def test_every_trial_with_a_loss_is_drawn_in_its_group(found: StudyFound) -> None:
    groups = {it.meta: len(it.x) for it in tradeoff_figure(found).data if it.meta is not None}
    within = sum(it.within for it in found.trials)
    assert groups == {0: within, 1: 20 - within, 2: 1, 3: 1}
    (line, *_) = progress_figure(found).data
    assert list(line.y) == found.best_so_far()["best"].drop_nulls().to_list()


def test_the_page_says_where_it_comes_from(text: str) -> None:
    for said in ("ab" * 32, "beef00123456", "d" * 64, "e" * 64, "surprise.threshold 0 to 1"):
        assert said in text
    assert "3 of 23 trials stopped before their end" in text
    assert "1 refused by the policy" in text
    assert "study.db" not in text  # where a study is kept is nobody's business


def test_a_study_under_way_says_what_is_not_yet_known(tmp_path: Path) -> None:
    url = store(tmp_path, [tried([0.5] * 4, 180.0, named(0.2))], trials=9)
    study = optuna.load_study(storage=url, study_name="tiny")
    study.ask()
    del study
    page = render(open_study(url, "tiny"))
    assert "No trial ran to its end within the budget." in page
    assert "Besides, not shown: 1 running." in page
    assert "<dd>1 of 9</dd>" in page


def test_names_are_shown_not_run(tmp_path: Path) -> None:
    nasty = "<script>alert(1)</script>"
    trial = surprise(0.5)
    trial.user_attrs["spec"] = nasty
    page = render(open_study(store(tmp_path, [trial], nasty, recipe=nasty), None))
    assert nasty not in page
    assert page.count("</script>") == 2


def test_the_command_reads_a_study_and_writes_nothing_to_it(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, out = Path(url.removeprefix("sqlite:///")).read_bytes(), tmp_path / "r.html"
    assert main(["report", url, "--study", "tiny", "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"report": str(out), "study": "tiny"}
    assert "Study tiny" in out.read_text(encoding="utf-8")
    assert Path(url.removeprefix("sqlite:///")).read_bytes() == before


@pytest.mark.parametrize(
    ("storage", "study", "message"),
    [
        ("sqlite:///{folder}/studi.db", None, "no such file, did you mean 'study.db'?"),
        ("sqlite:///{folder}/note.db", None, "no study can be read there"),
        ("sqlite:///{folder}/empty.db", None, "no study can be read there"),
        ("nothing://", None, "no study can be read there"),
        ("no url://", None, "a URL is expected"),
        ("postgresql://u@h:port/db", None, "a URL is expected"),
        ("sqlite:///{folder}/study.db", "tny", "did you mean 'tiny'? (tiny, other)"),
        ("sqlite:///{folder}/study.db", "theirs", "was not made by `adaptive-sleep tune`"),
        ("sqlite:///{folder}/study.db", None, "give one with --study: tiny, other"),
        ("sqlite:///{folder}/study.db", "other", "no trial of it is finished yet"),
        ("mixed_hops", "tiny", "goes with the storage of a study"),
    ],
)
def test_bad_input_is_one_error_and_writes_nothing(
    storage: str, study: str | None, message: str, two: Path, tmp_path: Path
) -> None:
    before = {path.name: path.read_bytes() for path in two.iterdir()}
    with pytest.raises(InputError, match=re.escape(message)):
        write_given([storage.format(folder=two)], tmp_path / "r.html", study=study)
    assert {path.name: path.read_bytes() for path in two.iterdir()} == before
    assert not (tmp_path / "r.html").exists()


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two studies in a storage, one of them without a trial, and what is none."""
    folder = tmp_path_factory.mktemp("two")
    url = store(folder, [surprise(0.5)])
    store(folder, [], "other")
    optuna.create_study(storage=url, study_name="theirs")
    (folder / "note.db").write_text("no database")
    (folder / "empty.db").touch()
    return folder


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_browser_draws_it_sorts_it_and_asks_for_nothing(text: str, tmp_path: Path) -> None:
    clicks = """
      document.querySelectorAll("#trials thead button")[3].click();
      document.querySelectorAll(".chips button")[0].click();"""
    _, shown = looked_at(text, clicks, tmp_path)
    assert drawn_in(shown) == ["tradeoff", "progress", "importance"]
    assert legible(on_a_phone(text, tmp_path))
    trials = shown.partition('<table id="trials">')[2].partition("</table>")[0]
    costs = re.findall(r'<tr>(?:\s*<td.*?</td>){3}\s*<td data-key="([\d.]+)"', trials)
    assert len(costs) == 22  # one was refused
    assert [float(it) for it in costs] == sorted(float(it) for it in costs)
