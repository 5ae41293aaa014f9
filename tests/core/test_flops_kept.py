"""The ledger against torch's counter where attention holds what outlived a boundary, and in loops.

Torch counts every pair of a masked softmax, also those that are not seen; they are added here.
"""

from __future__ import annotations

from typing import Any

import core_cases as cases
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_flops import ANSWERING, BATCH, _counted, close, flops_of  # noqa: F401  (a fixture)

import adaptive_sleep as asl
from adaptive_sleep.ledger import attention_costs, costs, past_pairs, visible_pairs

SIZE = 16


def window(config: asl.ModelConfig, seed: int, ask: bool) -> list[asl.Piece]:
    pieces = []
    for i in range(BATCH):
        tokens = cases.events(config, SIZE, BATCH * seed + i)
        targets = np.where(np.arange(SIZE) % 3 == 0, 1, -1) if ask else None
        events = asl.Events(tokens.time, tokens=tokens.tokens, targets=targets)
        pieces.append(asl.Piece(f"s{i}", events, closes=True))
    return pieces


def second_window(ask: bool, held: dict[str, Any], **changes: Any) -> tuple[asl.Model, int, int]:
    """What the ledger and the counter say of a window behind one that was read before."""
    model = cases.build(cases.tiny(**(ANSWERING | changes)))
    runtime = asl.Runtime(model, cases.fixed(1), **held)
    runtime.step(window(model.config, 0, ask=False))
    before = runtime.ledger.wake
    counted = flops_of(lambda: runtime.step(window(model.config, 1, ask)))
    return model, runtime.ledger.wake - before, counted


def _tap(model: asl.Model) -> int:
    """What the newest tap alone costs the questions of a window; as in `test_flops`."""
    return SIZE * model.config.layers.count("deltanet") * 2 * 2 * 16


KEPT: list[dict[str, Any]] = [
    {"eviction": "sliding", "keep": 32},
    {"eviction": "heaviest", "keep": 5},
]


@pytest.mark.parametrize("held", KEPT, ids=lambda held: held["eviction"])
def test_a_window_that_is_read_behind_another(held: dict[str, Any]) -> None:
    """Counted attention computes no more products: the same formula for both."""
    model, ledger, counted = second_window(False, held)
    past = SIZE if held["eviction"] == "sliding" else 5
    price = costs(model.config)
    seen = past_pairs(np.array(past), np.array(SIZE), 32 if past == SIZE else None)
    assert ledger == BATCH * price.whole(np.array(SIZE), seen, causal=False)
    assert seen == SIZE * past
    assert close(ledger, counted)


def test_windows_that_search_a_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """A score for all that is stored, a value for what comes back; torch counts values for all."""
    monkeypatch.setattr("adaptive_sleep.eviction.BROUGHT", 5)
    held = {"eviction": "retrieve", "keep": 14}
    for ask in (False, True):
        model, ledger, counted = second_window(ask, held)
        price, pair = costs(model.config), attention_costs(model.config)[1]
        seen, searched = np.array(SIZE * 5), np.array(SIZE * 9)
        size, asked = np.array(SIZE), np.array(6)
        if ask:
            assert ledger == BATCH * price.questions(size, asked, seen, searched)
            others = SIZE * (SIZE - 1) * pair - _tap(model)
        else:
            assert ledger == BATCH * price.whole(size, seen, searched, causal=False)
            others = 0
        unseen = SIZE * 9 * pair // 2
        assert close(ledger + BATCH * (others + unseen), counted)


@pytest.mark.parametrize("held", KEPT, ids=lambda held: held["eviction"])
def test_questions_behind_a_window(held: dict[str, Any]) -> None:
    model, ledger, counted = second_window(True, held)
    config, price = model.config, costs(model.config)
    past = SIZE if held["eviction"] == "sliding" else 5
    assert ledger == BATCH * price.questions(np.array(SIZE), np.array(6), SIZE * past)
    others = SIZE * (SIZE - 1) * attention_costs(config)[1]
    assert close(ledger + BATCH * (others - _tap(model)), counted)


@pytest.mark.parametrize("questions", ["alone", "text"])
@pytest.mark.parametrize("injection", ["linear", "residual"])
def test_loops_over_questions(questions: str, injection: str) -> None:
    changes = {"questions": questions, "injection": injection}
    model, ledger, counted = second_window(True, {}, loops=3, **changes)
    config, price = model.config, costs(model.config)
    assert price.loops == 3
    pair, text = attention_costs(config)[1], questions == "text"
    unseen = -SIZE * (SIZE - 1) // 2 * pair if text else _tap(model)
    assert close(ledger - BATCH * 3 * unseen, counted)
    assert ledger == BATCH * (price.text if text else price.questions)(np.array(SIZE), np.array(6))


@given(past=st.integers(0, 30), new=st.integers(1, 9), reach=st.none() | st.integers(9, 40))
def test_pairs_with_the_past_are_those_of_a_mask(past: int, new: int, reach: int | None) -> None:
    counted = sum(min(past, reach - t) if reach else past for t in range(1, new + 1))
    found = past_pairs(np.array([past]), np.array([new]), reach)
    assert int(found[0]) == counted
    assert int(visible_pairs(np.array([past]), np.array([new]), reach)[0]) == counted + sum(
        range(1, new + 1)
    )
