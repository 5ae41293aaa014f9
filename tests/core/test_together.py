"""A stream in a batch gives what it gives alone, and FLOPs add up exactly."""

from __future__ import annotations

from functools import cache

import core_cases as cases
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import adaptive_sleep as asl


@cache
def model_of(kind: str, **changes: str) -> asl.Model:
    return cases.build(cases.tiny(kind, **changes))


def streams_of(model: asl.Model, seed: int, count: int) -> dict[str, list[asl.Piece]]:
    """Streams of different lengths, cut differently, joining at different steps."""
    random = np.random.default_rng(seed)
    found = {}
    for i in range(count):
        name, length = f"s{i}", int(random.integers(3, 40))
        whole = cases.events(model.config, length, seed + i)
        window = int(random.integers(4, 13))
        places = random.integers(1, length, 3).tolist()
        found[name] = cases.cut(whole, window, places, name)
    return found


def together(
    model: asl.Model, streams: dict[str, list[asl.Piece]], policy: object, eviction: str, seed: int
) -> tuple[asl.Runtime, list[asl.StepResult]]:
    """Feed all streams to one runtime, each at a random pace and in random order within a step."""
    random = np.random.default_rng(seed)
    runtime = asl.Runtime(model, policy, eviction=eviction)
    left = {name: list(pieces) for name, pieces in streams.items()}
    results = []
    while any(left.values()):
        names = [n for n in left if left[n] and random.random() < 0.7]
        random.shuffle(names)
        results.append(runtime.step([left[n].pop(0) for n in names], predictions=True))
    return runtime, results


def check(kind: str, eviction: str, seed: int, count: int, **changes: str) -> None:
    model = model_of(kind, **changes)
    streams = streams_of(model, seed, count)
    policy = cases.ByName({f"s{i}": [1 + i % 4, 1 + (i + 2) % 3] for i in range(count)})
    runtime, results = together(model, streams, policy, eviction, seed)
    found = cases.table(results)
    rows = [r for result in results for r in result.rows]
    total = dict.fromkeys(cases.FLOPS, 0)
    for name, pieces in streams.items():
        alone = asl.Runtime(model, policy, eviction=eviction)
        own = cases.run_all(alone, pieces)
        state = cases.row(alone, name)
        for field, tensor in cases.row(runtime, name).items():
            if tensor.dtype == torch.int64:
                assert torch.equal(tensor, state[field]), (name, field)
            else:
                assert cases.distance(tensor, state[field]) < 1e-5, (name, field)
        mine = {n: v[found["stream"] == name] for n, v in found.items()}
        if any(r.predictions for r in own):
            distance, where = cases.furthest(mine, cases.table(own))
            assert distance < 1e-5, (name, where)
        _same_rows([r for r in rows if r.stream == name], [r for o in own for r in o.rows])
        for field in cases.FLOPS:
            total[field] += getattr(alone.ledger, field)
    assert {f: getattr(runtime.ledger, f) for f in cases.FLOPS} == total
    for phase, column in (("wake", "wake_flops"), ("sleep", "sleep_flops")):
        spent = sum(getattr(r, column) for r in rows)
        open_still = int(runtime._arena.tensors["wake_flops"].sum()) if phase == "wake" else 0
        assert spent + open_still == getattr(runtime.ledger, phase)
    assert sum(r.signal_flops for r in rows) == runtime.ledger.signals


def _same_rows(together: list[object], alone: list[object]) -> None:
    exact = ("window", "tokens", "scored", "planned", "passes", "wake_flops", "sleep_flops", "gap")
    exact += ("signal_flops", "first_time", "last_time", "event_density", "clipped_by")
    near = ("surprise", "uncertainty", "state_change", "last_state_change")
    for one, other in zip(together, alone, strict=True):
        for name in exact:
            assert getattr(one, name) == getattr(other, name), name
        for name in near:
            assert getattr(one, name) == pytest.approx(getattr(other, name), rel=2e-5), name


@pytest.mark.parametrize("eviction", cases.EVICTIONS)
@pytest.mark.parametrize("kind", cases.KINDS)
@given(seed=st.integers(0, 10_000), count=st.integers(2, 6))
@settings(max_examples=6)
def test_a_stream_gives_in_a_batch_what_it_gives_alone(
    kind: str, eviction: str, seed: int, count: int
) -> None:
    check(kind, eviction, seed, count)


@pytest.mark.parametrize(
    "changes",
    [
        {"carry": "accumulate"},
        {"injection": "residual", "sleep_attention": "bidirectional"},
        {"injection": "feedback", "positions": "relative"},
        {"positions": "learned"},
    ],
    ids=lambda c: "-".join(c.values()),
)
@pytest.mark.parametrize("kind", cases.KINDS)
def test_whatever_the_model(kind: str, changes: dict[str, str]) -> None:
    check(kind, "hard", 11, 5, **changes)


def test_a_policy_that_halts_streams_one_by_one_leaves_the_others_alone() -> None:
    class Halting(cases.ByName):
        def keep_going(self, progress: asl.SleepProgress) -> np.ndarray:
            rows = zip(progress.stream, progress.passes, strict=True)
            return np.array([passes < 2 + int(stream[1]) for stream, passes in rows])

    model = model_of("tokens")
    pieces = [
        asl.Piece(f"s{i}", cases.events(model.config, 5 + i, i), closes=True) for i in range(5)
    ]
    policy = Halting(dict.fromkeys((p.stream for p in pieces), 5))
    runtime = asl.Runtime(model, policy)
    rows = runtime.step(pieces).rows
    assert [r.passes for r in rows] == [2, 3, 4, 5, 5]
    assert [r.clipped_by for r in rows] == ["halted"] * 3 + ["", ""]
    for piece, row in zip(pieces, rows, strict=True):
        alone = asl.Runtime(model, cases.fixed(row.passes))
        mine = alone.step([piece]).rows[0]
        assert mine.last_state_change == pytest.approx(row.last_state_change, rel=1e-5)
        held, own = cases.row(runtime, piece.stream), cases.row(alone, piece.stream)
        for name in held:
            if name.startswith("now."):
                assert cases.distance(held[name], own[name]) < 1e-5
