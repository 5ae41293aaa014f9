"""A file imports from its own floor or below, never above; and the checker catches offenders."""

from __future__ import annotations

import ast
import importlib
import sys

import pytest
from checkout import ROOT, files, module_name
from floors import ERRORS, imports, offences

MODULES = {path: name for path in files() if (name := module_name(path))}


@pytest.fixture(scope="module")
def public() -> dict[str, str]:
    """Where each name that the package offers is defined."""
    root = importlib.import_module("adaptive_sleep")
    offered = {name: getattr(root, name) for name in getattr(root, "__all__", ())}
    return {n: x.__module__ for n, x in offered.items() if isinstance(x, type) or callable(x)}


def test_every_room_is_seen() -> None:
    rooms = {"adaptive_sleep", "kernels", "streams", "policies", "experiments"}
    assert {path.split("/")[0] for path in MODULES} == rooms


@pytest.mark.parametrize("path", MODULES)
def test_imports_reach_no_higher_floor(path: str, public: dict[str, str]) -> None:
    source = (ROOT / path).read_text(encoding="utf-8")
    assert offences(source, MODULES[path], path.endswith("__init__.py"), public) == []


def test_errors_need_only_the_standard_library() -> None:
    source = (ROOT / "streams/errors.py").read_text(encoding="utf-8")
    names = {name.split(".")[0] for _, name in imports(source, ERRORS, package=False)}
    assert names <= set(sys.stdlib_module_names)


@pytest.mark.parametrize("path", MODULES)
def test_a_file_opens_by_saying_what_it_holds(path: str) -> None:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    assert not tree.body or ast.get_docstring(tree), f"{path} has no opening docstring"


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("adaptive_sleep.kernels.step", "import adaptive_sleep.model"),
        ("adaptive_sleep.kernels.step", "from adaptive_sleep import model"),
        ("adaptive_sleep.kernels.step", "from .. import model"),
        ("adaptive_sleep.kernels.step", "from ..streams.events import Events"),
        ("adaptive_sleep.kernels.step", "from ..streams import errors, events"),
        ("adaptive_sleep.kernels.step", "import polars as pl"),
        ("adaptive_sleep.kernels.step", "import numpy"),
        ("adaptive_sleep.streams.events", "import torch"),
        ("adaptive_sleep.streams.events", "from torch.nn import functional"),
        ("adaptive_sleep.streams.events", "from ..kernels import step"),
        ("adaptive_sleep.streams.events", "import adaptive_sleep"),
        ("adaptive_sleep.runtime", "def f():\n    from adaptive_sleep.policies import fixed"),
        ("adaptive_sleep.runtime", "from .policies.fixed import Fixed"),
        ("adaptive_sleep.runtime", "from . import experiments"),
        (
            "adaptive_sleep.runtime",
            "import importlib\nimportlib.import_module('adaptive_sleep.policies')",
        ),
        ("adaptive_sleep.runtime", "if TYPE_CHECKING:\n    from .policies import fixed"),
        ("adaptive_sleep.policies.fixed", "from adaptive_sleep.experiments import cli"),
        ("adaptive_sleep.policies.fixed", "from ..experiments.cli import main"),
        ("adaptive_sleep.policies.fixed", "__import__('adaptive_sleep.experiments')"),
    ],
)
def test_an_offender_is_caught(module: str, source: str) -> None:
    assert len(offences(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("adaptive_sleep.kernels.step", "import torch\nfrom .checks import check"),
        ("adaptive_sleep.kernels.step", "from ..streams.errors import InputError"),
        ("adaptive_sleep.streams.events", "import numpy\nfrom .errors import InputError"),
        ("adaptive_sleep.runtime", "import torch\nfrom .kernels import x\nfrom . import streams"),
        (
            "adaptive_sleep.policies.fixed",
            "import adaptive_sleep as asl\nfrom ..policy import Range",
        ),
        ("adaptive_sleep.experiments.cli", "from ..policies import fixed\nfrom . import replay"),
    ],
)
def test_the_innocent_pass(module: str, source: str) -> None:
    assert offences(source, module) == []


def test_nobody_climbs_through_the_public_names() -> None:
    public = {"Fixed": "adaptive_sleep.policies.fixed", "Runtime": "adaptive_sleep.runtime"}
    source = "from adaptive_sleep import Fixed, Runtime"
    assert len(offences(source, "adaptive_sleep.sleep", public=public)) == 1
    assert offences(source, "adaptive_sleep.policies.compose", public=public) == []
    assert len(offences(source, "adaptive_sleep.kernels.step", public=public)) == 2


def test_the_root_is_exempt_for_type_checkers_only() -> None:
    mirrored = "if TYPE_CHECKING:\n    from .policies import fixed\n"
    assert offences(mirrored, "adaptive_sleep", package=True) == []
    executed = mirrored + "from .policies import fixed\n"
    assert len(offences(executed, "adaptive_sleep", package=True)) == 1
