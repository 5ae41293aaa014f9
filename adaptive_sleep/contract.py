"""The policy contract: what a policy is, how it is registered, and how the runtime calls it.

Answers are checked here, once, so that no policy can hand the runtime a wrong number of passes.
Spec strings are in `spec`, the signals in `signals`, the policies we ship in the folder policies/.
"""

from __future__ import annotations

import inspect
import keyword
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Protocol, TypeAlias, TypeVar, runtime_checkable

import numpy as np

from adaptive_sleep.signals import (
    BoolArray,
    IntArray,
    SleepProgress,
    WindowOutcome,
    WindowSignals,
    check_finite,
)
from adaptive_sleep.streams.errors import AdaptiveSleepError, InputError


class PolicyError(AdaptiveSleepError):
    """A policy answered with something that the contract does not allow."""


@runtime_checkable
class SleepPolicy(Protocol):
    """Anything with `plan`; it sees signals, never the model.

    A policy may also have any of these, and is called as if by these defaults where it has not:

    `keep_going(progress: SleepProgress) -> bool | BoolArray` (True): after each sleep pass, for the
    streams still asleep; it can only stop early.
    `observe(outcome: WindowOutcome) -> None`: what came of earlier windows, before `plan`.
    `reset(seed: int) -> None`: forget everything and start afresh.
    `state_dict() -> dict` ({}) and `load_state_dict(state) -> None`: what a resumed run needs;
    str keys, finite numbers, strings, booleans, None, lists and dicts only.
    `flops(streams: int) -> int` (0): what one call of `plan` for so many streams costs.

    A policy that was fitted to one model has an attribute `model_hash: str`, that model's hash:
    a runtime with another model refuses it (`fitted.check_fitted`).
    """

    def plan(self, signals: WindowSignals) -> int | IntArray:
        """Return the passes `[streams]` (or one number for all), from 1 to `max_passes`."""
        ...


PolicyLike: TypeAlias = SleepPolicy | Callable[[WindowSignals], int | IntArray]


@dataclass(frozen=True)
class Range:
    """How a numeric parameter may be tuned, as `Annotated[float, Range(0.1, 10.0, log=True)]`.

    A hint for tuners, not a bound: values outside are allowed. Raises InputError if it is empty,
    not positive though logarithmic, or has a step that is not positive.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise InputError(f"Range({self.low}, {self.high}): low must be less than high")
        if self.log and self.low <= 0:
            raise InputError(f"Range({self.low}, {self.high}, log=True): low must be positive")
        if self.step is not None and not self.step > 0:
            raise InputError(f"Range(step={self.step}): a step is positive, or None")

    def __contains__(self, value: object) -> bool:
        number = isinstance(value, int | float | np.integer | np.floating)
        return number and bool(self.low <= value <= self.high)  # type: ignore[operator]


@dataclass(frozen=True, init=False)
class Choice:
    """The options a tuner may try for a parameter, as `Annotated[str, Choice("mean", "max")]`.

    A hint like Range. Raises InputError if there are none.
    """

    options: tuple[Any, ...]

    def __init__(self, *options: Any) -> None:
        if not options:
            raise InputError("Choice(): give at least one option")
        object.__setattr__(self, "options", options)

    def __contains__(self, value: object) -> bool:
        return value in self.options


C = TypeVar("C", bound=type)
_REGISTRY: dict[str, type] = {}
_MOST_FLOPS = 1 << 60  # so that windows can be added up in int64
_TAKEN = frozenset({"none", "true", "false", "range"})  # names that mean something else in a spec


def policy(name: str) -> Callable[[C], C]:
    """Register a dataclass as the policy `name`, and let `str` of it give its spec string.

    Raises InputError if the name is no lower-case identifier or means something else in a spec, the
    class is no dataclass with `plan` (one that inherits from one adds no field unless it is one
    itself), or another class has the name.
    """
    taken = keyword.iskeyword(name) or name in _TAKEN
    if not (name.isidentifier() and name == name.lower()) or taken:
        raise InputError(
            f"policy name {name!r}: expected a lower-case identifier such as 'my_rule', no keyword "
            f"and none of {', '.join(sorted(_TAKEN))}"
        )

    def register(cls: C) -> C:
        own = "__dataclass_fields__" in vars(cls)  # else what it annotates is no field
        hinted = map(str, inspect.get_annotations(cls).values())
        added = not own and any("ClassVar" not in hint for hint in hinted)
        if not is_dataclass(cls) or added or not callable(getattr(cls, "plan", None)):
            raise InputError(
                f"@policy({name!r}) on {cls.__qualname__}: expected a dataclass with a method plan "
                "(put @policy above @dataclass)"
            )
        other = _REGISTRY.get(name)
        if other is not None and not same_source(other, cls):
            raise InputError(
                f"two policies are named {name!r}: {other.__module__}:{other.__qualname__} and "
                f"{cls.__module__}:{cls.__qualname__}; rename one of them"
            )
        _REGISTRY[name] = cls
        if cls.__str__ is object.__str__:
            type.__setattr__(cls, "__str__", _spec_of)
        return cls

    return register


def registered() -> dict[str, type]:
    """Return the policies registered so far, class by name (a copy)."""
    return dict(_REGISTRY)


def same_source(one: Any, other: Any) -> bool:
    """Tell whether two objects are the same, or one is the other defined again (a reload)."""
    if one is other:
        return True
    places = [
        (getattr(it, "__module__", None), getattr(it, "__qualname__", None)) for it in (one, other)
    ]
    return places[0] == places[1] and None not in places[0]


def _spec_of(self: Any) -> str:
    # spec strings build on the registry, so the import must wait until it is needed
    from adaptive_sleep.spec import format_spec

    return format_spec(self)


def plan_passes(policy: PolicyLike, signals: WindowSignals) -> IntArray:
    """Ask a policy for its passes, int64 `[streams]`, each from 1 to `signals.max_passes`.

    Raises PolicyError naming policy, stream, window and value for anything else: floats, NaN,
    booleans, a wrong shape, less than 1 or more than `max_passes`; AdaptiveSleepError for signals
    that are not finite.
    """
    most = signals.max_passes.copy()  # a policy could write to what it is shown
    values = _planned(policy, signals)
    _refuse(policy, signals, values, values > most, most)
    passes: IntArray = values.astype(np.int64)
    return passes


def planned_passes(policy: PolicyLike, signals: WindowSignals) -> IntArray:
    """As `plan_passes`, for who cuts the passes off: more than `max_passes` are let through."""
    most = np.iinfo(np.int64).max
    passes: IntArray = np.minimum(_planned(policy, signals), most).astype(np.int64)
    return passes


def _planned(policy: PolicyLike, signals: WindowSignals) -> np.ndarray[Any, Any]:
    """Whole numbers from 1, as large as they come."""
    check_finite(signals)
    plan: Any = getattr(policy, "plan", policy)
    answer = plan(signals)
    values = _whole_numbers(policy, signals, answer)
    if values.ndim == 0:
        values = np.full(len(signals), values)
    if values.shape != (len(signals),):
        raise PolicyError(
            f"policy {label(policy)} planned an array of shape {values.shape} for "
            f"{_rows(signals)}: expected ({len(signals)},), or one int for all"
        )
    _refuse(policy, signals, values, values < 1, signals.max_passes)
    return values


def _refuse(
    policy: PolicyLike,
    signals: WindowSignals,
    values: np.ndarray[Any, Any],
    wrong: BoolArray,
    most: IntArray,
) -> None:
    """Raise PolicyError for the first number of passes that is `wrong`, if any is."""
    if wrong.any():
        row = int(np.argmax(wrong))
        raise PolicyError(
            f"policy {label(policy)} planned {values[row]} passes for {_row(signals, row)}: "
            f"expected 1 (no sleep) to {most[row]} (max_passes)"
        )


def _whole_numbers(
    policy: PolicyLike, signals: WindowSignals, answer: object
) -> np.ndarray[Any, Any]:
    whole = isinstance(answer, int | np.integer) and not isinstance(answer, bool)
    if whole or (isinstance(answer, np.ndarray) and answer.dtype.kind in "iu"):
        return np.asarray(answer)
    kind, shown, row = type(answer).__name__, repr(answer), 0
    if isinstance(answer, np.ndarray):
        kind = f"array of {answer.dtype}"
        if answer.shape == (len(signals),) and len(signals):
            if answer.dtype.kind == "f":  # point at what is most telling: the first NaN or fraction
                row = int(np.argmax(~(answer == np.floor(answer)) | np.isinf(answer)))
            shown = str(answer[row])
    raise PolicyError(
        f"policy {label(policy)} planned {shown[:80]} ({kind}) for {_row(signals, row)}: "
        "expected whole numbers, an int or an integer array (.astype(np.int64))"
    )


def keep_going(policy: PolicyLike, progress: SleepProgress, *, finite: bool = False) -> BoolArray:
    """Ask which of the streams still asleep go on, bool `[rows]`; True where it has no opinion.

    `finite`: the progress is known to be, so that nobody need look.

    Raises PolicyError for an answer that is neither a bool nor a bool array `[rows]`, and
    AdaptiveSleepError for progress that is not finite.
    """
    method = getattr(policy, "keep_going", None)
    if method is None:
        return np.ones(len(progress), dtype=np.bool_)
    if not finite:
        check_finite(progress)
    answer = method(progress)
    if isinstance(answer, bool | np.bool_):
        return np.full(len(progress), answer, dtype=np.bool_)
    if not isinstance(answer, np.ndarray) or answer.dtype.kind != "b":
        raise PolicyError(
            f"policy {label(policy)} answered keep_going with {repr(answer)[:80]} for "
            f"{_rows(progress)}: expected a bool or an array of bool"
        )
    if answer.shape != (len(progress),):
        raise PolicyError(
            f"policy {label(policy)} answered keep_going with shape {answer.shape} for "
            f"{_rows(progress)}: expected ({len(progress)},)"
        )
    return answer.copy()


def observe(policy: PolicyLike, outcome: WindowOutcome) -> None:
    """Tell a policy what came of earlier windows, if it wants to know and there are any."""
    method = getattr(policy, "observe", None)
    if method is not None and len(outcome):
        check_finite(outcome)
        method(outcome)


def reset_policy(policy: PolicyLike, seed: int) -> None:
    """Let a policy forget everything; all its randomness comes from `seed`."""
    method = getattr(policy, "reset", None)
    if method is not None:
        method(seed)


def policy_state(policy: PolicyLike) -> dict[str, Any]:
    """Return what a resumed run needs, as a deep copy that JSON holds without loss; {} if nothing.

    Raises PolicyError naming the key of a value that JSON would not give back.
    """
    method = getattr(policy, "state_dict", None)
    state = {} if method is None else _plain(policy, ("state_dict()",), method())
    if not isinstance(state, dict):
        raise PolicyError(f"policy {label(policy)}: state_dict() is {state!r}, expected a dict")
    return state


def load_policy_state(policy: PolicyLike, state: dict[str, Any]) -> None:
    """Put a policy back into a state that `policy_state` returned (it is copied).

    Raises PolicyError if there is a state but the policy has no `load_state_dict`.
    """
    method = getattr(policy, "load_state_dict", None)
    if method is not None:
        method(_plain(policy, ("state",), state))
    elif state:
        raise PolicyError(
            f"policy {label(policy)} has no load_state_dict, but a state to load ({sorted(state)})"
        )


def parts(policy: object) -> Iterator[object]:
    """A policy itself, and those that it wraps: policies among the parameters of a dataclass, also
    in a dict, list or tuple there, however deep."""
    yield policy
    if is_dataclass(policy):
        for field in fields(policy):
            if field.init:  # a parameter; the others are what it remembers
                yield from _parts_within(getattr(policy, field.name, None))


def _parts_within(value: object) -> Iterator[object]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from _parts_within(item)
    elif isinstance(value, SleepPolicy) and not isinstance(value, type):
        yield from parts(value)


def check_memory(policy: PolicyLike) -> None:
    """Refuse what could not be put back: a policy that has one of `state_dict`, `load_state_dict`
    alone, wraps such a one, or wraps one with both, `reset` or `observe` and has not its own.

    Raises PolicyError naming the policy and what it lacks.
    """
    pair = ("state_dict", "load_state_dict")
    for part in parts(policy):
        have = [name for name in pair if getattr(part, name, None) is not None]
        if len(have) == 1:
            missing = pair[1 - pair.index(have[0])]
            raise PolicyError(
                f"policy {label(part)} has {have[0]} but no {missing}: a step that fails is "
                "undone, and a killed run resumed, by putting its state back, so it needs both"
            )
    for part in parts(policy):
        _check_within(part)


def _check_within(outer: object) -> None:
    """Raise PolicyError for a policy that wraps one with a memory that it does not pass on."""
    for inner in parts(outer):
        for name in ("state_dict", "reset", "observe"):
            if getattr(inner, name, None) is not None and getattr(outer, name, None) is None:
                also = "state_dict and load_state_dict" if name == "state_dict" else name
                raise PolicyError(
                    f"policy {label(outer)} has no {name}, but wraps {label(inner)}, which has: "
                    f"only the outer policy is asked, so give it {also} that pass the other's on"
                )


def policy_flops(policy: PolicyLike, streams: int) -> int:
    """Return the FLOPs of one `plan` for so many streams, 0 where the policy does not say.

    Raises PolicyError if it is no whole number from 0, below 2**60.
    """
    method = getattr(policy, "flops", None)
    count = 0 if method is None else method(streams)
    whole = isinstance(count, int | np.integer) and not isinstance(count, bool)
    if not whole or not 0 <= count < _MOST_FLOPS:
        bits = int(count).bit_length() if whole else 0  # Python may refuse to spell its digits
        shown = f"a number of {bits} bits" if bits > 99 else repr(count)[:80]
        raise PolicyError(
            f"policy {label(policy)}: flops({streams}) is {shown}, expected a whole number from "
            "0, below 2**60"
        )
    return int(count)


def label(policy: object) -> str:
    """Return what to call a policy in a message: its spec string where it has one."""
    kind = type(policy)
    if kind.__str__ is object.__str__ and kind.__repr__ is object.__repr__:
        return kind.__qualname__
    try:
        return str(getattr(policy, "__qualname__", policy))
    except InputError:  # no spec spells it, which is not what the message is about
        return kind.__qualname__


_EXACT = frozenset({type(None), bool, int})  # JSON gives them back whatever the value


def _plain(policy: PolicyLike, path: tuple[Any, ...], value: Any) -> Any:
    """Copy nested dicts and lists; refuse what JSON would change (tuples, NaN, NumPy values).

    `path`: what the whole is called, then keys and places down to `value`; spelt only for an error.
    """
    kind = type(value)
    if kind in _EXACT or _written(value) or (kind is float and math.isfinite(value)):
        return value
    if isinstance(value, list):
        return [_plain(policy, (*path, i), item) for i, item in enumerate(value)]
    if isinstance(value, dict) and all(map(_written, value)):
        return {
            key: item
            if type(item) in _EXACT or (type(item) is float and math.isfinite(item))
            else _plain(policy, (*path, key), item)
            for key, item in value.items()
        }
    place = path[0] + "".join(f"[{key!r}]" for key in path[1:])
    raise PolicyError(
        f"policy {label(policy)}: {place} is {repr(value)[:80]} ({type(value).__name__}), expected "
        "str keys, finite numbers, strings, booleans, None, lists and dicts of these"
    )


def _written(value: object) -> bool:
    """Whether it is a str, no other class, that UTF-8 can write."""
    if type(value) is not str:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _row(record: WindowSignals | SleepProgress, row: int) -> str:
    if not len(record):
        return "no stream"
    return f"stream {record.stream[row]!r}, window {record.window[row]}"


def _rows(record: WindowSignals | SleepProgress) -> str:
    others = f" and {len(record) - 1} more" if len(record) > 1 else ""
    return _row(record, 0) + others
