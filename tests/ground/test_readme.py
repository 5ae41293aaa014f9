"""The README's code runs: its python blocks, one after the other, in an empty folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from checkout import ROOT

README = ROOT / "README.md"
BLOCK = re.compile(r"^```python[^\n]*\n(.*?)^```\s*$", re.MULTILINE | re.DOTALL)


def blocks(text: str) -> list[tuple[int, str]]:
    """Line number of the first line of code, and the code, of every fenced python block."""
    return [(text.count("\n", 0, m.start(1)) + 1, m.group(1)) for m in BLOCK.finditer(text)]


def script(text: str) -> str:
    """All blocks as one program whose line numbers are the README's."""
    lines: list[str] = []
    for line, code in blocks(text):
        lines += [""] * (line - 1 - len(lines))
        lines += code.splitlines()
    return "\n".join(lines) + "\n"


def test_a_block_is_found_with_its_line() -> None:
    text = (
        "# Title\n\n```python\nx = 1\n```\n\n```console\nmake demo\n```\n\n```python\ny = x\n```\n"
    )
    assert blocks(text) == [(4, "x = 1\n"), (12, "y = x\n")]
    assert script(text).splitlines()[11] == "y = x"


@pytest.mark.timeout(300)
def test_the_code_runs(tmp_path: Path) -> None:
    assert README.is_file(), "the README is missing"
    text = README.read_text(encoding="utf-8")
    assert blocks(text), "the README shows no python code"
    (tmp_path / "README.py").write_text(script(text), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-P", "README.py"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
