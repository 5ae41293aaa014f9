"""The tables in README are those of the kept results."""

from pathlib import Path

import pytest

from adaptive_sleep.experiments.compare import from_results
from adaptive_sleep.experiments.compare_table import short_table

README = Path(__file__).resolve().parents[2] / "README.md"


def test_readme_shows_what_the_last_full_comparison_found():
    assert short_table(from_results("mixed_chain")) in README.read_text(encoding="utf-8")


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
