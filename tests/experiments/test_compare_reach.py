"""What is answered within and beyond the largest window at the same cost, told apart; and what is
asked more than once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matched_cases import RECIPE, TRAINING

from adaptive_sleep.eviction import holding
from adaptive_sleep.experiments.baselines.registry import find_baseline
from adaptive_sleep.experiments.baselines.setup import plain
from adaptive_sleep.experiments.compare import compare
from adaptive_sleep.experiments.compare_models import training_recipe
from adaptive_sleep.experiments.compare_reach import divided, reaches
from adaptive_sleep.experiments.compare_rows import ByReach, SeedRow, make_rows
from adaptive_sleep.experiments.compare_streams import Source
from adaptive_sleep.experiments.compare_table import matched_table
from adaptive_sleep.experiments.comparing import read_comparison
from adaptive_sleep.experiments.finding import find_recipe
from adaptive_sleep.experiments.matched_reading import read_matched
from adaptive_sleep.experiments.report_comparison_data import read_result
from adaptive_sleep.learning import TaskRecipe, read_task_recipe
from adaptive_sleep.reading_cost import forward_flops
from adaptive_sleep.streams.tasks.recorded import record
from adaptive_sleep.streams.tasks.registry import make_task
from adaptive_sleep.streams.tasks.task import events
from adaptive_sleep.task_training import learn

DELAYED = "delays = [0, 6]"
LATE = TRAINING.replace("paths = 2\n", f"paths = 2\n{DELAYED}\n")
COMPARISON = (
    (
        RECIPE.split("[[policies]]", maxsplit=1)[0]
        .replace("[1.1, 1.6]", "[1.1]")
        .replace("paths = 2 }}", f"paths = 2, {DELAYED} }}}}")
        .replace("streams = 2\n", "streams = 8\n")
        .replace("quick_samples = 16", "quick_samples = 64")
    )
    + """[[policies]]
name = "lot"
spec = "random(mean=1.0, most=3)"
[[baselines]]
name = "fixed"
[[baselines]]
name = "larger_window"
"""
)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("chain", {"nodes": 8, "paths": 2, "windows": 2, "delays": [0, 1, 3]}),
        ("hops", {"nodes": 6, "max_hops": 3}),
        ("chain", {"nodes": 8, "paths": 2, "delays": [0, 2], "asks": 3}),
    ],
    ids=["chain", "hops", "asks"],
)
def test_the_reach_of_a_question_is_what_is_read_and_its_own_window(
    name: str, params: dict[str, Any], tmp_path: Path
) -> None:
    task = make_task(name, **params)
    record(task, tmp_path / "r", samples=9, seed=5, part="test", streams=2)
    batch = task.sample(np.random.default_rng(5), 9, part="test")
    found = reaches(Source(str(tmp_path / "r"))).sort("stream", "first_time")
    asks = params.get("asks", 1)
    wanted = []
    for stream in (0, 1):
        for row in range(stream, 9, 2):
            *read, own = [len(window.tokens) for window in events(batch, row)][: 1 - asks or None]
            wanted += [(f"s{stream}", sum(read) + own)] * (asks * own)
    assert found.select("stream", "reach").rows() == wanted


def row(name: str, told: ByReach | None, knob: int | None = None) -> tuple[str, SeedRow]:
    kind = "matched" if knob is None else "baseline"
    return f"{name}@1.5", SeedRow(
        kind=kind, policy="p", written="p", online=True, score=0.5, mean_passes=1.0,  # type: ignore[arg-type]
        sleep_flops_per_event=0.0, flops_per_event=100.0, resident_bytes=1, target=1.5,
        knob=knob, by_reach=told, wake_flops_per_event=100.0, validation_score=0.5,
    )  # fmt: skip


def test_scores_are_divided_at_the_largest_window() -> None:
    told = ((10, 8, 10), (30, 3, 4), (31, 1, 10), (90, 0, 10))
    rows = dict(
        [
            row("ours", told),
            row("larger_window-below", ((10, 1, 1),), 20),
            row("larger_window-above", None, 30),
            row("deeper", told, 99),
        ]
    )
    found = divided(rows)
    assert {one.largest_window for one in found.values()} == {30, None}
    for name in ("ours@1.5", "deeper@1.5"):
        assert found[name].score_within == pytest.approx(11 / 14)
        assert found[name].score_beyond == pytest.approx(1 / 20)
    below = found["larger_window-below@1.5"]
    assert (below.score_within, below.score_beyond) == (1.0, None)
    assert found["larger_window-above@1.5"].score_within is None
    del rows["larger_window-below@1.5"], rows["larger_window-above@1.5"]
    assert divided(rows) == rows


def test_both_parts_are_shown_and_said() -> None:
    seeds = {
        seed: divided(
            dict(
                [
                    row("ours", ((10, 8, 10), (40, 9 - seed, 10))),
                    row("larger_window", ((10, 10, 10), (40, 1, 10)), 30),
                ]
            )
        )
        for seed in (0, 1)
    }
    rows = make_rows(seeds, 4)
    assert [one["score_beyond"] for one in rows] == [pytest.approx(0.85), pytest.approx(0.1)]
    assert rows[0]["seeds_values"]["1"]["by_reach"] == ((10, 8, 10), (40, 8, 10))
    _, within, beyond, *_ = read_matched(rows)
    assert within.startswith(
        "Of questions within the largest window there (30 events): ours@1.5 0.8000, "
        "larger_window@1.5 1.0000; difference -0.2000 ("
    )
    assert beyond.startswith(
        "Of questions beyond the largest window there (30 events): ours@1.5 0.8"
    )
    assert "difference +0.7500 (" in beyond
    plain = {"name": "fixed-1", "flops_per_event": 100.0}
    lines = matched_table({"rows": [plain, *rows]}, 1.5).splitlines()
    assert lines[0].endswith("| of them wake | within | beyond |")
    assert lines[2].endswith("| 1.00x | 0.800 ±0.000 | 0.850 ±0.635 |")


def test_it_is_said_where_nothing_can_be_told_apart() -> None:
    rows = make_rows(
        {0: divided(dict([row("ours", ((10, 1, 2),)), row("larger_window", None, 30)]))}, 4
    )
    assert rows[0]["score_beyond"] is None
    assert sum("nothing is told apart" in line for line in read_matched(rows)) == 1
    rows = make_rows({0: dict([row("ours", None), row("larger_window", None, 30)])}, 4)
    assert not any("nothing is told apart" in line for line in read_matched(rows))


def test_matched_late_asks_beyond_what_its_target_buys() -> None:
    """By the formulas: attention that reaches over the most fillers costs more, on full streams."""
    comparison = read_comparison(find_recipe("matched_late"))
    assert comparison.task is not None
    task = make_task(comparison.task.name, **comparison.task.parameters)
    batch = task.sample(np.random.default_rng(0), 64, part="validation")
    longest = int(np.sum(batch.lengths, axis=0).max())
    assert longest == 11 * 18  # edges, nine fillers, questions
    recipe = training_recipe(comparison.models.recipe)
    assert isinstance(recipe, TaskRecipe)
    assert recipe.task["delays"] == comparison.task.parameters["delays"]

    def cost(knob: int | None) -> float:
        made = plain(recipe) if knob is None else find_baseline("larger_window").setup(recipe, knob)
        holds = holding(made.config, made.eviction, made.keep)
        return forward_flops(made.config, holds, batch, 1, held=float(knob or 0))

    assert cost(longest - 18) > comparison.targets[-1] * cost(None)
    assert cost(4 * 18) < comparison.targets[0] * cost(None)  # so that one filler is within


def test_matched_often_asks_often_enough_for_a_loop_to_cost_more_than_a_pass() -> None:
    """By the formulas: a second pass is within the target, a second loop is not by far."""
    comparison = read_comparison(find_recipe("matched_often"))
    assert comparison.task is not None
    task = make_task(comparison.task.name, **comparison.task.parameters)
    batch = task.sample(np.random.default_rng(0), 64, part="validation")
    recipe = training_recipe(comparison.models.recipe)
    loops = find_baseline("wake_loops").setup(recipe, 2).config
    once = plain(recipe).config
    holds = holding(once, "hard")
    cheapest = forward_flops(once, holds, batch, 1)
    (target,) = comparison.targets
    assert forward_flops(once, holds, batch, 2) < target * cheapest
    assert forward_flops(loops, holds, batch, 1) > 1.3 * target * cheapest


@pytest.mark.timeout(400)  # where other work has the cores
def test_a_comparison_tells_them_apart(tmp_path: Path) -> None:
    (tmp_path / "training.toml").write_text(LATE)
    (tmp_path / "late.toml").write_text(COMPARISON.format(folder=tmp_path))
    learned = learn(read_task_recipe(tmp_path / "training.toml"), tmp_path / "model")
    learned.path.rename(tmp_path / "m.safetensors")
    found = compare(tmp_path / "late.toml", tmp_path / "out", quick=True, jobs=1)
    rows = [one for one in found["rows"] if one.get("target") is not None]
    window = max(one["knob"] for one in rows if one["name"].startswith("larger_window"))
    assert 12 <= window < 48  # questions of samples without fillers are within, others are not
    for one in rows:
        assert one["largest_window"] == window
        (own,) = one["seeds_values"].values()
        assert [reach for reach, _, _ in own["by_reach"]] == [12, 48]
        assert sum(asked for _, _, asked in own["by_reach"]) == 64
        right = sum(right for _, right, _ in own["by_reach"])
        assert one["score"] == pytest.approx(right / 64)
        assert one["score_within"] is not None
        assert one["score_beyond"] is not None
    assert sum("beyond the largest window" in line for line in found["reading"]) == 1
    assert (tmp_path / "out" / "late.html").is_file()
    assert read_result(tmp_path / "out" / "late.json").matched[0].score_beyond is not None
