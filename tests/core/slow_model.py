"""The design's mathematics, one stream and one position at a time, in float64: slow and plain."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

import adaptive_sleep as asl


def rms(x: Tensor, gain: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * gain


@dataclass
class State:
    """Fast weights of one stream: S and the tail of every DeltaNet layer, by its index."""

    matrices: dict[int, Tensor]
    tails: dict[int, list[Tensor]]

    def norm_of_change(self, before: State) -> float:
        moved = sum((self.matrices[i] - before.matrices[i]).square().sum() for i in self.matrices)
        size = sum(m.square().sum() for m in self.matrices.values())
        return float(moved.sqrt() / (size.sqrt() + 1e-6))


@dataclass
class Slow:
    """Runs a model's blocks over lists of positions; `held`: keys and values kept by attention."""

    model: asl.Model
    held: dict[int, list[tuple[Tensor, Tensor]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.model = copy.deepcopy(self.model).double()
        self.config = self.model.config

    def fresh(self) -> State:
        config, found = self.config, State({}, {})
        mixed = config.fast_heads * (2 * config.key_dim + config.value_dim)
        for i, layer in enumerate(config.layers):
            if layer == "deltanet":
                shape = (config.fast_heads, config.key_dim, config.value_dim)
                found.matrices[i] = torch.zeros(shape, dtype=torch.float64)
                empty = torch.zeros(mixed, dtype=torch.float64)
                found.tails[i] = [empty] * max(config.conv - 1, 0)
        return found

    @torch.no_grad()
    def run(
        self,
        inputs: list[Tensor],
        state: State,
        *,
        both_ways: bool = False,
        window: int | None = None,
    ) -> tuple[list[Tensor], State]:
        """One pass behind `held`, which it extends; `window`: positions that a query sees."""
        x, after = list(inputs), State({}, {})
        for i, block in enumerate(self.model.blocks):
            normal = [rms(h, block.mixer_gain) for h in x]
            if self.config.layers[i] == "attention":
                mixed = self._attend(i, normal, both_ways, window)
            else:
                mixed, after.matrices[i], after.tails[i] = self._delta(i, normal, state)
            x = [h + m for h, m in zip(x, mixed, strict=True)]
            for t, h in enumerate(x):
                inner = F.linear(rms(h, block.mlp_gain), block.up.weight)
                x[t] = h + F.linear(inner.clamp(min=0) ** 2, block.down.weight)
        return x, after

    def _attend(
        self, layer: int, x: list[Tensor], both_ways: bool, window: int | None
    ) -> list[Tensor]:
        mixer, heads = self.model.blocks[layer].mixer, self.config.heads
        size = self.config.width // heads
        held = self.held.setdefault(layer, [])
        past, queries = len(held), []
        for h in x:
            q, k, v = F.linear(h, mixer.project.weight).view(3, heads, size)
            held.append((k, v))
            queries.append(q)
        outputs = []
        for t, q in enumerate(queries):
            here, heard = past + t, []
            for head in range(heads):
                scores, values = [], []
                for place, (k, v) in enumerate(held):
                    if place > here and not both_ways:
                        continue
                    if window is not None and here - place >= window:
                        continue
                    scores.append(self._score(mixer, head, q[head], k[head], here, place))
                    values.append(v[head])
                weight = torch.stack(scores).softmax(0)
                heard.append(sum(w * v for w, v in zip(weight, values, strict=True)))
            outputs.append(F.linear(torch.cat(heard), mixer.out.weight))
        return outputs

    def _score(
        self, mixer: torch.nn.Module, head: int, q: Tensor, k: Tensor, here: int, place: int
    ) -> Tensor:
        size, kind = len(q), self.config.positions
        if kind == "rotary":  # as complex numbers: the angle depends on the distance alone
            half = size // 2
            turn = 10_000.0 ** (-torch.arange(half, dtype=torch.float64) / half) * (here - place)
            one, other = torch.complex(q[:half], q[half:]), torch.complex(k[:half], k[half:])
            product = (one * torch.exp(1j * turn) * other.conj()).real.sum()
        else:
            product = q @ k
        product = product / size**0.5
        if kind == "relative":
            product = product + mixer.bias[head, here - place + self.config.window_positions - 1]
        return product

    def _delta(
        self, layer: int, x: list[Tensor], state: State
    ) -> tuple[list[Tensor], Tensor, list[Tensor]]:
        mixer, config = self.model.blocks[layer].mixer, self.config
        heads, key, value = config.fast_heads, config.key_dim, config.value_dim
        S, tail, outputs = state.matrices[layer].clone(), list(state.tails[layer]), []
        for h in x:
            mixed = F.linear(h, mixer.project.weight)
            if config.conv:
                recent = [*tail, mixed]
                tail = recent[1:]
                mixed = sum(mixer.taps_weight[:, w] * r for w, r in enumerate(recent))
            q, k, v = F.silu(mixed).split([heads * key, heads * key, heads * value])
            gates = F.linear(h, mixer.gates.weight)
            read = []
            for n in range(heads):
                qn = q.view(heads, key)[n] / q.view(heads, key)[n].norm()
                kn = k.view(heads, key)[n] / k.view(heads, key)[n].norm()
                beta = gates[n].sigmoid()
                g = -mixer.log_rate[n].exp() * F.softplus(gates[heads + n] + mixer.rate_bias[n])
                kept = g.exp() * S[n]
                S[n] = kept + torch.outer(kn, beta * (v.view(heads, value)[n] - kept.T @ kn))
                read.append(rms(S[n].T @ qn * key**-0.5, mixer.norm))
            gated = torch.cat(read) * F.silu(F.linear(h, mixer.output_gate.weight))
            outputs.append(F.linear(gated, mixer.out.weight))
        return outputs, S, tail

    def inject(self, embedded: Tensor, hidden: Tensor) -> Tensor:
        inject = self.model.inject
        normal = rms(hidden, inject.gain)
        if self.config.injection == "linear":
            return embedded + inject.weight @ normal
        return embedded + normal if self.config.injection == "residual" else normal

    @torch.no_grad()
    def sleep(
        self, embedded: list[Tensor], hidden: list[Tensor], before: State, after: State, passes: int
    ) -> tuple[State, float]:
        """Passes 2..N (design, section 4); returns SN with pass 1's tails and its last change."""
        current, change = after, after.norm_of_change(before)
        both_ways = self.config.sleep_attention == "bidirectional"
        held, self.held = self.held, {}
        for _ in range(passes - 1):
            self.held = {}  # keys and values of a sleep pass are dropped
            carried = before if self.config.carry == "restart" else current
            start = State(carried.matrices, before.tails)
            inputs = [self.inject(e, h) for e, h in zip(embedded, hidden, strict=True)]
            hidden, fresh = self.run(inputs, start, both_ways=both_ways)
            change = fresh.norm_of_change(current)
            current = fresh
        self.held = held
        return State(current.matrices, after.tails), change
