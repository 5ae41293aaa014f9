"""Loops over a window of questions: compute that is spent when something is asked."""

from __future__ import annotations

import asked_cases as asked
import core_cases as cases
import numpy as np
import pytest
import torch

import adaptive_sleep as asl
from adaptive_sleep.answering import answer, go_on, unread

TASK, TEXT = asked.TASKS["hops"], asked.TEXTS["depo"]


@pytest.mark.parametrize("text", [False, True], ids=["alone", "text"])
def test_a_runtime_loops_as_a_batch_does(text: bool) -> None:
    task = TEXT if text else TASK
    model = asked.model_for(task, loops=3)
    batch = asked.in_turn(*(asked.draw(task, 2, seed) for seed in range(2)))
    runtime = asl.Runtime(model, cases.fixed(1))
    table = cases.table(asked.run(runtime, [asked.stream(batch, row) for row in range(2)]))
    with torch.no_grad():
        found, left = go_on(model, batch, 1, unread(model, 2))
    for row in range(2):
        logits = torch.cat([a.logits[a.rows == row] for a in found]).double().log_softmax(-1)
        targets = torch.cat([a.targets[a.rows == row] for a in found])
        wanted = logits.gather(-1, targets[:, None])[:, 0].numpy()
        mine = table["logprob"][table["stream"] == f"s{row}"]
        assert cases.distance(mine, wanted) < 1e-5
        state = cases.row(runtime, f"s{row}")
        for name, matrix in left.weights.matrices.items():
            assert cases.distance(state[f"now.matrix.{name}"], matrix[row]) < 1e-5


def test_a_loop_reads_the_one_before_it_and_the_same_fast_weights() -> None:
    once, twice = (asked.model_for(TASK, loops=loops) for loops in (1, 2))
    batch = asked.draw(TASK, 2)
    words, valid = (torch.from_numpy(x[-1]) for x in (batch.tokens, batch.lengths))
    with torch.no_grad():
        first, left = go_on(once, batch, 2, unread(once, 2))
        embedded = once.tokens.embed(words)
        hidden = once.run(embedded, valid, left.weights, seen="diagonal").hidden
        again = once.run(once.inject(embedded, hidden), valid, left.weights, seen="diagonal")
        wanted = once.tokens.logits(again.hidden).flatten(0, 1)
        (found,) = answer(twice, batch, 2)
    torch.testing.assert_close(found.logits, wanted)
    assert not torch.allclose(found.logits, first[0].logits, atol=1e-3)


def test_loops_leave_what_is_read_and_slept_on_alone() -> None:
    first, _ = asked.stream(asked.draw(TASK, 1), 0)
    rows = [
        asl.Runtime(asked.model_for(TASK, loops=loops), cases.fixed(3)).step([first]).rows
        for loops in (1, 4)
    ]
    assert rows[0] == rows[1]


def test_a_model_that_does_not_loop_keeps_its_hash() -> None:
    once, twice = (asked.model_for(TASK, loops=loops) for loops in (1, 2))
    assert "loops" not in once.config.identity()
    assert once.hash != twice.hash


def test_only_questions_are_looped_over() -> None:
    with pytest.raises(asl.InputError, match="loops=0: at least 1"):
        asked.model_for(TASK, loops=0)
    with pytest.raises(asl.InputError, match=r"loops=2: .*only over questions"):
        cases.tiny(loops=2)


def test_loops_share_no_questions() -> None:
    """However often it is looped over, a question that stands alone sees no other."""
    model = asked.model_for(TASK, loops=3)
    first, last = asked.stream(asked.draw(TASK, 1), 0)
    tables = []
    for part in (slice(0, 8), slice(0, 3)):
        runtime = asl.Runtime(model, cases.fixed(1))
        runtime.step([first])
        piece = asl.Piece("s0", last.events[part], True)
        tables.append(cases.table([runtime.step([piece], predictions=True)])["logprob"])
    np.testing.assert_allclose(tables[0][:3], tables[1], atol=1e-6)
