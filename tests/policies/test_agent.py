"""A trained agent as a policy: it plans what its network said, from a file that holds no code."""

from __future__ import annotations

import copy
import itertools
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from environment_cases import network, series, series_model, torch_network, view
from safetensors.numpy import load_file, save_file
from torch import nn

from adaptive_sleep.contract import load_policy_state, plan_passes, policy_flops, policy_state
from adaptive_sleep.experiments.replay import replay
from adaptive_sleep.kernels import Dense
from adaptive_sleep.policies import Agent
from adaptive_sleep.policies.agent_file import read_agent, read_view, save_agent, save_view
from adaptive_sleep.policies.agent_network import Network
from adaptive_sleep.runtime import Runtime
from adaptive_sleep.spec import format_spec, resolve
from adaptive_sleep.streams.errors import AdaptiveSleepError, InputError, IntegrityError
from adaptive_sleep.testing import check_policy, make_signals


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """An agent that looks at the summary, of any model."""
    return save_agent(view(16), network(29), tmp_path / "agent.safetensors")


def numpy_network(layers: nn.Sequential, activation: str) -> Network:
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    return Network(
        tuple(layer.weight.detach().numpy() for layer in linear),
        tuple(layer.bias.detach().numpy() for layer in linear),
        activation,
    )


@pytest.mark.parametrize(("kind", "name"), [(nn.Tanh, "tanh"), (nn.ReLU, "relu")])
@pytest.mark.parametrize("hidden", [(), (8,), (64, 64)])
def test_the_arithmetic_is_that_of_torch(
    kind: type[nn.Module], name: str, hidden: tuple[int, ...]
) -> None:
    layers = torch_network(13, hidden, 4, kind)
    x = np.random.default_rng(0).normal(size=(9, 13)).astype(np.float32)
    own = numpy_network(layers, name)
    for run in (own.run, own.in_numpy):
        assert np.allclose(run(x), layers(torch.from_numpy(x)).detach(), atol=1e-6)
        assert np.array_equal(run(x), [run(row[None])[0] for row in x])
    widths = [13, *hidden, 4]
    assert own.flops == sum(2 * a * b for a, b in itertools.pairwise(widths))


def test_where_nothing_was_compiled_numpy_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Dense, "serves", lambda: False)
    own = network(29)
    x = np.random.default_rng(0).normal(size=(5, 29)).astype(np.float32)
    assert np.array_equal(own.run(x), own.in_numpy(x))


def test_a_network_that_has_run_is_copied_and_sent() -> None:
    own = network(29)
    x = np.random.default_rng(0).normal(size=(5, 29))
    wanted = own.run(x.astype(np.float32))
    assert np.array_equal(own.run(x), wanted)
    for other in (copy.deepcopy(own), pickle.loads(pickle.dumps(own))):
        assert np.array_equal(other.run(x.astype(np.float32)), wanted)


def test_it_conforms(file: Path) -> None:
    check_policy(f"agent(file={str(file)!r})")


def test_it_comes_back_from_its_file(file: Path) -> None:
    trained = read_agent(file)
    assert trained.view.same(view(16))
    assert read_view(file).same(view(16))
    for one, other in zip(trained.network.weights, network(29).weights, strict=True):
        assert np.array_equal(one, other)
    policy = Agent(str(file))
    assert resolve(format_spec(policy)) == policy


def test_it_plans_the_likeliest_of_the_passes_that_are_allowed(file: Path) -> None:
    policy = Agent(str(file))
    signals = make_signals(40, 2)
    scores = network(29).run(view(16).see(signals))
    passes = plan_passes(policy, signals)
    assert passes.tolist() == (1 + scores.argmax(axis=1)).tolist()
    assert len(set(passes.tolist())) > 2
    fewer = make_signals(40, 2, max_passes=np.full(40, 2))
    # max_passes is also a signal, so the scores are others
    scores = network(29).run(view(16).see(fewer))[:, :2]
    assert plan_passes(policy, fewer).tolist() == (1 + scores.argmax(axis=1)).tolist()
    assert policy_flops(policy, 3) == 3 * network(29).flops


def test_of_equally_likely_passes_it_plans_the_least(tmp_path: Path) -> None:
    same = Network((np.zeros((4, 13), np.float32),), (np.zeros(4, np.float32),))
    policy = Agent(str(save_agent(view(), same, tmp_path / "a.safetensors")))
    assert plan_passes(policy, make_signals(5, 0)).tolist() == [1] * 5


def test_a_run_does_not_go_on_with_another_file(file: Path, tmp_path: Path) -> None:
    policy, same = Agent(str(file)), Agent(str(file))
    load_policy_state(same, policy_state(policy))
    load_policy_state(same, {})  # of a run that is older than the digest
    other = Agent(str(save_agent(view(16), network(29, 3), tmp_path / "other.safetensors")))
    with pytest.raises(InputError, match=r"other\.safetensors': holds .* began with"):
        load_policy_state(other, policy_state(policy))
    runtime = Runtime(series_model(), str(policy))
    (tmp_path / "saved").mkdir()
    runtime.save(tmp_path / "saved")
    (tmp_path / "other.safetensors").replace(file)  # trained again, to the same path
    with pytest.raises(InputError, match="give it the file that it began with"):
        Runtime.resume(tmp_path / "saved", runtime.model, str(policy))


def test_with_a_summary_it_belongs_to_one_model(tmp_path: Path) -> None:
    model = series_model()
    own = view(16, model.hash)
    spec = f"agent(file={str(save_agent(own, network(29), tmp_path / 'a.safetensors'))!r})"
    recording = series(tmp_path / "recording", rows=40)
    replay(recording, model, spec, tmp_path / "run")
    with pytest.raises(InputError, match="model"):
        replay(recording, series_model(1), spec, tmp_path / "other")
    anybody = save_agent(view(), network(), tmp_path / "b.safetensors")
    replay(recording, series_model(1), f"agent(file={str(anybody)!r})", tmp_path / "other")


# ---------------------------------------------------------------- files that are refused


def test_no_file_and_no_agent_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        Agent(str(tmp_path / "missing.safetensors"))
    with pytest.raises(InputError, match="holds a view and no network"):
        Agent(str(save_view(view(), tmp_path / "view.safetensors")))


@pytest.mark.parametrize("place", [3, 60, -1])
def test_a_changed_byte_is_found(file: Path, place: int) -> None:
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)
    with pytest.raises(IntegrityError, match=r"agent\.safetensors"):
        Agent(str(file))


@pytest.mark.parametrize("data", [b"", b"no such thing", b"\x80\x04K\x01."])
def test_what_is_no_safetensors_file_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match="not a readable safetensors file"):
        Agent(str(path))


def test_a_file_cut_off_is_refused(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(IntegrityError, match="not a readable safetensors file"):
        Agent(str(file))


def test_other_tensors_are_refused(file: Path) -> None:
    save_file(load_file(file), file)  # the same numbers without our header
    with pytest.raises(IntegrityError, match="not one of an agent"):
        Agent(str(file))


@pytest.mark.parametrize(
    ("header", "tensors", "told"),
    [
        ({"schema": "2"}, {}, "schema 2; this version reads 1"),
        ({"signals": "[1]"}, {}, "expected a list of names"),
        ({"signals": '["tokns"]'}, {}, "did you mean 'tokens'"),
        ({"clip": "wide"}, {}, "clip|float"),
        ({"activation": "gelu"}, {}, "activation='gelu'"),
        ({}, {"mean": np.zeros(13, np.float32)}, "mean: values of type float32"),
        ({}, {"scale": np.ones(12)}, r"scale: shape \(12,\)"),
        ({}, {"layers.1.weight": np.zeros((4, 9), np.float32)}, "layer 1: weight"),
        ({}, {"layers.0.weight": np.full((16, 13), np.inf, np.float32)}, "not finite"),
        ({}, {"layers.2.bias": np.zeros(4, np.float32)}, r"layers\.2\.weight: nothing"),
    ],
)
def test_an_unsound_agent_is_refused(
    header: dict[str, str], tensors: dict[str, Any], told: str, tmp_path: Path
) -> None:
    """Also where the digest is right: somebody else wrote the file."""
    from adaptive_sleep.policies.agent_file import _read
    from adaptive_sleep.policies.network_file import digest_of

    path = save_agent(view(), network(), tmp_path / "a.safetensors")
    own, held = _read(path)
    own, held = own | header, held | tensors
    save_file(held, path, own | {"digest": digest_of(own, held)})
    with pytest.raises(IntegrityError, match=told):
        Agent(str(path))


def test_what_does_not_fit_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="takes 13 numbers, but the view sees 29"):
        save_agent(view(16), network(), tmp_path / "a.safetensors")
    with pytest.raises(InputError, match="does not exist"):
        save_agent(view(), network(), tmp_path / "nowhere" / "a.safetensors")
    (tmp_path / "taken").mkdir()
    with pytest.raises(AdaptiveSleepError, match="cannot be written"):
        save_agent(view(), network(), tmp_path / "taken")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
