"""A comparison end to end, on tiny untrained models: rows, choices, controls, resuming, command.

What the figures are worth is not tested here; that they are the runs' own is.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest
from run_cases import answering_model, make_series, series_model

from adaptive_sleep.checkpoint import load_model, save_model
from adaptive_sleep.experiments import compare as comparing
from adaptive_sleep.experiments.cli import main
from adaptive_sleep.experiments.compare import claim, compare
from adaptive_sleep.experiments.compare_models import models_of, trained
from adaptive_sleep.experiments.compare_seed import look_up
from adaptive_sleep.experiments.compare_streams import (
    Source,
    changed,
    difficulties,
    in_bursts,
    source,
)
from adaptive_sleep.experiments.comparing import Models, read_comparison
from adaptive_sleep.experiments.controls import slept_windows
from adaptive_sleep.experiments.finding import find_recipe
from adaptive_sleep.experiments.replay import replay
from adaptive_sleep.experiments.runs import open_run
from adaptive_sleep.spec import parse_spec
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.manifest import read_manifest, write_manifest
from adaptive_sleep.streams.writer import RecordingWriter

RECIPE = """
max_passes = 3
within = 0.0
control_seeds = [0]
[models]
paths = ["{folder}/m0.safetensors", "{folder}/m1.safetensors"]
[task]
name = "hops"
parameters = {{ nodes = 4, max_hops = 2 }}
streams = 4
samples = 16
quick_samples = 8
table = true
[changes]
switch = [4.0, -4.0]
bursts = [1.0, 1.0]
[[policies]]
name = "lot"
spec = "random(mean={{mean}}, most=3)"
grid = {{ mean = [1.5, 2.5] }}
"""
SERIES = """
max_passes = 2
[models]
paths = ["{folder}/s.safetensors"]
[recording]
path = "{folder}/R"
validation = [0.0, 0.5]
test = [0.5, 1.0]
[changes]
price = 1e-9
[[policies]]
name = "lot"
spec = "random(mean=1.5, most=2)"
"""
KEYS = {
    "policy", "online", "score", "score_interval", "difference_to_fixed3", "difference_interval",
    "difference_to_shuffled", "difference_to_hull", "mean_passes", "sleep_flops_per_event",
    "flops_per_event", "resident_bytes", "regret", "seeds_values",
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two models that answer, and the recipe that compares on them."""
    folder = tmp_path_factory.mktemp("compare")
    for seed in (0, 1):
        save_model(answering_model(seed), folder / f"m{seed}.safetensors", provenance={})
    (folder / "tiny.toml").write_text(RECIPE.format(folder=folder))
    return folder


@pytest.fixture(scope="module")
def found(place: Path) -> dict[str, Any]:
    return compare(place / "tiny.toml", place / "out", jobs=1)


def named(found: dict[str, Any], name: str) -> dict[str, Any]:
    (row,) = [row for row in found["rows"] if row["name"] == name]
    return dict(row)


def test_every_row_is_there_with_its_keys(found: dict[str, Any]) -> None:
    names = [row["name"] for row in found["rows"]]
    assert names == [
        "fixed-1", "fixed-2", "fixed-3", "lot", "lot-shuffled", "table", "oracle",
        "oracle-optimistic",
    ]  # fmt: skip
    for row in found["rows"]:
        assert set(row) >= KEYS
        assert list(row["seeds_values"]) == ["0", "1"]
        assert row["score_interval"][0] <= row["score"] <= row["score_interval"][1]
    online = [row["name"] for row in found["rows"] if row["online"]]
    assert online == ["fixed-1", "fixed-2", "fixed-3", "lot"]
    assert set(found["changes"]) == {"switch", "bursts"}
    assert found["seeds"] == [0, 1]
    assert found["quick"] is False
    assert len(set(found["model_hashes"].values())) == 2
    assert found["signals"]["max_passes"] == {"correlation": None, "interval": None}


def test_a_row_is_what_its_runs_say(found: dict[str, Any], place: Path) -> None:
    row, values = named(found, "lot"), named(found, "lot")["seeds_values"]["1"]
    run = open_run(place / "out" / "seed-1" / "test" / "lot")
    assert run.summary is not None
    assert values["policy"] == run.manifest.policy
    assert values["mean_passes"] == run.summary.mean_passes
    assert values["flops_per_event"] == run.summary.flops_per_event
    # signals and policy are charged where a policy reads them, and only there
    assert values["sleep_flops_per_event"] > run.summary.sleep_flops_per_event
    fixed = open_run(place / "out" / "seed-1" / "test" / "fixed-3").summary
    assert fixed is not None
    dearest = named(found, "fixed-3")
    assert dearest["seeds_values"]["1"]["sleep_flops_per_event"] == fixed.sleep_flops_per_event
    assert dearest["difference_to_fixed3"] == 0.0
    trace = run.trace().filter(pl.col("right").is_not_null() & (pl.col("scored") > 0)).collect()
    assert values["score"] == (trace["right"] == trace["scored"]).to_numpy().mean()
    both = [row["seeds_values"][seed]["score"] for seed in ("0", "1")]
    assert row["score"] == pytest.approx(sum(both) / 2)
    control = named(found, "lot-shuffled")
    assert control["control_of"] == "lot"
    assert control["mean_passes"] == row["mean_passes"]


def test_the_cheapest_point_near_enough_on_validation_is_taken(
    found: dict[str, Any], place: Path
) -> None:
    for seed, values in named(found, "lot")["seeds_values"].items():
        folder = place / "out" / f"seed-{seed}" / "validation"
        scores = {}
        for number in (0, 1):
            run = open_run(folder / f"lot-{number}")
            asked = run.trace().filter(pl.col("asked") > 0).collect()
            scores[number] = (asked["right"] == asked["scored"]).to_numpy().mean()
        asked = open_run(folder / "fixed-3").trace().filter(pl.col("asked") > 0).collect()
        aim = (asked["right"] == asked["scored"]).to_numpy().mean()
        near = [number for number, score in scores.items() if score >= aim]
        # without a point that is near enough: the best, of equals the cheaper
        taken = near[0] if near else max(scores, key=lambda n: (scores[n], -n))
        assert values["policy"] == open_run(folder / f"lot-{taken}").manifest.policy
        assert values["within"] is bool(near)
        assert values["validation_score"] == scores[taken]


def test_streams_of_seeds_and_parts_differ(found: dict[str, Any], place: Path) -> None:
    assert found["windows"] == {"0": 16, "1": 16}
    assert found["asked"] is True
    hashes = {
        (seed, part): Source(str(place / "out" / seed / "streams" / part)).open().sha256
        for seed in ("seed-0", "seed-1")
        for part in ("validation", "test", "switch", "bursts")
    }
    assert len(set(hashes.values())) == 8


def test_a_stream_may_change_its_mix_half_way(place: Path, tmp_path: Path) -> None:
    recipe = read_comparison(place / "tiny.toml")
    where = changed(recipe, tmp_path, 0, "switch", (16.0, -16.0))
    by = difficulties(where).sort("stream", "first_time", maintain_order=True)
    for (_,), rows in by.group_by("stream"):
        half = len(rows) // 2
        assert set(rows["difficulty"][:half]) == {1}
        assert set(rows["difficulty"][half:]) == {2}


def test_on_streams_with_bursts_two_mixes_come_by_turns(place: Path, tmp_path: Path) -> None:
    text = (place / "tiny.toml").read_text().replace("switch = [4.0", "switch = [16.0")
    (tmp_path / "far.toml").write_text(text.replace(", -4.0]", ", -16.0]"))
    where = in_bursts(read_comparison(tmp_path / "far.toml"), tmp_path, 0)
    by = difficulties(where).sort("stream", "first_time", maintain_order=True)
    streams = [rows["difficulty"].to_list() for _, rows in by.group_by("stream")]
    assert len(streams) == 4
    for stream in streams:
        hard = [stream[at] for at in range(0, len(stream), len(stream) // 4)]
        assert hard in ([1, 2, 1, 2], [2, 1, 2, 1])  # bursts of one sample


def test_a_stream_that_was_interrupted_is_drawn_again_as_a_whole(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = read_comparison(place / "tiny.toml")
    append, taken = RecordingWriter.append, []

    def stopped(self: RecordingWriter, *args: Any, **given: Any) -> None:
        taken.append(args)
        if len(taken) == 9:
            raise KeyboardInterrupt
        append(self, *args, **given)

    with monkeypatch.context() as patch:
        patch.setattr(RecordingWriter, "append", stopped)
        with pytest.raises(KeyboardInterrupt):
            source(recipe, tmp_path, "validation", 0)
    assert not list(tmp_path.iterdir())
    again = source(recipe, tmp_path, "validation", 0)
    assert again.open().sha256 == source(recipe, place / "whole", "validation", 0).open().sha256


def test_half_a_stream_is_refused(place: Path, tmp_path: Path) -> None:
    recipe = read_comparison(place / "tiny.toml")
    where = Path(source(recipe, tmp_path, "validation", 0).recording)
    write_manifest(where, msgspec.structs.replace(read_manifest(where), closed=False))
    with pytest.raises(InputError, match=r"validation: was interrupted .* remove it"):
        source(recipe, tmp_path, "validation", 0)


def test_a_table_takes_the_fewest_passes_that_do(place: Path, tmp_path: Path) -> None:
    recipe = read_comparison(place / "tiny.toml")
    where = source(recipe, tmp_path, "validation", 0)
    model, runs, shares = place / "m0.safetensors", {}, {}
    for passes in (1, 2, 3):
        out = tmp_path / f"fixed-{passes}"
        replay(where.recording, model, f"fixed({passes})", out, gap_seconds=recipe.gap)
        runs[passes] = open_run(out)
        asked = runs[passes].trace().filter(pl.col("asked") > 0).collect()
        hard = asked.join(difficulties(where), on=["stream", "first_time"])
        assert len(hard) == len(asked) == 16
        for k in (1, 2):
            here = hard.filter(pl.col("difficulty") == k)
            shares[k, passes] = (here["right"] == here["scored"]).to_numpy().mean()
    table = look_up(where, runs, 0.0)
    assert set(table) == {1, 2}
    for k, taken in table.items():
        best = max(shares[k, passes] for passes in (1, 2, 3))
        assert shares[k, taken] == best
        assert all(shares[k, passes] < best for passes in range(1, taken))
    assert set(look_up(where, runs, 1.0).values()) == {1}


def test_the_table_is_prescribed_by_difficulty(found: dict[str, Any], place: Path) -> None:
    named(found, "table")
    folder = place / "out" / "seed-0"
    slept = slept_windows(open_run(folder / "test" / "table").trace()).collect()
    told = slept.join(
        difficulties(Source(str(folder / "streams" / "test"))), on=["stream", "first_time"]
    )
    assert len(told) == 16
    assert (told.group_by("difficulty").agg(pl.col("passes").n_unique())["passes"] == 1).all()


def test_a_second_time_nothing_is_run_again(found: dict[str, Any], place: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in (place / "out").rglob("trace.parquet")}
    shutil.copy(place / "out" / "tiny.json", place / "out" / "tiny-before.json")  # is in no way
    again = compare(place / "tiny.toml", place / "out", jobs=1)
    assert again["rows"] == found["rows"]
    assert before == {p: p.stat().st_mtime_ns for p in (place / "out").rglob("trace.parquet")}
    held = json.loads((place / "out" / "tiny.json").read_text())
    assert held["rows"] == json.loads(json.dumps(found["rows"]))
    page = (place / "out" / "tiny.html").read_text(encoding="utf-8")
    assert "plotly" in page
    assert "apache.parquet" in page  # the page of the comparison, with its tables


def test_the_folder_of_a_reproduction_may_be_gone_on_in(tmp_path: Path) -> None:
    (tmp_path / "seed-0").mkdir()
    for name in ("hops.json", "hops.html"):  # what `reproduce hops` leaves beside its seeds
        (tmp_path / name).touch()
    with pytest.raises(InputError, match="holds something else"):
        claim(tmp_path, {"quick": False}, "chain")
    claim(tmp_path, {"quick": False}, "hops")
    with pytest.raises(InputError, match="another quick"):
        claim(tmp_path, {"quick": True}, "hops")


def test_a_folder_of_something_else_is_refused(place: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    with pytest.raises(InputError, match="holds something else"):
        compare(place / "tiny.toml", tmp_path)
    other = place / "other.toml"
    other.write_text((place / "tiny.toml").read_text() + "# a word\n")
    for recipe, quick, said in ((place / "tiny.toml", True, "quick"), (other, False, "sha256")):
        with pytest.raises(InputError, match=f"another .*{said}"):
            compare(recipe, place / "out", quick=quick)


def test_models_that_are_made_for_another_task_are_refused() -> None:
    recipe = read_comparison(find_recipe("matched_chain"))
    assert recipe.task is not None
    for nodes in (16, 20):
        fewer = replace(recipe.task, parameters={**recipe.task.parameters, "nodes": nodes})
        other = replace(recipe, task=fewer)
        for quick, named in ((True, "bundled:chain"), (False, "chain_stream")):
            with pytest.raises(InputError, match=rf"{named}: was made for .*19.*{nodes + 1}"):
                models_of(other, quick=quick)


def test_quick_is_one_model_and_fewer_samples(place: Path, tmp_path: Path) -> None:
    recipe = read_comparison(place / "tiny.toml")
    first, second = recipe.models.paths
    assert models_of(recipe, quick=False) == {0: first, 1: second}
    assert models_of(recipe, quick=True) == {0: first}
    other = replace(recipe, models=replace(recipe.models, quick=second))
    assert models_of(other, quick=True) == {0: second}
    taught = read_comparison(find_recipe("matched_often"))
    assert models_of(taught, quick=False) == dict.fromkeys(range(5))
    without = replace(taught, models=replace(taught.models, quick=""))
    with pytest.raises(InputError, match="quick: missing"):
        models_of(without, quick=True)
    assert recipe.task is not None
    few = source(recipe, tmp_path / "few", "test", 0, quick=True).open()
    fresh = replace(recipe, task=replace(recipe.task, fresh=True))
    alone = source(fresh, tmp_path / "alone", "test", 0, quick=True).open()
    assert (len(few.streams), len(alone.streams)) == (4, 8)
    assert few.rows == alone.rows


def test_one_model_under_two_paths_is_not_two(place: Path, tmp_path: Path) -> None:
    shutil.copy(place / "m0.safetensors", tmp_path / "copy.safetensors")
    recipe = tmp_path / "r.toml"
    text = (place / "tiny.toml").read_text()
    recipe.write_text(text.replace(f"{place}/m1.safe", f"{tmp_path}/copy.safe"))
    with pytest.raises(
        InputError, match=r"m0\.safetensors' and '.*copy\.safetensors' are one model"
    ):
        compare(recipe, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_folder_may_be_spelled_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_series(tmp_path / "R", rows=400)
    save_model(series_model(), tmp_path / "s.safetensors", provenance={})
    fitted = 'spec = "predicted_gain(file={{gain}}, threshold=0.0)"\nfit = "gain"'
    text = SERIES.replace("[0.0, 0.5]", "[0.6, 0.8]\nfit = [0.0, 0.6]")
    text = text.replace("[0.5, 1.0]", "[0.8, 1.0]")
    text = text.replace('spec = "random(mean=1.5, most=2)"', fitted)
    (tmp_path / "s.toml").write_text(text.format(folder=tmp_path))
    first = compare(tmp_path / "s.toml", "out", jobs=1)
    again = compare(tmp_path / "s.toml", tmp_path / "x" / ".." / "out", jobs=1)
    assert again["rows"] == first["rows"]
    with pytest.raises(InputError, match=r"out='s\.toml': is a file; give a folder"):
        compare(tmp_path / "s.toml", "s.toml")


def test_a_missing_model_is_named_before_anything_is_made(place: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text((place / "tiny.toml").read_text().replace("m1.safe", "m9.safe"))
    with pytest.raises(InputError, match=r"m9\.safetensors"):
        compare(recipe, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_compares_minus_the_loss_of_a_series(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_series(tmp_path / "R", rows=200)
    save_model(series_model(), tmp_path / "s.safetensors", provenance={})
    recipe = tmp_path / "series.toml"
    recipe.write_text(SERIES.format(folder=tmp_path))
    assert main(["compare", str(recipe), "--out", str(tmp_path / "out"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    run = open_run(tmp_path / "out" / "seed-0" / "test" / "fixed-2").summary
    assert run is not None
    assert run.loss is not None
    assert named(found, "fixed-2")["score"] == -run.loss
    assert found["asked"] is False
    assert named(found, "lot")["difference_interval"] is None
    assert [row["name"] for row in found["rows"]][-1] == "oracle"  # nobody asked, so no halves
    assert named(found, "oracle")["optimistic"] is True
    assert named(found, "oracle")["regret"] == 0.0
    assert set(found["changes"]) == {"price", "price-doubled"}
    assert "One trained seed" in found["reading"][-1]
    parse_spec(named(found, "lot")["policy"])


def test_results_are_shown_where_there_are_some(
    found: dict[str, Any],
    place: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = str(place / "tiny.toml")
    assert main(["compare", recipe, "--from-results"]) == 2
    assert "no full run has been kept" in capsys.readouterr().err
    assert main(["compare", recipe, "--from-results", "--quick"]) == 2
    assert main(["compare", recipe, "--from-results", "--out", "x"]) == 2
    assert "leave out --out x" in capsys.readouterr().err
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "tiny.json").write_bytes((place / "out" / "tiny.json").read_bytes())
    monkeypatch.setattr(comparing.resources, "files", lambda package: tmp_path)
    assert main(["compare", recipe, "--from-results", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == json.loads(json.dumps(found["rows"]))
    assert main(["compare", recipe, "--from-results"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("lot-shuffled") == 3  # the streams as they are, and those that change
    assert found["reading"][0] in shown
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "mixed_chain.toml").write_text("# ours")
    mine = tmp_path / "mixed_chain.toml"  # a recipe of one's own by the name of one of ours
    mine.write_bytes((place / "tiny.toml").read_bytes())
    (tmp_path / "results" / "mixed_chain.json").write_bytes(
        (place / "out" / "tiny.json").read_bytes()
    )
    assert main(["compare", "mixed_chain", "--from-results", "--json"]) == 0
    assert main(["compare", str(mine), "--from-results"]) == 2
    assert f"compare {mine} --from-results: no full run" in capsys.readouterr().err
    (tmp_path / "results" / "mixed_chain.json").write_text('{"rows": []}')
    assert main(["compare", "mixed_chain", "--from-results"]) == 2
    assert "`adaptive-sleep choices mixed_chain --from-results` shows it" in capsys.readouterr().err


def test_a_model_is_trained_for_each_seed_and_taken_up(tmp_path: Path) -> None:
    recipe = tmp_path / "training.toml"
    recipe.write_text(
        '[task]\nname = "hops"\nnodes = 4\nmax_hops = 2\n'
        "[model]\nwidth = 8\nheads = 2\nfast_heads = 1\nkey_dim = 4\nvalue_dim = 4\n"
        "[training]\nsteps = 2\nbatch = 2\nvalidation = 2\n[test]\npasses = [1]\n"
    )
    models = Models(recipe=str(recipe), seeds=(0, 5))
    first = trained(models, tmp_path / "seed-5", 5)
    model = load_model(first)
    assert model.config.width == 8
    assert trained(models, tmp_path / "seed-5", 5) == first
    assert load_model(first).hash == model.hash
    assert load_model(trained(models, tmp_path / "seed-0", 0)).hash != model.hash
