"""The Triton kernels: right under the interpreter, and compiled ahead of time for each target;
neither needs a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from rule_cases import make_case

from adaptive_sleep.kernels import gated_delta_rule
from adaptive_sleep.streams.errors import InputError

triton = pytest.importorskip("triton")
HERE = Path(__file__).parent
LARGE = [
    pytest.param(*sizes, marks=pytest.mark.slow) for sizes in ((64, 64), (128, 128), (96, 256))
]
# Bytes of shared memory that one block may have.
TARGETS = {
    ("cuda", 80, 32): 163 * 1024,
    ("cuda", 90, 32): 227 * 1024,
    ("hip", "gfx942", 64): 64 * 1024,
}
INTEGERS = {"T", "H", "chunks", "heads", "tiles"}


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
    assert len(found) == 10
    for case, tensors in found.items():
        for name, (error, finite) in tensors.items():
            assert finite, (case, name)
            assert error < (1e-4 if name.startswith("grad") else 1e-5), (case, name)


def test_interpreted_kernels_agree_with_the_reference() -> None:
    check_cases("cpu", interpret="1")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
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


def _kernels() -> dict[str, Any]:
    from adaptive_sleep.kernels import triton_gradient, triton_kernels

    modules = (triton_kernels, triton_gradient)
    return {n: x for m in modules for n, x in vars(m).items() if n.endswith("_kernel")}


def _compile(kernel: Any, key: int, value: int, target: tuple[str, Any, int]) -> Any:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from adaptive_sleep.kernels.triton_rule import Sizes

    options = Sizes(key, value).all_options() | {"HAS_LENGTHS": True, "KEEP": True, "NORMS": True}
    constants = {p.name: options[p.name] for p in kernel.params if p.is_constexpr}
    signature = {}
    for p in kernel.params:
        kind = "*i64" if p.name == "lengths" else "i32" if p.name in INTEGERS else "*fp32"
        signature[p.name] = "constexpr" if p.is_constexpr else "fp32" if p.name == "scale" else kind
    source = ASTSource(kernel, signature, constants)
    return triton.compile(source, target=GPUTarget(*target), options={"num_stages": 1})


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: f"{t[0]}-{t[1]}")
@pytest.mark.parametrize(("key", "value"), [(32, 32), *LARGE])
def test_every_kernel_compiles_ahead_of_time(
    key: int, value: int, target: tuple[str, Any, int]
) -> None:
    kernels = _kernels()
    assert len(kernels) == 5
    for name, kernel in kernels.items():
        compiled = _compile(kernel, key, value, target)
        assert compiled.asm["cubin" if target[0] == "cuda" else "hsaco"], name
        assert compiled.metadata.shared <= TARGETS[target], name
