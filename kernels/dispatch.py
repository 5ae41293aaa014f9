"""The one door to the gated delta rule: checks the call, treats padding, and sends it to a backend.

"auto" is Triton on CUDA in float32; on a CPU the compiled form ("native") where it was built with
the package, else torch's. No arithmetic of the rule lives here. A backend that is asked for and
cannot serve a call says why; nothing falls back silently.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from types import ModuleType

import torch
from torch import Tensor

from adaptive_sleep.streams.errors import InputError, nearest

from . import native
from .checks import check_rule, padding_mask, state_change, untouched
from .gradient import chunked_gated_delta_rule
from .reference import gated_delta_rule_reference
from .step import gated_delta_step

Rule = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
BACKENDS = ("auto", "native", "torch", "triton", "fla", "reference")
# A gate below this forgets everything in every dtype: its exp is 0, and so is its gradient.
FORGETS = -1e4


def gated_delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    *,
    initial_state: Tensor | None = None,
    lengths: Tensor | None = None,
    reference_state: Tensor | None = None,
    return_state_change: bool = False,
    backend: str = "auto",
) -> tuple[Tensor, ...]:
    """Run the gated delta rule over T events; return o, the final state and, if asked for, the
    state change.

    q, k `[B, T, H, K]`, L2-normalised over K; v, o `[B, T, H, V]`; g (log decay, <= 0; -inf forgets
    everything) and beta (in (0, 1)) `[B, T, H]`; states `[B, H, K, V]`, float32 (float64 where the
    inputs are). lengths `[B]`: positions t >= lengths[b] leave the state alone and give o = 0. The
    state change `[2, B, H]` holds ||S - S_ref||^2 and ||S||^2 for reference_state (default: the
    initial one); no gradient flows through it. Raises InputError for shapes that do not fit and for
    a backend that cannot serve the call. Source: Gated Delta Networks, arXiv 2412.06464.
    """
    if backend not in BACKENDS:
        raise InputError(
            f"backend={backend!r}: not one of {', '.join(BACKENDS)}{nearest(backend, BACKENDS)}"
        )
    if torch.is_autocast_enabled(q.device.type):
        # The recurrence keeps full float32, whatever is done around it.
        with torch.autocast(q.device.type, enabled=False):
            return gated_delta_rule(
                q, k, v, g, beta,
                initial_state=initial_state, lengths=lengths, reference_state=reference_state,
                return_state_change=return_state_change, backend=backend,
            )  # fmt: skip
    if backend == "reference":
        return gated_delta_rule_reference(
            q, k, v, g, beta,
            initial_state=initial_state, lengths=lengths,
            reference_state=reference_state, return_state_change=return_state_change,
        )  # fmt: skip
    dtype = check_rule(q, k, v, g, beta, initial_state, lengths, reference_state)
    batch, steps, heads, key = q.shape
    if backend == "auto":
        backend = chosen_backend(q.device, dtype)
    if initial_state is None:
        start = q.new_zeros(batch, heads, key, v.shape[3], dtype=dtype)
    else:
        start = initial_state.to(dtype)
    if backend != "native":  # which sums no gates; the others would make a NaN of 0 times -inf
        g = g.clamp(min=FORGETS)
    if backend == "triton" and steps:
        rule = _triton(q, dtype)
        call = rule.Call(lengths, reference_state, return_state_change)
        o, state, change = rule.triton_gated_delta_rule(q, k, v, g, beta, start, call)
        return (o, state) if change is None else (o, state, change)
    if backend == "native" and steps:
        _check_native(q)
        reference = start if reference_state is None else reference_state
        options = native.Options(lengths, reference, return_state_change)
        inputs = tuple(x.to(dtype) for x in (q, k, v, g, beta, start))
        o, state, change = native.native_gated_delta_rule(inputs, options)
        return (o.to(v.dtype), state, change) if return_state_change else (o.to(v.dtype), state)
    o, state = _padded(q, k, v, g, beta, start, lengths, _fla(q) if backend == "fla" else _torch)
    if not return_state_change:
        return o, state
    reference = start if reference_state is None else reference_state.to(dtype)
    return o, state, state_change(state, reference)


def chosen_backend(device: torch.device, dtype: torch.dtype) -> str:
    """Return the backend that "auto" stands for, for inputs on `device` computed in `dtype`."""
    if device.type == "cuda" and dtype == torch.float32:
        return "triton"
    return "native" if device.type == "cpu" and not native.unavailable() else "torch"


def _padded(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    start: Tensor,
    lengths: Tensor | None,
    rule: Rule,
) -> tuple[Tensor, Tensor]:
    """Run a rule that knows neither padding nor other dtypes than that of `start`."""
    kept_dtype = v.dtype
    q, k, v, g, beta = (x.to(start.dtype) for x in (q, k, v, g, beta))
    if lengths is not None:
        # Nothing may leak from padding, not even a NaN: a key of zero and no decay leave the state
        # alone.
        padded = padding_mask(lengths, q.shape[1])[:, :, None]
        q, k, v = (x.masked_fill(padded[..., None], 0.0) for x in (q, k, v))
        g, beta = (x.masked_fill(padded, 0.0) for x in (g, beta))
    if q.shape[0] and q.shape[1]:
        o, state = rule(q, k, v, g, beta, start)
    else:
        o, state = untouched(start, v, q, k, g, beta)
    return o.to(kept_dtype), state


def _torch(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, start: Tensor
) -> tuple[Tensor, Tensor]:
    if q.shape[1] > 1:
        return chunked_gated_delta_rule(q, k, v, g, beta, start)
    o, state = gated_delta_step(q[:, 0], k[:, 0], v[:, 0], g[:, 0], beta[:, 0], start)
    return o[:, None], state


def _check_native(q: Tensor) -> None:
    """Say why the compiled form cannot serve, where it cannot."""
    if q.device.type != "cpu":
        raise InputError(f"backend='native': inputs on {q.device}, but it needs a CPU; use 'torch'")
    if reason := native.unavailable():
        raise InputError(f"backend='native': {reason}; or use 'torch'")


def _triton(q: Tensor, dtype: torch.dtype) -> ModuleType:
    """Return the module of the Triton form, or say why it cannot serve."""
    if dtype != torch.float32:
        raise InputError(
            f"backend='triton': computes in float32, but the inputs are {dtype}; use 'torch'"
        )
    if not q.is_cuda and os.environ.get("TRITON_INTERPRET") != "1":
        raise InputError(
            f"backend='triton': the inputs are on {q.device}, but Triton needs a GPU; use 'torch'"
        )
    try:
        return importlib.import_module(f"{__package__}.triton_rule")
    except ImportError as error:
        raise InputError(
            f"backend='triton': Triton cannot be imported ({error}); use 'torch'"
        ) from error


def _fla(q: Tensor) -> Rule:
    """Return flash-linear-attention's chunked form, or say why it cannot serve."""
    if not q.is_cuda:
        raise InputError(f"backend='fla': inputs on {q.device}, but it needs a GPU; use 'torch'")
    if q.dtype not in (torch.bfloat16, torch.float16):
        raise InputError(
            f"backend='fla': it takes bfloat16 or float16, but the inputs are {q.dtype}; "
            "use 'triton', or cast them"
        )
    try:
        theirs = importlib.import_module("fla.ops.gated_delta_rule").chunk_gated_delta_rule
    except ImportError as error:
        raise InputError(
            f"backend='fla': flash-linear-attention cannot be imported ({error}): "
            "pip install 'adaptive-sleep[fla]'"
        ) from error
    half = q.dtype

    def rule(
        q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, start: Tensor
    ) -> tuple[Tensor, Tensor]:
        q, k, v, beta = (x.to(half) for x in (q, k, v, beta))
        o, state = theirs(q, k, v, g, beta, initial_state=start, output_final_state=True)
        return o, state

    return rule
