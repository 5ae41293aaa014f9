"""Gain files: what `fit-gain` found, in safetensors, numbers and names alone.

A file holds the layers (`layers.N.weight`, `layers.N.bias`); its header, one JSON object, says
which model, passes, width and horizon they are for, how they were fitted, and a digest over all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from adaptive_sleep.policies.gain_network import Gain
from adaptive_sleep.policies.network_file import Tensors, digest_of, layers_of, network_of
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.manifest import write_file

SCHEMA = 1
KIND = "predicted_gain"
ACTIVATION = "relu"


def save_gain(gain: Gain, path: str | Path) -> Path:
    """Write a gain file atomically; returns its path.

    Raises InputError where there is no such folder, AdaptiveSleepError where it cannot be written,
    and then leaves nothing.
    """
    target = Path(path)
    layers = layers_of(gain.network)
    header = _header(gain)
    header["digest"] = digest_of(header, layers)
    # one entry: safetensors writes several in an order that changes from one run to the next
    metadata = {KIND: json.dumps(header, sort_keys=True)}
    return write_file(target, save(layers, metadata=metadata))


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
    if header.pop("digest", "") != digest_of(header, layers):
        raise InputError(f"file={str(path)!r}: not what was written (digest differs); fit it again")
    try:
        return _gain(header, layers)
    except (InputError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"file={str(path)!r}: not a sound gain file: {error}") from error


def digest(gain: Gain) -> str:
    """SHA-256 of a gain: of all that its file holds."""
    return digest_of(_header(gain), layers_of(gain.network))


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


def _gain(header: Mapping[str, Any], layers: Tensors) -> Gain:
    network = network_of(layers, ACTIVATION)
    return Gain(network=network, **{name: it for name, it in header.items() if name != "schema"})
