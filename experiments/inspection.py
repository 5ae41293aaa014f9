"""What a recording, a model or a run is, with its hashes verified; and the installed policies.

Reads only; the command line prints what is returned.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import msgspec

from adaptive_sleep.streams.errors import InputError, nearest
from adaptive_sleep.streams.manifest import NAME as RECORDING_FILE

BUNDLED = "bundled:"


def inspect_path(where: str | Path) -> dict[str, Any]:
    """Return what `where` is: key "what" is "recording", "model", "run" or "bundled".

    "bundled" holds what has this name under "recording" and "model". Every hash is verified.
    Raises InputError for what is none of these, IntegrityError for what is damaged.
    """
    if str(where).startswith(BUNDLED):
        return _bundled(str(where).removeprefix(BUNDLED))
    path = Path(where)
    if (path / RECORDING_FILE).is_file():
        return _recording(path)
    if (path / "run.json").is_file():
        return _run(path)
    if path.is_file():
        if path.suffix != ".safetensors":
            raise InputError(f"path={str(path)!r}: a model is a file named *.safetensors")
        return _model(path)
    kind = "holds neither manifest.json nor run.json" if path.is_dir() else "does not exist"
    raise InputError(
        f"path={str(path)!r}: {kind}; give a recording or a run (folders), a model "
        "(.safetensors) or bundled:NAME"
    )


def _bundled(name: str) -> dict[str, Any]:
    """What is bundled under a name: a recording, a model, or both."""
    from adaptive_sleep.bundled import bundled_names, bundled_path

    recordings, models = bundled_names("recordings"), bundled_names("models")
    found: dict[str, Any] = {"what": "bundled", "name": name}
    if name in recordings:
        found["recording"] = _recording(bundled_path("recordings", name))
    if name in models:
        found["model"] = _model(bundled_path("models", name))
    if len(found) == 2:
        names = sorted({*recordings, *models})
        raise InputError(
            f"bundled:{name}: no such recording or model ({', '.join(names) or 'none'})"
            f"{nearest(name, names)}"
        )
    return found


def _recording(path: Path) -> dict[str, Any]:
    from adaptive_sleep.streams.recording import Recording

    recording = Recording.open(path, verify=True)
    manifest = recording.trimmed_manifest()
    first, last = manifest.time_range or (None, None)
    return {
        "what": "recording",
        "path": str(path),
        "kind": recording.kind,
        "rows": recording.rows,
        "streams": len(recording.streams),
        "rows_per_stream": dict(zip(recording.streams, manifest.stream_rows, strict=True)),
        "channels": [_plain(channel) for channel in recording.channels],
        "tokenizer": manifest.tokenizer,
        "vocabulary": manifest.vocabulary,
        "first_time_ns": first,
        "last_time_ns": last,
        "backwards": manifest.backwards,
        "shards": len(manifest.shards),
        "sha256": recording.sha256,
        "warnings": list(recording.warnings),
        "provenance": dict(manifest.provenance),
    }


def _model(path: Path) -> dict[str, Any]:
    from adaptive_sleep.checkpoint import describe_model, load_model

    header = describe_model(path)
    model = load_model(path)  # which hashes the weights
    return {
        "what": "model",
        "path": str(path),
        "parameters": model.parameters_count,
        "bytes": path.stat().st_size,
        "hash": model.hash,
        "config": header["config"],
        "provenance": header["provenance"],
    }


def _run(path: Path) -> dict[str, Any]:
    from adaptive_sleep.experiments.runs import open_run

    run = open_run(path)
    run.verify()
    described: dict[str, Any] = msgspec.to_builtins(run.manifest)
    rows = run.positions[-1].row - run.manifest.recording.start if run.positions else 0
    return {
        "what": "run",
        "path": str(path),
        "commits": len(run.positions),
        "rows_done": rows,
        "trace_sha256": run.trace_sha256,
        **described,
    }


def readable(found: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Flatten what was found into lines for a person; nested names are dotted."""
    lines: dict[str, str] = {}
    for key, value in found.items():
        name = f"{prefix}{key}"
        if key == "channels" and value and isinstance(value[0], dict):
            for role in ("observed", "action", "label"):
                named = [_channel(channel) for channel in value if channel["role"] == role]
                if named:
                    lines[f"{name} ({role})"] = ", ".join(named)
        elif key == "rows_per_stream" and len(value) > 8:
            lines[name] = f"{min(value.values()):,} to {max(value.values()):,}"
        elif key.endswith("_time_ns") and value is not None:
            lines[name.removesuffix("_ns")] = _moment(value)
        elif isinstance(value, dict):
            lines.update(readable(value, f"{name}."))
        elif value is None or value == "" or value == []:
            continue
        elif isinstance(value, (list, tuple)):
            lines[name] = ", ".join(str(item) for item in value)
        elif isinstance(value, int) and not isinstance(value, bool):
            lines[name] = f"{value:,}"
        else:
            lines[name] = str(value)
    return lines


def _channel(channel: dict[str, Any]) -> str:
    if channel["categories"]:
        return f"{channel['name']} ({', '.join(channel['categories'])})"
    return f"{channel['name']} [{channel['unit']}]" if channel["unit"] else str(channel["name"])


def _moment(nanoseconds: int) -> str:
    import numpy as np

    return f"{np.datetime64(nanoseconds, 'ns').astype('datetime64[ms]')} UTC"


def installed_policies() -> list[dict[str, Any]]:
    """Every installed policy with its parameters; "error" says why one does not load."""
    import adaptive_sleep.experiments.controls
    import adaptive_sleep.policies  # noqa: F401  (registers the policies that we ship)
    from adaptive_sleep.catalogue import installed

    return [_plain(info) for info in installed()]


def _plain(value: Any) -> Any:
    """Dataclasses as dictionaries, all the way down; a default that is a policy as its spec."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        if callable(getattr(value, "plan", None)):
            return str(value)
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value
