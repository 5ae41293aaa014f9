"""The tables in README and beside the log are those of the kept results."""

from pathlib import Path

import pytest

from adaptive_sleep.experiments.compare import from_results
from adaptive_sleep.experiments.compare_table import matched_table, short_table
from adaptive_sleep.experiments.verdicts import kept, verdict_table

ROOT = Path(__file__).resolve().parents[2]


def test_readme_shows_what_the_last_full_comparison_found():
    shown = (ROOT / "README.md").read_text(encoding="utf-8")
    assert short_table(from_results("mixed_chain")) in shown
    assert verdict_table(kept()) in shown


@pytest.mark.parametrize("name", ["matched_chain", "matched_often_long", "matched_hops"])
def test_all_rows_at_cost_are_those_of_the_last_full_comparison(name):
    shown = (ROOT / "experiments" / "MATCHED.md").read_text(encoding="utf-8")
    assert matched_table(from_results(name), 1.5) in shown


@pytest.mark.parametrize("interval", [None, [0.55, 0.65]])
def test_rows_at_a_target_are_shown_by_score(interval):
    def row(name, kind, score, **more):
        return {
            "name": name, "kind": kind, "score": score, "score_interval": interval, "target": 1.5,
            "knob": None, "flops_per_event": 150.0, "wake_flops_per_event": 100.0,
            "seeds_values": {"0": {"score": score - 0.1}, "1": {"score": score + 0.1}}, **more,
        }  # fmt: skip

    plain = {"name": "fixed-1", "kind": "fixed", "flops_per_event": 100.0}
    ours = row("mine@1.5", "matched", 0.6)
    loops = row("loops-below@1.5", "baseline", 0.5, knob=2, wake_flops_per_event=150.0)
    other = row("mine@2", "matched", 0.9, target=2.0)
    lines = matched_table({"rows": [plain, loops, ours, other]}, 1.5).splitlines()
    assert len(lines) == 4
    spread = "" if interval is None else " ±0.050"
    assert lines[2] == f"| **`mine`** |  | 0.600{spread} | 0.500 to 0.700 | 1.50x | 1.00x |"
    assert lines[3].startswith("| loops-below | 2 | 0.500")
    assert lines[3].endswith("| 1.50x | 1.50x |")


@pytest.mark.parametrize("interval", [None, [-0.25, 0.05]])
def test_a_line_says_what_a_row_holds(interval):
    row = {
        "name": "mine", "policy": "mine(a=1)", "kind": "policy", "online": True,
        "score": 0.5, "difference_to_fixed3": -0.1,
        "difference_interval": interval, "mean_passes": 1.5, "sleep_share": 0.25,
        "difference_to_shuffled": None, "difference_to_shuffled_interval": None,
    }  # fmt: skip
    fixed = row | {"policy": "fixed(passes=2)", "kind": "fixed"}
    hidden = row | {"name": "mine-shuffled", "kind": "shuffled", "online": False}
    lines = short_table({"max_passes": 3, "rows": [row, fixed, hidden]}).splitlines()
    spread = "" if interval is None else " ±0.150"
    assert "to `fixed(3)`" in lines[0]
    assert lines[0].count("|") == lines[1].count("|") == lines[2].count("|")
    assert lines[2] == f"| `mine` | 0.500 | -0.100{spread} | 1.50 | 25% |  |"
    assert lines[3].startswith("| `fixed(passes=2)` |")
    assert len(lines) == 4
