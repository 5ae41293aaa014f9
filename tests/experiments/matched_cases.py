"""For tests of comparisons at matched cost: a tiny task to train on, a comparison of it, and how to
train on the tiny recording R of a folder; rows at matched cost."""

from __future__ import annotations

from typing import Any

from adaptive_sleep.experiments.compare_rows import SeedRow

TRAINING = """
[task]
name = "chain"
nodes = 6
paths = 2
[model]
width = 16
heads = 2
key_dim = 8
value_dim = 8
conv = 0
positions = "learned"
[training]
steps = 30
batch = 4
passes = "2"
carry_over = 0.5
validation = 2
[test]
passes = [1]
samples = 4
"""
RECIPE = """
max_passes = 3
control_seeds = [0]
targets = [1.1, 1.6]
[models]
recipe = "{folder}/training.toml"
seeds = [0]
quick = "{folder}/m.safetensors"
[task]
name = "chain"
parameters = {{ nodes = 6, paths = 2 }}
streams = 2
quick_samples = 16
[[policies]]
name = "lot"
spec = "random(mean={{mean}}, most=3)"
grid = {{ mean = [1.0, 1.1, 2.9] }}
[[baselines]]
name = "fixed"
[[baselines]]
name = "compressed_kv"
equal_compute = true
[[baselines]]
name = "wake_loops"
"""
OF_A_SERIES = """
[model]
width = 16
heads = 2
key_dim = 8
value_dim = 8
patch = 2
window = 16
[data]
recording = "{folder}/R"
train = [0.0, 0.5]
validation = [0.5, 0.7]
[training]
steps = 4
batch = 2
windows = 4
bptt = 4
passes = "1-3"
validate_every = 2
warm_events = 0
"""


def at_cost(kind: str, flops: float, score: float, **more: Any) -> SeedRow:
    """A row at 1.5 times that costs `flops`; a policy scored as much on validation."""
    return SeedRow(
        kind=kind,  # type: ignore[arg-type]
        policy="p", written="p", online=True, score=score, mean_passes=1.0,
        sleep_flops_per_event=0.0, flops_per_event=flops, resident_bytes=100, target=1.5,
        validation_score=score if kind == "matched" else None, **more,
    )  # fmt: skip
