"""The wheel holds all of `adaptive_sleep`, nothing else, and works away from the checkout."""

from __future__ import annotations

import ast
import configparser
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from checkout import PACKAGES, ROOT, copy, files, module_name, python

POLICIES = {
    "fixed", "surprise", "uncertainty", "state_change", "cache_pressure",
    "event_density", "capped", "either", "both", "budgeted",
    "random", "periodic", "drift", "linear", "bandit", "cooldown", "warmup", "per_stream",
    "predicted_gain", "agent",
}  # fmt: skip


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The path of a wheel built from a clean copy."""
    folder = tmp_path_factory.mktemp("wheel")
    copy(folder / "source")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "out"]
    done = subprocess.run(
        [*command, "source"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (folder / "out").iterdir()
    return path


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel is unpacked."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def _in_wheel(path: str) -> str:
    """Where a file of the checkout lies in the wheel."""
    top, _, rest = path.partition("/")
    return f"{PACKAGES[top].replace('.', '/')}/{rest}"


def test_it_holds_one_top_level_name(site: Path) -> None:
    names = {path.name for path in site.iterdir()}
    assert {name for name in names if not name.endswith(".dist-info")} == {"adaptive_sleep"}
    assert len(names) == 2


def test_it_holds_every_module_and_no_other(site: Path) -> None:
    wanted = {_in_wheel(path) for path in files() if module_name(path)}
    held = {str(path.relative_to(site)) for path in site.rglob("*.py")}
    assert held == wanted


def test_it_holds_the_data(site: Path) -> None:
    wanted = {"adaptive_sleep/py.typed"}
    for path in files():
        top = path.split("/")[0]
        is_data = (
            path.startswith(("adaptive_sleep/bundled/", "experiments/recipes/"))
            or (path.startswith("experiments/results/") and path.endswith(".json"))
            or (top in PACKAGES and path.endswith(".j2"))
        )
        # A folder with nothing in it is held open by a hidden file, which stays behind.
        if is_data and not path.split("/")[-1].startswith("."):
            wanted.add(_in_wheel(path))
    held = {str(path.relative_to(site)) for path in site.rglob("*") if path.is_file()}
    assert wanted <= held
    assert not [name for name in held if name.endswith(".pyc")]


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs a C compiler")
def test_it_carries_the_compiled_kernels(site: Path, tmp_path: Path) -> None:
    code = "from adaptive_sleep.kernels import native; print(repr(native.unavailable()))"
    done = python(code, cwd=tmp_path, path=site)
    assert done.stdout.strip() == "''", done.stderr
    assert not [path for path in site.rglob("*") if path.suffix in (".c", ".h")]


def test_it_carries_the_licence(site: Path) -> None:
    (licence,) = site.glob("*.dist-info/licenses/LICENSE")
    assert licence.read_bytes() == (ROOT / "LICENSE").read_bytes()
    (metadata,) = site.glob("*.dist-info/METADATA")
    assert "License-Expression: Apache-2.0" in metadata.read_text(encoding="utf-8").splitlines()


def test_its_entry_points_exist(site: Path) -> None:
    (path,) = site.glob("*.dist-info/entry_points.txt")
    points = configparser.ConfigParser()
    points.read(path, encoding="utf-8")
    assert set(points["adaptive_sleep.policies"]) == POLICIES
    assert set(points["console_scripts"]) == {"adaptive-sleep"}
    for target in [
        *points["adaptive_sleep.policies"].values(),
        *points["console_scripts"].values(),
    ]:
        module, _, name = target.partition(":")
        source = site / (module.replace(".", "/") + ".py")
        assert source.is_file(), f"{target}: no such module"
        tree = ast.parse(source.read_text(encoding="utf-8"))
        defined = {n.name for n in tree.body if isinstance(n, ast.ClassDef | ast.FunctionDef)}
        assert name in defined, f"{target}: no such name"


def test_it_is_imported_from_outside_the_checkout(site: Path, tmp_path: Path) -> None:
    code = "import adaptive_sleep as a, adaptive_sleep.streams as s\nprint(a.__file__, s.__file__)"
    done = python(code, cwd=tmp_path, path=site)
    assert done.returncode == 0, done.stderr
    assert all(name.startswith(str(site)) for name in done.stdout.split())
