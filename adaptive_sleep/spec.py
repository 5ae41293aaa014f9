"""Spec strings: how a policy is named in a run, on a command line and in a recipe.

"capped(surprise(threshold=0.8), max_passes=6)" is read with `ast`, literals and nested calls only,
and never evaluated. Which names there are is in `catalogue`, what a policy must answer in
`contract`, what a plain function is called in `functions`.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import math
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import is_dataclass, replace
from typing import Any

import numpy as np

from adaptive_sleep.catalogue import (
    bare,
    by_fields,
    hints,
    known_anywhere,
    lookup,
    parameters,
    type_name,
    usage,
)
from adaptive_sleep.contract import PolicyLike, SleepPolicy, registered
from adaptive_sleep.functions import FromCallable, check_plain, function_spec
from adaptive_sleep.streams.errors import InputError, nearest

_MODULE_FORM = re.compile(r"\s*([A-Za-z_][\w.]*):([A-Za-z_][\w.]*)\s*(\(.*\))?\s*", re.DOTALL)
_LONGEST = 10_000  # characters; a spec is typed by a person
_SPELLED = "_adaptive_sleep_spec"  # attribute of what no fields tell: the spec that made it


def resolve(policy: PolicyLike | str) -> SleepPolicy:
    """Return the policy that an object, a plain function or a spec string stands for.

    A string is looked up in the registry, as "module:Class", then among the entry points of the
    group "adaptive_sleep.policies". Raises InputError for what is no policy, for a callable object
    with methods of a policy but no `plan`, and as `parse_spec`.
    """
    if isinstance(policy, str):
        return parse_spec(policy)
    if isinstance(policy, type):
        raise InputError(
            f"policy {policy.__qualname__} is a class: give an object, {usage(policy)}"
        )
    if isinstance(policy, SleepPolicy) and callable(policy.plan):
        return policy
    if callable(policy):
        check_plain(policy)
        return FromCallable(policy)
    raise InputError(
        f"policy {policy!r}: expected an object with plan, a function or a spec string"
    )


def parse_spec(spec: str) -> SleepPolicy:
    """Return the policy that a spec string names.

    Raises InputError for anything but literals and nested calls, a wrong name, a wrong argument, a
    value of the wrong type, and whatever the policy itself refuses.
    """
    head, call = read_call(spec)
    return _make(spec, head, named(head, spec), call)


def read_call(spec: str) -> tuple[str, ast.Call]:
    """Return what a spec names, as "name" or "module:Class", and its call with all arguments.

    Nothing is looked up. Raises InputError for what is no name or one call of it.
    """
    if len(spec) > _LONGEST:
        raise InputError(f"policy spec of {len(spec)} characters: at most {_LONGEST} are read")
    by_module = _MODULE_FORM.fullmatch(spec)
    text = f"_{by_module[3] or '()'}" if by_module else spec.strip()
    try:
        node = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = getattr(error, "msg", None) or str(error) or type(error).__name__
        raise InputError(
            f"policy spec {spec[:200]!r} is not readable ({reason}): write something like "
            "surprise(threshold=0.8), or module:Class(threshold=1), quoted inside another policy: "
            "capped('module:Class(threshold=1)', max_passes=2)"
        ) from None
    if not by_module:
        return _call(spec, node)
    match node:
        case ast.Call(func=ast.Name(id="_")):
            return f"{by_module[1]}:{by_module[2]}", node
    raise _refused(spec, node, "one call, module:Class(...)")


def named(head: str, spec: str = "") -> Any:
    """Return the class, function or object behind "name" or "module:Class"; `spec` for messages.

    Raises InputError as `parse_spec`.
    """
    module, colon, path = head.partition(":")
    return _import(spec or head, module, path) if colon else lookup(head)


def format_spec(policy: PolicyLike) -> str:
    """Return the spec string of a policy, every parameter spelled out.

    Dataclasses give "name(...)" where any process knows the name, else "module:Class(...)"; what a
    spec made, that spec; anything else its own `str`, or "module:Class()" where that is all there
    is to say. Raises InputError for a parameter that no literal can spell, and, since nothing says
    which it is, for an object that took parameters other than a dataclass's fields, and for a
    function that no name leads back to.
    """
    policy = resolve(policy)
    if isinstance(policy, FromCallable):
        return function_spec(policy)
    kind: Any = type(policy)
    place = f"{kind.__module__}:{kind.__qualname__}"
    if not by_fields(kind):
        return _of_ordinary(policy, kind, place)
    names = [name for name, cls in registered().items() if cls is kind and known_anywhere(name)]
    head = names[0] if names else place
    parts, positional = [], True
    for field in parameters(kind):
        value = getattr(policy, field.name)
        value = value.item() if isinstance(value, np.generic) else value
        if type(value) is int and bare(hints(kind).get(field.name)) is float:
            value = _as_float(f"{head}: parameter {field.name}", value)
        # wrapped policies read best in front and unnamed: capped(fixed(passes=4), max_passes=2)
        positional = positional and isinstance(value, SleepPolicy) and not field.kw_only
        written = _written(f"{head}: parameter {field.name}", value)
        parts.append(written if positional else f"{field.name}={written}")
    return f"{head}({', '.join(parts)})"


def _as_float(where: str, value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        bits = value.bit_length()  # Python may refuse to spell its digits
        raise InputError(f"{where} is an int of {bits} bits: beyond what a float holds") from None


def _unnamed(kind: Any, taken: Mapping[str, inspect.Parameter]) -> list[str]:
    """What a class takes without a name: of a dataclass anything, of another what its own
    constructor takes as *args (one that is inherited may only pass them on)."""
    if is_dataclass(kind):
        return [*taken]
    starred = [name for name, it in taken.items() if it.kind is it.VAR_POSITIONAL]
    return starred if "__init__" in vars(kind) else []


def _leads_to(kind: Any, place: str, spec: str) -> bool:
    """Whether a text is a spec string of a policy of that class that says the same of itself."""
    heads = {place, *(name for name, cls in registered().items() if cls is kind)}
    if spec.partition("(")[0] not in heads:  # before anything that it may name is imported or made
        return False
    try:
        made = parse_spec(spec)
    except Exception:  # whatever its constructor raises: then the text leads nowhere
        return False
    return type(made) is kind and str(made) == spec


def _of_ordinary(policy: SleepPolicy, kind: Any, place: str) -> str:
    """The spec of what is not told by the fields of a dataclass."""
    spelled = getattr(policy, _SPELLED, None)
    if isinstance(spelled, str):
        return spelled
    own = kind.__str__ is not object.__str__ or kind.__repr__ is not object.__repr__
    if own and not is_dataclass(kind) and _leads_to(kind, place, text := str(policy)):
        return text  # that of a dataclass is made of its fields
    taken = inspect.signature(kind).parameters
    if names := [*_parameters_of(kind)] or _unnamed(kind, taken):
        raise InputError(
            f"policy {place}: nothing tells the {', '.join(names)} it was made with, so no run "
            "could name it; make them the fields of a dataclass, or give a spec string, "
            f"'{place}(...)'"
        )
    return f"{place}()"


def _parameters_of(target: type) -> dict[str, Any]:
    """The kinds of the named parameters of an ordinary class, by name."""
    found = inspect.signature(target).parameters.values()
    return {it.name: it.kind for it in found if not it.kind.name.startswith("VAR_")}


def _written(where: str, value: Any) -> str:
    """Spell a value so that `_value` reads it back."""
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or type(value) in (bool, int, str):  # no Enum: its repr is no literal
        return repr(value)
    if type(value) is float and not math.isnan(value):
        return repr(value).replace("inf", "1e999")  # Python has no literal for infinity
    if type(value) is tuple:
        inner = ", ".join(_written(where, item) for item in value)
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    if type(value) is list:
        return f"[{', '.join(_written(where, item) for item in value)}]"
    if type(value) is dict:
        pairs = [f"{_written(where, key)}: {_written(where, it)}" for key, it in value.items()]
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, SleepPolicy):
        spec = format_spec(value)
        return repr(spec) if ":" in spec.split("(", 1)[0] else spec
    raise InputError(f"{where} is {value!r}: expected what a literal can spell, or a policy")


def _import(spec: str, module: str, path: str) -> Any:
    try:
        found: Any = importlib.import_module(module)
    except Exception as error:
        raise InputError(
            f"policy spec {spec!r}: module {module!r} cannot be imported: "
            f"{type(error).__name__}: {error}"
        ) from error
    for part in path.split("."):
        if not hasattr(found, part):
            hint = nearest(part, dir(found))
            raise InputError(f"policy spec {spec!r}: module {module!r} has no {path!r}{hint}")
        found = getattr(found, part)
    return found


def _call(spec: str, node: ast.expr) -> tuple[str, ast.Call]:
    """Read a node that must be a policy: a call of a bare name, or the bare name."""
    if isinstance(node, ast.Name):
        node = ast.Call(node, [], [])
    match node:
        case ast.Call(func=ast.Name(id=name)):
            return name, node
    raise _refused(spec, node, "a policy, as name(parameter=value, ...)")


def _policy(spec: str, node: ast.expr) -> SleepPolicy:
    head, call = _call(spec, node)
    return _make(spec, head, lookup(head), call)


def _make(spec: str, head: str, target: Any, node: ast.Call) -> SleepPolicy:
    """Build the policy from a class and its arguments, or take a function or object as it is."""
    if not isinstance(target, type):
        if node.args or node.keywords or isinstance(target, str):
            raise InputError(f"policy spec {spec!r}: {target!r} is no class that takes arguments")
        return _spelled(resolve(target), head)
    if not callable(getattr(target, "plan", None)):  # checked before anything is constructed
        raise InputError(f"policy spec {spec!r}: {target.__qualname__} has no method plan")
    known = hints(target)
    values = {
        name: _argument(spec, target, name, value, known.get(name, Any))
        for name, value in bind(spec, target, node).items()
    }
    try:
        made = target(**values)
    except InputError:
        raise
    except ValueError as error:  # how a class of the user's own refuses
        raise InputError(f"policy spec {spec!r}: refused: {error}") from error
    except TypeError as error:
        raise InputError(f"policy spec {spec!r}: {error}; it is written {usage(target)}") from error
    written = (f"{name}={_written(f'{head}: parameter {name}', it)}" for name, it in values.items())
    if head in registered() and not known_anywhere(head):  # as `format_spec` names a dataclass
        head = f"{target.__module__}:{target.__qualname__}"
    return _spelled(typing.cast(SleepPolicy, made), f"{head}({', '.join(written)})")


def _spelled(policy: SleepPolicy, spec: str) -> SleepPolicy:
    """The policy; one that no fields tell remembers the spec that made it, where it can."""
    if isinstance(policy, FromCallable):
        return replace(policy, spelled=spec)
    if not by_fields(type(policy)):
        with contextlib.suppress(AttributeError, TypeError):  # __slots__; then format_spec refuses
            object.__setattr__(policy, _SPELLED, spec)  # also where the class is frozen
    return policy


def bind(spec: str, target: type, node: ast.Call) -> dict[str, ast.expr]:
    """Match arguments with parameters, unnamed ones in the order of the parameters.

    Raises InputError for an argument that is no parameter, given twice, or one too many.
    """
    if by_fields(target):
        names = [field.name for field in parameters(target)]
        places = [field.name for field in parameters(target) if not field.kw_only]
    else:
        kinds = _parameters_of(target)
        places = [name for name, kind in kinds.items() if kind.name == "POSITIONAL_OR_KEYWORD"]
        names = places + [name for name, kind in kinds.items() if kind.name == "KEYWORD_ONLY"]
    if len(node.args) > len(places):
        raise InputError(
            f"policy spec {spec!r}: {len(node.args)} unnamed arguments; "
            f"it is written {usage(target)}"
        )
    given = dict(zip(places, node.args, strict=False))
    for keyword in node.keywords:
        if keyword.arg is None:
            raise _refused(spec, keyword.value, "named arguments, not **")
        if keyword.arg not in names:
            raise InputError(
                f"policy spec {spec!r}: {target.__qualname__} has no parameter {keyword.arg!r}"
                f"{nearest(keyword.arg, names)}; it is written {usage(target)}"
            )
        if keyword.arg in given:
            raise InputError(f"policy spec {spec!r}: {keyword.arg!r} is given twice")
        given[keyword.arg] = keyword.value
    return given


def _argument(spec: str, target: type, name: str, node: ast.expr, hint: Any) -> Any:
    value = _value(spec, node, takes_policy(hint))
    if not _fits(value, hint):
        raise InputError(
            f"policy spec {spec!r}: {name}={value!r} ({type(value).__name__}) for "
            f"{target.__qualname__}: expected {type_name(hint)}"
        )
    try:
        return float(value) if type(value) is int and bare(hint) is float else value
    except OverflowError:
        raise InputError(
            f"policy spec {spec[:200]!r}: {name} has {len(str(value))} digits: no float holds it"
        ) from None


def _value(spec: str, node: ast.expr, policy: bool = False) -> Any:
    """Read a literal or a nested policy; where a policy is meant, a string is its spec."""
    match node:
        case ast.Constant(value=str() as text):
            return resolve(text) if policy else text
        case ast.Constant(value=bool() | int() | float() | None as constant):
            return constant
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            if not isinstance(number, bool):
                return -number
        case ast.Tuple(elts=items):
            return tuple(_value(spec, item, policy) for item in items)
        case ast.List(elts=items):
            return [_value(spec, item, policy) for item in items]
        case ast.Dict(keys=keys, values=values):
            return {
                _key(spec, key, node): _value(spec, value, policy)
                for key, value in zip(keys, values, strict=True)
            }
        case ast.Set() | ast.Call(func=ast.Name(id="range")):
            told = "one value; `range(low, high)` and `{a, b}` are for `adaptive-sleep tune`"
            raise _refused(spec, node, told)
        case ast.Call(func=ast.Name()):
            return _policy(spec, node)
        case ast.Name() if policy:
            return _policy(spec, node)
    raise _refused(spec, node, "a number, string, True, False, None, tuple, list, dict or policy")


def _key(spec: str, key: ast.expr | None, node: ast.Dict) -> str | int | float | None:
    value = _value(spec, key) if key is not None else ()
    if value is None or isinstance(value, str | int | float):
        return value
    raise _refused(spec, node, "a dict with strings or numbers as keys")


def takes_policy(hint: Any) -> bool:
    """Tell whether an annotation is of a policy, or of something that holds policies."""
    return hint is SleepPolicy or any(takes_policy(arg) for arg in typing.get_args(hint))


def _fits(value: Any, hint: Any) -> bool:
    """Tell whether a value is of the annotated type; an annotation we do not know allows all."""
    hint = bare(hint)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, arg) for arg in args)
    if origin is typing.Literal:
        return any(type(value) is type(arg) and value == arg for arg in args)
    if origin is tuple and isinstance(value, tuple) and args:
        kinds = args[:1] * len(value) if args[-1] is Ellipsis else args
        return len(kinds) == len(value) and all(map(_fits, value, kinds))
    if origin is list and isinstance(value, list) and args:
        return all(_fits(item, args[0]) for item in value)
    if origin is dict and isinstance(value, dict) and args:
        return all(_fits(key, args[0]) and _fits(item, args[1]) for key, item in value.items())
    kind = origin or hint
    if kind in (int, float):
        allowed = int if kind is int else (int, float)
        return isinstance(value, allowed) and not isinstance(value, bool)
    if kind is None:
        return value is None
    try:
        return not isinstance(kind, type) or isinstance(value, kind)
    except TypeError:  # a protocol that cannot be tested for
        return True


def _refused(spec: str, node: ast.AST, expected: str) -> InputError:
    found = ast.unparse(node)[:80]
    return InputError(f"policy spec {spec[:200]!r}: {found!r} is not allowed, expected {expected}")
