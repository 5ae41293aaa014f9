"""Times the gated delta rule, on a CPU or a GPU, beside transformers' torch form of it or, on a
GPU, flash-linear-attention's: `adaptive-sleep bench kernels`.

Correctness comes first: where a result misses the float64 reference there is no speed to report.
What is timed lives in kernels/; transformers comes with the extra `bench`, flash-linear-attention
with `fla`.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode

from adaptive_sleep.kernels import chosen_backend, gated_delta_rule, gated_delta_rule_reference
from adaptive_sleep.streams.errors import AdaptiveSleepError, InputError, nearest
from adaptive_sleep.task_training import device_named

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
CEILING = {"cpu": 2048, "cuda": 8192}  # rows of the square product: what the machine can do
# whose form is timed beside ours, and the dtype of the inputs that both get
AGAINST = {"transformers": torch.float32, "fla": torch.bfloat16}


def _inputs(
    shape: Shape,
    gate: float = 0.2,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> list[Tensor]:
    batch, steps, heads, key, value = shape
    rng = torch.Generator().manual_seed(steps * key + batch)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=rng)

    q, k = (normalize(normal(batch, steps, heads, key), dim=-1) for _ in range(2))
    v, state = normal(batch, steps, heads, value), normal(batch, heads, key, value)
    g = -gate * torch.rand(batch, steps, heads, generator=rng)
    beta = torch.rand(batch, steps, heads, generator=rng)
    given = [*(x.to(dtype) for x in (q, k, v, g, beta)), state]  # a state is float32 at any dtype
    return [x.to(device).requires_grad_() for x in given]


def _ours(backend: str) -> Rule:
    def ours(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor) -> Any:
        return gated_delta_rule(q, k, v, g, beta, initial_state=state, backend=backend)

    return ours


def _wanted(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor) -> Any:
    return gated_delta_rule_reference(q, k, v, g, beta, initial_state=state)


def _theirs(against: str) -> Rule:
    """Return the form to time beside ours: flash-linear-attention's, or transformers' in torch.
    Raises InputError where that is missing, or would hand over to fla."""
    if against == "fla":
        if importlib.util.find_spec("fla") is None or not torch.cuda.is_available():
            raise InputError(
                "against='fla': needs a GPU and flash-linear-attention (pip install "
                "'adaptive-sleep[fla]'); the other is 'transformers'"
            )
        return _ours("fla")
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
    return o, state, *torch.autograd.grad((o, state), inputs, (_weights(o), _weights(state)))


def _weights(x: Tensor) -> Tensor:
    """What the gradient comes in with: the same numbers in every dtype, eighths from -1 to 1."""
    steps = torch.arange(x.numel(), device=x.device) % 17 - 8
    return (steps / 8).to(x.dtype).view(x.shape)


def _error(x: Tensor, wanted: Tensor) -> float:
    size, away = float(wanted.norm()), float((x.double() - wanted).norm())
    return away / size if size >= 1e-6 else away


def _errors(rule: Rule, inputs: list[Tensor]) -> dict[str, float]:
    """How far a form is off the float64 reference on the same inputs, by output and gradient."""
    exact = [x.detach().cpu().double().requires_grad_() for x in inputs]
    pairs = zip(NAMES, _train(rule, inputs), _train(_wanted, exact), strict=True)
    return {name: _error(x.detach().cpu(), y.detach()) for name, x, y in pairs}


def check_gate(backend: str, device: str = "cpu") -> None:
    """Hold ours to the float64 reference, at each shape's head sizes on a shorter and narrower
    call.

    Raises AdaptiveSleepError naming the first shape and tensor that misses the bound.
    """
    for batch, steps, _, key, value in SHAPES:
        for gate in (0.2, 20.0):
            shape = (min(batch, 2), min(steps, 80), 2, key, value)
            errors = _errors(_ours(backend), _inputs(shape, gate, device=device))
            for name, found in errors.items():
                bound = 1e-5 if name in ("o", "state") else 1e-4
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

    On a CPU, what one operator allocates and frees within itself is not seen.
    """
    if inputs[0].is_cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        _train(rule, inputs)
        return torch.cuda.max_memory_allocated() - before
    counted = _Peak()
    with counted:
        _train(rule, inputs)
    return counted.peak


def _interleaved(calls: Sequence[Callable[[], object]], seconds: float, device: str) -> list[float]:
    """Time the calls in turn, at least 5 rounds and about `seconds` in all; return their medians.

    On a GPU, what a call takes from its launch until the GPU has nothing left to do.
    """
    wait: Callable[[], object] = torch.cuda.synchronize if device == "cuda" else lambda: None
    for call in calls:
        call()
    times: list[list[float]] = [[] for _ in calls]
    end = time.perf_counter() + seconds
    while len(times[0]) < 5 or (time.perf_counter() < end and len(times[0]) < 200):
        for call, found in zip(calls, times, strict=True):
            wait()
            start = time.perf_counter()
            call()
            wait()
            found.append(time.perf_counter() - start)
    return [statistics.median(found) for found in times]


def useful_flops(shape: Shape) -> int:
    """Return the FLOPs of the forward's one-step form: three products of K by V an event and
    head."""
    batch, steps, heads, key, value = shape
    return 6 * batch * steps * heads * key * value


def bench_shape(
    shape: Shape,
    ours: Rule,
    theirs: Rule,
    seconds: float,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> dict[str, Any]:
    """Time one shape, ours beside theirs and the ceiling, and count peak bytes."""
    inputs = _inputs(shape, dtype=dtype, device=device)
    rows = CEILING[device]
    square = torch.randn(rows, rows, device=device).to(dtype)
    with torch.no_grad():
        calls = [lambda: ours(*inputs), lambda: theirs(*inputs), lambda: square @ square]
        forward = _interleaved(calls, seconds, device)
    both = [lambda: _train(ours, inputs), lambda: _train(theirs, inputs)]
    train = _interleaved(both, seconds, device)
    bytes_ours, bytes_theirs = _peak_bytes(ours, inputs), _peak_bytes(theirs, inputs)
    return {
        "shape": list(shape),
        "forward_seconds": forward[0],
        "forward_seconds_theirs": forward[1],
        "forward_ratio": forward[1] / forward[0],
        "train_seconds": train[0],
        "train_seconds_theirs": train[1],
        "train_ratio": train[1] / train[0],
        "ceiling_fraction": useful_flops(shape) / forward[0] / (2 * rows**3 / forward[2]),
        "peak_bytes": bytes_ours,
        "peak_bytes_ratio": bytes_ours / bytes_theirs,
    }


def _line(row: dict[str, Any]) -> str:
    return (
        f"{tuple(row['shape'])}: forward {row['forward_seconds'] * 1e3:.2f} ms "
        f"({row['forward_ratio']:.2f}x), train {row['train_seconds'] * 1e3:.2f} ms "
        f"({row['train_ratio']:.2f}x), {row['ceiling_fraction']:.0%} of the ceiling, "
        f"peak {row['peak_bytes'] / 2**20:.0f} MiB ({row['peak_bytes_ratio']:.2f}x)"
    )


def run_bench(
    shapes: tuple[Shape, ...] = SHAPES,
    seconds: float = 4.0,
    backend: str = "auto",
    device: str = "cpu",
    against: str = "transformers",
    report: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Check ours against the reference, then time it beside another form on each shape (B, T, H, K,
    V): transformers' in torch, of float32 inputs, or fla's, of bfloat16 ones.

    Returns `shapes` (per shape the seconds, ratios theirs / ours, fraction of the ceiling, peak
    bytes), the geometric means `forward_ratio_geomean` and `train_ratio_geomean`, `threads`, the
    `device` (a GPU by its name), the `backend` that ran, `against`, `gate` ("passed"), and for
    both forms how far they are off the reference on the inputs that are timed, at most over
    outputs and gradients (`error`, `error_theirs`; on a shorter and narrower call). Raises
    InputError for an unknown name and where the other form is missing, AdaptiveSleepError where
    the gate does not pass.
    """
    if against not in AGAINST:
        raise InputError(f"against={against!r}: {', '.join(AGAINST)}{nearest(against, AGAINST)}")
    where, dtype = device_named(device), AGAINST[against]
    theirs = _theirs(against)
    if backend == "auto":
        backend = chosen_backend(where, torch.float32)
    check_gate(backend, device)
    ours, short = _ours(backend), (2, 80, 2, *shapes[0][3:])
    errors = [
        max(_errors(rule, _inputs(short, dtype=dtype, device=device)).values())
        for rule in (ours, theirs)
    ]
    rows = []
    for shape in shapes:
        rows.append(bench_shape(shape, ours, theirs, seconds, dtype, device))
        if report is not None:
            report(_line(rows[-1]))

    def mean(name: str) -> float:
        return math.exp(statistics.fmean(math.log(row[name]) for row in rows))

    return {
        "gate": "passed",
        "backend": backend,
        "against": against,
        "device": torch.cuda.get_device_name(where) if device == "cuda" else device,
        "threads": torch.get_num_threads(),
        "error": errors[0],
        "error_theirs": errors[1],
        "shapes": rows,
        "forward_ratio_geomean": mean("forward_ratio"),
        "train_ratio_geomean": mean("train_ratio"),
    }
