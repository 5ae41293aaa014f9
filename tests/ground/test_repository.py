"""The tracked files name no machine and no registry, and none outgrows its reader."""

from __future__ import annotations

import os
import re

import pytest
from checkout import ROOT, files

LONGEST = 450

# Put together from pieces, so that this file does not accuse itself.
FOLDERS = "|".join(["home", "root", "work", "Users", "mnt", "tmp/plan"])
MACHINE_PATH = re.compile(rf"(?<![\w./~-])/(?:{FOLDERS})/[\w.-]")
REGISTRIES = [
    ".".join(parts)
    for parts in [
        ("pypi", "org"),
        ("files", "pythonhosted", "org"),
        ("download", "pytorch", "org"),
        ("pypi", "nvidia", "com"),
        ("conda", "anaconda", "org"),
        ("registry", "npmjs", "org"),
        ("deb", "debian", "org"),
    ]
]

FILES = files()


def faults(text: str) -> list[str]:
    """The machine paths and registry hosts in a text, with their lines."""
    return [
        f"line {number}: {line.strip()[:100]}"
        for number, line in enumerate(text.splitlines(), start=1)
        if MACHINE_PATH.search(line) or any(host in line for host in REGISTRIES)
    ]


def text_of(path: str) -> str | None:
    """The text of a file, or None where it is binary."""
    data = (ROOT / path).read_bytes()
    try:
        return None if b"\0" in data else data.decode("utf-8")
    except UnicodeDecodeError:
        return None


def test_no_file_names_a_machine_or_a_registry() -> None:
    found = {path: faults(text) for path in FILES if (text := text_of(path)) is not None}
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize("folder", FOLDERS.split("|"))
def test_a_machine_path_is_caught(folder: str) -> None:
    assert faults(f"data = '/{folder}/somebody/x.parquet'")
    assert not faults(f"see https://example.org/{folder}/page and ./{folder}/x")


@pytest.mark.parametrize("host", REGISTRIES)
def test_a_registry_is_caught(host: str) -> None:
    assert faults(f"pip install --index-url https://{host}/simple x")


def test_no_source_is_too_long_to_read() -> None:
    kinds = (".py", ".toml", ".j2", "Makefile")
    lengths = {
        path: len((ROOT / path).read_text(encoding="utf-8").splitlines())
        for path in FILES
        if path.endswith(kinds)
    }
    assert lengths
    assert {path: n for path, n in lengths.items() if n > LONGEST} == {}


def test_scripts_can_be_run() -> None:
    assert os.access(ROOT / ".ci/run", os.X_OK)
