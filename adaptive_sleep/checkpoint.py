"""Checkpoints: one safetensors file that holds the weights, the configuration and their hash.

No pickle; a file of another schema or with changed bytes is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from adaptive_sleep.bundled import bundled_names, locate
from adaptive_sleep.config import ModelConfig, decode
from adaptive_sleep.model import Model
from adaptive_sleep.precision import check_float32
from adaptive_sleep.streams.errors import InputError, IntegrityError
from adaptive_sleep.streams.manifest import write_file

SCHEMA = 1


def save_model(model: Model, path: str | Path, *, provenance: Mapping[str, str]) -> Path:
    """Write a checkpoint atomically; returns its path. `provenance`: how it was made, free text;
    what its tokens stand for is kept with it, from `model.categories` where it does not say.

    Raises InputError where the folder does not exist and for weights that are not float32,
    AdaptiveSleepError where it cannot be written (a full disk); then nothing is left.
    """
    target = Path(path)
    for name, tensor in model.state_dict().items():
        if tensor.dtype != torch.float32:
            raise InputError(
                f"model: {name} is of {tensor.dtype}: checkpoints hold torch.float32; save "
                "model.float()"
            )
    model.forget_hash()
    header = {
        "schema": str(SCHEMA),
        "config": json.dumps(model.config.identity()),
        "hash": model.hash,
        "provenance": json.dumps(named_tokens(model.categories) | dict(provenance), sort_keys=True),
    }
    header["digest"] = _digest(header)
    tensors = {n: t.detach().cpu().contiguous() for n, t in model.state_dict().items()}
    return write_file(target, save(tensors, metadata=header))


def named_tokens(categories: Sequence[str]) -> dict[str, str]:
    """What `provenance` says of the categories that a model's tokens stand for, if any."""
    return {"categories": json.dumps(list(categories))} if categories else {}


def _digest(header: Mapping[str, str]) -> str:
    """SHA-256 over all other fields of a header; the weights have a hash of their own."""
    return hashlib.sha256(json.dumps(dict(header), sort_keys=True).encode()).hexdigest()


def describe_model(where: str | Path) -> dict[str, Any]:
    """Header of a checkpoint: `config`, `hash`, `provenance`, `schema`. Raises as `load_model`."""
    path = locate("models", where)
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint{_meant(path)}")
    try:
        path.open("rb").close()  # safetensors says of every file it cannot open that there is none
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise IntegrityError(f"{path}: not a readable checkpoint: {error}") from error
    if "config" not in header or "hash" not in header:
        raise IntegrityError(f"{path}: a safetensors file, but not one of our checkpoints")
    if header.get("schema") != str(SCHEMA):
        raise IntegrityError(
            f"{path}: checkpoint of schema {header.get('schema')}; "
            f"this version reads {SCHEMA}: upgrade"
        )
    if header.pop("digest", "") != _digest(header):
        raise IntegrityError(f"{path}: the header is not the one that was saved (digest differs)")
    return {
        "schema": SCHEMA,
        "config": json.loads(header["config"]),
        "hash": header["hash"],
        "provenance": json.loads(header.get("provenance", "{}")),
    }


def _meant(path: Path) -> str:
    """Which checkpoint a path that is none may stand for."""
    if (path / "model.safetensors").is_file():
        return f"; did you mean {str(path / 'model.safetensors')!r}?"
    if str(path) in bundled_names("models"):
        return f"; did you mean 'bundled:{path}'?"
    return ""


def load_model(where: str | Path) -> Model:
    """Load a checkpoint from a path or `bundled:NAME`, on the CPU, ready to run.

    It knows the categories that its tokens stood for in training, if `provenance` has them. Raises
    InputError where there is none or torch makes no float32, IntegrityError where it is damaged or
    of another schema.
    """
    check_float32("load_model")
    header = describe_model(where)
    path = locate("models", where)
    known = {it.name for it in fields(ModelConfig)}
    if isinstance(header["config"], dict) and (newer := sorted({*header["config"]} - known)):
        raise IntegrityError(
            f"{path}: made by a newer version (its configuration has {', '.join(newer)}): upgrade"
        )
    model = Model(decode(ModelConfig, header["config"], where=str(path)))
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        model.load_state_dict(tensors)
    except (SafetensorError, RuntimeError, OSError) as error:
        raise IntegrityError(
            f"{path}: the weights do not fit the configuration: {error}"
        ) from error
    if model.hash != header["hash"]:
        raise IntegrityError(f"{path}: the weights are not those that were saved (hash differs)")
    model.categories = tuple(json.loads(header["provenance"].get("categories", "[]")))
    return model.eval()
