"""The compiled form: that it is there, that every element is written, both instruction sets, and
why it refuses."""

from __future__ import annotations

import shutil

import pytest
import torch
from rule_cases import error, make_case
from test_rule import check

from adaptive_sleep.kernels import chosen_backend, gated_delta_rule, native
from adaptive_sleep.streams.errors import InputError


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs a C compiler at installation")
def test_it_is_built_and_chosen() -> None:
    assert native.unavailable() == ""
    assert chosen_backend(torch.device("cpu"), torch.float32) == "native"


@pytest.mark.usefixtures("_poisoned")
@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize("sizes", [(1, 4, 4), (16, 16, 16), (100, 5, 19), (131, 32, 64)])
def test_every_element_is_written_on_each_instruction_set(
    sizes: tuple[int, int, int], lengths: bool, level: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if level > native.level():
        pytest.skip("this processor has no AVX2")
    monkeypatch.setattr(native, "level", lambda: level)
    steps, key, value = sizes
    for forgets in (False, True):
        options = {"lengths": lengths, "forgets": forgets}
        check(make_case(level, batch=3, steps=steps, key=key, value=value, **options), "native")


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_do_not_change_a_bit(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_case(3, batch=5, steps=60, key=32, value=32).cast(torch.float32)
    wanted = gated_delta_rule(*case.inputs(), initial_state=case.state, backend="native")
    monkeypatch.setattr(native, "_threads", lambda *_: threads)
    found = gated_delta_rule(*case.inputs(), initial_state=case.state, backend="native")
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_views_need_no_copies_to_be_right() -> None:
    case = make_case(4, batch=2, steps=37, heads=2, key=8, value=8).cast(torch.float32)
    wanted = gated_delta_rule(*case.inputs(), initial_state=case.state, backend="native")
    fused = torch.cat([x.flatten(2) for x in case.inputs()[:3]], -1)
    q, k, v = (x.unflatten(-1, (2, 8)) for x in fused.split(16, -1))
    g, beta = torch.cat([case.g, case.beta], -1).split(2, -1)
    turned = v.transpose(-1, -2).contiguous().transpose(-1, -2)
    for values in (v, turned):
        views = (q, k, values, g, beta)
        found = gated_delta_rule(*views, initial_state=case.state, backend="native")
        assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_inputs_stay_as_they_were() -> None:
    case = make_case(5).cast(torch.float32)
    before = [x.clone() for x in (*case.inputs(), case.state)]
    gated_delta_rule(*case.inputs(), initial_state=case.state, backend="native")
    assert all(torch.equal(a, b) for a, b in zip(before, (*case.inputs(), case.state), strict=True))


def test_the_state_change_carries_no_gradient() -> None:
    case = make_case(6).cast(torch.float32, grad=True)
    *_, change = gated_delta_rule(
        *case.inputs(), initial_state=case.state, return_state_change=True, backend="native"
    )
    assert not change.requires_grad


def test_where_it_was_not_compiled_the_reason_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "unavailable", lambda: "it was not compiled")
    case = make_case(7).cast(torch.float32)
    with pytest.raises(InputError, match="not compiled; or use 'torch'"):
        gated_delta_rule(*case.inputs(), backend="native")
    wanted = gated_delta_rule(*case.inputs(), backend="torch")
    for ours, theirs in zip(gated_delta_rule(*case.inputs()), wanted, strict=True):
        assert torch.equal(ours, theirs)


def test_agrees_with_the_torch_form_after_many_windows() -> None:
    case = make_case(8, batch=2, steps=512, key=32, value=32, gate=0.05).cast(torch.float32)
    found, wanted = (
        gated_delta_rule(*case.inputs(), initial_state=case.state, backend=b)
        for b in ("native", "torch")
    )
    assert all(error(a, b) < 1e-5 for a, b in zip(found, wanted, strict=True))
