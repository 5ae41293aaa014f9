"""Policies whose setting was found by its cost alone, as the knobs of baselines are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from matched_cases import RECIPE, TRAINING, at_cost

from adaptive_sleep.experiments import compare as comparing
from adaptive_sleep.experiments.compare_baselines import dearest_within
from adaptive_sleep.experiments.compare_rows import make_rows
from adaptive_sleep.experiments.compare_seed import Found
from adaptive_sleep.experiments.comparing import read_comparison
from adaptive_sleep.experiments.matched_reading import beside_policy, read_matched
from adaptive_sleep.streams.errors import InputError


@pytest.mark.parametrize(
    ("target", "found"), [(99.0, None), (100.0, "half"), (155.0, "dear"), (200.0, "no")]
)
def test_a_setting_by_cost_is_the_dearest_there_is_whatever_it_scores(
    target: float, found: str | None
) -> None:
    tried = [(150.0, 0.1, "dear"), (100.0, 0.9, "half"), (150.0, 0.7, "too"), (160.0, 0.0, "no")]
    one = dearest_within(tried, target)
    assert (one and one[2]) == found


def test_settings_by_cost_are_told_of_but_never_the_policy_that_was_chosen() -> None:
    loops = at_cost("baseline", 150.0, 0.7, knob=2)
    seeds = {
        seed: {
            "ours@1.5": at_cost("matched", 150.0, 0.8, tuning_trials=9),
            "ours-by-cost@1.5": at_cost("matched", 150.0, 0.8 + 0.1 * seed, tuning_trials=1),
            "seer-by-cost@1.5": replace(
                at_cost("matched", 140.0, 1.0, tuning_trials=1), online=False
            ),
            "rule@1.5": at_cost("matched", 140.0, 0.6 + 0.1 * seed, tuning_trials=1),
            "loops@1.5": loops,
        }
        for seed in (0, 1)
    }
    best, by_cost, *against = read_matched(make_rows(seeds, 4))
    assert ": ours@1.5 0.8000 for 150" in best
    assert by_cost.startswith(
        "At 1.5 times, with settings found by their cost alone, as the knobs of baselines are: "
        "ours-by-cost@1.5 0.8500 for 150 FLOPs an event; difference to loops@1.5 +0.1500 ("
    )
    assert [one.split()[0] for one in against] == ["ours@1.5:", "rule@1.5"]
    rows = {one["name"]: one for one in beside_policy(make_rows(seeds, 4))}
    assert rows["ours@1.5"]["difference_to_policy"] is None
    assert rows["ours-by-cost@1.5"]["difference_to_policy"] == pytest.approx(0.05)
    for one in seeds.values():  # of one policy without a choice nothing is said anew
        del one["ours-by-cost@1.5"], one["seer-by-cost@1.5"]
    assert not any("cost alone" in one for one in read_matched(make_rows(seeds, 4)))


def test_a_seed_in_which_all_costs_more_says_so_of_both_rows() -> None:
    ours = {f"lot{rule}@1.5": at_cost("matched", 150.0, 0.8) for rule in ("", "-by-cost")}
    dear = {"lot@1.5": "every point of its grid costs more than 1.5 times"}
    found = {0: Found(ours, {}, {}, 1, True), 1: Found({}, {}, {}, 1, True, dear)}
    told = f"seed 1: {dear['lot@1.5']}"
    assert comparing._left_out(found, []) == dict.fromkeys(ours, told)


def test_no_policy_has_the_name_of_such_a_row(tmp_path: Path) -> None:
    file = tmp_path / "named.toml"
    text = RECIPE.format(folder=tmp_path).replace('name = "lot"', 'name = "lot-by-cost"')
    file.write_text(text)
    (tmp_path / "training.toml").write_text(TRAINING)
    with pytest.raises(InputError, match="'lot-by-cost' is that of a row that every comparison"):
        read_comparison(file)
