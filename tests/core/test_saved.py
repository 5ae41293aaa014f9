"""Runtimes and checkpoints on disk: they come back bit for bit, or are refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import core_cases as cases
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import adaptive_sleep as asl
from adaptive_sleep import snapshot
from adaptive_sleep.policies.fixed import Fixed
from adaptive_sleep.policies.surprise import Surprise


class Counting:
    """A policy with state: every third window sleeps."""

    def __init__(self) -> None:
        self.count = 0

    def plan(self, signals: asl.WindowSignals) -> np.ndarray:
        self.count += len(signals)
        return np.full(len(signals), 1 + (self.count % 3))

    def observe(self, outcome: asl.WindowOutcome) -> None:
        self.count += len(outcome)

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = state["count"]

    def __str__(self) -> str:
        return "counting"


def work(runtime: asl.Runtime, seed: int) -> list[Any]:
    """Six steps of three streams, cut unevenly; returns what they show."""
    random, found = np.random.default_rng(seed), []
    for turn in range(6):
        pieces = []
        for name in "abc":
            room = 12 - int(runtime._arena.tensors["open"][runtime._arena.rows.get(name, 0)])
            size = int(random.integers(0, room + 1))
            events = cases.events(runtime.model.config, size, seed * 100 + turn)
            pieces.append(asl.Piece(name, events, closes=size == room or turn % 3 == 2))
        result = runtime.step(pieces, predictions=True)
        found += [repr(result.rows), result.forced]
        for part in result.predictions:
            found += [repr(v.tolist()) for v in vars(part).values() if v is not None]
    return found


@pytest.mark.parametrize("eviction", cases.EVICTIONS)
@pytest.mark.parametrize("kind", cases.KINDS)
def test_a_saved_runtime_goes_on_bit_for_bit(kind: str, eviction: str, tmp_path: Path) -> None:
    model = cases.build(cases.tiny(kind))
    runtime = asl.Runtime(
        model, Counting(), eviction=eviction, kv_budget=30, budget=3e5, burst=2.0, seed=3
    )
    work(runtime, 1)
    before = cases.everything(runtime)
    runtime.save(tmp_path)
    assert cases.everything(runtime) == before
    other = asl.Runtime.resume(tmp_path, model, Counting())
    assert other.settings == runtime.settings
    assert cases.everything(other) == before
    assert work(other, 2) == work(runtime, 2)
    assert cases.everything(other) == cases.everything(runtime)


def test_declared_columns_come_back(tmp_path: Path) -> None:
    model = cases.build(cases.tiny("series"))
    runtime = asl.Runtime(model, Fixed(2), columns=("u", "c", "b", "a"))
    events = cases.events(model.config, 9)
    runtime.step([asl.Piece("s", events)])
    runtime.save(tmp_path)
    other = asl.Runtime.resume(tmp_path, model, "fixed(passes=2)")
    for one in (runtime, other):
        one.step([asl.Piece("s", events[:3])])
    assert cases.everything(other) == cases.everything(runtime)


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, asl.Model]:
    model = cases.build(cases.tiny("tokens"))
    runtime = asl.Runtime(model, Surprise(threshold=0.5))
    runtime.step([asl.Piece(n, cases.events(model.config, 12), closes=True) for n in "ab"])
    runtime.save(tmp_path)
    return tmp_path, model


def test_numbers_and_names_of_numpy_are_taken_as_pythons(tmp_path: Path) -> None:
    model = cases.build(cases.tiny("tokens"))
    given: Any = {"window": np.int64(8), "max_passes": np.int32(3), "price": np.float32(0)}
    runtime = asl.Runtime(model, "fixed(2)", **given)
    for name in np.array(["a", "b"]):
        runtime.step([asl.Piece(name, cases.events(model.config, 5))])
    runtime.save(tmp_path)
    again = asl.Runtime.resume(tmp_path, model, "fixed(2)")
    assert again.streams == ("a", "b")
    assert (again.settings.window, again.settings.max_passes) == (8, 3)
    with pytest.raises(asl.InputError, match=r"stream=7: a name is a str, not int"):
        asl.Piece(7, cases.events(model.config, 5))  # type: ignore[arg-type]


def test_another_model_or_policy_is_refused(saved: tuple[Path, asl.Model]) -> None:
    folder, model = saved
    with pytest.raises(asl.InputError, match="model: the state belongs to model"):
        asl.Runtime.resume(folder, cases.build(model.config, seed=1), Surprise(threshold=0.5))
    with pytest.raises(asl.InputError, match=r"policy: .*surprise\(threshold=0.5.*not 'fixed"):
        asl.Runtime.resume(folder, model, Fixed(2))
    with pytest.raises(asl.InputError, match=r"threshold=0.5.*, not"):
        asl.Runtime.resume(folder, model, Surprise(threshold=0.6))
    asl.Runtime.resume(folder, model, "surprise(threshold=0.5)")


def test_another_setting_of_the_machine_is_refused(saved: tuple[Path, asl.Model]) -> None:
    folder, model = saved
    torch.set_float32_matmul_precision("high")
    try:
        told = r"matmul_precision: .*'highest', here it is 'high'"
        with pytest.raises(asl.InputError, match=told):
            asl.Runtime.resume(folder, model, Surprise(threshold=0.5))
    finally:
        torch.set_float32_matmul_precision("highest")


def test_another_form_of_the_kernels_is_refused(
    saved: tuple[Path, asl.Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, model = saved
    monkeypatch.setattr(snapshot, "chosen_backend", lambda device, dtype: "another")
    with pytest.raises(asl.InputError, match=r"kernel: the state was made with '\w+', here it is"):
        asl.Runtime.resume(folder, model, Surprise(threshold=0.5))


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    runtime = asl.Runtime(cases.build(cases.tiny("tokens")), "fixed(1)")
    with pytest.raises(asl.InputError, match=r"folder='.*nowhere': no such folder"):
        runtime.save(tmp_path / "nowhere")


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_damaged_files_are_refused(saved: tuple[Path, asl.Model]) -> None:
    folder, model = saved

    def refused(told: str) -> None:
        with pytest.raises(asl.IntegrityError, match=told):
            asl.Runtime.resume(folder, model, Surprise(threshold=0.5))

    tensors, text = (folder / n for n in ("state.safetensors", "state.json"))
    good_tensors, good_text = tensors.read_bytes(), text.read_bytes()
    edit(folder, schema=2)
    refused("schema 2; this version reads 1")
    edit(folder, schema=1, layout="S[B,K,V]")
    refused("state.json")
    text.write_bytes(good_text[:-20])
    refused("not a readable runtime state")
    text.write_text("[]")
    refused("not a readable runtime state")
    text.unlink()
    refused("not a readable runtime state")
    text.write_bytes(good_text)
    tensors.write_bytes(good_tensors[:-8])
    refused("state.safetensors")
    tensors.unlink()
    refused("not a readable runtime state")
    tensors.write_bytes(good_tensors)
    held = load_file(tensors)
    held.pop("balance")
    save_file(held, tensors)
    refused("state.safetensors")


@given(data=st.data())
@settings(max_examples=30)
def test_a_flipped_bit_in_a_state_is_seen(data: st.DataObject, tmp_path_factory: Any) -> None:
    folder, good = _one_state(tmp_path_factory)
    name = data.draw(st.sampled_from(sorted(good)))
    place = data.draw(st.integers(0, len(good[name]) - 1))
    bad = bytearray(good[name])
    bad[place] ^= 1 << data.draw(st.integers(0, 7))
    (folder / name).write_bytes(bad)
    try:
        with pytest.raises(asl.IntegrityError):
            asl.Runtime.resume(folder, STATE_MODEL, Fixed(2))
    finally:
        (folder / name).write_bytes(good[name])


STATE_MODEL = cases.build(cases.tiny("tokens"))
_STATE: list[tuple[Path, dict[str, bytes]]] = []


def _one_state(factory: Any) -> tuple[Path, dict[str, bytes]]:
    if not _STATE:
        folder = factory.mktemp("state")
        runtime = asl.Runtime(STATE_MODEL, Fixed(2))
        runtime.step([asl.Piece("s", cases.events(STATE_MODEL.config, 12), closes=True)])
        runtime.save(folder)
        _STATE.append((folder, {p.name: p.read_bytes() for p in folder.iterdir()}))
    return _STATE[0]


@pytest.mark.parametrize("kind", cases.KINDS)
def test_a_checkpoint_comes_back(kind: str, tmp_path: Path) -> None:
    model = cases.build(cases.tiny(kind, positions="relative", conv=0, carry="accumulate"))
    path = asl.save_model(model, tmp_path / "m.safetensors", provenance={"made": "here"})
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]
    back = asl.load_model(path)
    assert back.config == model.config
    assert back.hash == model.hash
    assert not back.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(back.state_dict()[name], tensor), name
    asl.save_model(back, path, provenance={"made": "here"})
    assert asl.load_model(path).hash == model.hash


def test_what_tokens_stand_for_is_saved_again(tmp_path: Path) -> None:
    model = cases.build(cases.tiny("tokens"))
    model.categories = ("login", "logout", "fail")
    first = asl.save_model(model, tmp_path / "m.safetensors", provenance={})
    again = asl.save_model(
        asl.load_model(first), tmp_path / "n.safetensors", provenance={"note": "fine-tuned"}
    )
    assert asl.load_model(again).categories == model.categories
    told = asl.save_model(model, tmp_path / "o.safetensors", provenance={"categories": '["a"]'})
    assert asl.load_model(told).categories == ("a",)


def test_the_hash_tells_models_apart() -> None:
    config = cases.tiny()
    model, same, other = (cases.build(config, seed) for seed in (0, 0, 1))
    wide = cases.build(cases.tiny(carry="accumulate"))
    assert model.hash == same.hash
    assert len({model.hash, other.hash, wide.hash}) == 3


def test_what_is_no_checkpoint_of_ours(tmp_path: Path) -> None:
    with pytest.raises(asl.InputError, match="no such checkpoint"):
        asl.load_model(tmp_path / "absent.safetensors")
    with pytest.raises(asl.InputError, match="bundled:"):
        asl.load_model("bundled:absent")
    foreign = tmp_path / "foreign.safetensors"
    save_file({"x": torch.zeros(3)}, foreign)
    with pytest.raises(asl.IntegrityError, match="not one of our checkpoints"):
        asl.load_model(foreign)
    foreign.write_bytes(b"PK\x03\x04 not safetensors at all")
    with pytest.raises(asl.IntegrityError, match="not a readable checkpoint"):
        asl.load_model(foreign)
    with pytest.raises(asl.InputError, match=r"folder .* does not exist"):
        asl.save_model(STATE_MODEL, tmp_path / "no" / "m.safetensors", provenance={})


def test_a_path_that_stands_for_a_checkpoint_says_which(tmp_path: Path) -> None:
    asl.save_model(STATE_MODEL, tmp_path / "model.safetensors", provenance={})
    with pytest.raises(asl.InputError, match=r"did you mean '.*/model\.safetensors'\?"):
        asl.load_model(tmp_path)
    with pytest.raises(asl.InputError, match="chain: no such checkpoint; did you mean 'bundled:c"):
        asl.load_model("chain")


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16], ids=str)
def test_only_what_can_be_loaded_is_saved(kind: torch.dtype, tmp_path: Path) -> None:
    model = cases.build(cases.tiny()).to(kind)
    with pytest.raises(asl.InputError, match=f"is of {kind}: checkpoints hold torch.float32; save"):
        asl.save_model(model, tmp_path / "m.safetensors", provenance={})
    assert not (tmp_path / "m.safetensors").exists()
    path = asl.save_model(model.float(), tmp_path / "m.safetensors", provenance={})
    assert asl.load_model(path).hash == model.hash


def test_a_checkpoint_of_a_newer_version_says_so(tmp_path: Path) -> None:
    """Fields that a model makes no use of are not written, so that older versions read it."""
    path = asl.save_model(STATE_MODEL, tmp_path / "m.safetensors", provenance={})
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
    config = json.loads(header["config"])
    assert "memory_tokens" not in config
    del header["digest"]
    header["config"] = json.dumps(config | {"dreams": 3})
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()
    save_file(load_file(path), path, metadata=header | {"digest": digest})
    with pytest.raises(asl.IntegrityError, match=r"newer version \(.* has dreams\): upgrade"):
        asl.load_model(path)


def test_a_checkpoint_of_a_newer_schema(tmp_path: Path) -> None:
    path = asl.save_model(STATE_MODEL, tmp_path / "m.safetensors", provenance={})
    path.write_bytes(path.read_bytes().replace(b'"schema":"1"', b'"schema":"2"'))
    with pytest.raises(asl.IntegrityError, match="schema 2; this version reads 1"):
        asl.load_model(path)


_CHECKPOINT: list[Path] = []


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), header=st.booleans())
@settings(max_examples=60)
def test_a_flipped_bit_in_a_checkpoint(
    place: float, bit: int, header: bool, tmp_path_factory: Any
) -> None:
    """It is refused, wherever it is; nothing else than IntegrityError comes out."""
    if not _CHECKPOINT:
        folder = tmp_path_factory.mktemp("checkpoint")
        made = {"recipe": "none", "events": "12"}
        _CHECKPOINT.append(asl.save_model(STATE_MODEL, folder / "m.safetensors", provenance=made))
    good = _CHECKPOINT[0].read_bytes()
    size = 8 + int.from_bytes(good[:8], "little") if header else len(good)
    bad = bytearray(good)
    bad[int(place * size)] ^= 1 << bit
    path = _CHECKPOINT[0].with_name("bad.safetensors")
    path.write_bytes(bad)
    with pytest.raises(asl.IntegrityError):
        asl.load_model(path)
