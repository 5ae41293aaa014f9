"""Questions in a text are read once, causally, and what they write is kept: as in a batch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import asked_cases as asked
import core_cases as cases
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_answered import Learner, blinded
from test_saved import Counting

import adaptive_sleep as asl
from adaptive_sleep.answering import answer, go_on, unread
from adaptive_sleep.ledger import costs, resident_bytes
from adaptive_sleep.memory import FastWeights
from adaptive_sleep.streams.tasks.task import TaskBatch
from adaptive_sleep.trace import PLANNED, trace_frame

MODELS = {name: asked.model_for(task) for name, task in asked.TEXTS.items()}
TASK, MODEL = asked.TEXTS["depo"], MODELS["depo"]


def two_samples(name: str, streams: int, seed: int) -> TaskBatch:
    """Two samples after one another in each stream: the second reads what the first has left."""
    task = asked.TEXTS[name]
    return asked.in_turn(*(asked.draw(task, streams, seed + i) for i in range(2)))


def expected(model: asl.Model, batch: TaskBatch, passes: int, row: int) -> dict[str, np.ndarray]:
    """What `answer` says of one sample: `logprob`, `answer` and `asked` `[questions]`."""
    with torch.no_grad():
        found = answer(model, batch, passes)
    logits = torch.cat([a.logits[a.rows == row] for a in found]).double().log_softmax(-1)
    targets = torch.cat([a.targets[a.rows == row] for a in found])
    return {
        "logprob": logits.gather(-1, targets[:, None])[:, 0].numpy(),
        "answer": logits.argmax(-1).numpy(),
        "asked": targets.numpy(),
    }


def left_in(runtime: asl.Runtime, stream: str) -> FastWeights:
    """The fast weights of a stream."""
    row = {n: t[None] for n, t in cases.row(runtime, stream).items()}
    matrices = {n[11:]: t for n, t in row.items() if n.startswith("now.matrix.")}
    return FastWeights(matrices, {n[9:]: t for n, t in row.items() if n.startswith("now.tail.")})


@pytest.mark.parametrize("passes", [1, 3])
@pytest.mark.parametrize("name", asked.TEXTS)
@given(seed=st.integers(0, 10_000), streams=st.integers(1, 4), cut=st.booleans())
@settings(max_examples=5)
def test_answers_and_what_is_left_are_those_of_a_batch(
    name: str, passes: int, seed: int, streams: int, cut: bool
) -> None:
    model, batch = MODELS[name], two_samples(name, streams, seed)
    random = np.random.default_rng(seed) if cut else None
    runtime = asl.Runtime(model, f"fixed(passes={passes})")
    pieces = [asked.stream(batch, row, random) for row in range(streams)]
    results = asked.run(runtime, pieces, random)
    table = cases.table(results)
    with torch.no_grad():
        _, after = go_on(model, batch, passes, unread(model, streams))
    for row in range(streams):
        wanted = expected(model, batch, passes, row)
        mine = {n: v[table["stream"] == f"s{row}"] for n, v in table.items()}
        assert cases.distance(mine["logprob"], wanted["logprob"]) < 1e-6
        np.testing.assert_array_equal(mine["answer"], wanted["answer"])
        np.testing.assert_array_equal(mine["asked"], wanted["asked"])
        trace = [r for r in asked.rows(results, f"s{row}") if r.asked]
        assert sum(r.right or 0 for r in trace) == (mine["answer"] == mine["asked"]).sum()
        assert [r.asked for r in trace] == [r.scored for r in trace]
        kept = after.weights.select(torch.tensor([row]))
        for (label, one), (_, other) in zip(left_in(runtime, f"s{row}"), kept, strict=True):
            assert cases.distance(one, other) < 5e-6, label


@pytest.mark.parametrize("changes", [{"positions": "relative"}, {"positions": "learned"}], ids=str)
def test_whatever_the_positions(changes: dict[str, Any]) -> None:
    model, batch = asked.model_for(TASK, 3, **changes), asked.draw(TASK, 3)
    runtime = asl.Runtime(model, cases.fixed(2))
    table = cases.table(asked.run(runtime, [asked.stream(batch, row) for row in range(3)]))
    for row in range(3):
        mine = table["logprob"][table["stream"] == f"s{row}"]
        wanted = expected(model, batch, 2, row)["logprob"]
        assert cases.distance(mine, wanted) < 1e-6


def test_a_policy_is_not_asked_and_hears_of_it() -> None:
    policy = Learner()
    batch = asked.draw(TASK, 1)
    results = asked.run(asl.Runtime(MODEL, policy), [asked.stream(batch, 0)])
    kinds = [type(call).__name__ for call in policy.calls]
    assert kinds == ["WindowSignals", "WindowSignals", "WindowOutcome"]
    row = asked.rows(results)[-1]
    assert policy.calls[-1].loss.tolist() == [row.loss] * 2
    assert (row.planned, row.passes, row.clipped_by, row.sleep_flops) == (1, 1, "", 0)


def test_what_a_text_costs_and_changes() -> None:
    runtime = asl.Runtime(MODEL, cases.fixed(1))
    batch, price = asked.draw(TASK, 1), costs(MODEL.config)
    *first, last = asked.stream(batch, 0)
    for piece in first:
        runtime.step([piece])
    before = left_in(runtime, "s0")
    row = runtime.step([last]).rows[0]
    count, number = len(last.events), int((last.events.targets != -1).sum())
    spent = price.text(np.array(count), np.array(number))
    assert (
        row.wake_flops == spent == price.whole(np.array(count), causal=True) + number * price.head
    )
    assert row.signal_flops == price.change + number * price.spread
    change = float(left_in(runtime, "s0").change_since(before)[0])
    assert row.state_change == row.last_state_change == pytest.approx(change)
    assert change > 0.01
    longest = max(len(p.events) for p in (*first, last))
    assert runtime.ledger.peak_resident_bytes == resident_bytes(MODEL.config, 1, longest)


@given(seed=st.integers(0, 10_000), count=st.integers(2, 4))
@settings(max_examples=6)
def test_a_stream_gives_in_a_batch_what_it_gives_alone(seed: int, count: int) -> None:
    """However its pieces are cut, and whatever the others do; FLOPs add up."""
    batch, random = two_samples("gsm_symbolic", count, seed), np.random.default_rng(seed)
    model = MODELS["gsm_symbolic"]
    policy = cases.ByName({f"s{i}": [1 + i % 3, 2] for i in range(count)})
    asked.check_alone(model, policy, batch, random)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=6)
def test_how_pieces_are_cut_changes_nothing(seed: int) -> None:
    batch, found = two_samples("depo", 1, seed), []
    for random in (None, np.random.default_rng(seed)):
        runtime = asl.Runtime(MODEL, cases.fixed(3))
        results = asked.run(runtime, [asked.stream(batch, 0, random)])
        found.append((asked.rows(results), cases.everything(runtime) | {"steps": 0}))
    assert found[0] == found[1]


def amid(policy: Any) -> tuple[asl.Runtime, list[asl.Piece]]:
    """A runtime in the middle of a text that asks, and the step that ends it beside a first one."""
    batch = asked.draw(TASK, 2)
    first, second = (asked.stream(batch, row) for row in range(2))
    runtime = asl.Runtime(MODEL, policy)
    for piece in first[:-1]:
        runtime.step([piece])
    half = len(first[-1].events) // 2
    runtime.step([asl.Piece("s0", first[-1].events[:half])])
    return runtime, [asl.Piece("s0", first[-1].events[half:], True, "gap"), second[0]]


def test_a_saved_runtime_goes_on_bit_for_bit(tmp_path: Path) -> None:
    runtime, step = amid(Counting())
    runtime.save(tmp_path)
    other = asl.Runtime.resume(tmp_path, MODEL, Counting())
    assert other.step(step).rows == runtime.step(step).rows
    assert cases.everything(other) == cases.everything(runtime)


def test_a_step_that_raises_leaves_everything_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """The text has been read and answered by the time the policy plans for the other window."""
    runtime, step = amid(Learner())
    before = cases.everything(runtime)
    with monkeypatch.context() as patch:
        patch.setattr(runtime.policy, "plan", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            runtime.step(step)
    assert cases.everything(runtime) == before
    other, same = amid(Learner())
    assert other.step(same).rows == runtime.step(step).rows
    assert cases.everything(other) == cases.everything(runtime)


def test_what_comes_later_in_a_text_changes_no_answer() -> None:
    batch, found = asked.draw(TASK, 1), []
    *first, last = asked.stream(batch, 0)
    places = np.flatnonzero(last.events.targets != -1)
    for change in (False, True):
        runtime = asl.Runtime(MODEL, cases.fixed(2))
        for piece in first:
            runtime.step([piece])
        tokens = last.events.tokens.copy()
        if change:
            tokens[places[0] + 1 :] = 1 + tokens[places[0] + 1 :] % 5
        events = replace(last.events, tokens=tokens)
        table = cases.table([runtime.step([replace(last, events=events)], predictions=True)])
        found.append(table["logprob"])
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-6)
    assert np.abs(found[0][1:] - found[1][1:]).max() > 1e-3


@pytest.mark.parametrize("unknown", ["some", "all"])
def test_targets_change_only_how_an_answer_is_scored(unknown: str) -> None:
    """A text of which nothing is known is told from one that was slept on by what was asked."""
    batch, runtimes, tables, frames = asked.draw(TASK, 1), [], [], []
    *first, last = asked.stream(batch, 0)
    places = np.flatnonzero(last.events.targets != -1)
    for hidden in ([], places[::2] if unknown == "some" else places):
        targets = last.events.targets.copy()
        targets[hidden] = -2
        runtimes.append(asl.Runtime(MODEL, cases.fixed(2)))
        rest = [replace(last, events=blinded(last.events, targets))]
        results = [runtimes[-1].step([p], predictions=True) for p in (*first, *rest)]
        tables.append(cases.table(results))
        frames.append(trace_frame(asked.rows(results)))
    np.testing.assert_array_equal(tables[0]["answer"], tables[1]["answer"])
    one, other = (left_in(runtime, "s0") for runtime in runtimes)
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(one, other, strict=True))
    assert frames[1]["asked"].to_list() == [0, 0, len(places)]
    assert frames[1]["scored"][-1] == (0 if unknown == "all" else len(places) // 2)
    assert frames[1].filter(PLANNED)["window"].to_list() == [0, 1]
