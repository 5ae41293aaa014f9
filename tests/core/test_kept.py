"""What attention keeps over a boundary of windows that are run whole: the last, or the heaviest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import asked_cases as asked
import core_cases as cases
import numpy as np
import pytest
import torch
from test_saved import Counting

import adaptive_sleep as asl
from adaptive_sleep.answering import Answers, Carried, go_on, unread
from adaptive_sleep.attention import KVCache
from adaptive_sleep.deltanet import DeltaNet
from adaptive_sleep.kernels import attend, attend_weighed
from adaptive_sleep.ledger import resident_bytes
from adaptive_sleep.streams.tasks.task import TaskBatch

TASK = asked.TASKS["hops"]  # windows of 9, questions of 8
MODEL = asked.model_for(TASK)
TEXT, WRITER = asked.TEXTS["depo"], asked.model_for(asked.TEXTS["depo"])
KEPT: list[dict[str, Any]] = [
    {"eviction": "sliding"},
    {"eviction": "sliding", "keep": 14},
    {"eviction": "heaviest", "keep": 3},
    {"eviction": "heaviest", "keep": 14},
    {"eviction": "retrieve", "keep": 14},
]
TIGHT = [KEPT[1], KEPT[2], KEPT[4]]


@pytest.fixture(autouse=True)
def few_are_brought_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what is stored here must be chosen among."""
    monkeypatch.setattr("adaptive_sleep.eviction.BROUGHT", 4)


def ids(given: dict[str, Any]) -> str:
    return "-".join(map(str, given.values()))


def answered(
    model: asl.Model, batch: TaskBatch, passes: int, kept: dict[str, Any]
) -> tuple[list[Answers], Carried]:
    with torch.no_grad():
        return go_on(model, batch, passes, unread(model, len(batch), **kept))


def logprobs(found: list[Answers], row: int) -> np.ndarray:
    """Of the right answers to all questions of one sample."""
    logits = torch.cat([a.logits[a.rows == row] for a in found]).double().log_softmax(-1)
    targets = torch.cat([a.targets[a.rows == row] for a in found])
    return logits.gather(-1, targets[:, None])[:, 0].numpy()


@pytest.mark.parametrize("kept", KEPT, ids=ids)
@pytest.mark.parametrize("text", [False, True], ids=["alone", "text"])
def test_a_runtime_answers_as_a_batch_does(kept: dict[str, Any], text: bool) -> None:
    model, task = (WRITER, TEXT) if text else (MODEL, TASK)
    if text and kept.get("keep") == 14 and kept["eviction"] == "sliding":
        kept = kept | {"keep": 33}  # its windows are longer
    batch = asked.in_turn(*(asked.draw(task, 3, seed) for seed in range(3)))
    runtime = asl.Runtime(model, cases.fixed(2), **kept)
    table = cases.table(asked.run(runtime, [asked.stream(batch, row) for row in range(3)]))
    found, left = answered(model, batch, 2, kept)
    assert left.held is not None
    for row in range(3):
        mine = table["logprob"][table["stream"] == f"s{row}"]
        assert cases.distance(mine, logprobs(found, row)) < 1e-5
        state, count = cases.row(runtime, f"s{row}"), int(left.held.lengths[row])
        assert int(state["cached"]) == int(state["held"]) == count > 0
        for name, keys in left.held.keys.items():
            assert cases.distance(state[f"keys.{name}"][:count], keys[row, :count]) < 1e-5


def test_what_is_kept_is_seen_and_no_more() -> None:
    """With fast weights that tell nothing, questions know what attention holds, and only that."""
    model = asked.model_for(TASK, conv=0)
    with torch.no_grad():
        for block in model.blocks:
            if isinstance(block.mixer, DeltaNet):
                torch.nn.init.zeros_(block.mixer.out.weight)
    batch = asked.in_turn(*(asked.draw(TASK, 2, seed) for seed in range(2)))
    other = replace(batch, tokens=(batch.tokens[0].copy(), *batch.tokens[1:]))
    other.tokens[0][:, 0] = 1 + other.tokens[0][:, 0] % 5  # the oldest event of all

    def moved(kept: dict[str, Any]) -> float:
        one, two = (answered(model, b, 1, kept)[0][-1].logits for b in (batch, other))
        return float((one - two).abs().max())

    assert moved({"eviction": "hard"}) == 0.0
    # the last of 8 questions after two windows of 9 looks back 26 places for the oldest event
    assert moved({"eviction": "sliding", "keep": 30}) > 1e-4
    first, second = (
        answered(model, batch, 1, {"eviction": "sliding", "keep": keep})[0][0].logits
        for keep in (9, 30)
    )
    assert float((first - second).abs().max()) > 1e-4  # of 9, the later questions see fewer


@pytest.mark.parametrize("kept", KEPT, ids=ids)
def test_what_is_kept_goes_by_no_stream_beside_it(kept: dict[str, Any]) -> None:
    """Windows of other lengths in the same batch are padding, which attends to nothing."""
    config = cases.tiny(answers=3, layers=("attention", "deltanet", "attention"), conv=0)
    model, lengths = cases.build(config), {"x": 4, "y": 9}
    rows = []
    for streams in ("x", "xy"):
        runtime = asl.Runtime(model, cases.fixed(2), **kept)
        for seed in range(4):
            read = {stream: cases.events(config, lengths[stream], seed) for stream in streams}
            runtime.step([asl.Piece(stream, each, closes=True) for stream, each in read.items()])
        rows.append(cases.row(runtime, "x"))
    assert cases.furthest(*rows)[0] < 1e-5


def test_the_heaviest_of_all_are_all() -> None:
    batch = asked.in_turn(*(asked.draw(TASK, 2, seed) for seed in range(2)))
    found = [
        answered(MODEL, batch, 1, {"eviction": eviction, "keep": 60})[0][-1].logits
        for eviction in ("sliding", "heaviest")
    ]
    torch.testing.assert_close(*found)


def test_questions_that_stand_alone_leave_what_is_held() -> None:
    runtime = asl.Runtime(MODEL, cases.fixed(1), eviction="heaviest", keep=5)
    first, last = asked.stream(asked.draw(TASK, 1), 0)
    runtime.step([first])
    before = cases.row(runtime, "s0")
    runtime.step([last])
    after = cases.row(runtime, "s0")
    assert int(after["cached"]) == int(after["held"]) == 5
    for name in before:
        if name.startswith(("keys.", "values.", "now.")):
            assert torch.equal(before[name], after[name])


def test_weighed_attention_is_attention_and_counts_its_weights() -> None:
    q, k, v = (torch.randn(2, n, 3, 4, requires_grad=True) for n in (5, 7, 7))
    mask = torch.rand(2, 5, 7) < 0.6
    mask[..., 0] = True
    y, mass = attend_weighed(q, k, v, mask)
    torch.testing.assert_close(y, attend(q, k, v, mask))
    scores = torch.einsum("bthd,bshd->bhts", q.double(), k.double()) / 2
    slow = scores.masked_fill(~mask[:, None], -torch.inf).softmax(-1).sum(2)
    torch.testing.assert_close(mass.double(), slow.transpose(1, 2).detach(), rtol=1e-5, atol=1e-6)
    assert not mass.requires_grad


def test_each_head_keeps_what_it_looked_at_most_in_order() -> None:
    lengths, heads = torch.tensor([6, 2, 0, 4]), 3
    mass = torch.randn(4, 6, heads).exp()
    mass[0, :, 0] = 1.0  # of equals the older ones
    keys = torch.arange(4 * 6 * heads).float().view(4, 6, heads, 1).expand(-1, -1, -1, 2)
    kept = KVCache({"1": keys}, {"1": -keys}, lengths, {"1": mass}).heaviest(4)
    assert kept.lengths.tolist() == [4, 2, 0, 4]
    for row, count in enumerate(lengths.tolist()):
        for head in range(heads):
            order = sorted(range(count), key=lambda i: (-float(mass[row, i, head]), i))[:4]
            wanted = keys[row, sorted(order), head]
            assert torch.equal(kept.keys["1"][row, : len(order), head], wanted)
            assert torch.equal(kept.values["1"][row, : len(order), head], -wanted)


@pytest.mark.parametrize("kept", TIGHT, ids=ids)
def test_a_stream_gives_in_a_batch_what_it_gives_alone(kept: dict[str, Any]) -> None:
    batch = asked.in_turn(*(asked.draw(TASK, 3, seed) for seed in range(3)))
    policy = cases.ByName({f"s{i}": [1 + i, 1] for i in range(3)})
    asked.check_alone(MODEL, policy, batch, np.random.default_rng(0), **kept)


def amid(kept: dict[str, Any]) -> tuple[asl.Runtime, list[asl.Piece]]:
    """A runtime that holds much, and a step that reads, answers and holds."""
    runtime = asl.Runtime(MODEL, Counting(), **kept)
    batch = asked.in_turn(*(asked.draw(TASK, 2, seed) for seed in range(2)))
    one, two = (asked.stream(batch, row) for row in range(2))
    for step in ([one[0], two[0]], [one[1]], [asl.Piece("s0", one[2].events[:4])]):
        runtime.step(step)
    return runtime, [asl.Piece("s0", one[2].events[4:], True, "gap"), two[1]]


@pytest.mark.parametrize("kept", TIGHT, ids=ids)
def test_a_saved_runtime_goes_on_bit_for_bit(kept: dict[str, Any], tmp_path: Path) -> None:
    runtime, step = amid(kept)
    runtime.save(tmp_path)
    other = asl.Runtime.resume(tmp_path, MODEL, Counting())
    assert cases.everything(other) == cases.everything(runtime)
    assert other.step(step).rows == runtime.step(step).rows
    assert cases.everything(other) == cases.everything(runtime)


@pytest.mark.parametrize("kept", TIGHT, ids=ids)
def test_a_step_that_raises_leaves_what_is_held(
    kept: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime, step = amid(kept)
    before = cases.everything(runtime)
    with monkeypatch.context() as patch:
        patch.setattr("adaptive_sleep.runtime.StepResult", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            runtime.step(step)
    assert cases.everything(runtime) == before
    other, same = amid(kept)
    assert other.step(same).rows == runtime.step(step).rows


def test_the_kv_budget_makes_a_stream_forget() -> None:
    runtime = asl.Runtime(MODEL, cases.fixed(1), eviction="sliding", keep=18, kv_budget=22)
    batch = asked.in_turn(*(asked.draw(TASK, 2, seed) for seed in range(2)))
    one, two = (asked.stream(batch, row) for row in range(2))
    for piece in (one[0], one[2]):  # two windows that are read
        runtime.step([piece])
    assert int(cases.row(runtime, "s0")["cached"]) == 18
    result = runtime.step([two[0]])
    assert result.forced == ("s0",)
    assert [row.stream for row in result.rows] == ["s1"]  # no window of s0 was open
    state = cases.row(runtime, "s0")
    assert int(state["cached"]) == int(state["held"]) == 0
    assert int(runtime._arena.tensors["held"].sum()) == 9


def test_resident_bytes_count_what_is_held() -> None:
    runtime = asl.Runtime(MODEL, cases.fixed(1), eviction="heaviest", keep=6)
    first, _ = asked.stream(asked.draw(TASK, 1), 0)
    runtime.step([first])
    assert runtime.ledger.peak_resident_bytes == resident_bytes(MODEL.config, 1, 9)
    runtime.step([first])
    assert runtime.ledger.peak_resident_bytes == resident_bytes(MODEL.config, 1, 6 + 9)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"eviction": "heavyest", "keep": 3}, "did you mean 'heaviest'"),
        ({"eviction": "hard", "keep": 3}, "keep=3: eviction='hard' keeps nothing"),
        ({"eviction": "sliding", "keep": 8}, "keep=8: at least the 9 events"),
        ({"eviction": "heaviest"}, "keep=None: .* at least 1"),
        ({"eviction": "heaviest", "keep": 0}, "keep=0: .* at least 1"),
        ({"eviction": "retrieve"}, "keep=None: eviction='retrieve' .* at least 1"),
        ({"eviction": "retreive", "keep": 3}, "did you mean 'retrieve'"),
    ],
)
def test_what_cannot_be_kept_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(asl.InputError, match=message):
        asl.Runtime(MODEL, cases.fixed(1), **given)


@pytest.mark.parametrize(
    ("eviction", "reason"),
    [("heaviest", "a window must be read whole"), ("retrieve", "what is stored is searched by")],
)
def test_only_windows_that_are_run_whole_are_weighed_or_search(eviction: Any, reason: str) -> None:
    with pytest.raises(asl.InputError, match=f"eviction={eviction!r}: {reason}"):
        asl.Runtime(cases.build(cases.tiny()), cases.fixed(1), eviction=eviction, keep=3)
    learned = asked.model_for(TASK, positions="learned")
    with pytest.raises(asl.InputError, match=f"eviction={eviction!r}: positions='learned'"):
        asl.Runtime(learned, cases.fixed(1), eviction=eviction, keep=3)
