"""What the checkout holds, as git sees it: tracked files and new ones that it does not ignore.

Which rules the files must keep is the tests' affair.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Folder in the checkout -> the package it is imported as.
PACKAGES = {
    "adaptive_sleep": "adaptive_sleep",
    "kernels": "adaptive_sleep.kernels",
    "streams": "adaptive_sleep.streams",
    "policies": "adaptive_sleep.policies",
    "experiments": "adaptive_sleep.experiments",
}


def files() -> list[str]:
    """Paths relative to the root, sorted, with forward slashes."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return sorted({name for name in listing.split("\0") if name and (ROOT / name).is_file()})


def module_name(path: str) -> str | None:
    """The module that a path of the checkout is imported as, or None where it is none of ours."""
    top, *rest = path.split("/")
    if top not in PACKAGES or not path.endswith(".py"):
        return None
    parts = [PACKAGES[top], *rest[:-1]]
    if rest[-1] != "__init__.py":
        parts.append(rest[-1].removesuffix(".py"))
    return ".".join(parts)


def copy(target: Path) -> None:
    """Copy the files into a folder, so that a build there meets no leftovers of another."""
    for name in files():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target / name)


def python(code: str, cwd: Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter from another folder, with warnings as errors."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment["OMP_NUM_THREADS"] = "1"
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    return subprocess.run(
        [sys.executable, "-W", "error", "-P", "-c", code],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
    )
