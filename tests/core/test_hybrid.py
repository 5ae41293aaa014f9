"""With one pass, a runtime is bit for bit the ordinary hybrid: a loop over `Model.run`."""

from __future__ import annotations

from dataclasses import dataclass

import core_cases as cases
import numpy as np
import pytest
import torch
from torch import Tensor

import adaptive_sleep as asl
from adaptive_sleep.attention import KVCache, empty_cache
from adaptive_sleep.memory import FastWeights
from adaptive_sleep.normalise import advance, fresh_stats
from adaptive_sleep.series import Patches


@dataclass
class Hybrid:
    """An ordinary hybrid that reads one stream; attention starts anew at a boundary, or slides."""

    model: asl.Model
    weights: FastWeights
    cache: KVCache
    reach: int | None
    hidden: list[Tensor]

    @torch.no_grad()
    def read(self, embedded: Tensor, closes: bool) -> None:
        lengths = torch.tensor([embedded.shape[1]])
        placed = self.model.placed(embedded, self.cache.lengths)
        done = self.model.run(placed, lengths, self.weights, self.cache, reach=self.reach)
        slots = self.model.config.window_positions
        self.weights, self.cache = done.weights, self.cache.extended(done.new, slots)
        self.hidden.append(done.hidden[0])
        if closes and self.reach is None:
            self.cache = empty_cache(self.model.config, 1)


def ordinary(model: asl.Model, eviction: str) -> Hybrid:
    config = model.config
    reach = config.window_positions if eviction == "sliding" else None
    return Hybrid(model, model.fresh(1), empty_cache(config, 1), reach, [])


def read_all(hybrid: Hybrid, pieces: list[asl.Piece]) -> None:
    """Embed pieces of whole patches and read them."""
    config, face = hybrid.model.config, hybrid.model.face
    stats = fresh_stats(1, len(config.inputs))
    for piece in pieces:
        if config.kind == "tokens":
            embedded = face.embed(torch.from_numpy(piece.events.tokens)[None])
        else:
            values = torch.from_numpy(piece.events.values)
            values = values.reshape(1, -1, config.patch, values.shape[1])
            counts = torch.full(values.shape[:2], config.patch)
            each, stats = advance(stats, values, counts, config.norm_memory)
            embedded = face.embed(Patches(values, counts, each))
        hybrid.read(embedded.detach(), piece.closes)


@pytest.mark.parametrize("eviction", cases.EVICTIONS)
@pytest.mark.parametrize("kind", cases.KINDS)
@pytest.mark.parametrize("cuts", [(), (4, 8, 20, 40)], ids=["windows", "pieces"])
def test_one_pass_is_the_ordinary_hybrid(kind: str, eviction: str, cuts: tuple[int, ...]) -> None:
    model = cases.build(cases.tiny(kind))
    pieces = cases.cut(cases.events(model.config, 44), 12, cuts)
    runtime = asl.Runtime(model, cases.fixed(1), eviction=eviction)
    results = cases.run_all(runtime, pieces)
    hybrid = ordinary(model, eviction)
    read_all(hybrid, pieces)

    held = cases.row(runtime, "s")
    for name, tensor in hybrid.weights:
        assert torch.equal(held[f"now.{name}"], tensor[0]), name
    assert torch.equal(held["last_hidden"], hybrid.hidden[-1][-1])
    count = int(hybrid.cache.lengths)
    assert int(held["cached"]) == count
    for name, keys in hybrid.cache.keys.items():
        assert torch.equal(held[f"keys.{name}"][:count], keys[0])
        assert torch.equal(held[f"values.{name}"][:count], hybrid.cache.values[name][0])
    if kind == "tokens":
        _same_probabilities(model, hybrid, pieces, cases.table(results))


def _same_probabilities(
    model: asl.Model, hybrid: Hybrid, pieces: list[asl.Piece], found: dict[str, np.ndarray]
) -> None:
    tokens = torch.from_numpy(cases.joined([p.events for p in pieces]).tokens)
    before = torch.cat(hybrid.hidden)[:-1]
    with torch.no_grad():
        expected = model.tokens.logits(before).log_softmax(-1).gather(-1, tokens[1:, None])[:, 0]
    assert np.array_equal(found["token"], tokens[1:].numpy())
    np.testing.assert_allclose(found["logprob"], expected.numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("positions", ["learned", "relative", "none"])
def test_so_it_is_with_other_positions(positions: str) -> None:
    model = cases.build(cases.tiny("tokens", positions=positions))
    pieces = cases.cut(cases.events(model.config, 31), 12, (5, 14, 15))
    runtime = asl.Runtime(model, cases.fixed(1))
    cases.run_all(runtime, pieces)
    hybrid = ordinary(model, "hard")
    read_all(hybrid, pieces)
    assert torch.equal(cases.row(runtime, "s")["last_hidden"], hybrid.hidden[-1][-1])
    for name, tensor in hybrid.weights:
        assert torch.equal(cases.row(runtime, "s")[f"now.{name}"], tensor[0])
