"""The Triton kernels are right under the interpreter, which needs no GPU, and on a GPU where there
is one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rule_cases import make_case

from adaptive_sleep.kernels import gated_delta_rule
from adaptive_sleep.streams.errors import InputError

triton = pytest.importorskip("triton")
HERE = Path(__file__).parent


def check_cases(device: str, interpret: str) -> None:
    """Run `triton_cases` in a process of its own and hold what it found to the bounds."""
    done = subprocess.run(
        [sys.executable, str(HERE / "triton_cases.py"), device],
        env=os.environ | {"TRITON_INTERPRET": interpret, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) == 11
    for case, tensors in found.items():
        for name, (error, finite) in tensors.items():
            assert finite, (case, name)
            assert error < (1e-4 if name.startswith("grad") else 1e-5), (case, name)


@pytest.mark.timeout(400)  # the interpreter is slow, and slower on a busy machine
def test_interpreted_kernels_agree_with_the_reference() -> None:
    check_cases("cpu", interpret="1")


@pytest.mark.gpu
def test_compiled_kernels_agree_with_the_reference() -> None:
    check_cases("cuda", interpret="0")


def test_without_a_gpu_the_reason_is_given() -> None:
    case = make_case(1)
    for backend in ("triton", "fla"):
        inputs = case.cast(torch.float32).inputs()
        with pytest.raises(InputError, match=r"needs? a GPU; use 'torch'"):
            gated_delta_rule(*inputs, backend=backend)
    with pytest.raises(InputError, match="float32, but the inputs are"):
        gated_delta_rule(*case.inputs(), backend="triton")
