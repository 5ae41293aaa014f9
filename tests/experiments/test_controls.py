"""Controls prescribe exactly the passes of a trace, as they were or permuted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from run_cases import make_series, series_model

from adaptive_sleep.experiments.controls import Prescribed, prescribed, shuffled
from adaptive_sleep.experiments.replay import replay
from adaptive_sleep.experiments.runs import open_run
from adaptive_sleep.spec import format_spec, parse_spec
from adaptive_sleep.streams.errors import InputError, IntegrityError
from adaptive_sleep.testing import make_signals


def trace_of(passes: list[int], streams: int = 2) -> pl.DataFrame:
    """A trace of windows dealt out to streams in turn."""
    rows = np.arange(len(passes))
    return pl.DataFrame(
        {"stream": [f"s{i % streams}" for i in rows], "window": rows // streams, "passes": passes}
    )


def planned(policy: Prescribed, trace: pl.DataFrame) -> list[int]:
    signals = make_signals(
        len(trace), 0, stream=trace["stream"].to_numpy(), window=trace["window"].to_numpy()
    )
    return [int(n) for n in policy.plan(signals)]


@settings(max_examples=40)
@given(st.lists(st.integers(1, 8), min_size=1, max_size=60), st.integers(0, 2**32))
def test_a_shuffle_keeps_the_histogram(passes: list[int], seed: int) -> None:
    trace = trace_of(passes)
    assert planned(prescribed(trace), trace) == passes
    moved = planned(shuffled(trace, seed), trace)
    assert sorted(moved) == sorted(passes)
    turned = trace.reverse()  # the order of the trace's rows is no matter
    assert planned(shuffled(turned, seed), trace) == moved


def test_seeds_differ() -> None:
    trace = trace_of([1, 2, 3, 4] * 10)
    moved = [planned(shuffled(trace, seed), trace) for seed in range(5)]
    assert len({tuple(m) for m in moved}) == 5


def test_a_replay_under_its_own_passes_is_the_same_replay(tmp_path: Path) -> None:
    recording, model = make_series(tmp_path / "recording"), series_model()
    policy = "run_cases:Fragile(at=20)"
    first = replay(recording, model, policy, tmp_path / "first")
    trace = open_run(tmp_path / "first").trace()
    again = replay(recording, model, prescribed(trace), tmp_path / "again")
    assert again.loss == first.loss
    assert again.mean_passes == first.mean_passes
    assert again.sleep_flops_per_event == first.sleep_flops_per_event
    control = replay(recording, model, shuffled(trace, 0), tmp_path / "control")
    assert control.mean_passes == first.mean_passes
    other = open_run(tmp_path / "control").trace().collect()["passes"].to_list()
    own = trace.collect()["passes"].to_list()
    assert other != own
    assert sorted(other) == sorted(own)
    # by name: what the folder and the seed say is what was held in memory
    spec = f"prescribed(path={str(tmp_path / 'first')!r}, shuffle=0)"
    named = replay(recording, model, spec, tmp_path / "named")
    assert named.trace_sha256 == control.trace_sha256
    written = open_run(tmp_path / "named").manifest.policy
    assert parse_spec(written) == parse_spec(spec)
    assert "sha256" in written


def test_a_trace_file_will_do_and_is_held_to_its_hash(tmp_path: Path) -> None:
    file = tmp_path / "trace.parquet"
    trace_of([1, 2, 3]).write_parquet(file)
    policy = Prescribed(str(file))
    assert planned(policy, trace_of([1, 2, 3])) == [1, 2, 3]
    spec = format_spec(policy)
    assert parse_spec(spec) == policy
    trace_of([1, 2, 4]).write_parquet(file)
    with pytest.raises(IntegrityError, match="changed"):
        parse_spec(spec)


def test_what_cannot_be_prescribed_is_refused(tmp_path: Path) -> None:
    trace = trace_of([1, 2, 3, 4])
    with pytest.raises(InputError, match="'s0', window 2"):
        planned(prescribed(trace), trace_of([1] * 6))
    with pytest.raises(InputError, match="no column passes"):
        prescribed(trace.drop("passes"))
    with pytest.raises(InputError, match="twice"):
        prescribed(pl.concat([trace, trace]))
    with pytest.raises(InputError, match="at least 1"):
        prescribed(trace.with_columns(passes=pl.lit(0)))
    for column in (pl.lit(1.5), pl.lit("x")):
        with pytest.raises(InputError, match=r"column passes holds .* expected integers"):
            prescribed(trace.with_columns(passes=column))
    (tmp_path / "text").write_text("stream, window, passes")
    with pytest.raises(InputError, match=r"text'\): no trace in Parquet"):
        Prescribed(str(tmp_path / "text"))
    trace.write_parquet(tmp_path / "trace.parquet")
    with pytest.raises(InputError, match="shuffle=-1: a whole number from 0"):
        Prescribed(str(tmp_path / "trace.parquet"), shuffle=-1)
    with pytest.raises(InputError, match="shuffle=-1: a whole number from 0"):
        shuffled(trace, -1)
    with pytest.raises(InputError, match="no such"):
        Prescribed(str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="in memory"):
        parse_spec(format_spec(shuffled(trace, 1)))
