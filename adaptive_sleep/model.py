"""The hybrid: embeddings, blocks of attention and Gated DeltaNet, and the injection for sleep.

`Model.run` is one run of the blocks, the ordinary hybrid; what repeats it lives in `sleep.py`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adaptive_sleep.attention import Attention, KVCache, Visibility, empty_cache, view
from adaptive_sleep.config import ModelConfig
from adaptive_sleep.deltanet import DeltaNet
from adaptive_sleep.kernels import added, moves, pooled, relative, rms_norm, squared_relu
from adaptive_sleep.memory import EPSILON, FastWeights, empty_fast_weights
from adaptive_sleep.memory_tokens import MemoryTokens
from adaptive_sleep.series import SeriesFace
from adaptive_sleep.tokens import TokenFace


@dataclass(frozen=True, eq=False)
class Pass:
    """What one run of the blocks leaves.

    `hidden` `[B, T, d]`; `weights`, the fast weights after it; `new`, the keys and values of the
    T new positions (not the past ones; of questions that see themselves alone there are none), with
    their `lengths`. What was measured beside, as asked:
    `change`, the relative change of the fast weights `[B]`; `summary`, the mean- and max-pooled
    hidden states, RMS-normalised, `[B, 2d]`; `hidden_change`, the relative change of these `[B]`;
    `finite`: all three are known to be.
    """

    hidden: Tensor
    weights: FastWeights
    new: KVCache
    change: Tensor | None = None
    summary: Tensor | None = None
    hidden_change: Tensor | None = None
    finite: bool = False

    def moved(self) -> Tensor:
        """The change, which was asked for."""
        assert self.change is not None
        return self.change

    def finite_streams(self) -> Tensor:
        """Boolean `[B]`: which streams have finite hidden states at all their valid positions."""
        valid = torch.arange(self.hidden.shape[1]) < self.new.lengths[:, None]
        return (torch.isfinite(self.hidden).all(-1) | ~valid).all(1)


@dataclass(frozen=True, eq=False)
class Beside:
    """What a run measures on numbers that it holds already: the change of the fast weights from
    `since`; if `pooled`, the summary of the hidden states, and their change from `hidden`
    `[B, T, d]`, where it is given."""

    since: FastWeights
    pooled: bool = False
    hidden: Tensor | None = None


class Block(nn.Module):
    """Pre-norm residual block: a mixer (attention or DeltaNet), then an MLP (squared ReLU)."""

    def __init__(self, config: ModelConfig, layer: str) -> None:
        super().__init__()
        self.mixer = Attention(config) if layer == "attention" else DeltaNet(config)
        self.up = nn.Linear(config.width, config.mlp_ratio * config.width, bias=False)
        self.down = nn.Linear(config.mlp_ratio * config.width, config.width, bias=False)
        self.dropout = config.dropout
        self.mixer_gain = nn.Parameter(torch.ones(config.width))
        self.mlp_gain = nn.Parameter(torch.ones(config.width))

    def mlp(self, x: Tensor) -> Tensor:
        """x plus its MLP, `[B, T, d]`."""
        return x + self.update(x)

    def update(self, x: Tensor) -> Tensor:
        """What the MLP adds to x, `[B, T, d]`."""
        inner = self.up(rms_norm(x, self.mlp_gain))
        return self.drop(self.down(squared_relu(inner)))

    def drop(self, y: Tensor) -> Tensor:
        """What a block adds, with some of it dropped while training."""
        return F.dropout(y, self.dropout, training=self.training) if self.dropout else y

    def normal(self, x: Tensor) -> Tensor:
        """The mixer's input."""
        return rms_norm(x, self.mixer_gain)


class Inject(nn.Module):
    """How pass n reads pass n-1: h0 + W rms(h), h0 + rms(h), or rms(h) (design, section 4)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.kind = config.injection
        self.gain = nn.Parameter(torch.ones(config.width))
        if self.kind == "linear":
            self.weight = nn.Parameter(torch.eye(config.width))

    def forward(self, embedded: Tensor, hidden: Tensor) -> Tensor:
        """embedded, hidden `[B, T, d]` -> input of the next pass `[B, T, d]`."""
        normal = rms_norm(hidden, self.gain)
        if self.kind == "feedback":
            return normal
        return embedded + (F.linear(normal, self.weight) if self.kind == "linear" else normal)


class Model(nn.Module):
    """An attention / Gated DeltaNet hybrid for tokens or for series, that can sleep."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.categories: tuple[str, ...] = ()  # what its tokens stand for, where that is known
        self.face: TokenFace | SeriesFace = (
            TokenFace(config) if config.kind == "tokens" else SeriesFace(config)
        )
        self.blocks = nn.ModuleList(Block(config, layer) for layer in config.layers)
        self.inject = Inject(config)
        self.memory = MemoryTokens(config) if config.memory_tokens else None
        self.places = (
            nn.Parameter(0.02 * torch.randn(config.window_positions, config.width))
            if config.positions == "learned"
            else None
        )
        self._hash = ""
        self._start(config)

    def _start(self, config: ModelConfig) -> None:
        """Initial weights: 1/sqrt(fan in), residual outputs scaled down with depth."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                std = module.in_features**-0.5
                if name.endswith((".out", ".down")):
                    std *= (2 * len(config.layers)) ** -0.5
                if name == "face.write" or name.endswith(".gates"):
                    std *= 0.1
                if name == "face.skip":
                    std = 0.0
                nn.init.normal_(module.weight, std=std)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    @property
    def tokens(self) -> TokenFace:
        """The token face; only for kind "tokens"."""
        assert isinstance(self.face, TokenFace)
        return self.face

    @property
    def series(self) -> SeriesFace:
        """The series face; only for kind "series"."""
        assert isinstance(self.face, SeriesFace)
        return self.face

    @property
    def parameters_count(self) -> int:
        """Trained numbers."""
        return sum(p.numel() for p in self.parameters())

    @property
    def device(self) -> torch.device:
        """Where its weights lie."""
        return next(self.parameters()).device

    @property
    def hash(self) -> str:
        """SHA-256 over configuration and weights: what a snapshot belongs to.

        Computed once, for a model that is no longer trained; `forget_hash` after changing weights.
        """
        if not self._hash:
            digest = hashlib.sha256(json.dumps(self.config.identity(), sort_keys=True).encode())
            for name, tensor in sorted(self.state_dict().items()):
                digest.update(name.encode() + str(tensor.dtype).encode())
                digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
            self._hash = digest.hexdigest()
        return self._hash

    def forget_hash(self) -> None:
        """Say that the weights have changed."""
        self._hash = ""

    def fresh(self, streams: int) -> FastWeights:
        """Fast weights of streams that have seen nothing."""
        return empty_fast_weights(self.config, streams, self.device)

    def placed(self, embedded: Tensor, past: Tensor) -> Tensor:
        """Add learned absolute positions, if any, behind `past` (int64 `[B]`) held ones."""
        if self.places is None:
            return embedded
        steps = past[:, None] + torch.arange(embedded.shape[1], device=past.device)
        return embedded + self.places[steps.clamp(max=len(self.places) - 1)]

    def run(
        self,
        embedded: Tensor,
        lengths: Tensor,
        weights: FastWeights,
        cache: KVCache | None = None,
        *,
        seen: Visibility = "causal",
        reach: int | None = None,
        beside: Beside | None = None,
    ) -> Pass:
        """One pass of the blocks over `embedded` `[B, T, d]`, `lengths` int64 `[B]` of it valid.

        `cache`: what attention still holds (None: nothing); `seen`: who sees whom among the new
        positions; `reach`: positions that a query sees at most (sliding), None for all held.
        Under `seen` "diagonal" the positions are questions: each reads what is held and the fast
        weights alone, and leaves the fast weights as they are. `beside`: what is measured by
        the way (None: nothing). Memory tokens, where the model has them, are read and written
        beside the positions, and seen in nothing but the `weights`.
        """
        if self.memory is None:
            return self._run(embedded, lengths, weights, cache, seen, reach, beside)
        memory, size, carried = self.memory, embedded.shape[1], weights.carried
        assert carried is not None
        since = None if beside is None else Beside(beside.since)
        if seen == "diagonal":
            x, sizes = memory.before(embedded, lengths, carried)
            done = self._run(x, sizes, weights, cache, seen, reach, since, memory.count)
        else:
            x, sizes = memory.around(embedded, lengths, carried)
            done = self._run(x, sizes, weights, cache, seen, reach, since)
            carried = memory.written(done.hidden, lengths, carried)
        keys = {n: memory.inner(t, size) for n, t in done.new.keys.items()}
        values = {n: memory.inner(t, size) for n, t in done.new.values.items()}
        kept, new = replace(done.weights, carried=carried), KVCache(keys, values, lengths)
        hidden, summary, moved = memory.inner(done.hidden, size), None, None
        if beside is not None and beside.pooled:
            summary = pooled(hidden, lengths)
            if beside.hidden is not None:
                moved = relative(moves(hidden, beside.hidden, lengths), floor=EPSILON)
        return Pass(hidden, kept, new, done.change, summary, moved)

    def _run(
        self,
        embedded: Tensor,
        lengths: Tensor,
        weights: FastWeights,
        cache: KVCache | None,
        seen: Visibility,
        reach: int | None,
        beside: Beside | None,
        shared: int = 0,
    ) -> Pass:
        """`run` over positions that hold all there is to read; `shared` as in `view`."""
        cache = cache or empty_cache(self.config, len(lengths), embedded.device)
        past = next((int(t.shape[1]) for t in cache.keys.values()), 0)
        look = view(cache.lengths, past, lengths, embedded.shape[1], seen, reach, shared)
        padded = None if look.full else lengths
        x, matrices, tails = embedded, dict(weights.matrices), dict(weights.tails)
        keys, values, mass, moved = {}, {}, {}, []
        summary = turned = change = None
        finite = False
        for index, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            name, normal = str(index), block.normal(x)
            if look.alone and isinstance(block.mixer, Attention):
                y = block.mixer.alone(normal)
            elif isinstance(block.mixer, Attention):
                seeing = normal, look, cache.keys[name], cache.values[name]
                if cache.mass is None:
                    y, keys[name], values[name] = block.mixer(*seeing, cache.brought)
                else:
                    y, keys[name], values[name], mass[name] = block.mixer.weighed(*seeing)
            elif seen == "diagonal":
                y = block.mixer.ask(normal, weights.matrices[name])
            else:
                y, matrices[name], tail, squares = block.mixer(
                    normal, padded, weights.matrices[name], weights.tails.get(name),
                    None if beside is None else beside.since.matrices[name],
                )  # fmt: skip
                if tail is not None:
                    tails[name] = tail
                if squares is not None:
                    moved.append(squares)
            x = x + block.drop(y)
            if beside is not None and beside.pooled and index + 1 == len(self.blocks):
                given = x, block.update(x), lengths, beside.hidden, moved
                x, summary, turned, change, finite = added(*given, floor=EPSILON)
            else:
                x = block.mlp(x)
        new = KVCache(keys, values, lengths, None if cache.mass is None else mass)
        if moved and change is None:
            change = relative(*moved, floor=EPSILON)
        return Pass(x, FastWeights(matrices, tails), new, change, summary, turned, finite)
