"""Gain files: what `fit-gain` found, in safetensors, numbers and names alone.

A file holds the layers (`layers.N.weight`, `layers.N.bias`); its header, one JSON object, says
which model, passes, width and horizon they are for, how they were fitted, and a digest over all.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from adaptive_sleep.policies.agent_network import Network
from adaptive_sleep.policies.gain_network import Gain
from adaptive_sleep.streams.errors import AdaptiveSleepError, InputError

SCHEMA = 1
KIND = "predicted_gain"
ACTIVATION = "relu"
Layers = dict[str, NDArray[np.float32]]


def save_gain(gain: Gain, path: str | Path) -> Path:
    """Write a gain file atomically; returns its path.

    Raises InputError where there is no such folder, AdaptiveSleepError where it cannot be written,
    and then leaves nothing.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise InputError(f"{target}: the folder {target.parent} does not exist")
    layers = _layers(gain.network)
    header = _header(gain)
    header["digest"] = _digest(header, layers)
    # one entry: safetensors writes several in an order that changes from one run to the next
    metadata = {KIND: json.dumps(header, sort_keys=True)}
    part = target.with_name(f".{target.name}.part")
    try:
        with part.open("wb") as file:
            file.write(save(layers, metadata=metadata))
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise AdaptiveSleepError(f"{target}: cannot be written: {error.strerror}") from error
    return target


def read_gain(path: str | Path) -> Gain:
    """Read a gain file.

    Raises InputError where there is none, and for one that is damaged, of another schema, or not
    one of ours.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"file={str(path)!r}: no such file; expected one of fit-gain")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            layers = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, TypeError, AttributeError) as error:
        raise InputError(
            f"file={str(path)!r}: not a readable safetensors file: {error}; fit it again"
        ) from error
    if KIND not in metadata:
        raise InputError(f"file={str(path)!r}: not a gain file; expected one of fit-gain")
    try:
        header = dict(json.loads(metadata[KIND]))
    except (ValueError, TypeError) as error:
        raise InputError(f"file={str(path)!r}: not a sound gain file: {error}") from error
    if header.get("schema") != SCHEMA:
        raise InputError(
            f"file={str(path)!r}: gain file of schema {header.get('schema')}; this version reads "
            f"{SCHEMA}: upgrade, or fit it again"
        )
    if header.pop("digest", "") != _digest(header, layers):
        raise InputError(f"file={str(path)!r}: not what was written (digest differs); fit it again")
    try:
        return _gain(header, layers)
    except (InputError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"file={str(path)!r}: not a sound gain file: {error}") from error


def digest(gain: Gain) -> str:
    """SHA-256 of a gain: of all that its file holds."""
    return _digest(_header(gain), _layers(gain.network))


def _header(gain: Gain) -> dict[str, Any]:
    """All but the layers."""
    return {
        "schema": SCHEMA,
        "model_hash": gain.model_hash,
        "most": gain.most,
        "width": gain.width,
        "horizon": gain.horizon,
        "provenance": dict(gain.provenance),
    }


def _layers(network: Network) -> Layers:
    found: Layers = {}
    for at, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
        found[f"layers.{at}.weight"] = np.ascontiguousarray(weight, dtype=np.float32)
        found[f"layers.{at}.bias"] = np.ascontiguousarray(bias, dtype=np.float32)
    return found


def _gain(header: Mapping[str, Any], layers: Layers) -> Gain:
    count = len(layers) // 2
    network = Network(
        tuple(layers[f"layers.{at}.weight"] for at in range(count)),
        tuple(layers[f"layers.{at}.bias"] for at in range(count)),
        ACTIVATION,
    )
    return Gain(network=network, **{name: it for name, it in header.items() if name != "schema"})


def _digest(header: Mapping[str, Any], layers: Layers) -> str:
    """SHA-256 over the header and every layer, by name."""
    shapes = {name: [str(it.dtype), *it.shape] for name, it in sorted(layers.items())}
    found = hashlib.sha256(json.dumps([dict(header), shapes], sort_keys=True).encode())
    for name in shapes:
        found.update(np.ascontiguousarray(layers[name]).tobytes())
    return found.hexdigest()
