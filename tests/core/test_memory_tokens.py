"""Memory tokens: read before a window, written behind it, carried to the next and saved."""

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
from torch import Tensor

import adaptive_sleep as asl
from adaptive_sleep.answering import go_on, unread
from adaptive_sleep.deltanet import DeltaNet
from adaptive_sleep.kernels import rms_norm
from adaptive_sleep.ledger import costs, resident_bytes
from adaptive_sleep.memory import FastWeights

TASK = asked.TASKS["hops"]  # windows of 9, questions of 8
MODEL = asked.model_for(TASK, memory_tokens=3)
TEXT, WRITER = asked.TEXTS["depo"], asked.model_for(asked.TEXTS["depo"], memory_tokens=3)


def bare(model: asl.Model) -> asl.Model:
    """The same blocks in a model without memory tokens."""
    other = asl.Model(replace(model.config, memory_tokens=0)).eval()
    own = {n: t for n, t in model.state_dict().items() if not n.startswith("memory.")}
    other.load_state_dict(own)
    return other


def started(model: asl.Model, streams: int) -> FastWeights:
    """Streams that carry something."""
    torch.manual_seed(1)
    weights = model.fresh(streams)
    assert weights.carried is not None
    return replace(weights, carried=torch.randn_like(weights.carried))


@pytest.mark.parametrize("positions", ["rotary", "relative", "learned", "none"])
@pytest.mark.parametrize("seen", ["causal", "bidirectional"])
def test_a_window_stands_between_what_is_read_and_what_is_written(
    positions: str, seen: Any
) -> None:
    """Of windows of other lengths beside it, each as it would be alone."""
    model = asked.model_for(TASK, memory_tokens=3, positions=positions)
    memory, start = model.memory, started(model, 3)
    assert memory is not None
    assert start.carried is not None
    words, lengths = torch.randn(3, 9, 16), torch.tensor([9, 4, 1])
    with torch.no_grad():
        done = model.run(words, lengths, start, seen=seen)
        assert done.weights.carried is not None
        assert done.hidden.shape == words.shape
        for row, size in enumerate(lengths.tolist()):
            carried = start.carried[row]
            ends = carried + memory.read, words[row, :size], carried + memory.write
            whole, own = torch.cat(ends)[None], start.select(torch.tensor([row]))
            wanted = bare(model).run(whole, torch.tensor([size + 6]), own, seen=seen)
            hidden = wanted.hidden[0]
            torch.testing.assert_close(done.hidden[row, :size], hidden[3 : 3 + size])
            left = rms_norm(hidden[3 + size :], memory.gain)
            torch.testing.assert_close(done.weights.carried[row], left)
            for name, matrix in wanted.weights.matrices.items():
                torch.testing.assert_close(done.weights.matrices[name][row], matrix[0])
            assert torch.equal(done.new.lengths, lengths)
            assert done.new.keys["1"].shape[1] == 9


def test_an_empty_window_leaves_what_is_carried() -> None:
    start = started(MODEL, 2)
    assert start.carried is not None
    with torch.no_grad():
        done = MODEL.run(torch.randn(2, 5, 16), torch.tensor([0, 5]), start)
    assert done.weights.carried is not None
    assert torch.equal(done.weights.carried[0], start.carried[0])
    assert not torch.allclose(done.weights.carried[1], start.carried[1])
    for name, matrix in done.weights.matrices.items():
        assert torch.equal(matrix[0], start.matrices[name][0])


def test_questions_read_what_is_carried_write_nothing_and_see_no_other() -> None:
    start, words = started(MODEL, 2), torch.randn(2, 5, 16)
    lengths = torch.tensor([5, 5])
    other = torch.cat([words[:, :4], torch.randn(2, 1, 16)], 1)
    with torch.no_grad():
        one, two = (MODEL.run(x, lengths, start, seen="diagonal") for x in (words, other))
        moved = MODEL.run(words, lengths, started(MODEL, 2).detach(), seen="diagonal")
        blank = MODEL.run(words, lengths, MODEL.fresh(2), seen="diagonal")
    torch.testing.assert_close(one.hidden[:, :4], two.hidden[:, :4])
    assert not torch.allclose(one.hidden[:, 4], two.hidden[:, 4])
    assert torch.equal(one.hidden, moved.hidden)
    assert not torch.allclose(one.hidden, blank.hidden, atol=1e-3)
    for (_, a), (_, b) in zip(one.weights, start, strict=True):
        assert torch.equal(a, b)


def test_tokens_tell_what_nothing_else_does() -> None:
    """With fast weights that tell nothing, what was read reaches the questions all the same, also
    over a window that is read between them."""
    model = asked.model_for(TASK, memory_tokens=3, conv=0)
    batch = asked.in_turn(*(asked.draw(TASK, 2, seed) for seed in range(2)))
    other = replace(batch, tokens=(batch.tokens[0].copy(), *batch.tokens[1:]))
    other.tokens[0][:] = asked.draw(TASK, 2, 9).tokens[0]
    with torch.no_grad():
        for block in model.blocks:
            if isinstance(block.mixer, DeltaNet):
                torch.nn.init.zeros_(block.mixer.out.weight)
        one, two = (go_on(model, b, 1, unread(model, 2))[0] for b in (batch, other))
    for early, late in zip(one, two, strict=True):
        assert float((early.logits - late.logits).abs().max()) > 1e-3


@pytest.mark.parametrize("text", [False, True], ids=["alone", "text"])
@pytest.mark.parametrize("passes", [1, 2])
def test_a_runtime_carries_as_a_batch_does(text: bool, passes: int) -> None:
    model, task = (WRITER, TEXT) if text else (MODEL, TASK)
    batch = asked.in_turn(*(asked.draw(task, 3, seed) for seed in range(3)))
    runtime = asl.Runtime(model, cases.fixed(passes))
    table = cases.table(asked.run(runtime, [asked.stream(batch, row) for row in range(3)]))
    with torch.no_grad():
        found, left = go_on(model, batch, passes, unread(model, 3))
    assert left.weights.carried is not None
    for row in range(3):
        logits = torch.cat([a.logits[a.rows == row] for a in found]).double().log_softmax(-1)
        targets = torch.cat([a.targets[a.rows == row] for a in found])
        wanted = logits.gather(-1, targets[:, None])[:, 0].numpy()
        mine = table["logprob"][table["stream"] == f"s{row}"]
        assert cases.distance(mine, wanted) < 1e-5
        state = cases.row(runtime, f"s{row}")
        assert cases.distance(state["now.carried"], left.weights.carried[row]) < 1e-5


def test_a_stream_gives_in_a_batch_what_it_gives_alone() -> None:
    batch = asked.in_turn(*(asked.draw(TASK, 3, seed) for seed in range(3)))
    policy = cases.ByName({f"s{i}": [1 + i, 1] for i in range(3)})
    asked.check_alone(MODEL, policy, batch, np.random.default_rng(0))


def amid() -> tuple[asl.Runtime, list[asl.Piece]]:
    """A runtime that carries something, and a step that reads and answers."""
    runtime = asl.Runtime(MODEL, Counting())
    batch = asked.in_turn(*(asked.draw(TASK, 2, seed) for seed in range(2)))
    one, two = (asked.stream(batch, row) for row in range(2))
    for step in ([one[0], two[0]], [one[1]], [asl.Piece("s0", one[2].events[:4])]):
        runtime.step(step)
    return runtime, [asl.Piece("s0", one[2].events[4:], True, "gap"), two[1]]


def test_a_saved_runtime_goes_on_bit_for_bit(tmp_path: Path) -> None:
    runtime, step = amid()
    assert bool(cases.row(runtime, "s0")["now.carried"].any())
    runtime.save(tmp_path)
    other = asl.Runtime.resume(tmp_path, MODEL, Counting())
    assert cases.everything(other) == cases.everything(runtime)
    assert other.step(step).rows == runtime.step(step).rows
    assert cases.everything(other) == cases.everything(runtime)


def test_a_step_that_raises_leaves_what_is_carried(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime, step = amid()
    before = cases.everything(runtime)
    with monkeypatch.context() as patch:
        patch.setattr("adaptive_sleep.runtime.StepResult", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            runtime.step(step)
    assert cases.everything(runtime) == before
    other, same = amid()
    assert other.step(same).rows == runtime.step(step).rows
    assert cases.everything(runtime) != before


def test_streams_that_go_on_carry_on_and_the_gradient_stays_in_a_batch() -> None:
    batch = asked.draw(TASK, 3)
    _, left = go_on(MODEL, batch, 1, unread(MODEL, 3))
    assert left.weights.carried is not None
    assert left.weights.carried.requires_grad
    mixed = left.detach().alone(torch.tensor([2]), MODEL.fresh(3)).weights.carried
    assert mixed is not None
    assert not mixed.requires_grad
    assert torch.equal(mixed[2], left.weights.carried[2])
    assert not bool(mixed[:2].any())


def test_the_gradient_reaches_both_ends_through_a_window() -> None:
    model = asked.model_for(TASK, memory_tokens=3)
    batch = asked.in_turn(*(asked.draw(TASK, 4, seed) for seed in range(2)))
    found, _ = go_on(model, batch, 1, unread(model, 4))
    found[-1].loss().backward()  # type: ignore[no-untyped-call]
    memory = model.memory
    assert memory is not None
    for parameter in memory.parameters():
        grad: Tensor | None = parameter.grad
        assert grad is not None
        assert float(grad.abs().min()) > 0


def test_nothing_is_paid_beside_an_empty_window() -> None:
    price = costs(cases.tiny(answers=7, memory_tokens=5))
    none = np.array(0)
    assert price.whole(none, causal=True) == price.questions(none, none) == 0
    assert price.text(none, none) == price.sleep_pass(none, causal=True) == 0


def test_resident_bytes_count_what_is_carried() -> None:
    less, more = (asked.model_for(TASK, memory_tokens=m).config for m in (0, 3))
    assert resident_bytes(more, 2, 7) - resident_bytes(less, 2, 7) == 4 * 2 * 3 * 16


def test_a_model_without_them_keeps_its_hash() -> None:
    without = asked.model_for(TASK)
    assert "memory_tokens" not in without.config.identity()
    assert "carried" not in dict(without.fresh(1))
    assert without.hash != MODEL.hash


def test_where_they_cannot_be_is_refused() -> None:
    with pytest.raises(asl.InputError, match=r"memory_tokens=-1: 0 .none. or more"):
        asked.model_for(TASK, memory_tokens=-1)
    with pytest.raises(asl.InputError, match=r"memory_tokens=2: .*set answers"):
        cases.tiny(memory_tokens=2)
    with pytest.raises(asl.InputError, match=r"memory_tokens=2: .*set answers"):
        cases.tiny("series", memory_tokens=2)
    for kept in ({"eviction": "sliding"}, {"eviction": "retrieve", "keep": 9}):
        with pytest.raises(asl.InputError, match=r"memory_tokens=3 are all .*eviction='hard'"):
            asl.Runtime(MODEL, cases.fixed(1), **kept)
