"""The floors of the house, read from the imports: a file imports its own floor or below.

It reads source and never runs it; which files there are, checkout.py knows.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping

ROOT = "adaptive_sleep"
FLOORS = {"kernels": 0, "streams": 0, "policies": 2, "experiments": 3}
CORE = 1
ERRORS = f"{ROOT}.streams.errors"

# Floor 0 is two rooms that do not know each other. Anybody may raise our errors.
KERNELS_MAY = {"torch", "triton", "fla", *sys.stdlib_module_names}
STREAMS_MAY_NOT = {"torch", "triton", "fla"}


def room(module: str) -> str | None:
    """`kernels` for adaptive_sleep.kernels.step, `core` for the package itself, None for others."""
    parts = module.split(".")
    if parts[0] != ROOT:
        return None
    return parts[1] if len(parts) > 1 and parts[1] in FLOORS else "core"


def _type_checking(node: ast.AST) -> bool:
    match node:
        case ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
            return True
    return False


def _statements(tree: ast.AST, skip_types: bool) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if skip_types and _type_checking(node):
            continue
        yield node
        yield from _statements(node, skip_types)


def imports(source: str, module: str, package: bool) -> list[tuple[int, str]]:
    """Line and absolute dotted name of everything that a source imports, anywhere in it.

    `from a import b` gives `a.b`: b may be a module. A literal handed to `import_module` or
    `__import__` counts. In the root package, what only a type checker sees does not: it mirrors
    the lazy table of public names, the one exemption that the design makes.
    """
    found = []
    home = module.split(".") if package else module.split(".")[:-1]
    for node in _statements(ast.parse(source), skip_types=module == ROOT and package):
        match node:
            case ast.Import(names=names):
                found += [(node.lineno, alias.name) for alias in names]
            case ast.ImportFrom(module=name, names=names, level=level):
                base = home[: len(home) - level + 1] if level else []
                origin = ".".join([*base, *([name] if name else [])])
                found += [(node.lineno, f"{origin}.{alias.name}") for alias in names]
            case ast.Call(
                func=ast.Name(id="__import__" | "import_module")
                | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                found.append((node.lineno, name))
    return found


def _foreign(here: str, library: str) -> bool:
    if here == "kernels":
        return library not in KERNELS_MAY
    return here == "streams" and library in STREAMS_MAY_NOT


def offences(
    source: str, module: str, package: bool = False, public: Mapping[str, str] | None = None
) -> list[str]:
    """One line for each import that reaches above the module's floor or into the next room.

    `public` tells where the names that the root offers are defined, so that nobody climbs
    through the lazy table: name -> module.
    """
    here = room(module) or "core"
    wrong = []
    for line, name in imports(source, module, package):
        there = room(name)
        if there == "core" and FLOORS.get(here) != 0:
            there = room((public or {}).get(name.removeprefix(f"{ROOT}."), name))
        if there is None:
            bad = _foreign(here, name.split(".")[0])
        elif name == ERRORS or name.startswith(ERRORS + "."):
            bad = False
        elif FLOORS.get(here) == 0:
            bad = there != here
        else:
            bad = FLOORS.get(there, CORE) > FLOORS.get(here, CORE)
        if bad:
            wrong.append(f"{module}:{line} ({here}) imports {name}")
    return wrong
