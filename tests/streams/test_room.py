"""What fits a KV budget: rows counted at once and events counted one by one agree."""

from __future__ import annotations

from itertools import takewhile

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from adaptive_sleep.streams.cutting import Windower
from adaptive_sleep.streams.events import Events
from adaptive_sleep.streams.room import Room, Step

NAMES = ["a", "b", "c"]
rooms = st.builds(
    Room,
    free=st.integers(0, 12),
    left=st.dictionaries(st.sampled_from(NAMES[:2]), st.integers(0, 6)),
    most=st.integers(1, 6),
    next_closed=st.sampled_from(NAMES),
    freed=st.integers(0, 6),
)


@given(room=rooms, rows=st.lists(st.integers(0, 2), min_size=1, max_size=30))
@example(room=Room(0, {}, 3), rows=[0, 1])
def test_rows_are_those_that_bring_no_more_than_is_free(room: Room, rows: list[int]) -> None:
    count = room.rows(np.array(rows), NAMES)
    if not room.free and room.freed and room.of(NAMES[rows[0]]):  # the first closes a window
        room = Room(room.freed, {**room.left, room.next_closed: room.most}, room.most)

    def brought(first: int) -> int:
        return sum(min(rows[:first].count(s), room.of(name)) for s, name in enumerate(NAMES))

    assert count == 1 or brought(count) <= room.free
    assert count == len(rows) or brought(count + 1) > room.free


@given(room=rooms, rows=st.lists(st.integers(0, 2), min_size=1, max_size=30))
def test_one_by_one_is_as_at_once(room: Room, rows: list[int]) -> None:
    step = Step(Windower(100), room, 100)
    taken = 0
    for time, s in enumerate(rows):
        if not step.takes(NAMES[s], time):
            break
        taken += 1
    assert taken == room.rows(np.array(rows), NAMES)


def test_a_step_ends_where_a_stream_needs_a_second_piece() -> None:
    windower, room = Windower(3, gap_seconds=1.0), Room(99, {}, 99)
    second = 10**9
    windower.split("a", Events(np.array([0, 1]) * second, tokens=np.zeros(2, np.int64)))

    def taken(events: list[tuple[str, int]], most: int = 9) -> int:
        step = Step(windower, room, most)
        return sum(1 for _ in takewhile(lambda e: step.takes(e[0], e[1] * second), events))

    assert taken([("a", 2), ("b", 2), ("a", 3)]) == 2  # the window of a is full
    assert taken([("b", 2), ("a", 9), ("b", 2)]) == 1  # a gap before an event that is not the first
    assert taken([("a", 9), ("b", 9)]) == 2  # a gap before the first event of all
    assert taken([("b", 2), ("b", 9), ("b", 9)]) == 1  # a gap within
    assert taken([("b", 2), ("c", 2), ("b", 3)], most=1) == 2
    assert taken([("b", 2)] * 5) == 3
