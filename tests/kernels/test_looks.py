"""What signals look at: the compiled forms are those of torch, whatever the lengths."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rule_cases import error
from torch import Tensor

from adaptive_sleep.kernels import (
    added,
    looks,
    moves,
    native_look,
    pooled,
    relative,
    score_logits,
)
from adaptive_sleep.streams.errors import InputError

FLOOR = 1e-3
BOUND = {torch.float32: 2e-6, torch.float64: 1e-14}


def drawn(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    after, before = (torch.randn(shape, generator=rng, dtype=torch.float64) for _ in range(2))
    return after.to(dtype), before.to(dtype)


@pytest.mark.usefixtures("_level", "_poisoned")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [8, 24, 64])
def test_equal_the_torch_forms(size: int, dtype: torch.dtype) -> None:
    after, before = drawn((5, 9, size), dtype)
    assert native_look.serves(size, after, before)
    lengths = torch.tensor([9, 0, 4, 1, 8])
    after[2, 4:] = torch.nan  # what is not within the lengths is not looked at
    assert error(pooled(after, lengths), looks.torch_pooled(after, lengths)) < BOUND[dtype]
    squares = looks.torch_moves(after, before, lengths)
    assert error(moves(after, before, lengths), squares) < BOUND[dtype]
    assert not pooled(after, lengths)[1].any()  # nothing was there to be pooled


@pytest.mark.usefixtures("_level", "_poisoned")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("parts", [0, 1, 3])
@pytest.mark.parametrize("size", [7, 8, 64])
def test_a_sum_is_looked_at_while_it_is_made(size: int, parts: int, dtype: torch.dtype) -> None:
    x, before = drawn((5, 9, size), dtype)
    y, _ = drawn((5, 9, size), dtype, seed=1)
    lengths = torch.tensor([9, 0, 4, 1, 8])
    squares = [drawn((2, 5), dtype, seed)[0].square() for seed in range(parts)]
    found, summary, moved, change, finite = added(x, y, lengths, before, squares, floor=FLOOR)
    assert finite == (size % 8 == 0)  # torch does not look
    assert moved is not None
    assert torch.equal(found, x + y)
    assert torch.equal(summary, pooled(found, lengths))
    assert torch.equal(moved, relative(moves(found, before, lengths), floor=FLOOR))
    assert moved[1] == 0.0
    slowly = relative(looks.torch_moves(found, before, lengths), floor=FLOOR)
    assert error(moved, slowly) < BOUND[dtype]
    assert (change is None) == (parts == 0)
    if change is not None:
        assert torch.equal(change, relative(*squares, floor=FLOOR))
    alone = added(x, y, lengths, floor=FLOOR)
    assert torch.equal(alone[0], found)
    assert torch.equal(alone[1], summary)
    assert alone[2] is alone[3] is None


@given(st.integers(1, 5), st.integers(1, 40), st.sampled_from([8, 16, 40]), st.integers(0, 9))
def test_moves_are_sums_of_squares(rows: int, steps: int, size: int, seed: int) -> None:
    after, before = drawn((rows, steps, size), torch.float64, seed)
    found = moves(after, before)
    wanted = torch.stack([(after - before).square().sum((1, 2)), after.square().sum((1, 2))])
    assert error(found, wanted) < 1e-13


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("parts", [1, 3])
def test_a_change_is_that_of_all_parts_together(parts: int, dtype: torch.dtype) -> None:
    squares = [drawn((2, 5), dtype, seed)[0].square() for seed in range(parts)]
    moved, size = torch.stack(squares).sum(0).sqrt()
    for form in (relative, looks.torch_relative):
        assert error(form(*squares, floor=FLOOR), moved / (size + FLOOR)) < BOUND[dtype]
    assert relative(torch.zeros(2, 3), floor=FLOOR).tolist() == [0.0] * 3
    assert relative(torch.full((2, 3), torch.nan), floor=FLOOR).isnan().all()
    assert relative(torch.zeros(2, 0), floor=FLOOR).shape == (0,)


@pytest.mark.usefixtures("_level")
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_not_finite_is_known(value: float, dtype: torch.dtype) -> None:
    x, before = drawn((3, 4, 8), dtype)
    lengths, zeros = torch.tensor([4, 2, 3]), torch.zeros((3, 4, 8), dtype=dtype)
    squares = [torch.ones((2, 3), dtype=dtype)]
    given = x, zeros, lengths, before, squares
    assert added(*given, floor=FLOOR).finite
    for at, row in ((given[0], (1, 1, 7)), (before, (2, 0, 0)), (squares[0], (0, 2))):
        kept = at[row].clone()
        at[row] = value
        assert not added(*given, floor=FLOOR).finite
        at[row] = kept
    x[1, 2] = value  # behind what counts
    assert added(*given, floor=FLOOR).finite


def test_what_cannot_be_added_and_looked_at_is_refused() -> None:
    x, y = drawn((2, 3, 8), torch.float32)
    lengths = torch.tensor([3, 2])
    with pytest.raises(InputError, match=r"floor=0\.0: expected a number above 0"):
        added(x, y, lengths, floor=0.0)
    with pytest.raises(InputError, match=r"y: shape \(2, 2, 8\), expected \(2, 3, 8\) as x"):
        added(x, y[:, :2], lengths, floor=FLOOR)
    with pytest.raises(InputError, match=r"before: shape \(1, 3, 8\), expected \(2, 3, 8\)"):
        added(x, y, lengths, y[:1], floor=FLOOR)


def test_what_cannot_be_looked_at_is_refused() -> None:
    """The compiled forms would read something else, or beyond what is there."""
    x, y = drawn((2, 3, 8), torch.float32)
    lengths = torch.tensor([3, 2])
    with pytest.raises(InputError, match=r"lengths: torch\.int32 .* expected torch\.int64"):
        pooled(x, lengths.int())
    with pytest.raises(InputError, match=r"lengths: .* \(1,\), expected torch\.int64 .*\(2,\)"):
        added(x, y, lengths[:1], floor=FLOOR)
    with pytest.raises(InputError, match=r"before: shape \(1, 3, 8\), expected \(2, 3, 8\)"):
        moves(x, y[:1])
    with pytest.raises(InputError, match=r"shape \(2, 8\): 3 dimensions"):
        pooled(x[:, 0], lengths)
    with pytest.raises(InputError, match=r"targets: torch\.int32 of shape \(2, 3\), .*int64"):
        score_logits(x, torch.zeros(2, 3, dtype=torch.int32))
    with pytest.raises(InputError, match=r"targets: .* shape \(3,\), .* shape \(2, 3\)"):
        score_logits(x, torch.zeros(3, dtype=torch.int64))


@pytest.mark.parametrize("size", [8, 5])
def test_nothing_and_single_rows_are_looked_at(size: int) -> None:
    x = torch.randn(2, 3, size, generator=torch.Generator().manual_seed(0))
    assert not pooled(x[:, :0], torch.zeros(2, dtype=torch.int64)).any()
    one = score_logits(x[0, 0], torch.tensor(1))
    many = score_logits(x[0], torch.tensor([1, 0, 0]))
    for single, each in zip(one, many, strict=True):
        assert single.shape == ()
        torch.testing.assert_close(single, each[0])


def test_a_view_is_looked_at_as_it_lies() -> None:
    after, before = drawn((4, 6, 16), torch.float32)
    lengths = torch.full((4,), 3)
    views = after[:, ::2], before[:, ::2]
    rows = [drawn((2, 8), torch.float32)[0].square()[:, ::2]]
    found = added(views[0], views[1], lengths, views[1], rows, floor=FLOOR)
    whole = [view.contiguous() for view in views]
    rows = [rows[0].contiguous()]
    wanted = added(whole[0], whole[1], lengths, whole[1], rows, floor=FLOOR)
    assert found.finite
    for one, other in zip(found[:-1], wanted[:-1], strict=True):
        assert one is not None
        assert torch.equal(one, other)


@pytest.mark.parametrize("size", [7, 16])
def test_where_a_gradient_is_wanted_torch_works(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: object, **named: object) -> None:
        raise AssertionError("called")

    monkeypatch.setattr(looks, "look", refuse)
    after, before = drawn((2, 3, size), torch.float64)
    after.requires_grad_(size == 16)
    lengths = torch.tensor([3, 2])
    found, summary, moved, *_ = added(after, before, lengths, before, floor=FLOOR)
    assert moved is not None
    assert found.requires_grad == summary.requires_grad == moved.requires_grad == (size == 16)
    assert torch.equal(found, after + before)
    assert torch.equal(summary, pooled(found, lengths))
    assert torch.equal(moved, relative(moves(found, before, lengths), floor=FLOOR))


@pytest.mark.usefixtures("_level", "_poisoned")
def test_windows_of_one_number_of_events_need_no_lengths() -> None:
    after, before = drawn((3, 4, 8), torch.float64)
    seen, summary, squares, moved, change, finite = native_look.look(after, None, before, pool=True)
    assert seen is after
    assert moved is change is None
    assert finite
    whole = torch.full((3,), 4)
    assert summary is not None
    assert squares is not None
    assert error(summary, looks.torch_pooled(after, whole)) < 1e-14
    assert error(squares, looks.torch_moves(after, before)) < 1e-14


@pytest.mark.usefixtures("_level", "_poisoned")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [0.1, 1.0, 30.0])
def test_logits_are_scored_as_torch_scores_them(size: float, dtype: torch.dtype) -> None:
    logits, _ = drawn((3, 7, 40), dtype)
    targets = torch.randint(40, (3, 7), generator=torch.Generator().manual_seed(0))
    found, wanted = (
        form(logits * size, targets) for form in (score_logits, looks.torch_score_logits)
    )
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == (3, 7)
        assert error(one, other) < BOUND[dtype]
    assert (found[1] >= 0).all()


def test_even_logits_have_all_the_entropy_there_is() -> None:
    loss, entropy = score_logits(torch.full((5, 16), 1e4), torch.arange(5))
    assert torch.allclose(loss, torch.tensor(16.0).log().expand(5))
    assert torch.allclose(entropy, loss)


@pytest.mark.usefixtures("_level")
def test_a_target_that_is_no_class_is_nothing_that_passes_for_a_loss() -> None:
    loss, _ = score_logits(torch.zeros(2, 8), torch.tensor([-1, 8]))
    assert loss.isnan().all()


@pytest.mark.parametrize("classes", [8, 11])
def test_a_loss_has_its_gradient(classes: int) -> None:
    logits, _ = drawn((4, classes), torch.float64)
    logits.requires_grad_()
    loss, _ = score_logits(logits, torch.arange(4))
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    wanted = logits.softmax(-1) - torch.eye(classes, dtype=torch.float64)[:4]
    assert error(gradient, wanted.detach()) < 1e-14
