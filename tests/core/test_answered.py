"""A runtime over the windows of a task gives the answers of the model that was trained on it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import asked_cases as asked
import core_cases as cases
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import adaptive_sleep as asl
from adaptive_sleep.answering import answer
from adaptive_sleep.streams.tasks.task import TaskBatch

MODELS = {name: asked.model_for(task) for name, task in asked.TASKS.items()}


def expected(model: asl.Model, batch: TaskBatch, passes: int) -> dict[str, np.ndarray]:
    """What `answer` says, by sample: `logprob`, `answer` and `asked` `[samples, questions]`."""
    with torch.no_grad():
        found = answer(model, batch, passes)
    logits = torch.cat([a.logits.view(len(batch), -1, a.logits.shape[-1]) for a in found], 1)
    targets = torch.cat([a.targets.view(len(batch), -1) for a in found], 1)
    log_p = logits.double().log_softmax(-1)
    return {
        "logprob": log_p.gather(-1, targets[..., None])[..., 0].numpy(),
        "answer": log_p.argmax(-1).numpy(),
        "asked": targets.numpy(),
    }


def check(
    results: list[asl.StepResult], row: int, wanted: dict[str, np.ndarray], windows: int
) -> None:
    """The answers of one stream are those of one sample, and its trace says the same."""
    table = cases.table(results)
    mine = {n: v[table["stream"] == f"s{row}"] for n, v in table.items()}
    np.testing.assert_allclose(mine["logprob"], wanted["logprob"][row], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(mine["answer"], wanted["answer"][row])
    np.testing.assert_array_equal(mine["asked"], wanted["asked"][row])
    trace = [r for r in asked.rows(results, f"s{row}") if r.scored]
    right = (wanted["answer"] == wanted["asked"])[row].reshape(windows, -1)
    assert [r.right for r in trace] == right.sum(1).tolist()
    assert [r.scored for r in trace] == [right.shape[1]] * windows
    loss = -wanted["logprob"][row].reshape(windows, -1).mean(1)
    np.testing.assert_allclose([r.loss for r in trace], loss, atol=1e-6)
    entropy = mine["entropy"].reshape(windows, -1).mean(1)
    np.testing.assert_allclose([r.uncertainty for r in trace], entropy)


@pytest.mark.parametrize("passes", [1, 2, 4])
@pytest.mark.parametrize("name", asked.TASKS)
@given(seed=st.integers(0, 10_000), streams=st.integers(1, 5), cut=st.booleans())
@settings(max_examples=5)
def test_the_answers_are_those_of_a_batch(
    name: str, passes: int, seed: int, streams: int, cut: bool
) -> None:
    task, model = asked.TASKS[name], MODELS[name]
    # two samples after one another: the second starts from what is left of the first
    batch = asked.in_turn(*(asked.draw(task, streams, seed + i) for i in range(2)))
    random = np.random.default_rng(seed) if cut else None
    runtime = asl.Runtime(model, f"fixed(passes={passes})")
    pieces = [asked.stream(batch, row, random) for row in range(streams)]
    results = asked.run(runtime, pieces, random)
    wanted = expected(model, batch, passes)
    for row in range(streams):
        check(results, row, wanted, windows=2)


@pytest.mark.parametrize(
    "changes",
    [
        {"sleep_attention": "causal", "carry": "accumulate"},
        {"positions": "learned", "injection": "residual"},
        {"positions": "relative", "conv": 0},
    ],
    ids=lambda c: "-".join(map(str, c.values())),
)
def test_whatever_the_model(changes: dict[str, Any]) -> None:
    task = asked.TASKS["hops"]
    model, batch = asked.model_for(task, 3, **changes), asked.draw(task, 3)
    results = asked.run(
        asl.Runtime(model, cases.fixed(3)), [asked.stream(batch, r) for r in (0, 1, 2)]
    )
    for row in range(3):
        check(results, row, expected(model, batch, 3), windows=1)


def test_each_stream_gets_the_answers_of_its_own_passes() -> None:
    task, model = asked.TASKS["chain"], MODELS["chain"]
    batch = asked.draw(task, 4)
    policy = cases.ByName({"s0": 1, "s1": 3, "s2": 2, "s3": 3})
    results = asked.run(asl.Runtime(model, policy), [asked.stream(batch, r) for r in range(4)])
    for row, passes in enumerate((1, 3, 2, 3)):
        check(results, row, expected(model, batch, passes), windows=1)
    assert [r.passes for r in asked.rows(results, "s1")] == [3, 3, 1]


class Learner:
    """Keeps all it is shown and told, in order."""

    def __init__(self, passes: int = 2) -> None:
        self.passes = passes
        self.calls: list[Any] = []

    def plan(self, signals: asl.WindowSignals) -> int:
        self.calls.append(signals)
        return self.passes

    def observe(self, outcome: asl.WindowOutcome) -> None:
        self.calls.append(outcome)

    def state_dict(self) -> dict[str, Any]:
        return {"calls": len(self.calls)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        del self.calls[state["calls"] :]


def test_a_policy_plans_for_consolidation_and_hears_of_questions() -> None:
    """Two streams, one a window ahead: their kinds of window close in one step."""
    task, model = asked.TASKS["hops"], MODELS["hops"]
    batch = asked.in_turn(asked.draw(task, 2, 0), asked.draw(task, 2, 1))
    policy = Learner()
    runtime = asl.Runtime(model, policy)
    first, second = (asked.stream(batch, row) for row in (0, 1))
    results = [
        runtime.step(pieces)
        for pieces in ([first[0]], [first[1], second[0]], [second[1]], [first[2], second[2]])
    ]
    kinds = [type(call).__name__ for call in policy.calls]
    assert kinds == [
        "WindowSignals",
        "WindowOutcome",  # of s0 at its questions, before s1 is planned for
        "WindowSignals",
        "WindowOutcome",  # of s1: only questions close, and nobody plans
        "WindowSignals",
    ]
    plans = [c for c in policy.calls if isinstance(c, asl.WindowSignals)]
    assert [p.stream.tolist() for p in plans] == [["s0"], ["s1"], ["s0", "s1"]]
    for signals in plans:
        for field in ("scored", "surprise", "uncertainty"):
            assert not getattr(signals, field).any()
        assert (signals.state_change > 0).all()
    told = [c for c in policy.calls if isinstance(c, asl.WindowOutcome)]
    for outcome, name, row in zip(
        told, ("s0", "s1"), (results[1].rows[0], results[2].rows[0]), strict=True
    ):
        assert outcome.stream.tolist() == [name]
        assert (outcome.window.tolist(), outcome.passes.tolist()) == ([0], [2])
        assert (outcome.lag.tolist(), outcome.scored.tolist()) == ([1], [8])
        assert outcome.loss.tolist() == [row.loss]
    assert [r.stream for r in results[1].rows] == ["s0", "s1"]
    assert runtime._pending == {"s0": ((2, 2),), "s1": ((2, 2),)}


def test_several_consolidation_windows_wait_for_their_questions() -> None:
    policy = Learner()
    runtime = asl.Runtime(MODELS["chain"], policy)
    batch = asked.draw(asked.TASKS["chain"], 1)
    asked.run(runtime, [asked.stream(batch, 0)])
    outcome = policy.calls[-1]
    assert (outcome.window.tolist(), outcome.lag.tolist()) == ([0, 1], [2, 1])


def test_a_window_of_questions_costs_no_sleep_and_changes_nothing() -> None:
    runtime = asl.Runtime(MODELS["hops"], cases.fixed(3), budget=1e5)
    first, last = asked.stream(asked.draw(asked.TASKS["hops"], 1), 0)
    runtime.step([first])
    before = cases.row(runtime, "s0")
    row = runtime.step([last]).rows[0]
    after = cases.row(runtime, "s0")
    for name in before:
        if name.startswith("now."):
            assert torch.equal(before[name], after[name])
    assert (row.planned, row.passes, row.clipped_by, row.sleep_flops) == (1, 1, "", 0)
    assert row.state_change == row.last_state_change == 0.0
    assert float(after["balance"]) == float(before["balance"]) + 1e5 * 8


def blinded(events: asl.Events, targets: np.ndarray) -> asl.Events:
    return asl.Events(events.time, tokens=events.tokens, targets=targets)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=8)
def test_targets_change_only_how_an_answer_is_scored(seed: int) -> None:
    task, model = asked.TASKS["hops"], MODELS["hops"]
    batch = asked.in_turn(asked.draw(task, 2, seed), asked.draw(task, 2, seed + 1))
    random = np.random.default_rng(seed)
    policies, runtimes, found = [], [], []
    for change in (False, True):
        pieces = [asked.stream(batch, row) for row in range(2)]
        if change:
            for own in pieces:
                for i in (1, 3):
                    other = random.integers(0, 8, len(own[i].events))
                    own[i] = replace(own[i], events=blinded(own[i].events, other))
        policies.append(cases.Watching(lambda s: 1 + s.window % 3))
        runtimes.append(asl.Runtime(model, policies[-1]))
        found.append(asked.rows(asked.run(runtimes[-1], pieces)))
    scored = {"loss": None, "surprise": 0.0, "right": None}
    assert [replace(r, **scored) for r in found[0]] == [replace(r, **scored) for r in found[1]]
    assert found[0] != found[1]
    assert [s.summary.tolist() for s in policies[0].signals] == [
        s.summary.tolist() for s in policies[1].signals
    ]
    one, other = (cases.everything(r)["tensors"] for r in runtimes)
    one.pop("waiting.targets"), other.pop("waiting.targets")
    assert one == other


def test_a_question_whose_answer_is_not_known_is_answered_but_not_scored() -> None:
    task, model = asked.TASKS["hops"], MODELS["hops"]
    batch, policy = asked.draw(task, 1), Learner()
    first, last = asked.stream(batch, 0)
    known = asl.Runtime(model, cases.fixed(2))
    full = cases.table(
        [known.step([first], predictions=True), known.step([last], predictions=True)][1:]
    )
    targets = last.events.targets.copy()
    targets[[1, 4]] = -2
    runtime = asl.Runtime(model, policy)
    runtime.step([first])
    result = runtime.step([replace(last, events=blinded(last.events, targets))], predictions=True)
    row, table = result.rows[0], cases.table([result])
    assert row.scored == 6
    assert np.flatnonzero(np.isnan(table["logprob"])).tolist() == [1, 4]
    np.testing.assert_array_equal(table["answer"], full["answer"])
    np.testing.assert_array_equal(table["entropy"], full["entropy"])
    assert row.loss == pytest.approx(-np.nanmean(table["logprob"]))
    assert row.uncertainty == pytest.approx(full["entropy"].mean())
    assert row.right == (table["answer"] == targets).sum()


def test_nothing_is_known_of_a_live_question() -> None:
    """All -2: there is an answer, no loss, and what was slept on waits on."""
    policy = Learner()
    runtime = asl.Runtime(MODELS["hops"], policy)
    first, last = asked.stream(asked.draw(asked.TASKS["hops"], 1), 0)
    runtime.step([first])
    events = blinded(last.events, np.full(len(last.events), -2))
    result = runtime.step([replace(last, events=events)], predictions=True)
    assert (result.rows[0].scored, result.rows[0].loss, result.rows[0].right) == (0, None, 0)
    assert len(result.predictions[0].answer) == 8
    assert runtime._pending == {"s0": ((0, 2),)}


def test_events_without_targets_ask_nothing() -> None:
    runtime = asl.Runtime(MODELS["hops"], cases.fixed(2))
    first, last = asked.stream(asked.draw(asked.TASKS["hops"], 1), 0)
    silent = asl.Events(last.events.time, tokens=last.events.tokens)
    runtime.step([first])
    row = runtime.step([replace(last, events=silent)]).rows[0]
    assert (row.scored, row.passes, row.right) == (0, 2, 0)
