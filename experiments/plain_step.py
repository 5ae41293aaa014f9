"""The training step of the recipe hops as one would write it first, in plain torch: what
`bench training` holds the shipped step to.

Nothing here calls the model or the kernels of this package; names of parameters are theirs, so that
weights can be handed over. Sampling a batch is not part of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adaptive_sleep.config import ModelConfig
from adaptive_sleep.curriculum import LearningRecipe
from adaptive_sleep.muon import COEFFICIENTS, STEPS
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.tasks.task import TaskBatch

Form = Literal["chunks", "steps"]
Cut = tuple[Tensor, int, list[int]]  # a weight, along which dimension it is cut, and the sizes
Rule = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
CHUNK = 64  # events at once in the chunked form

# What the plain step does not know, so the recipe must leave it out.
FIXED = {
    "conv": 0,
    "positions": "learned",
    "sleep_attention": "bidirectional",
    "carry": "restart",
    "injection": "linear",
    "dropout": 0.0,
    "questions": "alone",
    "values": 0,
    "loops": 1,
    "memory_tokens": 0,
}


def rule_by_steps(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """The gated delta rule, event by event: o `[B, T, H, V]` and the state after.

    q, k `[B, T, H, K]`, v `[B, T, H, V]`, g, beta `[B, T, H]`, state `[B, H, K, V]`. Source: arXiv
    2412.06464, eq. 10.
    """
    read = []
    for t in range(q.shape[1]):
        state = state * g[:, t].exp()[..., None, None]
        error = v[:, t] - torch.einsum("bhk,bhkv->bhv", k[:, t], state)
        state = state + torch.einsum("bhk,bhv->bhkv", k[:, t], error * beta[:, t, :, None])
        read.append(torch.einsum("bhk,bhkv->bhv", q[:, t], state))
    return torch.stack(read, 1) * q.shape[-1] ** -0.5, state


def rule_by_chunks(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """The same, up to 64 events at once. Source: arXiv 2412.06464, section 3.3."""
    read = []
    per_head = [x.transpose(1, 2) for x in (q, k, v)] + [x.transpose(1, 2) for x in (g, beta)]
    for qs, ks, vs, gs, betas in zip(*(x.split(CHUNK, 2) for x in per_head), strict=True):
        size = qs.shape[2]
        total = gs.cumsum(-1)
        seen = torch.ones(size, size, dtype=torch.bool).tril()
        between = (total[..., :, None] - total[..., None, :]).masked_fill(~seen, -torch.inf).exp()
        written = ks * betas[..., None]
        system = torch.eye(size, dtype=q.dtype) + ((ks @ written.mT) * between).tril(-1)
        late = vs - total.exp()[..., None] * (ks @ state)
        errors = torch.linalg.solve_triangular(system, late, upper=False, unitriangular=True)
        o = total.exp()[..., None] * (qs @ state) + ((qs @ written.mT) * between) @ errors
        read.append(o * q.shape[-1] ** -0.5)
        to_end = (total[..., -1:] - total).exp()[..., None]
        state = total[..., -1].exp()[..., None, None] * state + (written * to_end).mT @ errors
    return torch.cat(read, 2).transpose(1, 2), state


RULES: dict[Form, Rule] = {"chunks": rule_by_chunks, "steps": rule_by_steps}


class PlainAttention(nn.Module):
    """Softmax attention of all events of a window to all of them."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.project = nn.Linear(config.width, 3 * config.width, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)

    def forward(self, x: Tensor, *, alone: bool) -> Tensor:
        """x `[B, T, d]` -> `[B, T, d]`; `alone`: every event sees itself only."""
        q, k, mixed = self.project(x).chunk(3, -1)
        if not alone:
            q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (q, k, mixed))
            mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        y: Tensor = self.out(mixed)
        return y


class PlainDeltaNet(nn.Module):
    """Gated DeltaNet without a convolution."""

    def __init__(self, config: ModelConfig, rule: Rule) -> None:
        super().__init__()
        self.heads, self.key, self.value = config.fast_heads, config.key_dim, config.value_dim
        self.rule = rule
        wide = self.heads * self.value
        self.project = nn.Linear(config.width, 2 * self.heads * self.key + wide, bias=False)
        self.gates = nn.Linear(config.width, 2 * self.heads, bias=False)
        self.output_gate = nn.Linear(config.width, wide, bias=False)
        self.out = nn.Linear(wide, config.width, bias=False)
        self.norm = nn.Parameter(torch.ones(self.value))
        self.log_rate = nn.Parameter(torch.zeros(self.heads))
        self.rate_bias = nn.Parameter(torch.zeros(self.heads))

    def forward(self, x: Tensor, state: Tensor, *, ask: bool) -> tuple[Tensor, Tensor]:
        """x `[B, T, d]`, state `[B, H, K, V]` -> y `[B, T, d]` and the state after; `ask`: x are
        questions, which leave it."""
        batch, size, _ = x.shape
        keys = self.heads * self.key
        q, k, v = F.silu(self.project(x)).split([keys, keys, self.heads * self.value], -1)
        q, k = (F.normalize(t.view(batch, size, self.heads, self.key), dim=-1) for t in (q, k))
        if ask:
            o = torch.einsum("bthk,bhkv->bthv", q, state) * self.key**-0.5
        else:
            beta, raw = self.gates(x).chunk(2, -1)
            g = -self.log_rate.exp() * F.softplus(raw + self.rate_bias)
            v = v.view(batch, size, self.heads, self.value)
            o, state = self.rule(q, k, v, g, beta.sigmoid(), state)
        normal = F.rms_norm(o, (self.value,), self.norm, eps=1e-6).flatten(2)
        return self.out(normal * F.silu(self.output_gate(x))), state


class PlainBlock(nn.Module):
    """A mixer, then an MLP, each on its norm and added to what came in."""

    def __init__(self, config: ModelConfig, layer: str, rule: Rule) -> None:
        super().__init__()
        attends = layer == "attention"
        self.mixer: PlainAttention | PlainDeltaNet = (
            PlainAttention(config) if attends else PlainDeltaNet(config, rule)
        )
        self.up = nn.Linear(config.width, config.mlp_ratio * config.width, bias=False)
        self.down = nn.Linear(config.mlp_ratio * config.width, config.width, bias=False)
        self.mixer_gain = nn.Parameter(torch.ones(config.width))
        self.mlp_gain = nn.Parameter(torch.ones(config.width))

    def forward(
        self, x: Tensor, state: Tensor | None, *, ask: bool
    ) -> tuple[Tensor, Tensor | None]:
        """x `[B, T, d]` and, of a DeltaNet, its state -> both after."""
        normal = F.rms_norm(x, x.shape[-1:], self.mixer_gain, eps=1e-6)
        if isinstance(self.mixer, PlainAttention):
            x = x + self.mixer(normal, alone=ask)
        else:
            y, state = self.mixer(normal, state, ask=ask)
            x = x + y
        normal = F.rms_norm(x, x.shape[-1:], self.mlp_gain, eps=1e-6)
        return x + self.down(F.relu(self.up(normal)) ** 2), state


class PlainFace(nn.Module):
    """The weights of the embedding and of the head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.table = nn.Embedding(sum(config.fields or (config.vocabulary,)), config.width)
        self.gain = nn.Parameter(torch.ones(config.width))
        self.answer = nn.Parameter(torch.zeros(config.answers, config.width))


class PlainInject(nn.Module):
    """What a pass hands on to the next."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(config.width))
        self.weight = nn.Parameter(torch.eye(config.width))

    def forward(self, hidden: Tensor) -> Tensor:
        """Final hidden states `[B, T, d]` -> what is added to the embedded events."""
        normal = F.rms_norm(hidden, hidden.shape[-1:], self.gain, eps=1e-6)
        return F.linear(normal, self.weight)


class PlainHybrid(nn.Module):
    """The model of the recipe hops; `form` is how the gated delta rule is worked out.

    Raises InputError for a configuration that it does not know.
    """

    def __init__(self, config: ModelConfig, form: Form) -> None:
        super().__init__()
        for name, wanted in FIXED.items():
            if getattr(config, name, wanted) != wanted:
                raise InputError(
                    f"bench training: [model] {name}={getattr(config, name)!r}, but the plain step "
                    f"knows {wanted!r} only"
                )
        self.config = config
        self.fields = config.fields or (config.vocabulary,)
        self.face, self.inject = PlainFace(config), PlainInject(config)
        self.places = nn.Parameter(torch.zeros(config.window_positions, config.width))
        rule = RULES[form]
        self.blocks = nn.ModuleList(PlainBlock(config, layer, rule) for layer in config.layers)

    def embed(self, tokens: Tensor) -> Tensor:
        """int64 `[B, T]` -> `[B, T, d]`: the fields of each token, and its place."""
        ids, offset = [], sum(self.fields)
        for size in reversed(self.fields):
            offset -= size
            ids.append(offset + tokens % size)
            tokens = tokens // size
        summed: Tensor = self.face.table(torch.stack(ids, -1)).sum(-2)
        return summed * math.sqrt(self.config.width) + self.places[: tokens.shape[1]]

    def run(
        self, x: Tensor, states: list[Tensor | None], *, ask: bool
    ) -> tuple[Tensor, list[Tensor | None]]:
        """One run of the blocks over x `[B, T, d]`: hidden states, and the states after."""
        after = []
        for block, state in zip(self.blocks, states, strict=True):
            x, left = block(x, state, ask=ask)
            after.append(left)
        return x, after

    def loss(self, batch: TaskBatch, passes: int, *, every: bool) -> Tensor:
        """Mean loss of a batch read with `passes` passes, nats a question; `every` asks after each
        of them, pass n for rung n where the batch has rungs."""
        if batch.fillers:
            raise InputError("task: delays are not in the plain step; leave them out")
        config = self.config
        shape = (len(batch), config.fast_heads, config.key_dim, config.value_dim)
        states: list[Tensor | None] = [
            None if layer == "attention" else torch.zeros(shape) for layer in config.layers
        ]
        found, losses = [states], []
        for words, targets, questions in zip(
            batch.tokens, batch.targets, batch.diagonal, strict=True
        ):
            embedded = self.embed(torch.from_numpy(words))
            if not questions:
                before, found, hidden = found[-1], [], embedded
                for number in range(passes):
                    x = embedded + self.inject(hidden) if number else embedded
                    hidden, after = self.run(x, before, ask=False)
                    found.append(after)
                continue
            for number, after in enumerate(found if every else found[-1:], 1):
                hidden, _ = self.run(embedded, after, ask=True)
                normal = F.rms_norm(hidden, hidden.shape[-1:], self.face.gain, eps=1e-6)
                logits = F.linear(normal, self.face.answer)
                rungs = batch.rungs if every else ()
                wanted = torch.from_numpy(rungs[number - 1] if number <= len(rungs) else targets)
                losses.append(F.cross_entropy(logits.flatten(0, 1), wanted.flatten()))
        return torch.stack(losses).mean()

    def cuts(self) -> list[Cut]:
        """The weight matrices of the blocks, and how they are cut by head."""
        config = self.config
        keys, values = [config.key_dim] * config.fast_heads, [config.value_dim] * config.fast_heads
        heads = [config.width // config.heads] * config.heads
        found: list[Cut] = []
        for block in self.blocks:
            assert isinstance(block, PlainBlock)
            if isinstance(block.mixer, PlainAttention):
                found.append((block.mixer.project.weight, 0, 3 * heads))
                found.append((block.mixer.out.weight, 1, heads))
            else:
                found.append((block.mixer.project.weight, 0, keys + keys + values))
                found.append((block.mixer.output_gate.weight, 0, values))
                found.append((block.mixer.out.weight, 1, values))
            for weight in (block.up.weight, block.down.weight):
                found.append((weight, 0, [len(weight)]))
        return found


class PlainOptimiser:
    """Muon for the matrices of blocks, one after the other, and AdamW for all else."""

    def __init__(self, model: PlainHybrid, training: LearningRecipe) -> None:
        self.cuts, self.training = model.cuts(), training
        self.momenta = [torch.zeros_like(weight) for weight, *_ in self.cuts]
        cut = {id(weight) for weight, *_ in self.cuts}
        self.adam = torch.optim.AdamW(
            [p for p in model.parameters() if id(p) not in cut],
            lr=training.rate,
            betas=training.betas,
            weight_decay=training.weight_decay,
        )

    @torch.no_grad()
    def step(self, factor: float) -> None:
        """Update at `factor` times the rates of the recipe, then forget the gradients."""
        for (weight, dim, sizes), momentum in zip(self.cuts, self.momenta, strict=True):
            assert weight.grad is not None
            momentum.mul_(0.95).add_(weight.grad)
            wanted = weight.grad + 0.95 * momentum
            for part, update in zip(
                weight.split(sizes, dim), wanted.split(sizes, dim), strict=True
            ):
                scale = max(1.0, part.shape[0] / part.shape[1]) ** 0.5
                part -= factor * self.training.matrix_rate * scale * straightened(update)
            weight.grad = None
        for group in self.adam.param_groups:
            group["lr"] = factor * self.training.rate
        self.adam.step()
        self.adam.zero_grad()


def straightened(x: Tensor) -> Tensor:
    """Bring the singular values of x `[r, c]` near 1. Source: Jordan et al., Muon, 2024."""
    if x.shape[0] > x.shape[1]:
        return straightened(x.T).T
    a, b, c = COEFFICIENTS
    x = x / (x.norm() + 1e-7)
    for _ in range(STEPS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x
