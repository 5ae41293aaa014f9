"""Held windows keep the runtime's promises: transactions, files, batches, the KV budget, FLOPs."""

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
from test_saved import Counting
from test_transaction import Interrupting, Learner, raising, traced

import adaptive_sleep as asl
from adaptive_sleep.answering import answer
from adaptive_sleep.ledger import costs, resident_bytes
from adaptive_sleep.trace import TRACE_SCHEMA, predictions_frame, trace_frame

TASK = asked.TASKS["hops"]
MODEL = asked.model_for(TASK)


def amid(policy: Any, **settings: Any) -> tuple[asl.Runtime, list[asl.Piece]]:
    """A runtime amid its work, and a step that holds, sleeps on and answers windows at once."""
    runtime = asl.Runtime(MODEL, policy, **settings)
    batch = asked.in_turn(asked.draw(TASK, 4, 0), asked.draw(TASK, 4, 1))
    own = [asked.windows(batch, row) for row in range(4)]
    runtime.step([asl.Piece("asks", own[0][0], True), asl.Piece("half", own[1][0][:5])])
    step = [
        asl.Piece("new", own[2][0], True),
        asl.Piece("asks", own[0][1], True),
        asl.Piece("half", own[1][0][5:], True),
        asl.Piece("young", own[3][0][:4]),
    ]
    return runtime, step


def finish(runtime: asl.Runtime, step: list[asl.Piece]) -> tuple[Any, ...]:
    rows = runtime.step(step).rows
    rows += runtime.step([asl.Piece("young", step[0].events[:0], True)]).rows
    return cases.everything(runtime), rows


@pytest.mark.parametrize("place", ["plan", "observe", "second kind", "sleep", "publishing"])
def test_a_step_that_raises_leaves_everything_as_it_was(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = finish(*amid(Learner()))
    runtime, step = amid(Learner())
    before = cases.everything(runtime)
    stop = raising(KeyboardInterrupt)
    with monkeypatch.context() as patch:
        if place in ("plan", "observe"):
            patch.setattr(runtime.policy, place, stop)
        elif place == "second kind":  # the questions have been answered by then
            patch.setattr("adaptive_sleep.whole._consolidate", stop)
        elif place == "sleep":
            patch.setattr("adaptive_sleep.sleep.sleep_pass", stop)
        else:
            patch.setattr("adaptive_sleep.runtime.StepResult", stop)
        with pytest.raises(KeyboardInterrupt):
            runtime.step(step)
    assert cases.everything(runtime) == before
    assert finish(runtime, step) == wanted


def test_an_interrupt_at_any_line() -> None:
    wanted = finish(*amid(Learner()))
    other, step = amid(Learner())
    counter = Interrupting(other, 200)
    with pytest.raises(KeyboardInterrupt):
        traced(counter, step)
    traced(counter, step)
    lines = -counter.left
    assert lines > 200
    runtime, step = amid(Learner())
    before = cases.everything(runtime)
    for line in [200, *np.random.default_rng(0).integers(1, lines + 1, 12).tolist(), lines]:
        with pytest.raises(KeyboardInterrupt):
            traced(Interrupting(runtime, line), step)
        assert cases.everything(runtime) == before, line
    assert finish(runtime, step) == wanted


@pytest.mark.parametrize("ask", [False, True])
def test_state_that_is_not_finite_is_named(ask: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    real = asl.Model.run

    def spoiled(self: asl.Model, *args: Any, seen: str = "causal", **kwargs: Any) -> Any:
        done = real(self, *args, seen=seen, **kwargs)
        if (seen == "diagonal") == ask:
            done.hidden[-1].view(-1)[0] = torch.nan
        return done

    runtime, step = amid(Learner())
    before, name = cases.everything(runtime), "asks" if ask else "half"
    with monkeypatch.context() as patch:
        patch.setattr(asl.Model, "run", spoiled)
        with pytest.raises(asl.AdaptiveSleepError, match=f"stream '{name}' is not finite"):
            runtime.step(step)
    assert cases.everything(runtime) == before


def test_a_saved_runtime_goes_on_bit_for_bit(tmp_path: Path) -> None:
    runtime, step = amid(Counting(), kv_budget=40, budget=3e5)
    before = cases.everything(runtime)
    runtime.save(tmp_path)
    other = asl.Runtime.resume(tmp_path, MODEL, Counting())
    assert cases.everything(other) == before
    assert int(cases.row(other, "half")["open"]) == 5
    assert finish(other, step) == finish(runtime, step)


@given(seed=st.integers(0, 10_000), count=st.integers(2, 5))
@settings(max_examples=8)
def test_a_stream_gives_in_a_batch_what_it_gives_alone(seed: int, count: int) -> None:
    """However its pieces are cut, and whatever the others do."""
    batch = asked.in_turn(*(asked.draw(TASK, count, seed + i) for i in range(3)))
    policy = cases.ByName({f"s{i}": [1 + i % 4, 1, 1 + (i + 2) % 3] for i in range(count)})
    random = np.random.default_rng(seed)
    runtime = asl.Runtime(MODEL, policy)
    pieces = [asked.stream(batch, row, random) for row in range(count)]
    results = asked.run(runtime, pieces, random)
    table, total = cases.table(results), dict.fromkeys(cases.FLOPS, 0)
    for row in range(count):
        name, alone = f"s{row}", asl.Runtime(MODEL, policy)
        own = asked.run(alone, [asked.stream(batch, row)])
        mine = {n: v[table["stream"] == name] for n, v in table.items()}
        distance, where = cases.furthest(mine, cases.table(own))
        assert distance < 1e-5, where
        state = cases.row(alone, name)
        for field, tensor in cases.row(runtime, name).items():
            assert cases.distance(tensor, state[field]) < 1e-5, field
        near = {"loss", "surprise", "uncertainty", "state_change", "last_state_change"}
        for one, other in zip(asked.rows(results, name), asked.rows(own), strict=True):
            for field in TRACE_SCHEMA:
                value = getattr(other, field)
                close = pytest.approx(value, rel=2e-5) if field in near and value else value
                assert getattr(one, field) == close, field
        for field in cases.FLOPS:
            total[field] += getattr(alone.ledger, field)
    assert {f: getattr(runtime.ledger, f) for f in cases.FLOPS} == total


@given(seed=st.integers(0, 10_000))
@settings(max_examples=8)
def test_how_pieces_are_cut_changes_nothing(seed: int) -> None:
    batch = asked.in_turn(asked.draw(TASK, 1, seed), asked.draw(TASK, 1, seed + 1))
    found = []
    for random in (None, np.random.default_rng(seed)):
        runtime = asl.Runtime(MODEL, cases.fixed(3))
        results = asked.run(runtime, [asked.stream(batch, 0, random)])
        table = {n: v.tolist() for n, v in cases.table(results).items()}
        found.append((asked.rows(results), cases.everything(runtime) | {"steps": 0}, table))
    assert found[0] == found[1]


def test_the_kv_budget_closes_a_held_window_and_runs_it() -> None:
    runtime = asl.Runtime(MODEL, cases.fixed(2), kv_budget=13)
    one, two = (asked.windows(asked.draw(TASK, 2), row)[0] for row in range(2))
    runtime.step([asl.Piece("a", one[:7])])
    assert int(runtime._arena.tensors["held"].sum()) == 7
    result = runtime.step([asl.Piece("b", two[:7]), asl.Piece("a", one[7:])])
    assert result.forced == ("a",)
    row = result.rows[0]
    assert (row.cause, row.tokens, row.passes) == ("pressure", 7, 2)
    assert row.cache_pressure == 7 / 13
    alone = asl.Runtime(MODEL, cases.fixed(2))
    same = alone.step([asl.Piece("a", one[:7], True)]).rows[0]
    assert replace(row, step=0, cause="", cache_pressure=0.0) == replace(same, step=0)
    assert int(cases.row(runtime, "a")["open"]) == 2
    assert int(runtime._arena.tensors["held"].sum()) == 9


def test_the_trace_adds_up_to_the_ledger() -> None:
    runtime, step = amid(Learner(), budget=3e5)
    first = cases.everything(runtime)["ledger"]
    rows = finish(runtime, step)[1]
    for phase in ("wake", "sleep", "signal", "policy"):
        spent = sum(getattr(r, f"{phase}_flops") for r in rows)
        name = "signals" if phase == "signal" else phase
        assert spent == getattr(runtime.ledger, name) - getattr(first, name)
    assert runtime.ledger.windows - first.windows == len(rows)
    config, price = MODEL.config, costs(MODEL.config)
    spent = {r.stream: r for r in rows}
    assert spent["asks"].wake_flops == price.questions(np.array(8), np.array(8))
    assert spent["asks"].signal_flops == 8 * price.spread
    assert spent["new"].wake_flops == price.whole(np.array(9), causal=False)
    # both windows of the step that sleep, with the keys and values of their passes
    assert runtime.ledger.peak_resident_bytes == resident_bytes(config, 4, 2 * 9)


def test_the_trace_and_the_predictions_are_tables() -> None:
    runtime = asl.Runtime(MODEL, cases.fixed(2))
    first, last = asked.stream(asked.draw(TASK, 1), 0)
    targets = last.events.targets.copy()
    targets[2] = -2
    events = asl.Events(last.events.time, tokens=last.events.tokens, targets=targets)
    results = [runtime.step([p], predictions=True) for p in (first, replace(last, events=events))]
    frame = trace_frame([r for result in results for r in result.rows])
    assert frame.schema == TRACE_SCHEMA
    assert frame["loss"].null_count() == 1
    table = predictions_frame(results[1].predictions[0], MODEL.config)
    assert table.columns == ["stream", "time", "target", "logprob", "answer", "entropy"]
    assert table["target"].to_list() == [None if t == -2 else t for t in targets.tolist()]
    assert table["logprob"].is_null().arg_true().to_list() == [2]
    assert table["time"].to_physical().to_list() == events.time.tolist()
    right = (table["target"] == table["answer"]).sum()
    assert frame["right"].to_list() == [0, right]
    ordinary = asl.Runtime(cases.build(cases.tiny()), cases.fixed(1))
    row = ordinary.step([asl.Piece("s", cases.events(cases.tiny(), 5), True)]).rows[0]
    assert row.right is None


def test_a_model_of_next_tokens_does_not_see_targets() -> None:
    model, found = cases.build(cases.tiny()), []
    whole = cases.events(model.config, 12)
    for targets in (None, np.full(12, 3)):
        runtime = asl.Runtime(model, cases.fixed(2))
        events = asl.Events(whole.time, tokens=whole.tokens, targets=targets)
        rows = runtime.step([asl.Piece("s", events, True)]).rows
        found.append((rows, cases.everything(runtime)))
    assert found[0] == found[1]


def test_what_such_a_model_cannot_do_is_refused() -> None:
    runtime, step = amid(Learner())
    with pytest.raises(asl.InputError, match=r"answers=8: .*no next event to forecast"):
        runtime.predict("asks", horizon=1)
    before = cases.everything(runtime)
    for wrong in (8, -3):
        events = asl.Events(np.arange(1), tokens=np.zeros(1, int), targets=np.array([wrong]))
        with pytest.raises(asl.InputError, match=f"target {wrong} of stream 'bad': 0 to 7"):
            runtime.step([*step, asl.Piece("bad", events)])
    with pytest.raises(asl.InputError, match="holds at most 9"):
        runtime.step([asl.Piece("half", step[0].events)])
    with pytest.raises(asl.InputError, match="targets: 2 rows, but time has 1"):
        asl.Events(np.arange(1), tokens=np.zeros(1, int), targets=np.zeros(2, int))
    assert cases.everything(runtime) == before


def test_answers_do_not_depend_on_what_is_asked_beside_them() -> None:
    """Pieces of a window of questions, each as a window of its own, get the same answers."""
    first, last = asked.stream(asked.draw(TASK, 1), 0)
    whole, parts = (asl.Runtime(MODEL, cases.fixed(2)) for _ in range(2))
    for runtime in (whole, parts):
        runtime.step([first])
    one = cases.table([whole.step([last], predictions=True)])
    results = [
        parts.step([asl.Piece("s0", last.events[i : i + 3], True)], predictions=True)
        for i in (0, 3, 6)
    ]
    distance, where = cases.furthest(cases.table(results), one)
    assert distance < 1e-5, where
    with torch.no_grad():
        logits = answer(MODEL, asked.draw(TASK, 1), 2)[0].logits
    np.testing.assert_array_equal(logits.argmax(-1).numpy(), one["answer"])
