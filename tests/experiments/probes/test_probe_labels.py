"""The probe `labels`, whole, on made data: what it judges, keeps and says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_cases import LABELS, make_sets

from adaptive_sleep.experiments.probes import cases, labels
from adaptive_sleep.experiments.probes.triggers import RANDOM, TRIGGERS, spec_of
from adaptive_sleep.experiments.runs import open_run
from adaptive_sleep.streams.errors import InputError

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_sets(tmp_path_factory.mktemp("labels") / "data")


def made(data: Path, plan: labels.Plan = LABELS, seeds: int = 2) -> dict[str, Any]:
    found = labels.run(data.parent / "out", seeds=range(seeds), jobs=1, data=data, plan=plan)
    return dict(json.loads(json.dumps(found)))


@pytest.fixture(scope="module")
def found(data: Path) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:  # the bundled recording takes longer
        patch.setattr(labels, "find_cases", without_bundled)
        return made(data)


def without_bundled(data: Path, out: Path) -> list[cases.Case]:
    nab = data / "nab"
    arrays = cases.arrays_case(data / "asd" / "omi-1.npz", out)
    return [cases.nab_case(nab / "made.csv", nab / "windows.json", out), arrays]


def test_windows_are_labelled_by_their_rows(found: dict[str, Any]) -> None:
    case = found["cases"]["made"]
    # row 112 - 64 begins the replay, so windows begin at 48 + 16 k; 30 rows reach into 3 of them
    assert case["windows"] == 15
    assert case["labelled"] == len({(row - 48) // 16 for row in range(250, 280)}) == 3
    assert case["base"] == pytest.approx(3 / 15)
    assert case["labelled_rows_before_test"] == 0


@pytest.mark.parametrize("rows", [range(0), range(20, 40), range(160, 168)])
def test_a_recording_without_a_labelled_test_window_is_refused_before_training(
    rows: range, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the only labelled rows lie in the window that the test part begins within."""
    case = without_bundled(data, tmp_path)[0]
    flags = np.isin(np.arange(len(case.flags)), rows)
    begins_within = replace(case, flags=flags, validation=case.validation + 8)
    monkeypatch.setattr(labels, "find_cases", lambda *_: [begins_within])
    monkeypatch.setattr(labels, "kept_jobs", lambda *_, **__: pytest.fail("something was trained"))
    with pytest.raises(InputError, match="made: no row of its test windows, 168 to 400, is label"):
        made(data, LABELS, seeds=1)


def test_every_trigger_has_every_seed(found: dict[str, Any]) -> None:
    assert found["seeds"] == [0, 1]
    for case in found["cases"].values():
        assert list(case["triggers"]) == list(TRIGGERS)
        for trigger, row in case["triggers"].items():
            assert (row["signal"] is None) == (trigger == RANDOM)
            scores = [row["passes"]] if row["signal"] is None else [row["signal"], row["passes"]]
            for score in scores:
                assert len(score["by_seed"]) == len(score["p_rotated"]) == 2
                assert all(0 < value <= 1 for value in score["by_seed"])
        assert case["triggers"][RANDOM]["passes_to_random"]["mean"] == 0


def test_what_is_gained_is_a_mean_over_recordings(found: dict[str, Any]) -> None:
    rows = found["cases"].values()
    for trigger in TRIGGERS:
        each = [row["triggers"][trigger]["passes"]["mean"] - row["base"] for row in rows]
        assert found["over_cases"][trigger]["passes"]["mean"] == pytest.approx(np.mean(each))


def test_thresholds_come_from_validation_windows_alone(data: Path, found: dict[str, Any]) -> None:
    """The run that they are read from ends where the test begins; training rows are left out."""
    out = data.parent / "out"
    run = open_run(out / "runs" / "made-seed-0" / "held")
    assert run.manifest.recording.stop == 160
    assert found["cases"]["made"]["rows"]["test"] == 160
    # row 112 - 64 begins the replay, so the windows from the fifth on are of validation
    trace = run.trace().sort("window").collect()
    job = json.loads((out / "made-seed-0.json").read_text(encoding="utf-8"))
    policy = job["triggers"]["surprise"]["policy"]
    assert policy == spec_of("surprise", trace[4:], LABELS.share)
    assert policy != spec_of("surprise", trace, LABELS.share)


def test_a_run_is_taken_up_and_another_plan_is_not(
    data: Path, found: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labels, "find_cases", without_bundled)
    again = made(data)
    assert again["cases"] == found["cases"]
    assert again["seconds"] == found["seconds"]  # not trained again
    other = made(data, replace(LABELS, share=0.5), seeds=1)
    assert other["seconds"] != found["seconds"]
    assert other["seeds"] == [0]


def test_the_table_and_what_is_said_follow(found: dict[str, Any]) -> None:
    columns, rows = labels.table_of(found)
    assert len(rows) == 3 * len(TRIGGERS)
    assert all(len(row) == len(columns) for row in rows)
    said = labels.said(found)
    assert "Of 2 recordings" in said
    assert (
        f"{RANDOM} {sum(c['triggers'][RANDOM]['lands'] for c in found['cases'].values())}" in said
    )


def test_absent_data_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nab/windows.json, asd/omi-1.npz there"):
        labels.run(tmp_path / "out", seeds=(0,), data=tmp_path)
    assert not (tmp_path / "out").exists()
