"""The schema of a recording as a writer is given it: checked before anything is written, and
against the recording that an appending writer goes on with.

How the manifest is stored is in `manifest`; what a row may hold is in `rows`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

import msgspec
import numpy as np

from .errors import InputError, nearest
from .events import Channel, Role
from .manifest import RESERVED, SCHEMA, ChannelEntry, Kind, Manifest

MOST_TOKENS = 2**31  # a shard holds a token as int32
_MOST_NS = int(np.iinfo(np.int64).max)
_TEXT = "a str that UTF-8 can hold"
_NAMES = f"a list of names, each {_TEXT}"


def checked_schema(
    *,
    kind: Kind,
    channels: Sequence[Channel],
    tokenizer: str | None,
    vocabulary: int | None,
    categories: Sequence[str],
    provenance: Mapping[str, str] | None,
) -> Manifest:
    """The manifest of a recording without rows, NumPy's numbers and text taken as Python's.

    Raises InputError for what no reader could open, or no shard could hold.
    """
    kind = _one_of("kind", kind, get_args(Kind))
    if tokenizer is not None:
        tokenizer = _text("tokenizer", tokenizer, f"{_TEXT}, or None")
    if vocabulary is not None:
        vocabulary = checked_whole(
            "vocabulary", vocabulary, 0, MOST_TOKENS, "since tokens are int32"
        )
    if kind == "tokens" and (vocabulary is None or vocabulary < 1 or tokenizer is None):
        raise InputError("a recording of tokens needs a tokenizer and a vocabulary of >= 1")
    return Manifest(
        schema=SCHEMA,
        kind=kind,
        channels=entries(_checked_channels(kind, channels)),
        tokenizer=tokenizer,
        vocabulary=vocabulary,
        categories=checked_categories("categories", categories),
        provenance=_checked_provenance({} if provenance is None else provenance),
    )


def checked_categories(field: str, categories: Sequence[str]) -> tuple[str, ...]:
    """The names of codes 0..n-1; raises InputError, naming `field`, for what is no name."""
    if isinstance(categories, set | frozenset):  # msgspec takes these, in any order
        raise InputError(f"{field}={categories!r}: {_NAMES}")
    found: tuple[str, ...] = _taken(field, categories, tuple[str, ...], _NAMES)
    return found


def entries(channels: Sequence[Channel]) -> tuple[ChannelEntry, ...]:
    """The channels as a manifest writes them."""
    return tuple(ChannelEntry(c.name, c.role, c.unit, c.categories, c.delay_ns) for c in channels)


def extended(found: Manifest, wanted: Manifest, path: object) -> Manifest:
    """`found` with the categories that `wanted` adds at the end of a channel's, and its provenance.

    Raises InputError that names the first difference where the schemas differ otherwise: rows there
    would change their meaning; or where the provenance says something else than it did.
    """
    told = f"{path}: cannot append: "
    for name in ("kind", "tokenizer", "vocabulary"):
        _refuse_other(told + name, getattr(found, name), getattr(wanted, name))
    _check_tokens(told, found.categories, wanted.categories)
    _check_names(told, [old.name for old in found.channels], [new.name for new in wanted.channels])
    channels = []
    for old, new in zip(found.channels, wanted.channels, strict=True):
        for name in ("role", "unit", "delay_ns"):
            field = f"{told}channel {old.name!r}: {name}"
            _refuse_other(field, getattr(old, name), getattr(new, name))
        categories = new.categories
        if categories == old.categories[: len(categories)]:
            categories = old.categories  # fewer of them, or none, say nothing else
        check_extension(old.name, old.categories, categories)
        channels.append(msgspec.structs.replace(old, categories=categories))
    for key in found.provenance.keys() & wanted.provenance.keys():
        had, given = found.provenance[key], wanted.provenance[key]
        if had != given:
            raise InputError(
                f"{told}provenance[{key!r}]={given!r}, but it says {had!r} there; give that or "
                "leave it out, use another key, or write another recording"
            )
    provenance = found.provenance | wanted.provenance
    return msgspec.structs.replace(found, channels=tuple(channels), provenance=provenance)


def _refuse_other(field: str, had: object, given: object) -> None:
    if had != given:
        raise InputError(
            f"{field}={given!r}, but the rows there have {had!r}; give that, or write another "
            "recording"
        )


def _check_tokens(told: str, had: Sequence[str], given: Sequence[str]) -> None:
    """Raise InputError where tokens have other names."""
    _refuse_other(f"{told}len(categories)", len(had), len(given))
    for code, (old, new) in enumerate(zip(had, given, strict=True)):
        _refuse_other(f"{told}categories[{code}]", old, new)


def _check_names(told: str, had: Sequence[str], given: Sequence[str]) -> None:
    """Raise InputError unless the channels are those that are there, in their order."""
    repair = f"(channels: {', '.join(had)}); give these in order, or write another recording"
    for name in given:
        if name not in had:
            raise InputError(f"{told}no channel {name!r} there{nearest(name, had)} {repair}")
    for name in had:
        if name not in given:
            raise InputError(f"{told}channel {name!r} is there, but not given {repair}")
    if list(had) != list(given):
        raise InputError(f"{told}channels {', '.join(given)}: another order there {repair}")


def check_extension(channel: str, had: tuple[str, ...], given: tuple[str, ...]) -> None:
    """Raise InputError where a code that has a name would lose it."""
    if given[: len(had)] != had:
        raise InputError(
            f"channel {channel!r}: categories={list(given)}: its codes are named {list(had)} "
            "already; new names follow these"
        )


def _checked_channels(kind: Kind, channels: Sequence[Channel]) -> tuple[Channel, ...]:
    """Channels that can be the columns of a recording of this kind; raises InputError."""
    given: object = channels
    if not isinstance(given, Iterable):
        raise InputError(f"channels={given!r}: give a sequence of Channel")
    found = tuple(_checked_channel(channel) for channel in given)
    if kind == "tokens" and any(channel.role != "label" for channel in found):
        raise InputError("channels: a recording of tokens has label channels only")
    if kind == "series" and not any(channel.role == "observed" for channel in found):
        raise InputError("channels: a series needs at least 1 observed channel")
    seen: set[str] = set()
    for channel in found:
        if channel.name in RESERVED or not channel.name or channel.name in seen:
            raise InputError(
                f"channel {channel.name!r}: a name is not empty, given once, "
                f"and none of {', '.join(RESERVED)}"
            )
        seen.add(channel.name)
    return found


def _checked_channel(channel: object) -> Channel:
    if not isinstance(channel, Channel):
        raise InputError(f"channels: {channel!r}: each is a Channel, such as Channel('load')")
    name = _text("channel: name", channel.name)
    told = f"channel {name!r}: "
    role = _one_of(told + "role", channel.role, get_args(Role))
    unit = _text(told + "unit", channel.unit, f"{_TEXT}, '' for none")
    categories = checked_categories(told + "categories", channel.categories)
    delay = checked_whole(told + "delay_ns", channel.delay_ns, 0, _MOST_NS, "the greatest int64")
    return Channel(name, role, unit, categories, delay)


def _checked_provenance(provenance: Mapping[str, str]) -> dict[str, str]:
    if not isinstance(provenance, Mapping):
        raise InputError(f"provenance={provenance!r}: a mapping of text to text")
    return {
        _text("provenance: key", key): _text(f"provenance[{key!r}]", value)
        for key, value in provenance.items()
    }


def _one_of(field: str, value: object, allowed: Sequence[Any]) -> Any:
    if not isinstance(value, str) or value not in allowed:
        near = nearest(value, allowed) if isinstance(value, str) else ""
        raise InputError(f"{field}={value!r}: one of {', '.join(allowed)}{near}")
    return allowed[allowed.index(value)]


def _text(field: str, value: object, allowed: str = _TEXT) -> str:
    found: str = _taken(field, value, str, allowed)
    return found


def checked_whole(field: str, value: object, low: int, high: int, why: str) -> int:
    """The value as Python's int; raises InputError, naming `field`, outside `low` to `high`."""
    allowed = f"an int from {low} to {high}, {why}"
    found: int = _taken(field, value, int, allowed)
    if not low <= found <= high:
        raise InputError(f"{field}={found}: {allowed}")
    return found


def checked_seconds(field: str, value: object) -> float:
    """The value as Python's float; raises InputError, naming `field`, for what no clock reaches."""
    allowed = "a finite number of seconds, 0 or more"
    found: float = _taken(field, value, float, allowed)
    if found < 0:
        raise InputError(f"{field}={found}: {allowed}")
    return found


def _taken(field: str, value: object, kind: Any, allowed: str) -> Any:
    """The value as a reader will have it; raises InputError where it is not of this kind."""
    try:
        plain = msgspec.convert(_plain(value), kind)
        return msgspec.json.decode(msgspec.json.encode(plain), type=kind)
    except (msgspec.MsgspecError, OverflowError, UnicodeEncodeError):
        raise InputError(f"{field}={value!r}: {allowed}") from None


def _plain(value: object) -> object:
    """NumPy's numbers and text as Python's, sequences as lists."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [_plain(entry) for entry in value]
    return value
