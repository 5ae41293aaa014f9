"""What a training on a task writes into its folder between steps, and takes up from there.

Whose folder it is, `recipe.json` says; how far it is, `state.safetensors`. What was damaged, or is
of another training, is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from adaptive_sleep.curriculum import Place
from adaptive_sleep.learning import Optimiser
from adaptive_sleep.model import Model
from adaptive_sleep.streams.errors import InputError, IntegrityError
from adaptive_sleep.streams.manifest import TEMPORARY, write_atomically

RECIPE, STATE = "recipe.json", "state.safetensors"
_NOTHING = object()  # what a field is that is not there
FIX = "take it from a copy, or name another folder"


@dataclass
class Loop:
    """What a run holds between steps, and writes at each validation."""

    step: int = 0
    running: float = 0.0
    seconds: float = 0.0
    tokens: int = 0
    flops: float = 0.0
    place: Place = field(default_factory=Place)
    rows: list[dict[str, float]] = field(default_factory=list)


def claim(folder: Path, described: Mapping[str, Any]) -> None:
    """Name a folder's run, or see that it belongs to this very one. Raises InputError naming the
    first field that differs, and IntegrityError where what it says cannot be read."""
    file = folder / RECIPE
    # through JSON, so that tuples and lists compare as they are written
    wanted = json.loads(json.dumps(described))
    if file.is_file():
        for where, begun, now in _differences(_said(file), wanted):
            how = " (set OMP_NUM_THREADS)" if where == "threads" else ""
            said = "left out" if now is _NOTHING else repr(now)
            before = "without" if begun is _NOTHING else f"with {begun!r}"
            raise InputError(
                f"{folder}: {where} is {said}, but it was begun {before}{how}; name another "
                f"folder, or take the same one up as {file} says"
            )
        return
    # a run that was killed while it claimed the folder has left no more than that
    if any(path.name != RECIPE + TEMPORARY for path in folder.iterdir()):
        raise InputError(f"{folder}: holds something else; name a new folder")
    write_atomically(file, json.dumps(described, indent=1).encode())


def _said(file: Path) -> dict[str, Any]:
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise IntegrityError(f"{file}: damaged: {error}; {FIX}") from error
    if not isinstance(said, dict):
        raise IntegrityError(f"{file}: damaged: no table of fields; {FIX}")
    return said


def _differences(begun: Any, now: Any, where: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Fields that differ, by their place in the recipe; of the test how many samples it has says
    nothing of a training."""
    if not (isinstance(begun, dict) and isinstance(now, dict)):
        if begun != now:
            yield where or "recipe", begun, now
        return
    for name in sorted({*begun, *now}):
        inner = name if where in ("", "recipe") else f"{where}.{name}"
        if inner != "test.samples":
            yield from _differences(begun.get(name, _NOTHING), now.get(name, _NOTHING), inner)


def write_state(folder: Path, model: Model, optimiser: Optimiser, loop: Loop) -> None:
    """Write weights, optimiser and place of the training of `folder`, atomically."""
    tensors: dict[str, Tensor] = {f"model.{n}": t for n, t in model.state_dict().items()}
    tensors |= optimiser.tensors()
    whole = {n: t.detach().cpu().contiguous() for n, t in tensors.items()}
    header = {"loop": json.dumps(asdict(loop)), "of": _of(folder)}
    header["digest"] = _digest(header, whole)
    write_atomically(folder / STATE, save(whole, metadata=header))


def read_state(folder: Path, model: Model, optimiser: Optimiser) -> Loop:
    """Take up what was written, or begin. Raises IntegrityError for what is damaged, and for what
    is the state of another training."""
    file = folder / STATE
    if not file.is_file():
        return Loop()
    try:
        with safe_open(file, framework="pt") as state:
            header = state.metadata() or {}
            tensors = {name: state.get_tensor(name) for name in state.keys()}  # noqa: SIM118
        written = json.loads(header["loop"])
        loop = Loop(**written | {"place": Place(**written["place"])})
        # an earlier version wrote no digest
        if header.pop("digest", None) not in (None, _digest(header, tensors)):
            raise IntegrityError(f"{file}: damaged: its digest differs; {FIX}")
        if header.get("of", _of(folder)) != _of(folder):
            raise IntegrityError(f"{file}: the state of another training than {RECIPE} says; {FIX}")
        model.load_state_dict(
            {n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")}
        )
        optimiser.load({n: t for n, t in tensors.items() if not n.startswith("model.")})
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        why = f"{type(error).__name__}: {error}"
        raise IntegrityError(
            f"{file}: damaged, or no state of this training ({why}); {FIX}"
        ) from error
    return loop


def _of(folder: Path) -> str:
    """The training that a folder is claimed for: its recipe, but for how much it is tested on, and
    its seed; on whichever machine."""
    said = _said(folder / RECIPE)
    recipe = {name: value for name, value in said["recipe"].items() if name != "test"}
    return hashlib.sha256(json.dumps([recipe, said["seed"]], sort_keys=True).encode()).hexdigest()


def _digest(header: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the header and all tensors, by name."""
    found = hashlib.sha256(json.dumps(dict(header), sort_keys=True).encode())
    for name in sorted(tensors):
        held = tensors[name].contiguous()
        found.update(f"{name} {held.dtype} {tuple(held.shape)}".encode())
        found.update(held.reshape(-1).numpy().tobytes())
    return found.hexdigest()
