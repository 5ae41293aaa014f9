"""The ledger against torch's counter where windows read and write memory tokens.

Torch counts every pair of a masked softmax, also those that are not seen; they are added here.
"""

from __future__ import annotations

import core_cases as cases
import numpy as np
import pytest
from test_flops import ANSWERING, BATCH, _counted, close, flops_of  # noqa: F401  (a fixture)

import adaptive_sleep as asl
from adaptive_sleep.ledger import costs


def step_of(model: asl.Model, ask: bool, passes: int = 1) -> tuple[asl.Ledger, int]:
    """The ledger after one window of 16 of each stream, and what the counter saw of it."""
    targets = np.where(np.arange(16) % 3 == 0, 1, -1) if ask else None
    pieces = []
    for i in range(BATCH):
        tokens = cases.events(model.config, 16, i)
        read = asl.Events(tokens.time, tokens=tokens.tokens, targets=targets)
        pieces.append(asl.Piece(f"s{i}", read, closes=True))
    runtime = asl.Runtime(model, cases.fixed(passes))
    counted = flops_of(lambda: runtime.step(pieces))
    return runtime.ledger, counted


@pytest.mark.parametrize("loops", [1, 2])
def test_the_flops_of_questions(loops: int) -> None:
    model = cases.build(cases.tiny(**ANSWERING, memory_tokens=5, loops=loops))
    config, price = model.config, costs(model.config)
    ledger, counted = step_of(model, ask=True)
    assert ledger.wake == BATCH * price.questions(np.array(16), np.array(6))
    unseen = (16 * 15 + 5 * 16) * price.pair  # no question is seen but by itself
    tap = 21 * config.layers.count("deltanet") * 2 * 2 * 16  # as in `test_flops`
    assert close(ledger.wake + BATCH * loops * (unseen - tap), counted)


def test_the_flops_of_windows_and_of_sleep() -> None:
    model = cases.build(cases.tiny(**ANSWERING, memory_tokens=5))
    price, size = costs(model.config), np.array(16)
    ledger, counted = step_of(model, ask=False)
    assert ledger.wake == BATCH * price.whole(size, causal=False)
    assert close(ledger.wake, counted)
    slept, counted = step_of(model, ask=False, passes=2)
    assert slept.sleep == BATCH * price.sleep_pass(size, causal=False)
    assert close(slept.wake + slept.sleep, counted)


def test_the_flops_of_a_text() -> None:
    model = cases.build(cases.tiny(**ANSWERING, memory_tokens=5, questions="text"))
    price = costs(model.config)
    ledger, counted = step_of(model, ask=True)
    assert ledger.wake == BATCH * price.text(np.array(16), np.array(6))
    unseen = 26 * 25 // 2 * price.pair
    assert close(ledger.wake + BATCH * unseen, counted)
