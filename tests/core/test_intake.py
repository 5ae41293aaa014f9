"""Which rows of a recording are taken."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from adaptive_sleep.intake import row_range
from adaptive_sleep.streams.errors import InputError


@settings(max_examples=50)
@given(rows=st.integers(1, 10_000), cut=st.floats(0.0, 1.0))
def test_two_parts_make_a_whole(rows: int, cut: float) -> None:
    parts = []
    for start, stop in ((0.0, cut), (cut, 1.0)):
        try:
            parts.append(row_range(start, stop, rows))
        except InputError:  # one part may be empty
            continue
    assert sum(last - first for first, last in parts) == rows
