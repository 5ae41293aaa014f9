"""A runtime on disk: tensors in safetensors, everything else in JSON; strict when read back.

No pickle. The caller makes the folder appear atomically; this file only writes and reads it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from adaptive_sleep.kernels import chosen_backend
from adaptive_sleep.ledger import Ledger
from adaptive_sleep.settings import RuntimeSettings
from adaptive_sleep.streams.errors import InputError, IntegrityError

LAYOUT = "S[B,H,K,V] float32; keys, values [B,L,H,D] float32, unrotated"
SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class State:
    """All of a runtime but its tensors. `streams` are in the order of the tensors' rows."""

    settings: RuntimeSettings
    model: str
    policy: str
    policy_state: dict[str, Any]
    streams: list[str]
    steps: int
    ledger: Ledger
    pending: dict[str, tuple[tuple[int, int], ...]]
    columns: tuple[str, ...] | None
    machine: dict[str, str]
    layout: str = LAYOUT
    schema: int = SCHEMA


def machine() -> dict[str, str]:
    """What of this machine can change the bits of a result."""
    return {
        "threads": str(torch.get_num_threads()),
        "matmul_precision": torch.get_float32_matmul_precision(),
        "device": "cpu",
        "vector": torch.backends.cpu.get_cpu_capability(),
        "kernel": chosen_backend(torch.device("cpu"), torch.float32),
        "torch": str(torch.__version__),
    }


def write(folder: Path, state: State, tensors: dict[str, Tensor]) -> None:
    """Write `state.safetensors` and `state.json` into `folder`."""
    save_file(tensors, folder / "state.safetensors")
    record = msgspec.to_builtins(state) | {"tensors": _file_hash(folder / "state.safetensors")}
    record["digest"] = _digest(record)
    text = msgspec.json.format(msgspec.json.encode(record), indent=1)
    (folder / "state.json").write_bytes(text)


def _digest(record: dict[str, Any]) -> str:
    return hashlib.sha256(msgspec.json.encode(record)).hexdigest()


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read(folder: Path) -> tuple[State, dict[str, Tensor]]:
    """Read what `write` wrote. Raises IntegrityError where it is missing or damaged."""
    try:
        record = msgspec.json.decode((folder / "state.json").read_bytes())
        schema = record.get("schema")
        if schema != SCHEMA:
            raise IntegrityError(f"{folder}: state of schema {schema}; this version reads {SCHEMA}")
        if record.pop("digest", "") != _digest(record):
            raise IntegrityError(f"{folder}/state.json: changed since it was written (its digest)")
        if record.pop("tensors", "") != _file_hash(folder / "state.safetensors"):
            raise IntegrityError(f"{folder}/state.safetensors: changed since it was written")
        state = msgspec.convert(record, State)
        tensors = load_file(folder / "state.safetensors")
    except (
        OSError,
        msgspec.MsgspecError,
        SafetensorError,
        AttributeError,
        UnicodeDecodeError,
    ) as error:
        raise IntegrityError(f"{folder}: not a readable runtime state: {error}") from error
    if state.layout != LAYOUT:
        raise IntegrityError(f"{folder}: tensors laid out as {state.layout!r}, expected {LAYOUT!r}")
    return state, tensors


def check(state: State, model: str, policy: str) -> None:
    """Refuse a state of another model, policy or machine. Raises InputError."""
    if state.model != model:
        raise InputError(
            f"model: the state belongs to model {state.model[:12]}, this is {model[:12]}"
        )
    # an earlier version left out ()
    if state.policy.removesuffix("()") != policy.removesuffix("()"):
        raise InputError(f"policy: the state was made under {state.policy!r}, not {policy!r}")
    here = machine()
    for name, value in state.machine.items():
        if here.get(name) != value:
            raise InputError(
                f"{name}: the state was made with {value!r}, here it is {here.get(name)!r}; "
                "the same bits need the same setting"
            )
