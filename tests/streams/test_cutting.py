"""Steps cover a recording, windows never overflow, and a resumed cut goes on the same."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import interleaved, write_rows

from adaptive_sleep.streams import cutting
from adaptive_sleep.streams.cutting import Cutter, Windower
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.events import Events, Piece
from adaptive_sleep.streams.recording import Recording

SECOND = 1_000_000_000

rows_strategy = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from([-5.0, 0.0, 0.5, 1.0, 3.0])), max_size=60
)


def reference(
    streams: list[str],
    times: list[int],
    length: int,
    gap: float | None,
    max_rows: int,
    early: list[bool],
) -> list[tuple[int, list[tuple[str, list[int], str]]]]:
    """Event by event: (offset, [(stream, rows, cause)]) for every step.

    After step i, where `early[i]`, the runtime closes the window of the step's first stream.
    """
    held: dict[str, int] = {}
    last: dict[str, int] = {}
    steps: list[tuple[int, list[tuple[str, list[int], str]]]] = []
    order = list(dict.fromkeys(streams))
    at = 0
    while at < len(streams):
        begin, taken, cause = at, dict[str, list[int]](), dict[str, str]()
        while at < len(streams) and at - begin < max_rows:
            name = streams[at]
            if name in cause:
                break
            if held.get(name) and gap is not None and times[at] - last[name] > gap * SECOND:
                cause[name], held[name] = "gap", 0
                taken.setdefault(name, [])
                break
            taken.setdefault(name, []).append(at)
            held[name], last[name] = held.get(name, 0) + 1, times[at]
            if held[name] == length:
                cause[name], held[name] = "length", 0
            at += 1
        steps.append((at, [(n, taken[n], cause.get(n, "")) for n in order if n in taken]))
        if early[len(steps) - 1]:
            held[steps[-1][1][0][0]] = 0
    left = [(name, list[int](), "end") for name in order if held.get(name)]
    return [*steps, (at, left)] if left else steps


def described(pieces: list[Piece]) -> list[tuple[str, list[int], str]]:
    found = []
    for piece in pieces:
        assert piece.closes == bool(piece.cause)
        assert piece.events.values is not None
        np.testing.assert_array_equal(piece.events.values[:, 1], -piece.events.values[:, 0])
        rows = piece.events.values[:, 0].astype(int).tolist()
        found.append((piece.stream, rows, piece.cause))
    return found


def recorded(folder: str, rows: list[tuple[str, float]], shard_rows: int) -> Recording:
    times = np.cumsum([int(step * SECOND) for _, step in rows]).tolist() if rows else []
    path = write_rows(Path(folder) / "r", [name for name, _ in rows], times, shard_rows=shard_rows)
    return Recording.open(path)


@settings(max_examples=60, deadline=None)
@given(
    rows=rows_strategy,
    length=st.integers(1, 6),
    gap=st.sampled_from([None, 0.6, 2.0]),
    max_rows=st.integers(1, 20),
    shard_rows=st.sampled_from([7, 1000]),
    early=st.lists(st.booleans(), min_size=200, max_size=200) | st.just([False] * 200),
)
def test_steps_are_those_of_the_event_by_event_reference(
    rows, length, gap, max_rows, shard_rows, early
):
    with tempfile.TemporaryDirectory() as folder:
        recording = recorded(folder, rows, shard_rows)
        cutter = Cutter(recording, Windower(length, gap), max_rows=max_rows)
        found = []
        for at, pieces in cutter:
            if early[len(found)]:
                cutter.windower.closed(pieces[0].stream)
            found.append((at, described(pieces)))
        times = [int(t) for block in recording.blocks() for t in block.time]
    assert found == reference([name for name, _ in rows], times, length, gap, max_rows, early)


@settings(max_examples=30, deadline=None)
@given(rows=rows_strategy, length=st.integers(1, 6), max_rows=st.integers(1, 20))
def test_rows_are_covered_once_and_windows_never_overflow(rows, length, max_rows):
    with tempfile.TemporaryDirectory() as folder:
        recording = recorded(folder, rows, 1000)
        held = dict.fromkeys(recording.streams, 0)
        at = 0
        for after, pieces in Cutter(recording, Windower(length, 2.0), max_rows=max_rows):
            names = [piece.stream for piece in pieces]
            assert len(names) == len(set(names))
            covered = sorted(row for _, group, _ in described(pieces) for row in group)
            assert covered == list(range(at, after))
            for piece in pieces:
                held[piece.stream] += len(piece.events)
                assert held[piece.stream] <= length
                if piece.cause == "length":
                    assert held[piece.stream] == length
                held[piece.stream] *= not piece.closes
            at = after
        assert at == recording.rows
        assert not any(held.values())


@settings(max_examples=30, deadline=None)
@given(rows=rows_strategy.filter(bool), length=st.integers(1, 6), data=st.data())
def test_resuming_from_any_step_gives_the_same_further_steps(rows, length, data):
    early = data.draw(st.lists(st.booleans(), min_size=200, max_size=200))

    def run(cutter, start=0):
        """Steps, closing the first stream of a step early where `early` says so."""
        number = start
        for at, pieces in cutter:
            if early[number] and not pieces[0].closes:
                cutter.windower.closed(pieces[0].stream)
            number += 1
            state = json.loads(json.dumps(cutter.windower.state_dict()))
            yield at, described(pieces), state

    with tempfile.TemporaryDirectory() as folder:
        recording = recorded(folder, rows, 1000)
        whole = list(run(Cutter(recording, Windower(length, 2.0), max_rows=9)))
        cut = data.draw(st.integers(0, len(whole) - 1))
        windower = Windower(length, 2.0)
        windower.load_state_dict(whole[cut][2])
        rest = list(run(Cutter(recording, windower, start=whole[cut][0], max_rows=9), cut + 1))
    assert rest == whole[cut + 1 :]


def test_how_far_rows_are_read_ahead_decides_no_cut(tmp_path, monkeypatch):
    recording = interleaved(tmp_path / "r", rows=3000, streams=9)

    def steps():
        return [
            (at, described(pieces))
            for at, pieces in Cutter(recording, Windower(16, 7.0), max_rows=64)
        ]

    whole = steps()
    monkeypatch.setattr(cutting, "_BUFFER_ROWS", 50)
    assert steps() == whole
    assert whole[-1][0] == 3000


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.sampled_from([0.0, 0.5, 3.0]), max_size=40),
    length=st.integers(1, 6),
    sizes=st.lists(st.integers(1, 7), min_size=40, max_size=40),
)
def test_live_events_close_the_same_windows_as_a_recording(rows, length, sizes):
    with tempfile.TemporaryDirectory() as folder:
        recording = recorded(folder, [("a", step) for step in rows], 1000)
        wanted = windows(
            piece for _, pieces in Cutter(recording, Windower(length, 2.0)) for piece in pieces
        )
        live, windower, at = list[Piece](), Windower(length, 2.0), 0
        events = [Events(b.time, b.values[:, [0, 2]]) for b in recording.blocks()]
        for size in sizes:
            live += windower.split("a", events[0][at : at + size]) if events else []
            at += size
    assert windows(live) == wanted


def windows(pieces) -> list[list[int]]:
    """The rows of each window, the last one whether closed or not."""
    found: list[list[int]] = [[]]
    for piece in pieces:
        found[-1] += [row for _, rows, _ in described([piece]) for row in rows]
        if piece.closes:
            found.append([])
    return [window for window in found if window]


def test_labels_are_not_in_pieces(tmp_path):
    recording = Recording.open(write_rows(tmp_path / "r", ["a"] * 3, [1, 2, 3]))
    [(_, [piece])] = list(Cutter(recording, Windower(3)))
    assert [channel.name for channel in recording.inputs] == ["load", "knob"]
    assert piece.events.values is not None
    assert piece.events.values.shape == (3, 2)


def test_a_part_of_a_recording_is_cut_alone(tmp_path):
    recording = Recording.open(write_rows(tmp_path / "r", list("abab"), [1, 2, 3, 4]))
    steps = list(Cutter(recording, Windower(9), start=1, stop=3, close_at_end=False))
    assert [(at, described(pieces)) for at, pieces in steps] == [
        (3, [("a", [2], ""), ("b", [1], "")])
    ]


def test_tokens_are_cut_too(tmp_path):
    recording = Recording.open(write_rows(tmp_path / "r", list("aaa"), [1, 2, 3], kind="tokens"))
    pieces = [piece for _, step in Cutter(recording, Windower(2)) for piece in step]
    assert [list(p.events.tokens) for p in pieces if p.events.tokens is not None] == [
        [0, 1],
        [2],
        [],
    ]


def test_wrong_lengths_gaps_and_states_are_named():
    with pytest.raises(InputError, match="length=0"):
        Windower(0)
    with pytest.raises(InputError, match="gap_seconds=-1"):
        Windower(4, -1.0)
    with pytest.raises(InputError, match="length, gap_seconds"):
        Windower(4).load_state_dict(Windower(5).state_dict())


def test_a_start_beyond_the_recording_is_refused(tmp_path):
    recording = Recording.open(write_rows(tmp_path / "r", ["a"], [1]))
    with pytest.raises(InputError, match="start=2"):
        Cutter(recording, Windower(4), start=2)
