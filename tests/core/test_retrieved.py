"""Retrieval: of what is stored over boundaries, each query of each head brings back its nearest."""

from __future__ import annotations

from dataclasses import replace

import asked_cases as asked
import core_cases as cases
import numpy as np
import pytest
import torch
from torch import Tensor

import adaptive_sleep as asl
from adaptive_sleep.answering import go_on, unread
from adaptive_sleep.attention import KVCache
from adaptive_sleep.deltanet import DeltaNet
from adaptive_sleep.eviction import BROUGHT, holding
from adaptive_sleep.kernels import attend, attend_nearest
from adaptive_sleep.streams.tasks.task import TaskBatch

TASK = asked.TASKS["hops"]  # windows of 9, questions of 8


def slow_nearest(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, past: int, nearest: int) -> Tensor:
    """One query of one head after the other, in float64."""
    q, k, v = (x.detach().double() for x in (q, k, v))
    y = torch.zeros_like(q)
    for b, t, h in np.ndindex(q.shape[:3]):
        score = {s: float(q[b, t, h] @ k[b, s, h]) / q.shape[3] ** 0.5 for s in range(k.shape[1])}
        seen = [s for s in score if mask[b, t, s]]
        old = sorted((s for s in seen if s < past), key=lambda s: -score[s])[:nearest]
        chosen = old + [s for s in seen if s >= past]
        weight = torch.tensor([score[s] for s in chosen], dtype=torch.float64).softmax(0)
        y[b, t, h] = weight @ v[b, chosen, h]
    return y


def random_attention(past: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(past)
    q, k, v = (torch.randn(2, n, 3, 4, requires_grad=True) for n in (5, past + 5, past + 5))
    mask = torch.rand(2, 5, past + 5) < 0.6
    mask[:, range(5), range(past, past + 5)] = True  # every query sees itself
    mask[0, 0, :past] = False  # one sees nothing of the past
    return q, k, v, mask


@pytest.mark.parametrize(("past", "nearest"), [(7, 1), (7, 3), (12, 4)])
def test_nearest_attention_is_that_of_a_slow_reference(past: int, nearest: int) -> None:
    q, k, v, mask = random_attention(past)
    y = attend_nearest(q, k, v, mask, past, nearest)
    wanted = slow_nearest(q, k, v, mask, past, nearest)
    torch.testing.assert_close(y.double(), wanted, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(attend_nearest(q, k, v, mask, past, past), attend(q, k, v, mask))


def test_the_gradient_reaches_what_was_brought_back_and_nothing_else() -> None:
    q, k, v, mask = random_attention(7)
    mask[:] = True
    y = attend_nearest(q, k, v, mask, 7, 2)
    y[0, 0, 0].sum().backward()  # one query of one head
    assert k.grad is not None
    assert v.grad is not None
    for grad in (k.grad, v.grad):
        reached = grad[0, :, 0].abs().sum(-1) > 0
        assert int(reached[:7].sum()) == 2
        assert bool(reached[7:].all())
        assert not bool(grad[0, :, 1:].any())
    assert bool(torch.isfinite(q.grad).all())  # type: ignore[arg-type]  # it has one


def read(batch: TaskBatch, eviction: asl.config.Eviction, keep: int) -> list[Tensor]:
    """The answers in all windows of questions, by a model whose fast weights tell nothing."""
    model = asked.model_for(TASK, conv=0)
    with torch.no_grad():
        for block in model.blocks:
            if isinstance(block.mixer, DeltaNet):
                torch.nn.init.zeros_(block.mixer.out.weight)
        found, _ = go_on(model, batch, 1, unread(model, len(batch), eviction, keep))
    return [answers.logits for answers in found]


def test_a_store_that_all_comes_back_from_is_a_larger_window(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Until more is stored than comes back."""
    batch = asked.in_turn(*(asked.draw(TASK, 2, seed) for seed in range(4)))
    assert 3 * 9 <= BROUGHT < 4 * 9
    wanted = read(batch, "sliding", 100)
    for brought in (BROUGHT, 36):
        monkeypatch.setattr("adaptive_sleep.eviction.BROUGHT", brought)
        found = read(batch, "retrieve", 60)
        for number in range(3):
            torch.testing.assert_close(found[number], wanted[number])
        assert len(found) == 4
        same = torch.allclose(found[3], wanted[3], atol=1e-4)
        assert same is (brought == 36)


def test_what_was_stored_long_ago_comes_back_as_long_as_it_is_stored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The third window of questions knows the first window's facts from the store alone."""
    monkeypatch.setattr("adaptive_sleep.eviction.BROUGHT", 20)
    batch = asked.in_turn(*(asked.draw(TASK, 3, seed) for seed in range(3)))
    other = replace(batch, tokens=(batch.tokens[0].copy(), *batch.tokens[1:]))
    other.tokens[0][:] = asked.draw(TASK, 3, 9).tokens[0]

    def moved(keep: int) -> float:
        one, two = (read(b, "retrieve", keep)[-1] for b in (batch, other))
        return float((one - two).abs().max())

    assert moved(27) > 1e-3
    assert moved(9) < 1e-6  # only its own window is stored


def test_what_comes_back_hangs_on_no_other_query(monkeypatch: pytest.MonkeyPatch) -> None:
    """A text that is cut off reads as the same text that goes on: nothing is chosen ahead."""
    monkeypatch.setattr("adaptive_sleep.eviction.BROUGHT", 3)
    model = cases.build(cases.tiny(answers=5, sleep_attention="causal"))
    holds = holding(model.config, "retrieve", 20)
    torch.manual_seed(0)
    lengths = torch.tensor([20, 11])
    store = KVCache({"1": torch.randn(2, 20, 2, 8)}, {"1": torch.randn(2, 20, 2, 8)}, lengths)
    words = torch.randn(2, 9, 16)
    done = [
        model.run(words[:, :n], torch.full((2,), n), model.fresh(2), holds.ready(store)).hidden
        for n in (9, 4)
    ]
    assert done[0].shape[1] == 9
    torch.testing.assert_close(done[0][:, :4], done[1])


def test_each_stream_brings_back_of_its_own_store() -> None:
    """Also where it holds fewer than come back, beside one that holds more."""
    holds = holding(asked.model_for(TASK).config, "retrieve", 50)
    assert holds.brought == BROUGHT == 32
    seen, searched = holds.pairs(np.array([0, 20, 50]), np.array([9, 9, 8]))
    assert seen.tolist() == [0, 180, 256]
    assert searched.tolist() == [0, 0, 144]
