"""What files of networks have in common: their layers as tensors, and a digest over all they hold.

Whose network it is, and what else a file says, is in `agent_file` and `gain_file`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptive_sleep.policies.agent_network import Network
from adaptive_sleep.streams.errors import InputError

Tensors = dict[str, NDArray[Any]]


def layers_of(network: Network) -> Tensors:
    """The layers as `layers.N.weight` and `layers.N.bias`, float32."""
    found: Tensors = {}
    for at, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
        found[f"layers.{at}.weight"] = np.ascontiguousarray(weight, dtype=np.float32)
        found[f"layers.{at}.bias"] = np.ascontiguousarray(bias, dtype=np.float32)
    return found


def network_of(tensors: Tensors, activation: str) -> Network:
    """The network of what `layers_of` gave, beside other tensors. Raises InputError."""
    count = sum(name.endswith(".bias") for name in tensors)
    return Network(
        tuple(numbers(tensors, f"layers.{at}.weight", np.float32) for at in range(count)),
        tuple(numbers(tensors, f"layers.{at}.bias", np.float32) for at in range(count)),
        activation,
    )


def numbers(tensors: Tensors, name: str, kind: type[np.floating[Any]]) -> NDArray[Any]:
    """A tensor by its name. Raises InputError where there is none, or one of another type."""
    found = tensors.get(name)
    if found is None or found.dtype != kind:
        have = "nothing" if found is None else f"values of type {found.dtype}"
        raise InputError(f"{name}: {have}, expected values of type {np.dtype(kind)}")
    return found


def digest_of(header: Mapping[str, Any], tensors: Tensors) -> str:
    """SHA-256 over the header and every tensor, by name."""
    shapes = {name: [str(it.dtype), *it.shape] for name, it in sorted(tensors.items())}
    found = hashlib.sha256(json.dumps([dict(header), shapes], sort_keys=True).encode())
    for name in shapes:
        found.update(np.ascontiguousarray(tensors[name]).tobytes())
    return found.hexdigest()
