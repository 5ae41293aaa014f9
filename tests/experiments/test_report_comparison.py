"""A page about a comparison says what its JSON and its traces say, and lets all of it be taken."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from synthetic_runs import WINDOWS, make_recording, make_run, make_trace
from test_report import CHROMIUM, Page, drawn_in, legible, looked_at, on_a_phone

from adaptive_sleep.experiments.cli import main
from adaptive_sleep.experiments.commands_compare import _print
from adaptive_sleep.experiments.compare_rows import SeedRow, make_rows, smallest_effect
from adaptive_sleep.experiments.matched_reading import beside_policy
from adaptive_sleep.experiments.report_comparison import render
from adaptive_sleep.experiments.report_comparison_data import (
    Row,
    best_rows,
    front,
    open_comparison,
    rows_frame,
)
from adaptive_sleep.experiments.report_comparison_figures import (
    changes_figure,
    matched_figure,
    passes_figure,
    tradeoff_figure,
)
from adaptive_sleep.experiments.report_comparison_looks import score_title
from adaptive_sleep.experiments.report_given import write_given
from adaptive_sleep.experiments.report_page import Table, number
from adaptive_sleep.experiments.report_passes import passes_over_time
from adaptive_sleep.experiments.reproduce import interval
from adaptive_sleep.experiments.runs import versions
from adaptive_sleep.streams.errors import InputError

SEEDS, MOST = (0, 1, 2), 3
HASHES = {seed: f"{seed}" * 64 for seed in SEEDS}
POLICY = "state-change"


def made(kind: str, score: float, cost: float, **more: Any) -> SeedRow:
    """The figures of one seed; what is not given follows from the cost."""
    usual = {
        "kind": kind, "policy": f"{kind}(1)", "written": f"{kind}(1)", "online": True,
        "score": score, "mean_passes": cost / 100, "sleep_flops_per_event": cost - 100,
        "flops_per_event": cost, "resident_bytes": 1000, "fixed_score": 0.9, "fixed_sleep": 200.0,
    }  # fmt: skip
    return SeedRow(**{**usual, **more})


def seed_rows(seed: int, *, matched: bool = True) -> dict[str, SeedRow]:
    """Every kind of row, a little better with each seed."""
    more = 0.01 * seed
    rows = {f"fixed-{n}": made("fixed", 0.5 + 0.1 * n + more, 100.0 * n) for n in range(1, 4)}
    rows[POLICY] = made("policy", 0.79 + more, 150.0, shuffled_score=0.7, hull_score=0.72)
    rows[f"{POLICY}-shuffled"] = made("shuffled", 0.7, 150.0, online=False, control_of=POLICY)
    rows["oracle"] = made("oracle", 0.9, 120.0, online=False, optimistic=True)
    if matched:
        for target in (1.25, 1.5):
            at = {"target": target, "training_tokens": 10, "training_flops": 1e9}
            cost = 100 * target
            rows[f"{POLICY}@{target:g}"] = made(
                "matched", 0.75 + more, cost, validation_score=0.7, tuning_trials=7, **at
            )  # fmt: skip
            for name in ("deeper", "deeper-compute", "larger_window-below", "larger_window-above"):
                room = 1200 if "larger" in name else 1100
                rows[f"{name}@{target:g}"] = made(
                    "baseline", 0.6, cost, knob=3, resident_bytes=room, **at
                )
    return rows


def comparison(**changes: Any) -> dict[str, Any]:
    """What `compare` writes, of made-up figures."""
    return {**json.loads(usual()), **changes}


@cache
def usual() -> str:
    by_seed = {seed: seed_rows(seed) for seed in SEEDS}
    harder = {
        seed: {name: replace(row, score=row.score - 0.2) for name, row in rows.items()}
        for seed, rows in ((seed, seed_rows(seed, matched=False)) for seed in SEEDS)
    }
    found = {
        "comparison": "made_up",
        "rows": beside_policy(make_rows(by_seed, MOST)),
        "changes": {name: make_rows(harder, MOST) for name in ("mix-hard", "switch", "price")},
        "signals": {"surprise": {"correlation": 0.5, "interval": [0.4, 0.6]},
                    "gap": {"correlation": None, "interval": None}},
        "reading": ["state-change: better."],
        "left_out": {"wider_state@1.25": "no knob reaches it"},
        "seeds": list(SEEDS),
        "max_passes": MOST,
        "windows": {str(seed): 60 for seed in SEEDS},
        "models": {str(seed): f"seed-{seed}.safetensors" for seed in SEEDS},
        "model_hashes": {str(seed): value for seed, value in HASHES.items()},
        "seconds": {str(seed): 1.0 for seed in SEEDS},
        "versions": versions(),
        "recipe": {"models": {"recipe": "chain"}, "task": {"name": "chain"}, "recording": None},
        "recipe_sha256": "ab" * 32,
        "commit": "c0ffee123456",
        "begun_at_commit": "beef00123456",
        "recounted_at_commit": "feed00123456",
        "recording_sha256": "cd" * 32,
        "quick": False,
        "wall_seconds": 12.0,
    }  # fmt: skip
    return json.dumps(found)


def written(path: Path, **changes: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(comparison(**changes)))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a comparison, with the traces of its test streams and of the switched ones."""
    out = tmp_path_factory.mktemp("compared")
    recording = make_recording(out.parent / f"{out.name}-R")
    written(out / "made_up.json")
    (out / "comparison.json").write_text(json.dumps({"recipe_sha256": "ab" * 32, "commit": "c"}))
    for seed in SEEDS:
        for streams in ("test", "switch"):
            for row in (POLICY, "oracle"):
                path = out / f"seed-{seed}" / streams / row
                make_run(path, recording, most=MOST, seed=seed, model_hash=HASHES[seed])
    return out


@pytest.fixture(scope="module")
def text(folder: Path) -> str:
    return render(open_comparison(folder))


class Links(Page):
    """A page, and the frames that can be downloaded from it by the names of their files."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        super().handle_starttag(tag, attrs)
        given = dict(attrs)
        if tag == "a" and given.get("download"):
            address = str(given["href"])
            assert address.startswith("data:application/vnd.apache.parquet;base64,")
            data = base64.b64decode(address.partition(",")[2])
            self.frames[str(given["download"])] = pl.read_parquet(io.BytesIO(data))

    def __init__(self, text: str) -> None:
        self.frames: dict[str, pl.DataFrame] = {}
        super().__init__(text)


def test_the_page_loads_nothing_and_gives_every_table(text: str) -> None:
    page = Links(text)
    assert {tag for tag, _ in page.loads} == {"a"}
    assert all(address.startswith("data:") for _, address in page.loads)
    assert "default-src 'none'" in text
    tables = ("rows", "matched", "roomy", "changes", "passes", "seeds", "signals")
    assert set(page.frames) == {f"made_up-{name}.parquet" for name in tables}
    assert {*tables, "tradeoff"} <= page.ids
    assert text.count("plotly.js v") == 1


def test_rows_and_their_parquet_are_those_of_the_json(text: str, folder: Path) -> None:
    page, held = Links(text), json.loads((folder / "made_up.json").read_text())
    rows = {row["name"]: row for row in held["rows"]}
    frame = page.frames["made_up-rows.parquet"]
    assert frame["name"].to_list() == [name for name, row in rows.items() if "target" not in row]
    for given in frame.iter_rows(named=True):
        row = rows[given["name"]]
        assert given["score"] == row["score"]
        assert [given["score_interval_low"], given["score_interval_high"]] == row["score_interval"]
        assert given["difference_to_fixed"] == row[f"difference_to_fixed{MOST}"]
    shown = next(row for row in page.rows if row and row[0] == POLICY)
    assert float(shown[1].split(" ")[0]) == pytest.approx(rows[POLICY]["score"], abs=1e-4)
    seeds = page.frames["made_up-seeds.parquet"].filter(pl.col("row") == POLICY)
    assert seeds["seed"].to_list() == list(SEEDS)
    assert seeds["score"].to_list() == pytest.approx([0.79, 0.80, 0.81])


def test_rows_at_matched_cost_stand_beside_the_policy_and_its_bytes(
    text: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = json.loads((folder / "made_up.json").read_text())
    rows = {row["name"]: row for row in held["rows"]}
    page = Links(text)
    matched, roomy = (page.frames[f"made_up-{name}.parquet"] for name in ("matched", "roomy"))
    assert set(matched["name"]) - set(roomy["name"]) == {
        f"larger_window-{side}@{target}" for side in ("below", "above") for target in (1.25, 1.5)
    }
    assert rows[f"{POLICY}@1.25"]["difference_to_policy"] is None
    behind = [-0.15, -0.16, -0.17]
    assert rows["deeper@1.25"]["difference_to_policy"] == pytest.approx(-0.16)
    assert rows["deeper@1.25"]["difference_to_policy_interval"] == pytest.approx(interval(behind))
    one = next(row for row in open_comparison(folder).result.rows if row.name == "deeper@1.25")
    least = smallest_effect(interval(behind), len(behind))
    assert one.smallest_beside == pytest.approx(least)
    for own in rows[f"{POLICY}@1.5"]["seeds_values"].values():
        del own["validation_score"]  # as an earlier version wrote it
    old = {row["name"]: row for row in beside_policy(held["rows"])}
    assert old["deeper@1.5"]["difference_to_policy"] is old["deeper@1.5"]["roomy"] is None
    held = json.loads((folder / "made_up.json").read_text())
    _print(held)
    first, second = capsys.readouterr().out.split("at matched cost")[1].split("of these, what")
    assert "larger_window-above@1.5" in first
    assert "larger_window" not in second.split("rank correlation")[0]
    assert re.search(rf"{POLICY}@1.5 .* 7 ", first)
    assert re.search(r"deeper@1.5 .*-0.1600 ±0.0248", second)


def test_what_a_score_is_comes_from_what_was_run(tmp_path: Path) -> None:
    of_rows = {"models": {}, "task": None, "recording": {"path": "R"}}
    for asked, said in (
        (True, "score: windows all right"),  # a recording may ask, as that of a task does
        (False, "score: minus the loss"),
        (None, "score: minus the loss"),  # an earlier version did not say
    ):
        file = written(tmp_path / "made_up.json", recipe=of_rows, asked=asked)
        assert score_title(open_comparison(file).result) == said


def test_the_front_is_what_no_deployable_row_beats(folder: Path) -> None:
    assert front([(1.0, 0.5), (2.0, 0.4), (2.0, 0.6), (3.0, 0.6), (4.0, 0.9)]) == [0, 2, 4]
    result = open_comparison(folder).result
    best = best_rows(result.rows)
    for row in best:
        others = [it for it in result.rows if it.online and it is not row]
        assert not [
            it
            for it in others
            if it.flops_per_event <= row.flops_per_event and it.score > row.score
        ]
    assert "oracle" not in [row.name for row in best]
    drawn = rows_frame(result.others, front=[row in best for row in result.others])
    assert drawn.filter("front")["name"].to_list() == ["fixed-1", "fixed-3", POLICY]


def test_every_row_is_drawn_with_its_interval(folder: Path) -> None:
    result = open_comparison(folder).result
    marks = {it.name: it for it in tradeoff_figure(result).data if it.error_y.array is not None}
    assert set(marks) == {row.name for row in result.rows}
    row = next(row for row in result.rows if row.name == POLICY)
    assert row.score_interval is not None
    assert marks[POLICY].error_y.array[0] == pytest.approx(row.score_interval[1] - row.score)


def test_bars_stand_by_target(folder: Path) -> None:
    result = open_comparison(folder).result
    figure = matched_figure(result)
    titles = [it.text for it in figure.layout.annotations]
    assert titles == ["at 1.25 times", "at 1.5 times"]  # as much as a phone shows
    by_axis: dict[str, dict[str, float]] = {}
    for bar in figure.data:
        by_axis.setdefault(bar.xaxis, {})[bar.y[0]] = bar.x[0]
    names = {POLICY, "deeper", "deeper-compute", "larger_window-below", "larger_window-above"}
    assert [set(bars) for bars in by_axis.values()] == [names, names]
    assert by_axis["x"][POLICY] == pytest.approx(0.76)


def test_changes_are_drawn_beside_what_was_chosen(folder: Path) -> None:
    figure = changes_figure(open_comparison(folder).result)
    (score, passes) = [it for it in figure.data if it.name == POLICY]
    assert list(score.x) == ["as chosen", "mix-hard", "switch", "price"]
    assert list(score.y) == pytest.approx([0.80, 0.60, 0.60, 0.60])
    assert list(passes.y) == [1.5] * 4


def test_passes_over_time_are_means_of_the_traces(folder: Path) -> None:
    frame, lacking = passes_over_time(open_comparison(folder))
    assert frame is not None
    assert lacking == ""
    assert frame["streams"].unique(maintain_order=True).to_list() == ["test", "switch"]
    part = frame.filter((pl.col("streams") == "test") & (pl.col("row") == POLICY))
    span = 2  # of WINDOWS places no more than 48 are drawn
    assert len(part) == WINDOWS // span
    traces = [make_trace(seed, MOST)["passes"].to_list() for seed in SEEDS]
    means = [sum(trace[4:6]) / 2 for trace in traces]
    drawn = part.row(2, named=True)
    assert drawn["place"] == 4.5
    assert drawn["windows"] == span * len(SEEDS)
    assert drawn["passes"] == pytest.approx(sum(means) / len(means))
    assert [drawn["low"], drawn["high"]] == pytest.approx(interval(means))
    result = open_comparison(folder).result
    assert len(passes_figure(result, frame).data) == 2 * 2 * 2  # a band and a line each


def test_without_its_traces_one_sentence_says_so(folder: Path, tmp_path: Path) -> None:
    alone = render(open_comparison(written(tmp_path / "alone.json")))
    assert "are not beside its result" in alone
    assert "passes" not in Page(alone).ids
    # a folder of another recipe is not its own
    (tmp_path / "comparison.json").write_text(json.dumps({"recipe_sha256": "cd" * 32}))
    assert open_comparison(tmp_path / "alone.json").folder is None
    # and runs of another model are not its traces
    other = written(folder / "made_up.json", model_hashes={str(seed): "f" * 64 for seed in SEEDS})
    try:
        frame, lacking = passes_over_time(open_comparison(other))
    finally:
        written(folder / "made_up.json")
    assert frame is None
    assert lacking.startswith(f"Without a whole trace, so not drawn: {POLICY}, oracle")


def test_the_page_says_where_it_comes_from(text: str) -> None:
    commits = ("c0ffee123456", "beef00123456", "feed00123456")
    for said in ("ab" * 32, "cd" * 32, *commits, *HASHES.values(), "0, 1, 2"):
        assert said in text
    for name, version in versions().items():
        assert f"<dt>versions.{name}</dt><dd>{version}</dd>" in text
    assert "no knob reaches it" in text


@pytest.mark.parametrize(
    ("ends", "least"),
    # 1.355 halves of five seeds' interval; one seed; fixed(most) itself
    [((-0.0625, 0.1875), 0.1693), (None, None), ((0.0, 0.0), None)],
)
def test_the_smallest_effect_is_seen_four_times_in_five(ends: Any, least: float | None) -> None:
    row = Row(
        name="mine", policy="mine()", kind="policy", score=0.5, mean_passes=1.5,
        sleep_flops_per_event=1.0, flops_per_event=2.0, difference_interval=ends,
        seeds_values={seed: {} for seed in range(5)},
    )  # fmt: skip
    assert row.smallest_effect == (least and pytest.approx(least, abs=1e-3))


def test_names_are_shown_not_run(tmp_path: Path) -> None:
    nasty = "<script>alert(1)</script>"
    rows = [{**row, "name": nasty, "policy": nasty} for row in comparison()["rows"][:1]]
    page = render(open_comparison(written(tmp_path / "n.json", rows=rows, comparison=nasty)))
    assert nasty not in page
    assert page.count("</script>") == 2


def test_a_kept_result_has_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "r.html"
    assert main(["report", "mixed_hops", "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"report": str(out), "comparison": "mixed_hops"}
    page = out.read_text(encoding="utf-8")
    assert "predicted-gain" in page
    assert {"rows", "changes", "seeds", "tradeoff"} <= Page(page).ids


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["mixed_hop"], "did you mean 'mixed_hops'?"),
        (["chain"], "holds no comparison (it has no field rows)"),
        (["list.json"], "an object is expected, not [1]"),
        (["text.json"], "is no JSON"),
        (["empty.json"], "rows=[]: at least one"),
        (["wrong.json"], "Expected `float`, got `str` - at `$.rows[0].score`"),
        (["short.json"], "missing required field `max_passes`"),
        (["begun"], "none has ended there yet"),
        (["several"], "holds several (a.json, b.json); give one of them"),
        (["lacks.json"], "row 'ours@1.5' is at matched cost and lacks online, resident_bytes"),
        (["bare"], "neither a run (run.json) nor a comparison (comparison.json)"),
        (["good.json", "mixed_hops"], "has a page of its own, so give nothing beside it (got 2)"),
        (["study.db"], "sqlite:///study.db"),
    ],
)
def test_bad_input_is_one_error_and_writes_nothing(
    given: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    held = comparison()
    held["rows"][0]["score"] = "high"
    short = {name: value for name, value in comparison().items() if name != "max_passes"}
    for name, content in (
        ("list.json", "[1]"), ("text.json", "no JSON"), ("wrong.json", json.dumps(held)),
        ("short.json", json.dumps(short)), ("begun/comparison.json", "{}"),
        ("several/comparison.json", "{}"), ("bare/x.txt", ""),
    ):  # fmt: skip
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(content)
    for name in ("good.json", "several/a.json", "several/b.json"):
        written(Path(name))
    written(Path("empty.json"), rows=[])
    row = {**comparison()["rows"][0], "name": "ours@1.5", "target": 1.5}
    bare = {name: value for name, value in row.items() if name not in ("online", "resident_bytes")}
    written(Path("lacks.json"), rows=[bare])
    with pytest.raises(InputError, match=re.escape(message)):
        write_given(given, tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def test_a_folder_is_no_page(folder: Path) -> None:
    with pytest.raises(InputError, match=r"a report is one file, name\.html"):
        write_given([str(folder)], folder)


def test_what_is_missing_is_an_empty_cell() -> None:
    assert number(None, ".2f").key is None
    assert number(float("nan"), ".2f", none="none").text == "none"
    assert number(-0.25, "+.2f", (-0.5, 0.0)).text == "-0.25 ±0.25"
    assert Table("t", [], []).download("x") is None


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_browser_draws_it_sorts_it_and_asks_for_nothing(text: str, tmp_path: Path) -> None:
    clicks = 'document.querySelectorAll("#rows thead button")[1].click();'
    page, shown = looked_at(text, clicks, tmp_path)
    assert drawn_in(shown) == ["tradeoff", "matched", "changes", "passes"]
    assert legible(on_a_phone(text, tmp_path))
    scores = [row[1] for row in page.rows if len(row) == 13]  # of the first table
    assert scores
    assert scores == sorted(scores)
