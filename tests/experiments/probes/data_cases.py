"""Made data sets in the public formats, and plans small enough for a test."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from adaptive_sleep.experiments.probes import events, labels

ROWS = 400
LABELS = labels.Plan(
    window=16, width=16, steps=2, windows=2, validate_every=1, warm=64, shuffles=50, share=0.2
)
EVENTS = events.Plan(window=8, steps=2, windows=2, validate_every=1)


def make_sets(folder: Path) -> Path:
    """A folder with nab/, asd/ and logs/."""
    for name in ("nab", "asd", "logs"):
        (folder / name).mkdir(parents=True)
    make_nab(folder / "nab")
    make_arrays(folder / "asd" / "omi-1.npz")
    make_log(folder / "logs" / "BGL_2k.log_structured.csv")
    return folder


def make_nab(folder: Path) -> None:
    """One file whose rows 250 to 279 are labelled."""
    random, first = np.random.default_rng(0), datetime(2015, 1, 1)
    times = [first + timedelta(minutes=5 * row) for row in range(ROWS)]
    values = random.normal(size=ROWS)
    values[250:280] += 8.0
    pl.DataFrame(
        {"timestamp": [f"{t:%Y-%m-%d %H:%M:%S}" for t in times], "value": values}
    ).write_csv(folder / "made.csv")
    spans = [[f"{times[row]:%Y-%m-%d %H:%M:%S}.000000" for row in (250, 279)]]
    (folder / "windows.json").write_text(json.dumps({"made.csv": spans}))


def make_arrays(file: Path) -> None:
    """240 rows to train and 160 to test, of which 40 to 79 are labelled."""
    random = np.random.default_rng(1)
    flags = np.zeros(160, np.uint8)
    flags[40:80] = 1
    np.savez(
        file,
        train=random.normal(size=(240, 2)).astype(np.float32),
        test=random.normal(size=(160, 2)).astype(np.float32),
        test_label=flags,
    )


def make_log(file: Path, alerts: tuple[int, ...] = (300, 301, 330)) -> None:
    """A cycle of four event types, and a fifth from row 340 on."""
    kinds = [f"E{row % 4}" if row < 340 else "E9" for row in range(ROWS)]
    pl.DataFrame(
        {
            "Label": ["APPREAD" if row in alerts else "-" for row in range(ROWS)],
            "Timestamp": [1_117_838_570 + 10 * row for row in range(ROWS)],
            "EventId": kinds,
        }
    ).write_csv(file)
