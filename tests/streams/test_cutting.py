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

            def opens(row: int) -> bool:
                stream = streams[row]
                silent = times[row] - last.get(stream, times[row])
                return bool(held.get(stream)) and gap is not None and silent > gap * SECOND

            if opens(at):
                rest = range(at, min(begin + max_rows, len(streams)))
                for other in order:
                    row = next((i for i in rest if streams[i] == other), None)
                    if row is not None and times[row] == times[at] and opens(row):
                        cause[other], held[other] = "gap", 0
                        taken.setdefault(other, [])
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


def side_by_side(path: Path) -> Recording:
    """3000 rows of nine streams whose windows, of 1 to 5 rows, begin together every ten seconds."""
    random, names, times = np.random.default_rng(0), list[str](), list[int]()
    while len(names) < 3000:
        start = times[-1] + 10 * SECOND if times else 0
        for name in "abcdefghi":
            size = min(int(random.integers(1, 6)), 3000 - len(names))
            names += [name] * size
            times += [start + i for i in range(size)]
    return Recording.open(write_rows(path, names, times))


@pytest.mark.parametrize("together", [False, True])
def test_how_far_rows_are_read_ahead_decides_no_cut(tmp_path, monkeypatch, together):
    made = tmp_path / "r"
    recording = side_by_side(made) if together else interleaved(made, rows=3000, streams=9)

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


def test_windows_that_begin_together_close_together(tmp_path):
    """Three streams side by side, windows of 2, 3 and 1 events, one gap after each round."""
    sizes, names, times = {"a": 2, "b": 3, "c": 1}, [], []
    for turn in range(4):
        for name, size in sizes.items():
            names += [name] * size
            times += [turn * 10 * SECOND + i for i in range(size)]
    recording = Recording.open(write_rows(tmp_path / "r", names, times))
    steps = [pieces for _, pieces in Cutter(recording, Windower(9, 2.0))]
    assert [[(p.stream, len(p.events), p.cause) for p in step] for step in steps] == [
        *[[(name, size, "gap") for name, size in sizes.items()]] * 3,
        [(name, size, "") for name, size in sizes.items()],
        [(name, 0, "end") for name in sizes],
    ]
    # b's gap lies beyond the rows of the first step, so it is not looked at
    narrow = [pieces for _, pieces in Cutter(recording, Windower(9, 2.0), max_rows=8)]
    assert [[(p.stream, p.cause) for p in step] for step in narrow[:2]] == [
        [("a", "gap"), ("b", ""), ("c", "")],
        [("a", ""), ("b", "gap"), ("c", "gap")],
    ]


def test_a_gap_that_shows_at_another_time_waits_for_its_row(tmp_path):
    """b begins anew a nanosecond after a, and c reads on before its own gap: each by itself."""
    names = list("abcabcc")
    times = [0, 0, 0, 10 * SECOND, 10 * SECOND + 1, 1, 10 * SECOND]
    recording = Recording.open(write_rows(tmp_path / "r", names, times))
    steps = [pieces for _, pieces in Cutter(recording, Windower(9, 2.0))]
    closed = [[p.stream for p in step if p.closes] for step in steps]
    assert closed == [["a"], ["b"], ["c"], [], ["a", "b", "c"]]


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
