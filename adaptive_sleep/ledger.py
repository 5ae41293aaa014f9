"""What a run spends: FLOPs by closed formulas, in phases, and resident bytes.

FLOPs are matrix products, one multiply-add = 2, with visible attention pairs and the one-step form
of the recurrence and of the running statistics, which has no products, whatever the backend
computes. Forecasts that are asked for (`Runtime.predict`) are not in it. Seconds are kept
elsewhere: they do not replay.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from adaptive_sleep.config import OCTAVES, ModelConfig

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Costs:
    """FLOPs of each part of a model, fixed by its configuration.

    `position`: all blocks, per position, without attention pairs; `pair`: all attention layers, per
    visible pair, half of it for its score alone, where it is searched and not attended to; `embed`,
    `head`: per position; `inject`: per position of a sleep pass; `change`:
    both norms of one state-change signal; `pool`: pooling, per position of a summary; `spread`:
    uncertainty, per prediction (of a series per value); `ask`: all blocks, per position of a
    question, which reads the fast weights and leaves them; `alone`: the part of it that a question
    is spared which has nothing but itself to attend to, its own pair included; `loops`: passes over
    a window of questions; `memory`: tokens that a window reads, and, where it is none of questions,
    writes.
    """

    position: int
    pair: int
    embed: int
    head: int
    inject: int
    change: int
    pool: int
    spread: int
    ask: int
    alone: int
    loops: int = 1
    memory: int = 0

    def wake(self, positions: IntArray, pairs: IntArray) -> IntArray:
        """Wake pass of `positions` new positions with `pairs` visible pairs, head included."""
        return positions * (self.position + self.embed + self.head) + pairs * self.pair

    def whole(
        self,
        positions: IntArray,
        past: IntArray | int = 0,
        searched: IntArray | int = 0,
        *,
        causal: bool,
    ) -> IntArray:
        """Wake pass of a whole window of `positions` positions in which nothing is predicted;
        `past`: pairs with what attention held before it, beside those that were only `searched`."""
        blocks = self._blocks(positions, causal, past, searched)
        return blocks + positions * self.embed

    def questions(
        self,
        positions: IntArray,
        asked: IntArray,
        past: IntArray | int = 0,
        searched: IntArray | int = 0,
    ) -> IntArray:
        """A window of `positions` questions that see themselves alone, and the past as in `whole`;
        the head at `asked`."""
        read: IntArray = self.memory * np.sign(positions)  # seen by all, itself included
        pairs = self._seen((positions + read) * read + positions + past, searched)
        nothing = (past + searched + read) == 0  # beside itself, that a question could attend to
        once = (positions + read) * self.ask + pairs - nothing * positions * self.alone
        return self._looped(once, positions) + positions * self.embed + asked * self.head

    def text(
        self,
        positions: IntArray,
        asked: IntArray,
        past: IntArray | int = 0,
        searched: IntArray | int = 0,
    ) -> IntArray:
        """A window of `positions` that asks in a text: a wake pass, the head only at `asked`."""
        once = self._blocks(positions, True, past, searched)
        return self._looped(once, positions) + positions * self.embed + asked * self.head

    def _blocks(
        self,
        positions: IntArray,
        causal: bool,
        past: IntArray | int = 0,
        searched: IntArray | int = 0,
    ) -> IntArray:
        """All blocks over whole windows, with what they read and write beside their positions."""
        size: IntArray = positions + 2 * self.memory * np.sign(positions)
        return size * self.position + self._seen(self._pairs(size, causal) + past, searched)

    def _seen(self, pairs: IntArray, searched: IntArray | int) -> IntArray:
        """Attention over `pairs`, and the scores of those that are `searched`."""
        return pairs * self.pair + searched * (self.pair // 2)

    def _looped(self, once: IntArray, positions: IntArray) -> IntArray:
        """All loops over a window of questions; each but the first reads the one before it."""
        return self.loops * once + (self.loops - 1) * positions * self.inject

    def sleep_pass(self, positions: IntArray, *, causal: bool) -> IntArray:
        """One sleep pass over a closed window of `positions` positions."""
        return self._blocks(positions, causal) + positions * self.inject

    def _pairs(self, positions: IntArray, causal: bool) -> IntArray:
        pairs: IntArray = positions * (positions + 1) // 2 if causal else positions * positions
        return pairs

    def boundary_signals(self, positions: IntArray, predicted: IntArray) -> IntArray:
        """The signals of one closed window: state change, summary, uncertainty."""
        return self.change + positions * self.pool + predicted * self.spread

    def progress_signals(self, positions: IntArray, width: int) -> IntArray:
        """The signals after one sleep pass that a policy is asked after: both changes and the
        summary."""
        return self.change + positions * (self.pool + 4 * width)


def attention_costs(config: ModelConfig) -> tuple[int, int]:
    """One attention mixer: FLOPs per position, FLOPs per visible pair."""
    return 8 * config.width**2, 4 * config.width


def deltanet_costs(config: ModelConfig) -> int:
    """One Gated DeltaNet mixer per position: projections, convolution, one-step recurrence."""
    heads, key, value, width = config.fast_heads, config.key_dim, config.value_dim, config.width
    mixed = heads * (2 * key + value)
    projections = 2 * width * (mixed + 2 * heads + heads * value) + 2 * heads * value * width
    return projections + 2 * mixed * config.conv + 6 * heads * key * value


def ask_costs(config: ModelConfig) -> int:
    """One Gated DeltaNet mixer per question: q through the newest tap alone, gate, product, out."""
    heads, key, value, width = config.fast_heads, config.key_dim, config.value_dim, config.width
    projections = 2 * width * (heads * key + heads * value) + 2 * heads * value * width
    tap = 2 * heads * key if config.conv else 0
    return projections + tap + 2 * heads * key * value


def costs(config: ModelConfig) -> Costs:
    """The closed formulas of design section 4 for one model configuration."""
    attention = attention_costs(config)[0]
    mixer = {"attention": attention, "deltanet": deltanet_costs(config)}
    asking = {"attention": attention, "deltanet": ask_costs(config)}
    mlp = 4 * config.mlp_ratio * config.width**2
    attentions = config.layers.count("attention")
    if config.kind == "tokens":
        classes = config.answers or config.vocabulary
        embed = 2 * (2 * OCTAVES * config.values) * config.width
        head, spread = 2 * config.width * classes, 2 * classes
    else:
        outputs = config.patch * len(config.channels)
        embed = 2 * (2 * config.patch * len(config.inputs)) * config.width
        per_output = config.width * (len(config.quantiles) + 1) + config.skip
        head, spread = 2 * config.horizon * outputs * per_output, 2
    return Costs(
        position=sum(mixer[layer] + mlp for layer in config.layers),
        pair=attentions * attention_costs(config)[1],
        embed=embed,
        head=head,
        inject=2 * config.width**2 if config.injection == "linear" else 0,
        change=4 * config.layers.count("deltanet") * state_numbers(config),
        pool=4 * config.width,
        spread=spread,
        ask=sum(asking[layer] + mlp for layer in config.layers),
        alone=attentions * (4 * config.width**2 + attention_costs(config)[1]),  # q, k and the pair
        loops=config.loops,
        memory=config.memory_tokens,
    )


def state_numbers(config: ModelConfig) -> int:
    """Numbers in the fast-weight matrices of one layer: H * K * V."""
    return config.fast_heads * config.key_dim * config.value_dim


def visible_pairs(past: IntArray, new: IntArray, reach: int | None) -> IntArray:
    """Causal pairs that `new` positions behind `past` held ones see: sum of min(past + t, reach).

    t runs from 1 to new; `reach` is the most positions that one query sees, itself included.
    """
    total = new * past + new * (new + 1) // 2
    if reach is None:
        return total
    # positions t > reach - past see `reach` each instead of past + t
    over = np.clip(past + new - reach, 0, new)
    excess = over * (past + new - reach) - over * (over - 1) // 2
    pairs: IntArray = total - excess
    return pairs


def past_pairs(past: IntArray, new: IntArray, reach: int | None) -> IntArray:
    """Pairs of `new` positions with the `past` held ones before them, whatever they see of each
    other; `reach` as in `visible_pairs`."""
    return visible_pairs(past, new, reach) - visible_pairs(np.zeros_like(past), new, reach)


def resident_bytes(config: ModelConfig, streams: int, held_positions: int) -> int:
    """Bytes that `streams` streams keep between steps: fast weights, tails, what memory tokens
    carry, held keys and values, and the last values that a linear map reads.

    float32 throughout; `held_positions` counts KV positions over all streams. What only sleep needs
    is not in it (`sleep_bytes`).
    """
    cached = 2 * config.width * config.layers.count("attention")
    state = _fast_numbers(config) + config.skip * len(config.inputs)
    return 4 * (streams * state + held_positions * cached)


def sleep_bytes(config: ModelConfig, streams: int, open_positions: int) -> int:
    """Bytes that `streams` streams keep between steps so that they can sleep on the window that is
    open: fast weights, tails and memory as they were before it (S0), and of each of its positions
    what the first pass read and made of it (h0, h1); `open_positions` over all streams.

    0 for a model with `answers`, which holds a window as it came and runs it whole.
    """
    if config.answers:
        return 0
    return 4 * (streams * _fast_numbers(config) + open_positions * 2 * config.width)


def _fast_numbers(config: ModelConfig) -> int:
    """What outlives a window beside keys and values, in numbers."""
    mixed = config.fast_heads * (2 * config.key_dim + config.value_dim)
    layer = state_numbers(config) + max(config.conv - 1, 0) * mixed
    return config.layers.count("deltanet") * layer + config.memory_tokens * config.width


@dataclass(frozen=True)
class Ledger:
    """What has been spent so far: FLOPs by phase, and what they were spent on."""

    wake: int = 0
    sleep: int = 0
    signals: int = 0
    policy: int = 0
    events: int = 0
    windows: int = 0
    passes: int = 0  # over all windows, wake passes included
    peak_resident_bytes: int = 0
    peak_sleeping_bytes: int = 0  # the same with what only sleep needs

    @property
    def resident_bytes(self) -> int:
        """The most bytes kept between steps; what only sleep needs counts where a window slept."""
        slept = self.passes > self.windows
        return max(self.peak_resident_bytes, self.peak_sleeping_bytes if slept else 0)

    @property
    def flops(self) -> int:
        """All phases together."""
        return self.wake + self.sleep + self.signals + self.policy

    @property
    def flops_per_event(self) -> float:
        """All phases, per event read; 0 before the first event."""
        return self.flops / self.events if self.events else 0.0

    def add(self, **amounts: int) -> Ledger:
        """A ledger with `amounts` added to the named fields (of peaks the larger)."""
        grown = {
            name: max(getattr(self, name), int(value))
            if name.startswith("peak_")
            else getattr(self, name) + int(value)
            for name, value in amounts.items()
        }
        return replace(self, **grown)

    def state_dict(self) -> dict[str, int]:
        """Plain numbers, for JSON."""
        return asdict(self)
