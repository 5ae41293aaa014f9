"""Importing the package loads only what the core needs, and every public name is there."""

from __future__ import annotations

from pathlib import Path

import pytest
from checkout import python

HEAVY = [
    "gymnasium", "jinja2", "matplotlib", "optuna", "pandas", "plotly", "psutil", "rich",
    "scipy", "sklearn", "sqlalchemy", "stable_baselines3", "transformers", "typer",
]  # fmt: skip

LOADED = "import sys\n{}\nprint(*sorted({{m.split('.')[0] for m in sys.modules}} & set({!r})))"


def test_the_package_loads_no_heavy_library(tmp_path: Path) -> None:
    done = python(LOADED.format("import adaptive_sleep", HEAVY), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_the_check_sees_a_loaded_library(tmp_path: Path) -> None:
    done = python(LOADED.format("import rich", HEAVY), cwd=tmp_path)
    assert done.stdout.split() == ["rich"]


@pytest.mark.parametrize("module", ["adaptive_sleep", "adaptive_sleep.kernels"])
def test_every_public_name_resolves(module: str, tmp_path: Path) -> None:
    code = f"import {module} as m\nassert m.__all__\n[getattr(m, name) for name in m.__all__]"
    done = python(code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
