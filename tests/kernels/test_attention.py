"""Attention in C is torch's, forward and backward, whatever is masked; torch's runs where it cannot
serve."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest
import torch
from rule_cases import error
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from adaptive_sleep.kernels import attend, attend_packed, native_attention, torch_attend
from adaptive_sleep.streams.errors import InputError

SIZES = [(1, 1, 16), (17, 17, 16), (4, 21, 32), (64, 64, 64), (5, 64, 48)]  # T, S, D
Call = Callable[..., Tensor]


def draw(
    queries: int, keys: int, size: int, dtype: torch.dtype, scale: float = 1.0
) -> tuple[list[Tensor], Tensor]:
    """q, k, v of 2 streams and 3 heads, and a mask that leaves every query one key at least."""
    rng = torch.Generator().manual_seed(queries + keys + size)
    shapes = ((2, n, 3, size) for n in (queries, keys, keys))
    drawn = [torch.randn(s, generator=rng, dtype=torch.float64) * scale for s in shapes]
    mask = torch.rand(2, queries, keys, generator=rng) < 0.5
    mask[:, :, 0] |= ~mask.any(-1)
    return [x.to(dtype).requires_grad_() for x in drawn], mask


def results(call: Call, given: list[Tensor], mask: Tensor | None) -> list[Tensor]:
    """The output and the gradients."""
    o = call(*given, mask)
    weights = torch.linspace(-1, 2, o.numel(), dtype=o.dtype).view(o.shape)
    return [o.detach(), *torch.autograd.grad(o, given, weights)]


def plain(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    return torch_attend(q, k, v, None if mask is None else mask[:, None])


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs a C compiler at installation")
def test_the_compiled_form_serves() -> None:
    x = torch.zeros(1, 64, 1, 16)
    assert native_attention.serves(x, x, x)
    assert not native_attention.serves(x, torch.zeros(1, 65, 1, 16), torch.zeros(1, 65, 1, 16))
    assert not native_attention.serves(x, x, x.double())
    assert not native_attention.serves(x[..., :8], x[..., :8], x[..., :8])
    assert not native_attention.serves(x, x[:, :0], x[:, :0])


@pytest.mark.usefixtures("_level", "_poisoned")
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("scale", [1.0, 10.0])
@pytest.mark.parametrize("sizes", SIZES)
def test_equals_torch(sizes: tuple[int, int, int], scale: float, masked: bool) -> None:
    given, mask = draw(*sizes, torch.float32, scale)
    seen = mask if masked else None
    exact = results(plain, [x.detach().double().requires_grad_() for x in given], seen)
    found, theirs = results(attend, given, seen), results(plain, given, seen)
    for x, y, wanted in zip(found, theirs, exact, strict=True):
        # Large scores lose digits in any float32; torch's own loss is the measure.
        assert error(x.double(), wanted) < 1e-6 + (
            4 * error(y.double(), wanted) if scale > 1 else 0
        )


@pytest.mark.usefixtures("_level")
@pytest.mark.parametrize("masked", [False, True])
def test_gradients_by_differences(masked: bool) -> None:
    given, mask = draw(3, 5, 16, torch.float64)
    seen = mask if masked else None
    for x, y in zip(results(attend, given, seen), results(plain, given, seen), strict=True):
        assert error(x, y) < 1e-13
    seen = None if seen is None else seen[:1]
    few = [x[:1, :, :1].detach().requires_grad_() for x in given]
    assert torch.autograd.gradcheck(lambda *x: attend(*x, seen), few)


@pytest.mark.parametrize("masked", [False, True])
def test_packed_views_and_recomputed_alike(masked: bool) -> None:
    rng = torch.Generator().manual_seed(0)
    packed = torch.randn(2, 9, 3, 4, 16, generator=rng, requires_grad=True)
    mask = torch.eye(9).bool().expand(2, 9, 9) if masked else None
    apart = [x.detach().clone().requires_grad_() for x in packed.unbind(2)]
    wanted = results(attend, apart, mask)
    turned = [x.detach().transpose(1, 2).contiguous().transpose(1, 2) for x in apart]
    views = results(attend, [x.requires_grad_() for x in turned], mask)
    o, d_packed = results(attend_packed, [packed], mask)
    again = results(
        lambda x, seen: checkpoint(attend_packed, x, seen, use_reentrant=False), [packed], mask
    )
    with torch.no_grad():
        assert torch.equal(attend_packed(packed, mask), o)
        assert torch.equal(attend(*packed.unbind(2), mask), o)
    assert all(torch.equal(x, y) for x, y in zip(views, wanted, strict=True))
    assert all(torch.equal(x, y) for x, y in zip((o, d_packed), again, strict=True))
    assert torch.equal(o, wanted[0])
    assert torch.equal(d_packed, torch.stack(wanted[1:], 2))


def test_a_key_that_nobody_sees_leaves_nothing() -> None:
    given, mask = draw(4, 6, 16, torch.float32)
    mask = torch.ones_like(mask)
    mask[:, :, 3] = False
    before = results(attend, given, mask)
    with torch.no_grad():
        given[1][:, 3] = 1e4
        given[2][:, 3] = -1e4
    after = results(attend, given, mask)
    assert torch.equal(before[0], after[0])
    assert not after[2][:, 3].any()
    assert not after[3][:, 3].any()


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_do_not_change_a_bit(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    given, mask = draw(17, 17, 16, torch.float32)
    monkeypatch.setattr(native_attention, "WORTH_A_THREAD", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    wanted = results(attend, given, mask)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    found = results(attend, given, mask)
    assert all(torch.equal(x, y) for x, y in zip(found, wanted, strict=True))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_what_is_not_finite_does_not_pass_for_finite(which: int, value: float) -> None:
    given, _ = draw(5, 5, 16, torch.float32)
    given = [x.detach() for x in given]
    given[which][0, 2, 1, 4] = value
    assert not torch.isfinite(attend(*given)).all()
    assert torch.isfinite(attend(*given)[1]).all()


def test_plain_products_can_be_asked_for() -> None:
    given, _ = draw(8, 8, 16, torch.float32)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        attend(*given)
    assert counter.get_total_flops() == 2 * 2 * 2 * 3 * 8 * 8 * 16


@pytest.mark.parametrize(
    "mask", [torch.ones(2, 3, 4).bool(), torch.ones(2, 3, 3)], ids=["shape", "dtype"]
)
def test_a_mask_that_does_not_fit_is_refused(mask: Tensor) -> None:
    x = torch.zeros(2, 3, 1, 16)
    with pytest.raises(InputError, match=r"mask: torch\.\w+ of shape .* \(2, 3, 3\)"):
        attend(x, x, x, mask)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("q", (2, 3, 16)),
        ("k", (1, 3, 1, 16)),
        ("k", (2, 3, 2, 16)),
        ("k", (2, 3, 1, 32)),
        ("v", (2, 2, 1, 16)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(name: str, shape: tuple[int, ...]) -> None:
    """The compiled form would read beyond what is there."""
    given = {each: torch.zeros(2, 3, 1, 16) for each in "qkv"} | {name: torch.zeros(shape)}
    with pytest.raises(InputError, match=rf"{name}: shape \({shape[0]}, .* here|4 dimensions"):
        attend(**given)
