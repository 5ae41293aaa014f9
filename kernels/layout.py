"""What the chunked form is built of: chunks laid out for batched products, decays, the unit
triangular inverse.

Chunks come first, then streams, heads, positions: `[chunks, B, H, C, D]`, so that one chunk of
every stream and head is one contiguous batch. The recurrence itself is in `chunked`, its gradient
in `gradient`.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

# The inverse is solved directly up to this size, and put together from products above it.
BLOCK = 16
# Floats that a working buffer may hold for each thread, so that runs of chunks stay in the cache.
SEGMENT = 1 << 16


def chunk_size(steps: int, rows: int, key: int, value: int) -> int:
    """Return the events per chunk, a power of two, for B * H = `rows` sequences.

    Larger heads make larger chunks worth their triangle; a long loop over few rows, fewer steps.
    """
    long = rows < 8 and steps >= 1024
    size = 32 if long or max(key, value) > 64 else 16
    while size > 1 and size // 2 >= steps:
        size //= 2
    return size


def chunks_at_once(chunks: int, rows: int, chunk: int, width: int) -> int:
    """Return how many of the chunks of B * H = `rows` sequences are worked on together."""
    return max(1, min(chunks, torch.get_num_threads() * SEGMENT // (rows * chunk * width)))


@functools.lru_cache(maxsize=32)
def segment_matrix(size: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the 0/1 matrix `[C*C + C, C]` that sums gates over segments, and the mask that goes
    with it.

    Row t*C + s sums the gates of (s, t]; row C*C + t those of [0, t]. Every decay is then its own
    sum of terms of one sign, accurate also where a chunk's gates sum to -1,000, and one product
    makes them all (its transpose is their gradient). The mask is -inf where s > t.
    """
    with torch.inference_mode(False):
        step = torch.arange(size, device=device)
        t, s, r = step[:, None, None], step[None, :, None], step[None, None, :]
        between = ((s < r) & (r <= t)).to(dtype).view(size * size, size)
        start = (step[:, None] >= step[None, :]).to(dtype)
        mask = torch.zeros(size * size + size, dtype=dtype, device=device)
        mask[: size * size].view(size, size).masked_fill_(
            step[:, None] < step[None, :], float("-inf")
        )
        return torch.cat((between, start)), mask


@functools.lru_cache(maxsize=32)
def _identity(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.eye(size, dtype=dtype, device=device)


def decays(gates: Tensor) -> Tensor:
    """Return `[N, C*C + C]` for gates `[N, C]`: exp of the sums over (s, t] (0 where s > t), then
    over [0, t].

    To base 2, because torch's exp2 is several times as fast as its exp on a CPU.
    """
    matrix, mask = segment_matrix(gates.shape[1], gates.dtype, gates.device)
    return torch.addmm(mask, gates, matrix.t(), alpha=math.log2(math.e)).exp2_()


def cut(x: Tensor, out: Tensor) -> None:
    """Copy x `[B, T, H, D]` into out `[chunks, B, H, C, D]`, zeros where the last chunk is not
    full."""
    chunks, size, steps = out.shape[0], out.shape[3], x.shape[1]
    if steps == chunks * size:
        out.copy_(x.unflatten(1, (chunks, size)).permute(1, 0, 3, 2, 4))
        return
    full = (chunks - 1) * size
    if full:
        cut(x[:, :full], out[:-1])
    out[-1, :, :, : steps - full] = x[:, full:].transpose(1, 2)
    out[-1, :, :, steps - full :] = 0


def join(x: Tensor, out: Tensor, scale: float = 1.0) -> None:
    """Write scale * x, `[chunks * B * H, C, D]`, to out `[B, T, H, D]`: the way back from `cut`."""
    batch, steps, heads = out.shape[:3]
    size = x.shape[1]
    chunks = x.shape[0] // (batch * heads)
    parts = x.unflatten(0, (chunks, batch, heads)).permute(1, 0, 3, 2, 4)
    full = steps // size
    pairs = []
    if full:
        pairs.append((parts[:, :full], out[:, : full * size].unflatten(1, (full, size))))
    if full < chunks:
        pairs.append((parts[:, full, : steps - full * size], out[:, full * size :]))
    for part, into in pairs:
        if scale == 1.0:
            into.copy_(part)
        else:
            torch.mul(part, scale, out=into)


def inverse(system: Tensor) -> Tensor:
    """Return the inverse of I + tril(system, -1), both `[N, C, C]`, C a power of two.

    The diagonal and what is above it are never read. Blocks of 16 are solved; two inverted blocks
    X1, X2 and the block A below X1 make the inverse of twice the size: [[X1, 0], [-X2 A X1, X2]].
    """
    count, size = system.shape[:2]
    stride, block = system.stride(0), min(size, BLOCK)
    square = (count, size // block, block, block)
    corner = torch.as_strided(system, square, (stride, block * (size + 1), size, 1))
    one = _identity(block, system.dtype, system.device).expand(square)
    solved: Tensor = torch.linalg.solve_triangular(corner, one, upper=False, unitriangular=True)
    if block == size:
        return solved[:, 0]
    done = solved.reshape(-1, block, block)
    while block < size:
        wide = 2 * block
        square = (count, size // wide, block, block)
        offset = system.storage_offset() + block * size
        below = torch.as_strided(system, square, (stride, wide * (size + 1), size, 1), offset)
        first, second = done.view(-1, 2, block, block).unbind(1)
        product = torch.bmm(second, torch.bmm(below.reshape(-1, block, block), first))
        whole = done.new_empty(first.shape[0], wide, wide)
        whole[:, :block, :block] = first
        whole[:, :block, block:] = 0
        torch.neg(product, out=whole[:, block:, :block])
        whole[:, block:, block:] = second
        done, block = whole, wide
    return done
