"""The gated delta rule: every fast form is held to the float64 reference."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rule_cases import NAMES, Case, error, make_case

from adaptive_sleep.kernels import gated_delta_rule, gated_delta_rule_reference, gated_delta_step
from adaptive_sleep.streams.errors import InputError

CASES = st.builds(
    make_case,
    seed=st.integers(0, 2**31),
    batch=st.integers(1, 4),
    steps=st.integers(1, 90),
    heads=st.integers(1, 3),
    key=st.sampled_from([4, 16, 32]),
    value=st.sampled_from([4, 8, 32]),
    gate=st.sampled_from([0.0, 0.1, 1.0, 20.0]),
    beta=st.sampled_from([None, None, 1e-6, 1.0 - 1e-6]),
    repeated=st.booleans(),
    lengths=st.booleans(),
    forgets=st.booleans(),
)


def results(case: Case, backend: str) -> dict[str, torch.Tensor]:
    """Run forward and backward (through outputs and final state) and name every tensor that comes
    out."""
    o, state, change = gated_delta_rule(
        *case.inputs(),
        initial_state=case.state,
        lengths=case.lengths,
        return_state_change=True,
        backend=backend,
    )
    rng = torch.Generator().manual_seed(5)
    loss = (o * torch.randn(o.shape, generator=rng, dtype=torch.float64).to(o)).sum()
    loss = loss + (state * torch.randn(state.shape, generator=rng, dtype=torch.float64).to(o)).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    grads = {f"grad of {n}": getattr(case, n).grad for n in NAMES}
    return {"o": o.detach(), "state": state.detach(), "change": change} | grads


CPU = ("native", "torch")


def check(case: Case, backend: str = "auto") -> None:
    ours = results(case.cast(torch.float32, grad=True), backend)
    wanted = results(case.cast(torch.float64, grad=True), "reference")
    for name, value in wanted.items():
        bound = 1e-4 if name.startswith("grad") else 1e-5
        assert torch.isfinite(ours[name]).all(), name
        assert error(ours[name], value) < bound, name


@pytest.mark.parametrize("backend", CPU)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(case=CASES)
def test_agrees_with_the_reference_forward_and_backward(backend: str, case: Case) -> None:
    check(case, backend)


@pytest.mark.parametrize("backend", CPU)
@pytest.mark.parametrize("gate", [40.0, 160.0])
def test_decays_that_sum_to_a_thousand_over_a_chunk_keep_the_bounds(
    gate: float, backend: str
) -> None:
    case = make_case(1, steps=128, key=32, value=32, gate=gate)
    assert case.g[:, : 2560 // int(gate)].sum(1).abs().min() > 1000
    check(case, backend)


@pytest.mark.parametrize("backend", CPU)
def test_a_weak_gate_after_strong_ones_is_not_lost(backend: str) -> None:
    case = make_case(2, steps=64, key=16, value=16, gate=0.001)
    case.g[:, ::5] = -200.0
    check(case, backend)


@pytest.mark.parametrize("backend", CPU)
@pytest.mark.parametrize("steps", [1, 19, 70])
def test_a_gate_of_minus_infinity_forgets_everything_before(steps: int, backend: str) -> None:
    case = make_case(7, steps=steps, key=16, value=16, forgets=True)
    assert case.g[:, 0].isinf().all()
    check(case, backend)


@pytest.mark.parametrize("backend", CPU)
@pytest.mark.parametrize(("key", "value"), [(64, 64), (128, 128), (96, 256), (5, 19)])
@pytest.mark.parametrize("steps", [45, 130])
def test_large_and_odd_heads(key: int, value: int, steps: int, backend: str) -> None:
    case = make_case(key, batch=1, steps=steps, heads=2, key=key, value=value, gate=0.2)
    check(case, backend)


@pytest.mark.parametrize("backend", CPU)
def test_a_long_sequence_of_few_rows(backend: str) -> None:
    check(make_case(5, batch=1, steps=1030, heads=1, key=16, value=16, gate=0.1), backend)


@pytest.mark.parametrize("backend", CPU)
@pytest.mark.parametrize("steps", [1, 2, 19, 70])
def test_gradient_by_finite_differences(steps: int, backend: str) -> None:
    case = make_case(steps, batch=2, steps=steps, heads=1, key=2, value=3, lengths=True)
    case = case.cast(torch.float64, grad=True)

    def rule(*inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        *tensors, state = inputs
        return gated_delta_rule(
            *tensors, initial_state=state, lengths=case.lengths, backend=backend
        )

    assert torch.autograd.gradcheck(rule, (*case.inputs(), case.state), fast_mode=True)


@pytest.mark.parametrize("backend", CPU)
def test_the_same_call_gives_the_same_bits_with_and_without_gradient(backend: str) -> None:
    case = make_case(2, steps=70).cast(torch.float32)
    leaves = case.cast(torch.float32, grad=True)
    first, again, graded = (
        gated_delta_rule(*c.inputs(), initial_state=c.state, backend=backend)
        for c in (case, case, leaves)
    )
    for a, b, c in zip(first, again, graded, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(CASES, st.data())
def test_a_sequence_cut_anywhere_gives_the_same_outputs(case: Case, data: st.DataObject) -> None:
    case = case.cast(torch.float64)
    steps = case.q.shape[1]
    cuts = sorted({0, steps, *data.draw(st.lists(st.integers(0, steps), max_size=3))})
    whole, last = gated_delta_rule(*case.inputs(), initial_state=case.state)
    state, pieces = case.state, []
    for a, b in pairwise(cuts):
        o, state = gated_delta_rule(*(x[:, a:b] for x in case.inputs()), initial_state=state)
        pieces.append(o)
    torch.testing.assert_close(torch.cat(pieces, 1), whole)
    torch.testing.assert_close(state, last)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(CASES)
def test_a_row_does_not_depend_on_the_others(case: Case) -> None:
    case = case.cast(torch.float32)
    o, state = gated_delta_rule(*case.inputs(), initial_state=case.state, lengths=case.lengths)
    for b in range(case.q.shape[0]):
        end = case.q.shape[1] if case.lengths is None else int(case.lengths[b])
        rows = (x[b : b + 1, :end] for x in case.inputs())
        alone, after = gated_delta_rule(*rows, initial_state=case.state[b : b + 1])
        assert error(o[b : b + 1, :end], alone) < 1e-5
        assert error(state[b : b + 1], after) < 1e-5
        assert not o[b, end:].any()


@pytest.mark.parametrize("backend", CPU)
@pytest.mark.parametrize("steps", [1, 40])
def test_padding_may_hold_anything(steps: int, backend: str) -> None:
    case = make_case(3, batch=3, steps=steps).cast(torch.float32, grad=True)
    lengths = torch.tensor([0, steps // 2, steps])
    options: dict[str, Any] = {
        "initial_state": case.state,
        "lengths": lengths,
        "backend": backend,
    }
    clean = gated_delta_rule(*case.inputs(), **options)
    padded = torch.arange(steps) >= lengths[:, None]
    dirty = [x.detach().clone() for x in case.inputs()]
    for x in dirty:
        x[padded] = float("nan")
        x.requires_grad_()
    o, state = gated_delta_rule(*dirty, **options)
    torch.testing.assert_close(o, clean[0])
    torch.testing.assert_close(state, clean[1])
    assert torch.equal(state[0], case.state[0])
    (o.sum() + state.sum()).backward()
    assert all(x.grad is not None and torch.isfinite(x.grad).all() for x in dirty)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(CASES)
def test_one_event_at_a_time_is_the_same_rule(case: Case) -> None:
    wanted, last = gated_delta_rule_reference(*case.inputs(), initial_state=case.state)
    small = case.cast(torch.float32)
    state, outputs = small.state, []
    for t in range(case.q.shape[1]):
        before = state.clone()
        o, after = gated_delta_step(*(x[:, t] for x in small.inputs()), state)
        assert torch.equal(state, before)
        outputs.append(o)
        state = after
    assert error(torch.stack(outputs, 1), wanted) < 1e-5
    assert error(state, last) < 1e-5


@pytest.mark.parametrize("backend", CPU)
def test_state_change_is_measured_against_the_given_state(backend: str) -> None:
    case = make_case(4).cast(torch.float32)
    other = torch.ones_like(case.state)
    for reference, wanted in ((None, case.state), (other, other)):
        _, state, change = gated_delta_rule(
            *case.inputs(),
            initial_state=case.state,
            reference_state=reference,
            return_state_change=True,
            backend=backend,
        )
        torch.testing.assert_close(change[0], (state - wanted).square().sum((2, 3)))
        torch.testing.assert_close(change[1], state.square().sum((2, 3)))


def test_no_initial_state_is_a_state_of_zeros() -> None:
    case = make_case(6).cast(torch.float32)
    zeros = torch.zeros_like(case.state)
    for ours, wanted in zip(
        gated_delta_rule(*case.inputs(), return_state_change=True),
        gated_delta_rule(*case.inputs(), initial_state=zeros, return_state_change=True),
        strict=True,
    ):
        assert torch.equal(ours, wanted)


def test_bfloat16_comes_in_and_the_state_stays_float32() -> None:
    case = make_case(7)
    half = case.cast(torch.bfloat16)
    o, state = gated_delta_rule(*half.inputs(), initial_state=case.state.float())
    assert (o.dtype, state.dtype) == (torch.bfloat16, torch.float32)
    exact = half.cast(torch.float64)
    wanted, last = gated_delta_rule_reference(*exact.inputs(), initial_state=case.state)
    assert error(o, wanted) < 1e-2
    assert error(state, last) < 1e-5


def test_autocast_does_not_reach_the_recurrence() -> None:
    case = make_case(10).cast(torch.float32)
    wanted = gated_delta_rule(*case.inputs(), initial_state=case.state)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = gated_delta_rule(*case.inputs(), initial_state=case.state)
    for x, y in zip(found, wanted, strict=True):
        assert torch.equal(x, y)


def test_no_events_leave_the_state() -> None:
    case = make_case(8, steps=4).cast(torch.float32)
    o, state = gated_delta_rule(*(x[:, :0] for x in case.inputs()), initial_state=case.state)
    assert o.shape == (2, 0, 2, 8)
    assert torch.equal(state, case.state)


@pytest.mark.parametrize("backend", [*CPU, "reference"])
@pytest.mark.parametrize(("batch", "steps"), [(2, 0), (0, 1), (0, 4), (0, 0)])
def test_a_call_of_nothing_has_a_gradient(batch: int, steps: int, backend: str) -> None:
    case = make_case(8, batch=2, steps=4).cast(torch.float32)
    inputs = [x[:batch, :steps].clone().requires_grad_() for x in case.inputs()]
    start = case.state[:batch].clone().requires_grad_()
    o, state = gated_delta_rule(*inputs, initial_state=start, backend=backend)
    (o.sum() + state.sum()).backward()
    for x in inputs:
        assert x.grad is not None
        assert x.grad.shape == x.shape
    assert start.grad is not None
    assert torch.equal(start.grad, torch.ones_like(start))


def test_bad_calls_are_named() -> None:
    case = make_case(9).cast(torch.float32)
    q, k, v, g, beta = case.inputs()
    with pytest.raises(InputError, match=r"did you mean 'torch'"):
        gated_delta_rule(q, k, v, g, beta, backend="torhc")
    with pytest.raises(InputError, match=r"beta: shape"):
        gated_delta_rule(q, k, v, g, beta[:, :-1])
    with pytest.raises(InputError, match=r"initial_state: shape"):
        gated_delta_rule(q, k, v, g, beta, initial_state=case.state[:1])
    with pytest.raises(InputError, match=r"lengths: dtype"):
        gated_delta_rule(q, k, v, g, beta, lengths=torch.tensor([1, 2], dtype=torch.int32))
