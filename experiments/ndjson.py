"""Events as lines of JSON, strictly: what a line holds is checked field by field and named.

Where the lines come from is in sources.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptive_sleep.config import ModelConfig
from adaptive_sleep.experiments.live_event import (
    LiveEvent,
    check_time,
    checked_text,
    checked_token,
    shown,
)
from adaptive_sleep.streams.errors import InputError, nearest

FIELDS = ("stream", "time", "values", "token", "category")
WRITTEN = "ISO 8601 such as '2026-01-31T12:00:00Z', or whole ns since 1970"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FRACTION = re.compile(r".{11}[^.,+-]*[.,]([0-9]+)")  # of the second: after a date, before a zone
_DIGITS = re.compile(r"\s*[+-]?[0-9]+\s*")  # of a number; some would be read as a date
_GREATEST = float(np.finfo(np.float32).max)
_LONGEST = 400  # digits of a whole number; more is beyond every field


class _Word:
    """NaN, Infinity or -Infinity, which JSON does not have."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        """As it was written."""
        return self._text


def ndjson_events(
    lines: Iterable[bytes | str | None],
    config: ModelConfig,
    *,
    place: str = "input",
    categories: Sequence[str] = (),
) -> Iterator[LiveEvent | None]:
    """Events from lines such as `{"stream": "a", "time": "2026-01-01T00:00:00Z", "values": {...}}`.

    `stream` is `place` where it is left out; `time` is ISO 8601 (no zone means UTC) or ns since
    1970; `values` by channel, absent or null = missing; a token model has `"token": 7` instead, or
    `"category": "login"`, one of the `categories` that its tokens stand for. Empty lines are
    skipped, and None (no line for now) is given on.
    Raises InputError naming `place`, line, field and value, and what is allowed.
    """
    order = {name: i for i, name in enumerate(config.inputs)}
    tokens = {name: i for i, name in enumerate(categories)}
    number = 0
    for text in lines:
        if text is None:
            yield None
            continue
        number += 1
        if not text.strip():
            continue
        try:
            line = _line(text)
            stream = checked_text("stream", line.get("stream", "")) or place
            token = _token(line, config, tokens)
            yield LiveEvent(stream, _time(line), _values(line, order), token)
        except InputError as error:
            raise InputError(f"{place}, line {number}: {error}") from None


def _line(text: bytes | str) -> dict[str, Any]:
    try:
        found = json.loads(
            text if isinstance(text, str) else text.decode(),
            object_pairs_hook=_object,
            parse_constant=_Word,
            parse_int=_whole,
        )
    except UnicodeDecodeError as error:
        raise InputError(f"no UTF-8 at byte {error.start + 1}") from None
    except json.JSONDecodeError as error:
        raise InputError(f"no JSON: {error.msg}, at character {error.pos + 1}") from None
    except RecursionError:
        raise InputError("no event: its JSON is nested too deeply") from None
    if not isinstance(found, dict):
        raise InputError(f'{shown(found)}: an object such as {{"time": 0, "values": {{}}}}')
    for name in found:
        if name not in FIELDS:
            known = nearest(name, FIELDS) or f"; the fields are {', '.join(FIELDS)}"
            raise InputError(f"{name}={shown(found[name])}: no such field{known}")
    return found


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: dict[str, Any] = {}
        for name, value in pairs:
            if name in seen:
                raise InputError(
                    f"{name}={shown(value)}: given twice, before as {shown(seen[name])}; once"
                )
            seen[name] = value
    return found


def _whole(text: str) -> int | float:
    return int(text) if len(text) <= _LONGEST else float(text)


def _time(line: Mapping[str, Any]) -> int:
    given = line.get("time")
    if given is None:
        raise InputError(f"time: missing; {WRITTEN}")
    if type(given) is not int and not isinstance(given, str):
        raise InputError(f"time={shown(given)}: {WRITTEN}")
    found = given if isinstance(given, int) else _written(given)
    check_time(found, given)
    return found


def _written(text: str) -> int:
    """ISO 8601 as ns since 1970; datetime reads microseconds and would drop the digits after."""
    if _DIGITS.fullmatch(text):
        raise InputError(f"time={shown(text)}: {WRITTEN}; a number is written without quotes")
    fraction = _FRACTION.match(text)
    digits = fraction[1] if fraction else ""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(f"time={shown(text)}: {WRITTEN}") from None
    if len(digits) > 9:
        raise InputError(f"time={text!r}: at most 9 digits of a second, which are nanoseconds")
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000 + int(digits.ljust(9, "0")[6:])


def _values(line: Mapping[str, Any], order: Mapping[str, int]) -> NDArray[np.float32] | None:
    given = line.get("values")
    if not order:
        if given is not None:
            raise InputError("values: the model reads tokens; give token")
        return None
    if given is None:
        raise InputError(f"values: missing; give a number for any of {', '.join(order)}")
    if not isinstance(given, dict):
        raise InputError(
            f"values={shown(given)}: an object, a number for any of {', '.join(order)}"
        )
    row = np.full(len(order), np.nan, np.float32)
    for name, value in given.items():
        if name not in order:
            known = nearest(name, order) or f"; the channels are {', '.join(order)}"
            raise InputError(f"values: {name}={shown(value)}: no such channel{known}")
        if value is None:
            continue
        if type(value) not in (int, float):
            raise InputError(
                f"values: {name}={shown(value)}: a number, or null where it is missing"
            )
        if abs(value) > _GREATEST:
            raise InputError(
                f"values: {name}={shown(value)} is not finite as float32; null is missing"
            )
        row[order[name]] = value
    return row


def _token(line: Mapping[str, Any], config: ModelConfig, tokens: Mapping[str, int]) -> int | None:
    token, category = line.get("token"), line.get("category")
    if config.kind == "series":
        for name in ("token", "category"):
            if line.get(name) is not None:
                raise InputError(f"{name}: the model reads channels; give values")
        return None
    if category is None:
        return checked_token(token, config)
    if token is not None:
        raise InputError("token, category: give one of the two")
    if not isinstance(category, str) or category not in tokens:
        known = nearest(str(category), tokens) if tokens else "; it knows none, give token"
        raise InputError(f"category={shown(category)}: unknown to the model{known}")
    return tokens[category]
