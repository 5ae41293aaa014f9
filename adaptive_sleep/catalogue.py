"""The catalogue of policies: which names there are, whose they are, what parameters they have.

Names are looked up when asked for, in the registry and in the entry points of other distributions.
How a spec string is read and written is in `spec`.
"""

from __future__ import annotations

import inspect
import typing
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from adaptive_sleep.contract import Choice, Range, registered, same_source
from adaptive_sleep.streams.errors import InputError, nearest

GROUP = "adaptive_sleep.policies"


@dataclass(frozen=True)
class Parameter:
    """One parameter of a policy: its type as written, its default and how it may be tuned."""

    name: str
    type: str
    default: Any
    required: bool
    tune: Range | Choice | None


@dataclass(frozen=True)
class PolicyInfo:
    """One installed policy; `error` says why it cannot be loaded, and is empty if it can."""

    name: str
    origin: str
    summary: str
    parameters: tuple[Parameter, ...]
    error: str = ""


def lookup(name: str) -> Any:
    """Return the class (or function) behind a bare name, from the registry and the entry points.

    Raises InputError if nobody has the name, with the nearest that is known; if two different
    objects have it; and if an entry point is broken, naming its distribution.
    """
    found: list[tuple[str, Any]] = []
    for point in entry_points(group=GROUP, name=name):
        try:
            found.append((_origin(point), point.load()))
        except Exception as error:
            raise InputError(
                f"policy {name!r} of {_origin(point)} ({point.value}) cannot be loaded: "
                f"{type(error).__name__}: {error}"
            ) from error
    known = registered()  # only now: loading an entry point may register its class
    if name in known:
        found.insert(0, (f"module {known[name].__module__}", known[name]))
    if not found:
        options = sorted(set(known) | {point.name for point in entry_points(group=GROUP)})
        raise InputError(
            f"there is no policy {name!r}{nearest(name, options)} "
            f"(known: {', '.join(options) or 'none'}; or write module:Class)"
        )
    first_origin, first = found[0]
    for origin, other in found[1:]:
        if not same_source(first, other):
            raise InputError(
                f"two policies are named {name!r}: one of {first_origin}, one of {origin}; "
                "uninstall one, or write module:Class"
            )
    return first


def known_anywhere(name: str) -> bool:
    """Tell whether a bare name means the registered class in every process: it is ours, or that of
    an entry point; or no other process could import it, being of a script or of a function."""
    cls = registered()[name]
    ours = cls.__module__.partition(".")[0] == __name__.partition(".")[0]
    local = cls.__module__ == "__main__" or "<locals>" in cls.__qualname__
    return ours or local or bool(entry_points(group=GROUP, name=name))


def installed() -> list[PolicyInfo]:
    """Return every policy that a bare name reaches, by name; one that fails to load says why."""
    names = set(registered()) | {point.name for point in entry_points(group=GROUP)}
    return [_info(name) for name in sorted(names)]


def _info(name: str) -> PolicyInfo:
    points = list(entry_points(group=GROUP, name=name))
    origin = _origin(points[0]) if points else f"module {registered()[name].__module__}"
    try:
        found = lookup(name)
    except InputError as error:
        return PolicyInfo(name, origin, "", (), str(error))
    summary = (inspect.getdoc(found) or "").split("\n")[0]
    shown = tuple(_parameter(found, field) for field in parameters(found))
    return PolicyInfo(name, origin, summary, shown)


def _parameter(cls: Any, field: Field[Any]) -> Parameter:
    default = default_of(field)
    hint = hints(cls).get(field.name, Any)
    marks = [mark for mark in getattr(hint, "__metadata__", ()) if isinstance(mark, Range | Choice)]
    return Parameter(
        name=field.name,
        type=type_name(hint),
        default=None if default is MISSING else default,
        required=default is MISSING,
        tune=marks[0] if marks else None,
    )


def parameters(cls: Any) -> list[Field[Any]]:
    """Return the parameters of a policy class: a dataclass's fields that its constructor takes."""
    return [field for field in fields(cls) if field.init] if is_dataclass(cls) else []


def by_fields(cls: Any) -> bool:
    """Tell whether a policy class takes its `parameters`, all of them and nothing else: a dataclass
    that has neither an InitVar nor a constructor of its own for other names."""
    if not is_dataclass(cls):
        return False
    taken = inspect.signature(cls).parameters.values()  # type: ignore[arg-type]
    named = {it.name for it in taken if it.kind not in (it.VAR_POSITIONAL, it.VAR_KEYWORD)}
    known = {field.name for field in parameters(cls)}
    return named == known or (named < known and any(it.kind is it.VAR_KEYWORD for it in taken))


def default_of(field: Field[Any]) -> Any:
    """Return a field's default value, or `dataclasses.MISSING`."""
    return field.default if field.default_factory is MISSING else field.default_factory()


def defaults(cls: Any) -> dict[str, Any]:
    """What each parameter of a policy class is where it is left out, MISSING where it may not be;
    also of an ordinary class, by its constructor."""
    if by_fields(cls):
        return {field.name: default_of(field) for field in parameters(cls)}
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {
        it.name: MISSING if it.default is it.empty else it.default
        for it in inspect.signature(cls).parameters.values()
        if it.kind in named
    }


def hints(cls: Any) -> dict[str, Any]:
    """Return the annotations of a class's parameters, resolved; {} where they cannot be."""
    source = cls
    if isinstance(cls, type) and not by_fields(cls):
        source = vars(cls).get("__init__", cls)
    try:
        return typing.get_type_hints(source, include_extras=True)
    except (NameError, TypeError, AttributeError):
        # names imported for type checkers only: then the constructor has the only say
        return {}


def bare(hint: Any) -> Any:
    """Return an annotation without its `Annotated` marks."""
    return typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint


def type_name(hint: Any) -> str:
    """Return an annotation as a person writes it, without its marks."""
    hint = bare(hint)
    if isinstance(hint, type) and not typing.get_args(hint):
        return hint.__name__
    return str(hint).replace("typing.", "")


def usage(cls: type) -> str:
    """Return how a class is called, as "Surprise(threshold: float = 1.0, passes: int = 4)"."""
    if not by_fields(cls):
        return f"{cls.__qualname__}{inspect.signature(cls)}"
    parts = []
    for field in parameters(cls):
        default = default_of(field)
        tail = "" if default is MISSING else f" = {default!r}"
        parts.append(f"{field.name}: {type_name(hints(cls).get(field.name, Any))}{tail}")
    return f"{cls.__qualname__}({', '.join(parts)})"


def _origin(point: EntryPoint) -> str:
    return f"distribution {point.dist.name}" if point.dist else f"entry point {point.value}"
