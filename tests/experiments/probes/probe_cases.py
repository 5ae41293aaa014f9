"""For the tests of the probes: recipes small enough to be trained in a second."""

from __future__ import annotations

from pathlib import Path

LEARNER = """
[regimes]
channels = 2
waves = 2

[streams]
streams = 6
windows = 12
train = 0.75

[model]
patch = 4
window = 8
width = 8
heads = 2
fast_heads = 1
key_dim = 4
value_dim = 4

[training]
steps = 3
batch = 4
windows = 3
bptt = 3
passes = "1-2"
jitter = 0.0
validate_every = 3
warm_events = 16
"""
DETAIL = """
[test]
passes = [1, 2]
ages = [0, 2]
warm = 1
asked = 4
train = 12
validation = 4
test = 6
recording = ""
"""
RECURRENCE = """
[test]
passes = [1, 2]
gaps = [0, 2]
shown = 2
lead = 1
pairs = 5
"""


def write(folder: Path, test: str, old: str = "", new: str = "") -> Path:
    """A recipe's file, with `old` replaced by `new`."""
    path = folder / "recipe.toml"
    text = LEARNER + test
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return path
