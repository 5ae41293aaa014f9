"""Agents and views on disk: safetensors, numbers and names alone, nothing that could be run.

A file holds a view (`mean`, `scale`) and, if it is an agent's, a network (`layers.N.weight`,
`layers.N.bias`); its header says which signals, and a digest over all of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from adaptive_sleep.policies.agent_network import Network
from adaptive_sleep.policies.environment_view import View
from adaptive_sleep.policies.network_file import Tensors, digest_of, layers_of, network_of, numbers
from adaptive_sleep.streams.errors import InputError, IntegrityError
from adaptive_sleep.streams.manifest import write_file

SCHEMA = "1"


@dataclass(frozen=True, eq=False)
class Trained:
    """What an agent is: what it sees, and the network whose likeliest output a is a + 1 passes."""

    view: View
    network: Network


def save_agent(view: View, network: Network, path: str | Path) -> Path:
    """Write an agent atomically; returns its path.

    Raises InputError if the network does not take what the view sees, or there is no such folder;
    AdaptiveSleepError where it cannot be written, and then leaves nothing.
    """
    if network.inputs != view.width:
        raise InputError(
            f"network: takes {network.inputs} numbers, but the view sees {view.width}; give the "
            "view of the environment that it was trained in"
        )
    return _write(view, network, Path(path))


def save_view(view: View, path: str | Path) -> Path:
    """Write a view alone, as `save_agent` writes an agent."""
    return _write(view, None, Path(path))


def read_agent(path: str | Path) -> Trained:
    """Read an agent.

    Raises InputError where there is no such file, or one without a network; IntegrityError for a
    file that is damaged, of another schema, or not one of ours.
    """
    header, tensors = _read(Path(path))
    if not any(name.endswith(".bias") for name in tensors):
        raise InputError(f"{path}: holds a view and no network; expected a file of save_agent")
    try:
        network = network_of(tensors, header.get("activation", ""))
        view = _view(header, tensors)
        if network.inputs != view.width:
            raise InputError(f"network: takes {network.inputs} numbers, the view sees {view.width}")
    except InputError as error:
        raise IntegrityError(f"{path}: not a sound agent: {error}") from error
    return Trained(view, network)


def read_view(path: str | Path) -> View:
    """Read the view of a file that holds one, alone or with an agent. Raises as `read_agent`."""
    header, tensors = _read(Path(path))
    try:
        return _view(header, tensors)
    except InputError as error:
        raise IntegrityError(f"{path}: not a sound view: {error}") from error


def _view(header: Mapping[str, str], tensors: Tensors) -> View:
    try:
        names = json.loads(header["signals"])
        summary, clip = int(header["summary"]), float(header["clip"])
        model = header["model"]
    except (KeyError, ValueError) as error:
        raise InputError(f"header: {type(error).__name__}: {error}") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"header: signals={names!r}, expected a list of names")
    mean, scale = (numbers(tensors, name, np.float64) for name in ("mean", "scale"))
    return View(tuple(names), summary, mean, scale, clip, model)


def digest(trained: Trained) -> str:
    """SHA-256 of an agent: of all that its file holds."""
    return digest_of(*_contents(trained.view, trained.network))


def _contents(view: View, network: Network | None) -> tuple[dict[str, str], Tensors]:
    """Header, without the digest, and tensors of a file."""
    layers = {} if network is None else layers_of(network)
    tensors: Tensors = {"mean": view.mean, "scale": view.scale} | layers
    tensors = {name: np.ascontiguousarray(values) for name, values in tensors.items()}
    header = {
        "schema": SCHEMA,
        "signals": json.dumps(view.signals),
        "summary": str(view.summary),
        "clip": repr(float(view.clip)),
        "model": view.model,
    }
    if network is not None:
        header["activation"] = network.activation
    return header, tensors


def _write(view: View, network: Network | None, target: Path) -> Path:
    header, tensors = _contents(view, network)
    header["digest"] = digest_of(header, tensors)
    return write_file(target, save(tensors, metadata=header))


def _read(path: Path) -> tuple[dict[str, str], Tensors]:
    """Header and tensors of one of our files, as they were written."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected one of save_agent")
    try:
        with safe_open(path, framework="numpy") as file:
            header = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, TypeError, AttributeError) as error:
        raise IntegrityError(f"{path}: not a readable safetensors file: {error}") from error
    if "digest" not in header or "signals" not in header:
        raise IntegrityError(f"{path}: a safetensors file, but not one of an agent")
    if header.get("schema") != SCHEMA:
        raise IntegrityError(
            f"{path}: agent of schema {header.get('schema')}; this version reads {SCHEMA}: upgrade"
        )
    if header.pop("digest") != digest_of(header, tensors):
        raise IntegrityError(f"{path}: not what was saved (digest differs)")
    return header, tensors
