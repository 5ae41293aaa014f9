"""The ledger's formulas against torch's own counter, module by module, and a count by hand.

The counter sees neither fused attention on the CPU nor broadcast products, so attention runs under
SDPBackend.MATH and the recurrence and the short convolution are replaced by forms that it counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import core_cases as cases
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import adaptive_sleep as asl
from adaptive_sleep import deltanet
from adaptive_sleep.attention import view
from adaptive_sleep.ledger import (
    ask_costs,
    attention_costs,
    costs,
    deltanet_costs,
    resident_bytes,
    sleep_bytes,
    visible_pairs,
)
from adaptive_sleep.normalise import advance, fresh_stats
from adaptive_sleep.series import Patches
from adaptive_sleep.sleep import ClosedWindow, sleep_pass

BATCH, SIZE, PAST = 3, 10, 6


def one_step_rule(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, *, initial_state: Tensor,
    lengths: Any, reference_state: Tensor | None, return_state_change: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    """The gated delta rule by its definition, all products as bmm: for sequences of full length."""
    batch, steps, heads, key = q.shape
    state = initial_state.reshape(batch * heads, key, -1)
    outputs = []
    for t in range(steps):
        kt, qt, vt = (x[:, t].reshape(batch * heads, 1, -1) for x in (k, q, v))
        state = state * g[:, t].exp().reshape(-1, 1, 1)
        error = (vt - torch.bmm(kt, state)) * beta[:, t].reshape(-1, 1, 1)
        state = torch.baddbmm(state, kt.transpose(1, 2), error)
        outputs.append(torch.bmm(qt, state).view(batch, heads, -1) * key**-0.5)
    found = torch.stack(outputs, 1), state.view_as(initial_state)
    if not return_state_change:
        return found
    assert reference_state is not None
    moved = found[1] - reference_state
    return *found, torch.stack([x.square().sum((2, 3)) for x in (moved, found[1])])


def library_convolution(
    x: Tensor, weight: Tensor, tail: Tensor, lengths: Any
) -> tuple[Tensor, Tensor]:
    whole = torch.cat([tail, x], 1)
    y = F.conv1d(whole.transpose(1, 2), weight[:, None, :], groups=x.shape[2])
    return y.transpose(1, 2), whole[:, -tail.shape[1] :]


@pytest.fixture(autouse=True)
def _counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(deltanet, "gated_delta_rule", one_step_rule)
    monkeypatch.setattr(deltanet, "causal_conv", library_convolution)
    with sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        yield


def flops_of(work: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def close(formula: int, counted: int) -> bool:
    return counted > 0 and abs(formula - counted) <= 0.01 * counted


@pytest.fixture(params=cases.KINDS)
def model(request: pytest.FixtureRequest) -> asl.Model:
    return cases.build(cases.tiny(request.param, conv=4, window=16, mlp_ratio=3))


def hidden(model: asl.Model, size: int = SIZE) -> Tensor:
    return torch.randn(BATCH, size, model.config.width)


def test_the_stand_ins_compute_the_same(model: asl.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    x, lengths = hidden(model), torch.full((BATCH,), SIZE)
    stand_in = model.run(x, lengths, model.fresh(BATCH))
    monkeypatch.undo()
    real = model.run(x, lengths, model.fresh(BATCH))
    assert cases.distance(stand_in.hidden, real.hidden) < 1e-5


def test_attention_mixer(model: asl.Model) -> None:
    config = model.config
    x, full = hidden(model), torch.full((BATCH,), SIZE)
    head = (config.heads, config.width // config.heads)
    past = [torch.randn(BATCH, PAST, *head) for _ in range(2)]
    look = view(torch.full((BATCH,), PAST), PAST, full, SIZE, "bidirectional", None)
    assert bool(look.mask.all())
    counted = flops_of(lambda: model.blocks[1].mixer(x, look, *past))
    position, pair = attention_costs(config)
    assert close(BATCH * (SIZE * position + SIZE * (PAST + SIZE) * pair), counted)


def test_deltanet_mixer(model: asl.Model) -> None:
    weights, full = model.fresh(BATCH), torch.full((BATCH,), SIZE)
    counted = flops_of(
        lambda: model.blocks[0].mixer(
            hidden(model), full, weights.matrices["0"], weights.tails["0"]
        )
    )
    assert close(BATCH * SIZE * deltanet_costs(model.config), counted)


def test_deltanet_mixer_without_convolution() -> None:
    model = cases.build(cases.tiny(conv=0))
    state, full = model.fresh(BATCH).matrices["0"], torch.full((BATCH,), SIZE)
    counted = flops_of(lambda: model.blocks[0].mixer(hidden(model), full, state, None))
    assert close(BATCH * SIZE * deltanet_costs(model.config), counted)


def test_mlp(model: asl.Model) -> None:
    counted = flops_of(lambda: model.blocks[0].mlp(hidden(model)))
    assert close(BATCH * SIZE * 4 * model.config.mlp_ratio * model.config.width**2, counted)


@pytest.mark.parametrize("kind", ["linear", "residual", "feedback"])
def test_injection(kind: str) -> None:
    model = cases.build(cases.tiny(injection=kind))
    counted = flops_of(lambda: model.inject(hidden(model), hidden(model)))
    formula = BATCH * SIZE * costs(model.config).inject
    assert formula == counted if kind != "linear" else close(formula, counted)


def test_token_head() -> None:
    model = cases.build(cases.tiny())
    counted = flops_of(lambda: model.tokens.logits(hidden(model)))
    assert close(BATCH * SIZE * costs(model.config).head, counted)


ANSWERING = {"answers": 7, "window": 16, "sleep_attention": "bidirectional"}


def test_the_head_of_answers() -> None:
    model = cases.build(cases.tiny(**ANSWERING))
    counted = flops_of(lambda: model.tokens.logits(hidden(model)))
    assert close(BATCH * SIZE * costs(model.config).head, counted)
    assert costs(model.config).spread == 2 * 7


@pytest.mark.parametrize("taps", [0, 4])
def test_deltanet_mixer_that_is_asked(taps: int) -> None:
    model = cases.build(cases.tiny(conv=taps))
    state = model.fresh(BATCH).matrices["0"]
    counted = flops_of(lambda: model.blocks[0].mixer.ask(hidden(model), state))
    newest = 2 * 2 * 16 if taps else 0  # of q: a product by numbers, which the counter does not see
    assert close(BATCH * SIZE * (ask_costs(model.config) - newest), counted)


def test_the_map_of_values_beside_tokens() -> None:
    model = cases.build(cases.tiny(**ANSWERING, values=5))
    tokens, values = torch.zeros(BATCH, SIZE).long(), torch.randn(BATCH, SIZE, 5)
    counted = flops_of(lambda: model.tokens.embed(tokens, values))
    assert close(BATCH * SIZE * costs(model.config).embed, counted)
    assert costs(cases.tiny(**ANSWERING)).embed == 0


def answering_step(ask: bool, **changes: Any) -> tuple[asl.Runtime, int]:
    """A runtime after one window of 16 of each stream, and what the counter saw of it."""
    model = cases.build(cases.tiny(**(ANSWERING | changes)))
    targets = np.where(np.arange(16) % 3 == 0, 1, -1) if ask else None
    pieces = []
    for i in range(BATCH):
        tokens = cases.events(model.config, 16, i)
        events = asl.Events(tokens.time, tokens=tokens.tokens, targets=targets)
        pieces.append(asl.Piece(f"s{i}", events, closes=True))
    runtime = asl.Runtime(model, cases.fixed(1))
    return runtime, flops_of(lambda: runtime.step(pieces))


def test_a_window_that_is_read_whole() -> None:
    """All pairs, and no head."""
    runtime, counted = answering_step(ask=False)
    price = costs(runtime.model.config)
    assert runtime.ledger.wake == BATCH * price.whole(np.array(16), causal=False)
    assert close(runtime.ledger.wake, counted)


def test_a_window_of_questions() -> None:
    """The head only where something is asked; a question that has only itself to attend to needs
    no query, no key and no pair."""
    runtime, counted = answering_step(ask=True)
    config, price = runtime.model.config, costs(runtime.model.config)
    assert runtime.ledger.wake == BATCH * price.questions(np.array(16), np.array(6))
    attentions = config.layers.count("attention")
    assert price.alone == attentions * 4 * (config.width**2 + config.width)
    newest = 16 * config.layers.count("deltanet") * 2 * 2 * 16  # the tap: torch counts no product
    assert close(runtime.ledger.wake - BATCH * newest, counted)


def test_a_window_that_asks_in_a_text() -> None:
    """Causal pairs, also where sleep sees all; the head only where something is asked."""
    runtime, counted = answering_step(ask=True, questions="text")
    config, price = runtime.model.config, costs(runtime.model.config)
    assert runtime.ledger.wake == BATCH * price.text(np.array(16), np.array(6))
    masked = 16 * 15 // 2 * attention_costs(config)[1]  # pairs that the counter sees computed
    assert close(runtime.ledger.wake + BATCH * masked, counted)
    assert runtime.ledger.sleep == 0
    assert runtime.ledger.signals == BATCH * (price.change + 6 * price.spread)


@pytest.mark.parametrize("names", [1, 16])
def test_uncertainty_of_a_series(names: int) -> None:
    """Two FLOPs for each value that was predicted, however many channels and events a patch has."""
    config = cases.tiny("series", channels=tuple(f"c{i}" for i in range(names)), patch=4, window=16)
    runtime = asl.Runtime(cases.build(config), cases.fixed(1))
    row = runtime.step([asl.Piece("a", cases.events(config, 16), True)]).rows[0]
    price = costs(config)
    assert row.scored > 0
    assert row.signal_flops == price.change + 4 * price.pool + 2 * row.scored
    assert runtime.ledger.signals == row.signal_flops


def patches_of(model: asl.Model) -> Patches:
    config = model.config
    values = torch.randn(BATCH, SIZE, config.patch, len(config.inputs))
    counts = torch.full((BATCH, SIZE), config.patch)
    start = fresh_stats(BATCH, len(config.inputs), config.skip)
    each, _ = advance(start, values, counts, config.norm_memory)
    return Patches(values, counts, each)


@pytest.mark.parametrize("changes", [{}, {"horizon": 3, "skip": 10}], ids=str)
def test_series_embedding_and_head(changes: dict[str, int]) -> None:
    model = cases.build(cases.tiny("series", **changes))
    patches, price = patches_of(model), costs(model.config)
    assert close(BATCH * SIZE * price.embed, flops_of(lambda: model.series.embed(patches)))
    counted = flops_of(lambda: model.series.forecast(hidden(model), patches.stats))
    assert close(BATCH * SIZE * price.head, counted)


def test_whole_wake_pass(model: asl.Model) -> None:
    """Dense pairs: the counter sees T * T of them, the runtime's formula the causal half."""
    config, price = model.config, costs(model.config)
    count = 16 * config.patch
    config_window = cases.tiny(config.kind, conv=4, window=count, mlp_ratio=3)
    model = cases.build(config_window)
    runtime = asl.Runtime(model, cases.fixed(1))
    names = [f"s{i}" for i in range(BATCH)]
    pieces = [asl.Piece(n, cases.events(config, count, i)) for i, n in enumerate(names)]
    counted = flops_of(lambda: runtime.step(pieces))
    if config.kind == "series":  # running sums, which happen to be computed as a product
        values = torch.zeros(BATCH, 16, config.patch, len(config.inputs))
        sums = fresh_stats(BATCH, len(config.inputs))
        counted -= flops_of(lambda: advance(sums, values, torch.ones(BATCH, 16).long(), 40))
    dense = price.wake(np.full(BATCH, 16), np.full(BATCH, 16 * 16))
    assert close(int(dense.sum()), counted)
    causal = price.wake(np.full(BATCH, 16), np.full(BATCH, 16 * 17 // 2))
    assert runtime.ledger.wake == int(causal.sum())


@pytest.mark.parametrize("injection", ["linear", "residual"])
def test_whole_sleep_pass(injection: str) -> None:
    model = cases.build(cases.tiny(injection=injection, sleep_attention="bidirectional"))
    x, lengths = hidden(model), torch.full((BATCH,), SIZE)
    weights = model.fresh(BATCH)
    window = ClosedWindow(x, x, lengths, weights, weights)
    counted = flops_of(lambda: sleep_pass(model, window, x, weights))
    formula = costs(model.config).sleep_pass(np.full(BATCH, SIZE), causal=False)
    assert close(int(formula.sum()), counted)


def test_a_slept_window_costs_its_passes() -> None:
    config = cases.tiny(sleep_attention="bidirectional", window=16)
    model = cases.build(config)
    piece = asl.Piece("s", cases.events(config, 16), closes=True)
    awake, asleep = (asl.Runtime(model, cases.fixed(n)) for n in (1, 4))
    extra = flops_of(lambda: asleep.step([piece])) - flops_of(lambda: awake.step([piece]))
    assert close(asleep.ledger.sleep, extra)
    assert awake.ledger.sleep == 0
    assert asleep.ledger.wake == awake.ledger.wake


@given(past=st.integers(0, 30), new=st.integers(0, 30), reach=st.none() | st.integers(1, 40))
def test_visible_pairs_are_those_of_a_mask(past: int, new: int, reach: int | None) -> None:
    counted = sum(min(past + t, reach or past + t) for t in range(1, new + 1))
    assert int(visible_pairs(np.array([past]), np.array([new]), reach)[0]) == counted
    if new:
        look = view(torch.tensor([past]), past, torch.tensor([new]), new, "causal", reach)
        assert int(look.mask.sum()) == counted


@pytest.mark.parametrize("eviction", cases.EVICTIONS)
def test_resident_bytes_are_those_of_the_tensors(eviction: str) -> None:
    model = cases.build(cases.tiny())
    runtime = asl.Runtime(model, cases.fixed(1), eviction=eviction)
    runtime.step([asl.Piece(n, cases.events(model.config, 3 + i)) for i, n in enumerate("abc")])
    total = held = 0
    for name in "abc":
        state = cases.row(runtime, name)
        count = int(state["cached"])
        held += count
        for field, tensor in state.items():
            if field.startswith("now."):
                total += tensor.nbytes
            if field.startswith(("keys.", "values.")):
                total += tensor[:count].nbytes
    assert held == 3 + 4 + 5
    assert resident_bytes(model.config, 3, held) == total
    assert runtime.ledger.peak_resident_bytes == total


@pytest.mark.parametrize("kind", cases.KINDS)
def test_what_only_sleep_needs_is_resident_where_a_window_slept(kind: str) -> None:
    """S0, and what a pass reads of the open window; they stay where nothing sleeps, uncounted."""
    model = cases.build(cases.tiny(kind))
    kept = {}
    for passes in (1, 2):
        runtime = asl.Runtime(model, cases.fixed(passes))
        events = cases.events(model.config, 12)
        runtime.step([asl.Piece(n, events[:8]) for n in "ab"])
        total = sum(
            tensor.nbytes
            for n in "ab"
            for field, tensor in cases.row(runtime, n).items()
            if field.startswith("before.")
        )
        places = sum(int(cases.row(runtime, n)["positions"]) for n in "ab")
        assert places == 2 * 8 // model.config.patch
        beside = total + places * 2 * model.config.width * 4
        assert sleep_bytes(model.config, 2, places) == beside
        awake = runtime.ledger.peak_resident_bytes
        assert runtime.ledger.peak_sleeping_bytes == awake + beside
        assert runtime.ledger.resident_bytes == awake
        runtime.step([asl.Piece(n, events[8:], closes=True) for n in "ab"])
        kept[passes] = runtime.ledger.resident_bytes
        assert (kept[passes] > runtime.ledger.peak_resident_bytes) == (passes > 1)
    assert kept[2] > kept[1]


def test_windows_that_are_held_as_they_came_need_nothing_beside() -> None:
    config = cases.tiny(answers=5)
    assert sleep_bytes(config, 3, 40) == 0
