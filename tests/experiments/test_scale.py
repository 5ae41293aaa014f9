"""Many streams and long recordings: memory stays bounded, whatever the length.

Each case runs in a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

LIMIT = 1.5 * 2**30  # bytes

SCRIPT = """
import json, resource, sys, warnings
from pathlib import Path
import numpy as np
import torch
import adaptive_sleep as asl

torch.set_num_threads(1)
folder, streams, rounds, window = Path(sys.argv[1]), *(int(x) for x in sys.argv[2:5])
channels = [asl.Channel(f"c{i}") for i in range(12)]
random = np.random.default_rng(0)
names = [f"s{i:04d}" for i in range(streams)]
with asl.RecordingWriter(folder / "recording", kind="series", channels=channels) as writer:
    for turn in range(0, rounds, 64):
        rows = min(64, rounds - turn)
        time = (turn + np.arange(rows, dtype=np.int64)).repeat(streams) * 10**9
        values = random.normal(size=(rows * streams, 12)).astype(np.float32)
        writer.append_rows(names * rows, time, values=values)
config = asl.ModelConfig(
    kind="series", channels=tuple(c.name for c in channels), patch=4, window=window
)
torch.manual_seed(0)
model = asl.Model(config)
run = asl.replay(folder / "recording", model, "state_change(tolerance=0.3)", folder / "run")
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"peak": peak, "events": run.events, "windows": run.windows,
                  "rate": run.events / run.seconds, "passes": run.mean_passes}))
"""


def _measure(folder: Path, streams: int, rounds: int, window: int) -> dict[str, float]:
    folder.mkdir()
    arguments = [str(folder), str(streams), str(rounds), str(window)]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, float] = json.loads(done.stdout)
    assert found["events"] == streams * rounds
    return found


def test_a_thousand_streams_side_by_side(tmp_path: Path) -> None:
    found = _measure(tmp_path / "many", streams=1000, rounds=96, window=32)
    assert found["windows"] == 3000
    assert found["peak"] < LIMIT


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_memory_does_not_grow_with_the_recording(tmp_path: Path) -> None:
    short = _measure(tmp_path / "short", streams=64, rounds=15_625, window=64)
    long = _measure(tmp_path / "long", streams=64, rounds=78_125, window=64)
    assert long["events"] == 5_000_000
    assert long["peak"] < LIMIT
    # five times the events; what the trace itself needs may grow, the state may not
    assert long["peak"] < 1.15 * short["peak"], (short, long)
