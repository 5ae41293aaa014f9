"""Every Triton kernel compiles ahead of time for each target, within its shared memory; needs no
GPU."""

from __future__ import annotations

from typing import Any

import pytest

triton = pytest.importorskip("triton")
# Bytes of shared memory that one block may have.
TARGETS = {
    ("cuda", 80, 32): 163 * 1024,
    ("cuda", 90, 32): 227 * 1024,
    ("hip", "gfx942", 64): 64 * 1024,
}
INTEGERS = {"T", "H", "chunks", "heads", "tiles"}


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


@pytest.mark.timeout(400)
@pytest.mark.parametrize("target", TARGETS, ids=lambda t: f"{t[0]}-{t[1]}")
@pytest.mark.parametrize(("key", "value"), [(32, 32), (64, 64), (128, 128), (96, 256)])
def test_every_kernel_compiles_ahead_of_time(
    key: int, value: int, target: tuple[str, Any, int]
) -> None:
    kernels = _kernels()
    assert len(kernels) == 5
    for name, kernel in kernels.items():
        compiled = _compile(kernel, key, value, target)
        assert compiled.asm["cubin" if target[0] == "cuda" else "hsaco"], name
        assert compiled.metadata.shared <= TARGETS[target], name
