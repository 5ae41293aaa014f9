"""What a model is made of, as frozen dataclasses, and their strict decoding from TOML or JSON.

Training recipes and run settings are decoded by the same function; what they mean lives elsewhere.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from adaptive_sleep.streams.errors import InputError, nearest

T = TypeVar("T")

Kind = Literal["tokens", "series"]
Layer = Literal["attention", "deltanet"]
Positions = Literal["rotary", "learned", "relative", "none"]
Injection = Literal["linear", "residual", "feedback"]
Carry = Literal["restart", "accumulate"]
SleepAttention = Literal["causal", "bidirectional"]
Eviction = Literal["hard", "sliding", "heaviest", "retrieve"]
Questions = Literal["alone", "text"]

OCTAVES = 4  # tokens: a real number x is read as sin and cos of pi 2^j x, j below this


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The shape of one hybrid of windowed attention and Gated DeltaNet.

    `kind` "tokens" needs `vocabulary`; "series" needs `channels` (forecast) and may have `actions`
    (inputs, never forecast). Sizes are in events, positions, heads or features as named below.
    """

    kind: Kind
    vocabulary: int = 0  # tokens: ids run from 0 to vocabulary - 1
    fields: tuple[int, ...] = ()  # tokens: sizes of what a token packs, e.g. (17, 17, 9); () none
    values: int = 0  # tokens: real numbers that an event carries beside its token; 0..64
    answers: int = 0  # tokens: classes of what is asked; 1 a real number, 0 the next token
    questions: Questions = "alone"  # answers: "alone" only reads; "text" is a causal pass
    loops: int = 1  # answers: passes over a window of questions, each reading the one before
    memory_tokens: int = 0  # answers: vectors that a window reads and writes, carried to the next
    channels: tuple[str, ...] = ()  # series: observed channels, e.g. ("cpu_user", "disk_write")
    actions: tuple[str, ...] = ()  # series: channels that are known at their time
    patch: int = 1  # series: events per position
    quantiles: tuple[float, ...] = (0.1, 0.25, 0.5, 0.75, 0.9)
    norm_memory: int = 4096  # series: events that the running mean and scale remember
    horizon: int = 1  # series: patches that the head forecasts at once
    skip: int = 0  # series: last values of a channel that a linear map adds to its forecast
    width: int = 64  # features d of a position
    layers: tuple[Layer, ...] = ("attention", "deltanet")
    heads: int = 4  # attention heads; head size is width // heads
    fast_heads: int = 2  # heads of the fast weights
    key_dim: int = 32  # K, rows of one fast-weight matrix
    value_dim: int = 32  # V, its columns
    conv: int = 4  # taps of the short convolution; 0 leaves it out
    mlp_ratio: int = 2  # hidden features of a block's MLP, as a multiple of width
    positions: Positions = "rotary"
    window: int = 64  # events that attention holds
    injection: Injection = "linear"
    carry: Carry = "restart"
    sleep_attention: SleepAttention = "causal"
    dropout: float = 0.0  # share of a block's output that training drops; none when it runs

    def __post_init__(self) -> None:
        _check_model(self)

    def identity(self) -> dict[str, Any]:
        """What a model's hash covers: every field, but those added later only where they are
        set, so that older checkpoints keep their hash."""
        return {
            name: value
            for name, value in dataclasses.asdict(self).items()
            if name not in _LATER or value != _LATER[name]
        }

    @property
    def inputs(self) -> tuple[str, ...]:
        """Channels that the model reads, observed ones first, then actions."""
        return self.channels + self.actions

    @property
    def window_positions(self) -> int:
        """Positions that one window of `window` events can take: ceil(window / patch)."""
        return -(-self.window // self.patch)


# Fields that the first checkpoints did not have, and what they were then.
_LATER: dict[str, Any] = {
    "fields": (),
    "values": 0,
    "answers": 0,
    "questions": "alone",
    "loops": 1,
    "memory_tokens": 0,
    "horizon": 1,
    "skip": 0,
}
_WORDS: dict[str, tuple[str, ...]] = {
    "kind": typing.get_args(Kind),
    "positions": typing.get_args(Positions),
    "injection": typing.get_args(Injection),
    "carry": typing.get_args(Carry),
    "sleep_attention": typing.get_args(SleepAttention),
    "questions": typing.get_args(Questions),
}


def _check_word(field: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        words = " or ".join(repr(a) for a in allowed)
        raise InputError(f"{field}={value!r}: {words}{nearest(str(value), allowed)}")


def _check_model(config: ModelConfig) -> None:
    """Refuse a configuration that cannot be built, naming field, value and repair."""
    for name, allowed in _WORDS.items():
        _check_word(name, getattr(config, name), allowed)
    for layer in config.layers:
        _check_word("layers", layer, typing.get_args(Layer))
    for name in ("width", "heads", "fast_heads", "key_dim", "value_dim", "mlp_ratio", "patch"):
        value = getattr(config, name)
        if value < 1:
            raise InputError(f"{name}={value}: must be at least 1")
    if config.window < 1:
        raise InputError(f"window={config.window}: a window holds at least 1 event")
    if config.conv < 0 or config.conv == 1:
        raise InputError(f"conv={config.conv}: 0 (none) or at least 2 taps")
    if not 0.0 <= config.dropout < 1.0:
        raise InputError(f"dropout={config.dropout}: 0 to below 1")
    if config.norm_memory < 2:
        raise InputError(f"norm_memory={config.norm_memory}: at least 2 events")
    if config.width % config.heads or (config.width // config.heads) % 2:
        raise InputError(
            f"heads={config.heads}: width={config.width} must split into heads of even size"
        )
    if "deltanet" not in config.layers:
        raise InputError(f"layers={config.layers}: at least one 'deltanet' holds the fast weights")
    if config.questions != "alone" and not config.answers:
        raise InputError(
            f"questions={config.questions!r}: only a token model with answers is asked; set answers"
        )
    if config.loops != 1 and (config.loops < 1 or not config.answers):
        raise InputError(
            f"loops={config.loops}: at least 1, and more only over questions; set answers"
        )
    if config.memory_tokens < 0 or (config.memory_tokens and not config.answers):
        raise InputError(
            f"memory_tokens={config.memory_tokens}: 0 (none) or more, which only a window that is "
            "read whole can write; set answers"
        )
    if config.kind == "tokens":
        _check_tokens(config)
    else:
        _check_series(config)


def _check_tokens(config: ModelConfig) -> None:
    if config.vocabulary < 2:
        raise InputError(f"vocabulary={config.vocabulary}: a token model needs at least 2 ids")
    if config.channels or config.actions:
        raise InputError("channels: a token model has none; set kind = 'series' or leave them out")
    if config.patch != 1:
        raise InputError(f"patch={config.patch}: tokens are read one by one (patch = 1)")
    for name, none in (("horizon", 1), ("skip", 0)):
        if getattr(config, name) != none:
            raise InputError(
                f"{name}={getattr(config, name)}: a token model has none; leave it at {none}"
            )
    if config.answers < 0:
        raise InputError(
            f"answers={config.answers}: 0 (the next token), 1 (a real number) or more (classes)"
        )
    if not 0 <= config.values <= 64:
        raise InputError(f"values={config.values}: 0 to 64 real numbers beside each token")
    if config.values and not config.answers:
        raise InputError(
            f"values={config.values}: real numbers are read, not predicted; set answers"
        )
    if config.fields and (min(config.fields) < 1 or math.prod(config.fields) != config.vocabulary):
        raise InputError(
            f"fields={config.fields}: sizes of at least 1 whose product is "
            f"vocabulary={config.vocabulary}"
        )
    if config.fields and not config.answers:
        raise InputError(
            f"fields={config.fields}: packed tokens are read, not predicted; set answers"
        )


def _check_series(config: ModelConfig) -> None:
    if not config.channels:
        raise InputError("channels=(): a series model forecasts at least one channel")
    names = config.inputs
    if len(set(names)) != len(names):
        twice = sorted({n for n in names if names.count(n) > 1})
        raise InputError(f"channels: named twice: {', '.join(twice)}")
    for name in ("vocabulary", "fields", "values", "answers"):
        if getattr(config, name):
            raise InputError(f"{name}={getattr(config, name)}: a series model has none")
    if config.horizon < 1:
        raise InputError(f"horizon={config.horizon}: a forecast is of at least 1 patch")
    if config.skip < 0:
        raise InputError(f"skip={config.skip}: 0 (no linear map) or more values")
    levels = config.quantiles
    ordered = all(0 < a < b < 1 for a, b in itertools.pairwise(levels))
    if len(levels) < 2 or not ordered:
        raise InputError(f"quantiles={levels}: at least two, rising, between 0 and 1")
    if config.patch > config.window:
        raise InputError(f"patch={config.patch}: at most window={config.window} events")


def decode(cls: type[T], data: Mapping[str, Any], *, where: str = "") -> T:
    """Build the frozen dataclass `cls` from plain data; unknown fields and wrong types are errors.

    `where` names the file or table in the message. Raises InputError.
    """
    _refuse_unknown(cls, data, where, cls)
    try:
        return msgspec.convert(data, cls)
    except InputError as error:
        raise InputError(f"{where}: {error}" if where else str(error)) from None
    except msgspec.ValidationError as error:
        place = _with_value(str(error), data)
        raise InputError(f"{where}: {place}" if where else place) from None


def _with_value(message: str, data: Any) -> str:
    """What msgspec says of a field, with the value that is there before it."""
    said, _, path = message.replace("Object missing", "missing").partition(" - at `$.")
    path = path.removesuffix("`")
    said = said[:1].lower() + said[1:]
    if not path:
        return said.replace("$.", "")
    if "[...]" in path or said.startswith("missing"):  # of one of several; which, it does not say
        return f"{path}: {said}"
    value = data
    for step in re.findall(r"[^.\[\]]+", path):
        value = value[int(step) if isinstance(value, (list, tuple)) else step]
    bare = isinstance(value, (bool, int, float))
    quotes = "; write it in quotes" if bare and said.startswith("expected `str`") else ""
    return f"{path}={value!r:.60}: {said}{quotes}"


def read_toml(path: str | Path) -> dict[str, Any]:
    """The tables of a TOML file; InputError where it is absent or not TOML."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid TOML: {error}") from None


def type_of(cls: type, table: str, name: str) -> Any:
    """The type of the field `name` in a `table` of the recipe `cls`, or, where table is "", at its
    top; None where the recipe does not say."""
    holder = _tables(cls).get(table) if table else cls
    return typing.get_type_hints(holder).get(name) if holder is not None else None


def _refuse_unknown(cls: type, data: Mapping[str, Any], where: str, root: type) -> None:
    """msgspec ignores unknown fields of dataclasses, and does not say which words a field takes.

    `root`: of the whole recipe, in which a field may belong elsewhere.
    """
    if not isinstance(data, Mapping):
        raise InputError(f"{where or cls.__name__}: a table is expected, got {data!r}")
    hints = typing.get_type_hints(cls)
    known = [f.name for f in dataclasses.fields(cls) if f.init]
    for key, value in data.items():
        if key not in known:
            place = f"{where}: " if where else ""
            raise InputError(
                f"{place}unknown field {key!r}{_repair(key, known, _places(root))} "
                f"(known: {', '.join(known)})"
            )
        field = f"{where}.{key}" if where else key
        _refuse_words(field, hints[key], value)
        inner = _table_in(key, hints[key])
        if inner is not None and isinstance(value, Mapping):
            _refuse_unknown(inner, value, field, root)


def _repair(key: str, known: list[str], places: Mapping[str, list[str]]) -> str:
    """What to do about a field that its table does not know."""
    if key in places:
        return f": it belongs to {' or '.join(places[key])}"
    if key == "seed" and "training" in places and "seeds" not in known:
        return ": it is given to the command, as --seed or --seeds"
    return nearest(key, known)


def _refuse_words(field: str, hint: Any, value: Any) -> None:
    """Refuse a word that a field of words does not take, also as one of several."""
    if typing.get_origin(hint) is Literal and isinstance(value, str):
        _check_word(field, value, typing.get_args(hint))
    if typing.get_origin(hint) is tuple and isinstance(value, (list, tuple)):
        each, *rest = typing.get_args(hint)
        for number, item in enumerate(value if rest == [...] else ()):
            _refuse_words(f"{field}[{number}]", each, item)


def _places(cls: type) -> dict[str, list[str]]:
    """Where each field of a recipe belongs, in words: to its top, or to one or more tables."""
    found = {name: ["the top, above all tables"] for name in typing.get_type_hints(cls)}
    for table, inner in _tables(cls).items():
        for name in typing.get_type_hints(inner):
            found.setdefault(name, []).append(f"[{table}]")
    return found


def _tables(cls: type) -> dict[str, type]:
    """The tables of a recipe, and the dataclass that says what each of them holds."""
    found = {name: _table_in(name, hint) for name, hint in typing.get_type_hints(cls).items()}
    return {name: inner for name, inner in found.items() if inner is not None}


def _table_in(name: str, hint: Any) -> type | None:
    """The dataclass that a field holds, also behind `X | None`. That of a recipe's `model` is
    `ModelConfig`, though it is kept as it is written, until its task or recording fills it."""
    if name == "model" and hint == dict[str, Any]:
        return ModelConfig
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        inner = [a for a in typing.get_args(hint) if dataclasses.is_dataclass(a)]
        return inner[0] if len(inner) == 1 else None  # type: ignore[return-value]
    return hint if isinstance(hint, type) and dataclasses.is_dataclass(hint) else None
