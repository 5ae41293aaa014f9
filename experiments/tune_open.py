"""A policy with some of its parameters open: read from a spec, and written with values in them.

What is written in the spec stays; `range(low, high)` and `{a, b}` in the place of a value narrow
what is tried; what is left out is open if its policy declares how it may be tuned. What a study
makes of it is in tune_space.py.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from adaptive_sleep.catalogue import bare, defaults, hints
from adaptive_sleep.contract import Choice, Range
from adaptive_sleep.spec import bind, named, read_call, takes_policy
from adaptive_sleep.streams.errors import InputError, nearest

if TYPE_CHECKING:
    import optuna

_PLAIN = (bool, int, float, str, type(None))  # what Optuna keeps as a choice


@dataclass(frozen=True)
class Open:
    """A parameter to be found: a number from `low` to `high`, whole or not, or one of `options`.
    `usual` is what the policy takes unless it is told otherwise, where that may be tried."""

    name: str
    low: float = 0.0
    high: float = 0.0
    whole: bool = False
    log: bool = False
    step: float | None = None
    options: tuple[Any, ...] = ()
    usual: Any = None

    def suggest(self, trial: optuna.Trial) -> Any:
        """The value that a trial is to try."""
        if self.options:
            shown = {it if isinstance(it, _PLAIN) else repr(it): it for it in self.options}
            return shown[trial.suggest_categorical(self.name, list(shown))]
        if self.whole:
            low, high, step = int(self.low), int(self.high), int(self.step or 1)
            return trial.suggest_int(self.name, low, high, log=self.log, step=step)
        return trial.suggest_float(self.name, self.low, self.high, log=self.log, step=self.step)

    def with_usual(self, value: Any) -> Open:
        """The same, with this as what is usual, where it may be tried."""
        if self.options:
            fits = any(type(it) is type(value) and it == value for it in self.options)
            fits = fits and isinstance(value, _PLAIN)
        else:
            number = isinstance(value, int if self.whole else int | float)
            fits = number and not isinstance(value, bool) and self.low <= value <= self.high
            steps = (value - self.low) / self.step if fits and self.step else 0.0
            fits = fits and abs(steps - round(steps)) < 1e-9
        return replace(self, usual=value) if fits else self

    def at(self, share: float) -> Any:
        """The value at a share of the way from the low end (0.0) to the high end (1.0)."""
        if self.options:
            return self.options[min(int(share * len(self.options)), len(self.options) - 1)]
        if self.log:
            value = self.low * (self.high / self.low) ** share
        else:
            value = self.low + share * (self.high - self.low)
        if self.step is not None:
            value = self.low + self.step * round((value - self.low) / self.step)
        value = min(max(value, self.low), self.high)
        return round(value) if self.whole else value


@dataclass(frozen=True)
class Part:
    """A policy by name, "name" or "module:Class", and its arguments: text as it was written, what
    is open, and the policies within, also in dicts and lists."""

    head: str
    arguments: tuple[tuple[str, Any], ...] = ()

    def opens(self) -> list[Open]:
        """All that is open, also in the policies within."""
        return [it for it in _leaves(self) if isinstance(it, Open)]

    def parts(self) -> Iterator[Part]:
        """The policy itself, and the policies within."""
        yield self
        for _, argument in self.arguments:
            for inner in _policies_in(argument):
                yield from inner.parts()

    def written(self, values: Mapping[str, Any]) -> str:
        """The spec with a value for each open parameter, by its name; places stay, as {name}."""
        inner = ", ".join(f"{name}={_written(it, values)}" for name, it in self.arguments)
        return f"{self.head}({inner})"


def _policies_in(argument: Any) -> Iterator[Part]:
    if isinstance(argument, Part):
        yield argument
    elif isinstance(argument, dict | list):
        for inner in argument.values() if isinstance(argument, dict) else argument:
            yield from _policies_in(inner)


def _leaves(argument: Any) -> Iterator[Any]:
    match argument:
        case Part():
            for _, inner in argument.arguments:
                yield from _leaves(inner)
        case dict() | list():
            for inner in argument.values() if isinstance(argument, dict) else argument:
                yield from _leaves(inner)
        case _:
            yield argument


def _written(argument: Any, values: Mapping[str, Any]) -> str:
    match argument:
        case Open():
            return repr(values[argument.name])
        case Part():
            text = argument.written(values)
            return repr(text) if ":" in argument.head else text
        case dict():
            pairs = (f"{key!r}: {_written(it, values)}" for key, it in argument.items())
            return f"{{{', '.join(pairs)}}}"
        case list():
            return f"[{', '.join(_written(it, values) for it in argument)}]"
    return str(argument)


@dataclass(frozen=True)
class Reader:
    """Reads one spec. `places` may stand in it as {place}, for files that differ between models.

    With `reopen`, as for the policies of a comparison, a parameter that declares how it may be
    tuned is open whatever the spec gives it, and {name} is one of `grid`'s values.
    """

    spec: str
    places: Collection[str] = ()
    reopen: bool = False
    grid: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def read(self, label: str) -> Part:
        """The policy, its open parameters named `label`.PARAMETER. Raises InputError."""
        head, call = read_call(self.spec)
        return self._part(head, call, label)

    def _part(self, head: str, call: ast.Call, path: str) -> Part:
        target = named(head, self.spec)
        if not isinstance(target, type):
            if call.args or call.keywords:
                raise self._error(f"{head} is no class that takes arguments")
            return Part(head)
        given, known = bind(self.spec, target, call), hints(target)
        usuals = defaults(target)
        arguments = []
        for name in dict.fromkeys((*usuals, *given)):
            hint, where = known.get(name, Any), f"{path}.{name}"
            usual = usuals.get(name, MISSING)
            if name in given and not (self.reopen and _marks(hint)):
                found = self._given(where, given[name], hint)
            elif _marks(hint):
                found = _declared(where, hint, self._error)
            elif usual is MISSING:
                raise self._error(f"{head} needs {name}{self._needed(name, hint)}")
            else:
                continue
            arguments.append((name, found.with_usual(usual) if isinstance(found, Open) else found))
        return Part(head, tuple(arguments))

    def _needed(self, name: str, hint: Any) -> str:
        if takes_policy(hint):
            return f": write the policy that it is to follow, as {name}=state_change"
        places = " or ".join(f"{name}={{{place}}}" for place in self.places)
        return f", which declares no range: write {name}=...{f' ({places})' if places else ''}"

    def _given(self, where: str, node: ast.expr, hint: Any) -> Any:
        match node:
            case ast.Set(elts=[ast.Name(id=place)]):
                if place in self.places:
                    return f"{{{place}}}"
                if place in self.grid:
                    return Open(where, options=self.grid[place])
                known = [f"{{{it}}}" for it in self.places]
                close = nearest(f"{{{place}}}", known)
                raise self._error(f"{where}={{{place}}}{close} (there are {', '.join(known)})")
            case ast.Set(elts=options):
                return Open(where, options=tuple(map(self._literal, options)))
            case ast.Call(func=ast.Name(id="range")):
                return self._narrowed(where, node, hint)
        return self._policies(where, node) if takes_policy(hint) else ast.unparse(node)

    def _policies(self, where: str, node: ast.expr) -> Any:
        """Policies within a policy: one, or several in a dict or list."""
        match node:
            case ast.Dict(keys=keys, values=values):
                named_ = [(self._literal(key), it) for key, it in zip(keys, values, strict=True)]
                return {key: self._policies(f"{where}[{key}]", it) for key, it in named_}
            case ast.List(elts=items) | ast.Tuple(elts=items):
                return [self._policies(f"{where}[{at}]", it) for at, it in enumerate(items)]
            case ast.Constant(value=str() as text):
                head, call = read_call(text)
                return self._part(head, call, where)
            case ast.Name(id=head):
                return self._part(head, ast.Call(node, [], []), where)
            case ast.Call(func=ast.Name(id=head)):
                return self._part(head, node, where)
        return ast.unparse(node)  # whoever makes the policy says what is wrong with it

    def _narrowed(self, where: str, node: ast.Call, hint: Any) -> Open:
        ends = [self._literal(end) for end in node.args]
        rest = {str(it.arg): self._literal(it.value) for it in node.keywords}
        numbers = [it for it in (*ends, rest.get("step", 1)) if type(it) in (int, float)]
        if len(ends) != 2 or len(numbers) != 3 or not {*rest} <= {"log", "step"}:
            raise self._error(
                f"{where}: {ast.unparse(node)}: write range(low, high), and log=True or step=..."
            )
        low, high = ends
        if not low <= high:
            raise self._error(f"{where}: range({low}, {high}) excludes everything: {low} > {high}")
        whole = bare(hint) is int or (
            bare(hint) is not float and all(type(it) is int for it in ends)
        )
        declared = any(isinstance(it, Range) and it.log for it in _marks(hint)) and low > 0
        log = rest.get("log", declared and "step" not in rest)
        if not isinstance(log, bool) or (log and "step" in rest):
            raise self._error(
                f"{where}: {ast.unparse(node)}: log is True or False, and goes without step"
            )
        if log and low <= 0:
            raise self._error(f"{where}: range({low}, {high}, log=True): low must be positive")
        return _open(where, Spread(low, high, log, rest.get("step")), whole, self._error)

    def _literal(self, node: ast.expr | None) -> Any:
        try:
            return ast.literal_eval(node)  # type: ignore[arg-type]  # it refuses None by itself
        except (ValueError, TypeError):
            shown = "**" if node is None else ast.unparse(node)
            raise self._error(f"{shown!r} is not allowed, expected a literal") from None

    def _error(self, text: str) -> InputError:
        return InputError(f"policy {self.spec[:200]!r}: {text}")


@dataclass(frozen=True)
class Spread:
    """The ends of a range, of which they may be the same."""

    low: float
    high: float
    log: bool
    step: float | None


def _marks(hint: Any) -> list[Range | Choice]:
    """How a parameter says that it may be tuned."""
    return [it for it in getattr(hint, "__metadata__", ()) if isinstance(it, Range | Choice)]


def _declared(where: str, hint: Any, error: Any) -> Open:
    """A parameter as it declares to be tuned."""
    mark = _marks(hint)[0]
    if isinstance(mark, Choice):
        return Open(where, options=mark.options)
    spread = Spread(mark.low, mark.high, mark.log, mark.step)
    return _open(where, spread, bare(hint) is int, error)


def _open(where: str, spread: Spread, whole: bool, error: Any) -> Open:
    low, high, step = spread.low, spread.high, spread.step
    if not (math.isfinite(low) and math.isfinite(high)):
        raise error(f"{where}: range({low}, {high}): give two finite ends")
    if step is not None and not step > 0:
        raise error(f"{where}: step={step}: a step is above 0")
    if whole:
        low, high = math.ceil(low), math.floor(high)
        step = None if step is None else max(1, round(step))
        if low > high:
            raise error(
                f"{where}: range({spread.low}, {spread.high}) excludes everything: "
                "there is no whole number in it"
            )
    if spread.log:
        step = None  # Optuna has no steps on a logarithmic scale
    elif step is not None:
        high = low + step * math.floor((high - low) / step + 1e-9)
    return Open(where, low, high, whole, spread.log, step)
