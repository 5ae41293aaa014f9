"""Times the gated delta rule on this machine's CPU beside transformers' torch form of it:
`adaptive-sleep bench kernels`.

Correctness comes first: where a result misses the float64 reference there is no speed to report.
What is timed lives in kernels/; transformers comes with the extra `bench`.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode

from adaptive_sleep.kernels import chosen_backend, gated_delta_rule, gated_delta_rule_reference
from adaptive_sleep.streams.errors import AdaptiveSleepError, InputError

Shape = tuple[int, int, int, int, int]  # B, T, H, K, V
Rule = Callable[..., tuple[Tensor, Tensor]]

SHAPES: tuple[Shape, ...] = (
    (1, 4096, 4, 64, 64),
    (8, 512, 4, 64, 64),
    (2, 2048, 8, 128, 128),
    (32, 64, 4, 32, 32),
    (256, 64, 2, 32, 32),
    (4, 1024, 12, 96, 256),
)
NAMES = ("o", "state", "dq", "dk", "dv", "dg", "dbeta", "dstate")
CEILING = 2048  # rows of the square product that stands for what the machine can do


def _inputs(shape: Shape, gate: float = 0.2, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    batch, steps, heads, key, value = shape
    rng = torch.Generator().manual_seed(steps * key + batch)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=rng)

    q, k = (normalize(normal(batch, steps, heads, key), dim=-1) for _ in range(2))
    v, state = normal(batch, steps, heads, value), normal(batch, heads, key, value)
    g = -gate * torch.rand(batch, steps, heads, generator=rng)
    beta = torch.rand(batch, steps, heads, generator=rng)
    return [x.to(dtype).requires_grad_() for x in (q, k, v, g, beta, state)]


def _ours(backend: str) -> Rule:
    def ours(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor) -> Any:
        return gated_delta_rule(q, k, v, g, beta, initial_state=state, backend=backend)

    return ours


def _wanted(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor) -> Any:
    return gated_delta_rule_reference(q, k, v, g, beta, initial_state=state)


def _theirs() -> Rule:
    """Return transformers' torch form. Raises InputError where it is missing or would hand over to
    fla."""
    if importlib.util.find_spec("fla") is not None:
        raise InputError(
            "bench kernels: flash-linear-attention is installed, and transformers hands over to "
            "it; run this in an environment without it"
        )
    name = "transformers.models.qwen3_next.modeling_qwen3_next"
    try:
        rule = importlib.import_module(name).torch_chunk_gated_delta_rule
    except ImportError as error:
        raise InputError(
            "bench kernels: needs transformers: pip install 'adaptive-sleep[bench]'"
        ) from error

    def theirs(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor) -> Any:
        return rule(q, k, v, g, beta, initial_state=state, output_final_state=True)

    return theirs


def _train(rule: Rule, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    """Run forward and backward, through outputs and final state; return both and the gradients."""
    o, state = rule(*inputs)
    weights = (torch.linspace(-1, 1, x.numel(), dtype=x.dtype).view(x.shape) for x in (o, state))
    return o, state, *torch.autograd.grad((o, state), inputs, tuple(weights))


def _error(x: Tensor, wanted: Tensor) -> float:
    size, away = float(wanted.norm()), float((x.double() - wanted).norm())
    return away / size if size >= 1e-6 else away


def check_gate(backend: str) -> None:
    """Hold ours to the float64 reference, at each shape's head sizes on a shorter and narrower
    call.

    Raises AdaptiveSleepError naming the first shape and tensor that misses the bound.
    """
    for batch, steps, _, key, value in SHAPES:
        for gate in (0.2, 20.0):
            shape = (min(batch, 2), min(steps, 80), 2, key, value)
            ours = _train(_ours(backend), _inputs(shape, gate))
            wanted = _train(
                _wanted, [x.detach().double().requires_grad_() for x in _inputs(shape, gate)]
            )
            for name, x, y in zip(NAMES, ours, wanted, strict=True):
                bound = 1e-5 if name in ("o", "state") else 1e-4
                found = _error(x.detach(), y.detach())
                if not found < bound:
                    raise AdaptiveSleepError(
                        f"bench kernels: {name} is {found:.1e} off the reference at {shape}, gates "
                        f"down to -{gate} (allowed: {bound:.0e}); no speed is reported"
                    )


class _Peak(TorchDispatchMode):
    """Counts the bytes of every storage that is made under it, and keeps their highest sum."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for x in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(x, Tensor):
                storage = x.untyped_storage()
                self.live[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.live = {key: held for key, held in self.live.items() if not held[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self.live.values()))
        return result


def _peak_bytes(rule: Rule, inputs: list[Tensor]) -> int:
    """Return the most bytes that forward + backward hold at once beside the inputs.

    What one operator allocates and frees within itself is not seen.
    """
    counted = _Peak()
    with counted:
        _train(rule, inputs)
    return counted.peak


def _interleaved(calls: list[Callable[[], object]], seconds: float) -> list[float]:
    """Time the calls in turn, at least 5 rounds and about `seconds` in all; return their
    medians."""
    for call in calls:
        call()
    times: list[list[float]] = [[] for _ in calls]
    end = time.perf_counter() + seconds
    while len(times[0]) < 5 or (time.perf_counter() < end and len(times[0]) < 200):
        for call, found in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            found.append(time.perf_counter() - start)
    return [statistics.median(found) for found in times]


def useful_flops(shape: Shape) -> int:
    """Return the FLOPs of the forward's one-step form: three products of K by V an event and
    head."""
    batch, steps, heads, key, value = shape
    return 6 * batch * steps * heads * key * value


def bench_shape(shape: Shape, ours: Rule, theirs: Rule, seconds: float) -> dict[str, Any]:
    """Time one shape, ours beside theirs and the ceiling, and count peak bytes."""
    inputs = _inputs(shape)
    square = torch.randn(CEILING, CEILING)
    with torch.no_grad():
        forward = _interleaved(
            [lambda: ours(*inputs), lambda: theirs(*inputs), lambda: square @ square], seconds
        )
    train = _interleaved([lambda: _train(ours, inputs), lambda: _train(theirs, inputs)], seconds)
    bytes_ours, bytes_theirs = _peak_bytes(ours, inputs), _peak_bytes(theirs, inputs)
    return {
        "shape": list(shape),
        "forward_seconds": forward[0],
        "forward_seconds_theirs": forward[1],
        "forward_ratio": forward[1] / forward[0],
        "train_seconds": train[0],
        "train_seconds_theirs": train[1],
        "train_ratio": train[1] / train[0],
        "ceiling_fraction": useful_flops(shape) / forward[0] / (2 * CEILING**3 / forward[2]),
        "peak_bytes": bytes_ours,
        "peak_bytes_ratio": bytes_ours / bytes_theirs,
    }


def _line(row: dict[str, Any]) -> str:
    return (
        f"{tuple(row['shape'])}: forward {row['forward_seconds']:.4f} s "
        f"({row['forward_ratio']:.2f}x), train {row['train_seconds']:.4f} s "
        f"({row['train_ratio']:.2f}x), {row['ceiling_fraction']:.0%} of the ceiling, "
        f"peak {row['peak_bytes'] / 2**20:.0f} MiB ({row['peak_bytes_ratio']:.2f}x)"
    )


def run_bench(
    shapes: tuple[Shape, ...] = SHAPES,
    seconds: float = 4.0,
    backend: str = "auto",
    report: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Check ours against the reference, then time it beside transformers' form on each shape (B, T,
    H, K, V).

    Returns `shapes` (per shape the seconds, ratios theirs / ours, fraction of the ceiling, peak
    bytes), the geometric means `forward_ratio_geomean` and `train_ratio_geomean`, `threads`, the
    `backend` that ran, and `gate` ("passed"). Raises InputError without transformers,
    AdaptiveSleepError where the gate does not pass.
    """
    theirs = _theirs()
    if backend == "auto":
        backend = chosen_backend(torch.device("cpu"), torch.float32)
    check_gate(backend)
    rows = []
    for shape in shapes:
        rows.append(bench_shape(shape, _ours(backend), theirs, seconds))
        if report is not None:
            report(_line(rows[-1]))

    def mean(name: str) -> float:
        return math.exp(statistics.fmean(math.log(row[name]) for row in rows))

    return {
        "gate": "passed",
        "backend": backend,
        "threads": torch.get_num_threads(),
        "shapes": rows,
        "forward_ratio_geomean": mean("forward_ratio"),
        "train_ratio_geomean": mean("train_ratio"),
    }
