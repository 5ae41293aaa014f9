"""A recorded task holds its samples in order, and a gap in time cuts it at every window."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from adaptive_sleep.streams.cutting import Cutter, Windower
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.tasks.mixed import Mixed
from adaptive_sleep.streams.tasks.recorded import GAP_SECONDS, record, record_batch
from adaptive_sleep.streams.tasks.registry import make_task
from adaptive_sleep.streams.tasks.task import events
from adaptive_sleep.streams.writer import RecordingWriter

CASES = [
    ("chain", {"nodes": 8, "paths": 2, "windows": 2}),
    ("hops", {}),
    ("chain", {"nodes": 8, "paths": 2, "delays": [0, 1, 3]}),
    ("chain", {"nodes": 8, "paths": 2, "asks": 2}),
    ("distractors", {}),
    ("depo-small", {}),
    ("gsm_symbolic", {"windows": 2}),
]


def cut(recording, length, most=8192):
    """The windows of each stream, as (tokens, targets) in lists."""
    open_, closed = {}, {}
    cutter = Cutter(recording, Windower(length, GAP_SECONDS), max_rows=most)
    for _, pieces in cutter:
        for piece in pieces:
            held = open_.setdefault(piece.stream, ([], []))
            held[0].extend(piece.events.tokens.tolist())
            held[1].extend(piece.events.targets.tolist())
            if piece.closes:
                closed.setdefault(piece.stream, []).append(open_.pop(piece.stream))
    assert not open_
    return closed


@pytest.mark.parametrize("streams", [1, 3, 9])
@pytest.mark.parametrize(("name", "params"), CASES, ids=str)
def test_it_is_cut_into_the_windows_of_its_samples(name, params, streams, tmp_path: Path):
    task = make_task(name, **params)
    recording = record(task, tmp_path / "r", samples=7, seed=5, part="test", streams=streams)
    batch = task.sample(np.random.default_rng(5), 7, part="test")
    wanted = {}
    for row in range(7):
        for window in events(batch, row):
            if len(window.tokens):
                wanted.setdefault(f"s{row % streams}", []).append(
                    (window.tokens.tolist(), window.targets.tolist())
                )
    longest = 2 * task.space.window  # so that length cuts nothing
    assert cut(recording, longest) == wanted
    assert cut(recording, longest, most=3) == wanted
    assert cut(recording, task.space.window) == wanted
    assert recording.manifest.vocabulary == task.space.vocabulary


def test_what_ends_it_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    append, times = RecordingWriter.append, 0

    def interrupted(*given, **named):
        nonlocal times
        times += 1
        if times > 3:
            raise KeyboardInterrupt
        append(*given, **named)

    monkeypatch.setattr(RecordingWriter, "append", interrupted)
    with pytest.raises(KeyboardInterrupt):
        record(make_task("chain"), tmp_path / "r", samples=7, seed=5, part="test")
    assert times > 3
    assert not list(tmp_path.iterdir())


def test_windows_side_by_side_begin_and_are_closed_together(tmp_path: Path):
    """Also where they are of different lengths, so that a replay runs them as one batch."""
    recording = record(
        make_task("gsm_symbolic"), tmp_path / "r", samples=9, seed=0, part="test", streams=3
    )
    steps = [pieces for _, pieces in Cutter(recording, Windower(1000, GAP_SECONDS))]
    assert len({len(piece.events) for piece in steps[0]}) > 1
    closed = [[piece.stream for piece in pieces if piece.closes] for pieces in steps]
    assert [names for names in closed if names] == [["s0", "s1", "s2"]] * 6


def test_the_labels_say_what_was_asked_and_how_hard_it_is(tmp_path: Path):
    task = make_task("chain")
    recording = record(
        task, tmp_path / "r", samples=20, seed=0, part="train", weights={5: 1.0, 9: 1.0}
    )
    batch = task.sample(np.random.default_rng(0), 20, part="train", weights={5: 1.0, 9: 1.0})
    assert [(c.name, c.role) for c in recording.channels] == [
        ("target", "label"),
        ("difficulty", "label"),
    ]
    frame = recording.scan().collect()
    difficulty = frame["difficulty"].to_numpy().reshape(20, -1)
    assert (difficulty == batch.difficulty[:, None]).all()
    assert frame["target"].null_count() == 20 * task.nodes
    asked = frame["target"].drop_nulls().to_numpy().reshape(20, -1)
    assert (asked == batch.targets[-1]).all()
    assert recording.manifest.provenance["task"].startswith("chain(nodes=16, ")


def test_the_same_arguments_give_the_same_recording(tmp_path: Path):
    task = make_task("hops")
    given = {"samples": 6, "part": "validation", "streams": 2}
    one, same, other = (
        record(task, tmp_path / str(i), seed=seed, **given) for i, seed in enumerate((3, 3, 4))
    )
    assert one.sha256 == same.sha256 != other.sha256


def test_values_beside_tokens_would_be_lost_and_are_refused(tmp_path: Path):
    task = make_task("chain")
    batch = task.sample(np.random.default_rng(0), 2, part="test")
    with pytest.raises(InputError, match="values=1: a recorded task holds tokens alone"):
        record_batch(batch, replace(task.space, values=1), tmp_path / "r")
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("name", "params", "changes", "told"),
    [
        ("chain", {}, {"streams": 0}, "streams=0"),
        ("chain", {}, {"samples": 0}, "count=0"),
        ("hops", {"nodes": 4096, "max_hops": 200}, {}, "a recording holds up to"),
    ],
)
def test_what_cannot_be_recorded_is_refused(name, params, changes, told, tmp_path: Path):
    given = {"samples": 2, "seed": 0, "part": "test"} | changes
    with pytest.raises(InputError, match=told):
        record(make_task(name, **params), tmp_path / "r", **given)
    assert not (tmp_path / "r").exists()


def test_bursts_are_each_streams_own(tmp_path: Path):
    chain = make_task("chain")
    mixed = Mixed(((chain, 1.0),), {3: 1.0}, {12: 1.0}, bursts=(1.0, 1.0))
    recording = record(mixed, tmp_path / "r", samples=40, seed=3, part="test", streams=4)
    seen = recording.scan().select("stream", "difficulty").collect()
    begun = set()
    for stream, rows in seen.group_by("stream"):
        turns = [d for d, again in zip(rows["difficulty"], [0, *rows["difficulty"]], strict=False)
                 if d != again]  # fmt: skip
        assert turns in ([3, 12] * 5, [12, 3] * 5), stream
        begun.add(turns[0])
    assert begun == {3, 12}
    assert "mixed(" in recording.manifest.provenance["task"]
    again = record(mixed, tmp_path / "s", samples=40, seed=3, part="test", streams=4)
    assert again.sha256 == recording.sha256
    with pytest.raises(InputError, match="has its own, easy and hard"):
        record(mixed, tmp_path / "t", samples=4, seed=3, part="test", weights={3: 1.0})
    with pytest.raises(InputError, match="streams=5: from 1 to 4"):
        record(mixed, tmp_path / "t", samples=4, seed=3, part="test", streams=5)


@pytest.mark.parametrize("seed", [-1, 1.5, "1"])
def test_a_seed_that_is_none_is_refused(seed, tmp_path: Path):
    with pytest.raises(InputError, match=rf"seed={seed!r}: a whole number from 0"):
        record(make_task("chain"), tmp_path / "r", samples=2, seed=seed, part="test")
    assert not (tmp_path / "r").exists()


def test_a_seed_of_numpy_is_one_of_python(tmp_path: Path):
    seeds = {"a": 1, "b": np.int64(1)}
    first, again = (
        record(make_task("chain"), tmp_path / name, samples=2, seed=seed, part="test")
        for name, seed in seeds.items()
    )
    assert first.manifest.provenance == again.manifest.provenance
    assert first.sha256 == again.sha256
