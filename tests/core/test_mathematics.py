"""The runtime against a slow rendering of the design's section 4, window after window."""

from __future__ import annotations

from typing import Any

import core_cases as cases
import numpy as np
import pytest
import torch
from slow_model import Slow, State
from torch import Tensor

import adaptive_sleep as asl
from adaptive_sleep.attention import view
from adaptive_sleep.normalise import advance, fresh_stats
from adaptive_sleep.series import Patches

PASSES = (3, 2, 1, 4)
CLOSE = 2e-5


def embedded(model: asl.Model, windows: list[asl.Events]) -> list[list[Tensor]]:
    """h0 of every window, in float64, without learned positions."""
    config, found = model.config, []
    stats = fresh_stats(1, len(config.inputs))
    for events in windows:
        if config.kind == "tokens":
            one = model.face.embed(torch.from_numpy(events.tokens)[None])
        else:
            count = -(-len(events) // config.patch)
            values = torch.full((count * config.patch, len(config.inputs)), torch.nan)
            values[: len(events)] = torch.from_numpy(events.values)
            counts = torch.full((1, count), config.patch)
            counts[0, -1] = len(events) - (count - 1) * config.patch
            values = values.reshape(1, count, config.patch, -1)
            each, stats = advance(stats, values, counts, config.norm_memory)
            one = model.face.embed(Patches(values, counts, each))
        found.append(list(one.detach().double()[0]))
    return found


def windows_of(config: asl.ModelConfig, sizes: tuple[int, ...]) -> list[asl.Events]:
    whole = cases.events(config, sum(sizes), 4)
    ends = np.cumsum(sizes).tolist()
    return [whole[end - size : end] for size, end in zip(sizes, ends, strict=True)]


def check(config: asl.ModelConfig, eviction: str, sizes: tuple[int, ...]) -> None:
    model = cases.build(config)
    windows = windows_of(config, sizes)
    runtime = asl.Runtime(model, cases.ByName({"s": PASSES}), eviction=eviction)
    slow = Slow(model)
    state = slow.fresh()
    reach = config.window_positions if eviction == "sliding" else None
    for number, (events, inputs) in enumerate(zip(windows, embedded(model, windows), strict=True)):
        passes = PASSES[number % len(PASSES)]
        trace = runtime.step([asl.Piece("s", events, closes=True)]).rows[0]
        if slow.model.places is not None:
            inputs = [h + slow.model.places[t] for t, h in enumerate(inputs)]
        hidden, woken = slow.run(inputs, state, window=reach)
        assert trace.passes == passes
        assert trace.state_change == pytest.approx(woken.norm_of_change(state), rel=1e-4)
        state, change = slow.sleep(inputs, hidden, state, woken, passes)
        assert trace.last_state_change == pytest.approx(change, rel=1e-4)
        if eviction == "hard":
            slow.held = {}
        held = cases.row(runtime, "s")
        assert cases.distance(held["last_hidden"], hidden[-1]) < CLOSE
        same_state(held, state)
    if eviction == "sliding":
        same_cache(held, slow, config.window_positions)


def same_state(held: dict[str, Tensor], state: State) -> None:
    for when in ("now", "before"):  # at a boundary both are SN
        for layer, matrix in state.matrices.items():
            assert cases.distance(held[f"{when}.matrix.{layer}"], matrix) < CLOSE
            for slot, tail in enumerate(state.tails[layer]):
                assert cases.distance(held[f"{when}.tail.{layer}"][slot], tail) < CLOSE


def same_cache(held: dict[str, Tensor], slow: Slow, slots: int) -> None:
    """Sliding keeps the wake pass's keys, unrotated, and its values."""
    for layer, kept in slow.held.items():
        assert int(held["cached"]) == min(len(kept), slots)
        for slot, (key, value) in enumerate(kept[-slots:]):
            assert cases.distance(held[f"keys.{layer}"][slot], key) < CLOSE
            assert cases.distance(held[f"values.{layer}"][slot], value) < CLOSE


MODELS: list[dict[str, Any]] = [
    {},
    {"carry": "accumulate"},
    {"injection": "residual"},
    {"injection": "feedback", "carry": "accumulate"},
    {"sleep_attention": "bidirectional"},
    {"sleep_attention": "bidirectional", "carry": "accumulate", "positions": "relative"},
    {"conv": 0},
    {"conv": 0, "carry": "accumulate"},
    {"positions": "learned"},
    {"positions": "relative"},
    {"positions": "none", "sleep_attention": "bidirectional"},
    {"layers": ("deltanet",)},
    {"layers": ("attention", "deltanet", "attention")},
]


def name_of(changes: dict[str, Any]) -> str:
    return "-".join(str(v) for v in changes.values()) or "default"


@pytest.mark.parametrize("changes", MODELS, ids=name_of)
def test_hard_eviction(changes: dict[str, Any]) -> None:
    check(cases.tiny("tokens", **changes), "hard", (12, 5, 1, 9))


@pytest.mark.parametrize(
    "changes",
    [c for c in MODELS if c.get("positions") not in ("learned", "relative")],
    ids=name_of,
)
def test_sliding_eviction(changes: dict[str, Any]) -> None:
    check(cases.tiny("tokens", **changes), "sliding", (7, 12, 2, 12, 3))


@pytest.mark.parametrize("eviction", cases.EVICTIONS)
@pytest.mark.parametrize("carry", ["restart", "accumulate"])
def test_series(eviction: str, carry: str) -> None:
    check(cases.tiny("series", carry=carry, patch=3), eviction, (12, 7, 3, 10))


def test_sliding_attention_is_one_long_band() -> None:
    """Without sleep a window slides over boundaries as if there were none."""
    model = cases.build(cases.tiny("tokens"))
    windows = windows_of(model.config, (5, 12, 9, 1, 12))
    runtime = asl.Runtime(model, cases.fixed(1), eviction="sliding")
    for events in windows:
        runtime.step([asl.Piece("s", events[:4]), asl.Piece("other", events[:2])])
        runtime.step([asl.Piece("s", events[4:], closes=True)])
    slow = Slow(model)
    inputs = [h for window in embedded(model, windows) for h in window]
    hidden, state = slow.run(inputs, slow.fresh(), window=12)
    held = cases.row(runtime, "s")
    assert cases.distance(held["last_hidden"], hidden[-1]) < CLOSE
    same_state(held, state)
    whole = model.run(
        torch.stack(inputs)[None].float(), torch.tensor([len(inputs)]), model.fresh(1), reach=12
    )
    assert cases.distance(held["last_hidden"], whole.hidden[0, -1].detach()) < 1e-5


@pytest.mark.parametrize("kind", cases.KINDS)
def test_nothing_crosses_a_hard_boundary_but_the_fast_weights(kind: str) -> None:
    """A stream that is given another's fast weights goes on as that other one, bit for bit."""
    model = cases.build(cases.tiny(kind))
    runtime = asl.Runtime(model, cases.fixed(2))
    for i, name in enumerate("ab"):
        runtime.step([asl.Piece(name, cases.events(model.config, 12, i), closes=True)])
    arena = runtime._arena
    a, b = arena.rows["a"], arena.rows["b"]
    carried = ("now.", "before.", "last_hidden", "stats.")  # and what forecasts the next event
    for name, tensor in arena.tensors.items():
        if name.startswith(carried):
            tensor[a] = tensor[b]
        elif tensor.is_floating_point() and name.startswith(("keys", "values", "embedded", "hid")):
            tensor[a] = 1e6  # left over from the window before
    later = cases.events(model.config, 8, 9)
    results = [runtime.step([asl.Piece(n, later, closes=True)], predictions=True) for n in "ab"]
    for name in ("now.matrix.0", "now.tail.2", "last_hidden"):
        state = cases.row(runtime, "a")[name]
        assert torch.equal(state, cases.row(runtime, "b")[name])
        assert torch.isfinite(state).all()
    one, other = (cases.table([r]) for r in results)
    for name in one:
        if name != "stream":
            np.testing.assert_array_equal(one[name], other[name])


def test_a_question_asked_diagonally_sees_no_other() -> None:
    model = cases.build(cases.tiny("tokens", layers=("attention", "deltanet")))
    config = model.config
    past = model.run(torch.randn(1, 5, config.width), torch.tensor([5]), model.fresh(1))
    questions = torch.randn(1, 4, config.width)
    attend, block = model.blocks[0].mixer, model.blocks[0]

    def answers(x: Tensor, seen: Any) -> Tensor:
        look = view(torch.tensor([5]), 5, torch.tensor([x.shape[1]]), x.shape[1], seen, None)
        return attend(block.normal(x), look, past.new.keys["0"], past.new.values["0"])[0]

    together = answers(questions, "diagonal")
    for i in range(4):
        look = view(torch.tensor([5]), 5, torch.tensor([4]), 4, "diagonal", None)
        assert look.mask[0, i].tolist() == [True] * 5 + [j == i for j in range(4)]
    alone = answers(questions[:, :1], "causal")
    assert cases.distance(together[:, :1].detach(), alone.detach()) < 1e-5
