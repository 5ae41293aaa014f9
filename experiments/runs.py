"""What a run is on disk: run.json, a row of commits, and how they are read and verified.

How a commit gets there whole is in commits.py; nothing is run (replay.py, live.py) or drawn here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import hashlib
import platform
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from adaptive_sleep.bundled import locate
from adaptive_sleep.settings import real, whole
from adaptive_sleep.streams.errors import InputError, IntegrityError
from adaptive_sleep.streams.given import given_path
from adaptive_sleep.streams.recording import Recording
from adaptive_sleep.trace import TRACE_SCHEMA

SCHEMA = 1
CUTTING = "state.windower.json"  # beside the state of the runtime, and forgotten with it
PACKAGES = ("adaptive-sleep", "torch", "numpy", "polars", "msgspec", "safetensors")
TIMINGS_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "step": pl.Int64,
    "events": pl.Int64,
    "windows": pl.Int64,
    "wake": pl.Float64,
    "signals": pl.Float64,
    "policy": pl.Float64,
    "sleep": pl.Float64,
    "total": pl.Float64,  # seconds from the end of the step before, cutting included
}


class RecordingRef(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The recording of a run and the rows that are run; `path` "" where nothing was recorded."""

    path: str
    sha256: str
    rows: int
    start: int
    stop: int


class ModelRef(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The model of a run: where it was loaded from ("" for an object) and its hash."""

    path: str
    hash: str


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What decides a run besides recording, model, policy and seed (events, seconds, FLOPs)."""

    window: int
    gap_seconds: float | None
    eviction: str
    kv_budget: int | None
    budget: float | None
    burst: float
    max_passes: int
    price: float
    commit_every: int
    predictions: bool
    keep: int | None = None  # events that outlive a boundary; runs are older than this field

    def __post_init__(self) -> None:
        """Take NumPy's numbers as Python's, so that a file holds them. Raises InputError for what
        is no number, and for commits without a step."""
        for name in ("window", "kv_budget", "max_passes", "commit_every", "keep"):
            msgspec.structs.force_setattr(self, name, whole(name, getattr(self, name)))
        for name in ("gap_seconds", "budget", "burst", "price"):
            msgspec.structs.force_setattr(self, name, real(name, getattr(self, name)))
        if (self.commit_every or 0) < 1:
            raise InputError(f"commit_every={self.commit_every}: a commit takes at least 1 step")


class Machine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What of a machine decides the last bits of a float."""

    processor: str
    vector: str
    device: str
    threads: int
    matmul_precision: str
    kernel: str = "torch"  # the form of the gated delta rule


@dataclass(frozen=True)
class RunSummary:
    """The figures of a run; losses are means over scored predictions, seconds are wall clock."""

    loss: float | None  # None where nothing was predicted
    mean_passes: float  # over windows, the wake pass counted
    events: int
    windows: int
    flops_per_event: float  # all phases
    sleep_flops_per_event: float
    seconds: float  # of all steps, cutting included, commits and waiting for the clock not
    wake_p50: float  # seconds per step
    wake_p99: float
    longest_stall: float  # the longest sleep in one step
    trace: str  # a glob that polars reads in order
    trace_sha256: str

    def to_json(self) -> str:
        """One JSON object."""
        return msgspec.json.encode(self).decode()


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """run.json: all that is needed to do the run again."""

    schema: int = SCHEMA
    source: str  # "replay" | "live"
    policy: str  # spec string
    recording: RecordingRef
    model: ModelRef
    settings: Settings
    machine: Machine
    seed: int
    versions: dict[str, str]
    finished: bool = False
    summary: RunSummary | None = None


class Position(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """commit.json: how far a commit reaches, and the SHA-256 of every file beside it."""

    commit: int  # 1, 2, ...
    row: int  # the first row of the recording that is not in it
    steps: int
    events: int
    windower: dict[str, Any] = {}  # filled by runs from before CUTTING
    files: dict[str, str]


@dataclass(frozen=True)
class Run:
    """A run folder, read."""

    path: Path
    manifest: Manifest
    positions: tuple[Position, ...]

    @property
    def summary(self) -> RunSummary | None:
        """The figures, or None while the run is not finished."""
        return self.manifest.summary

    @property
    def last(self) -> Path | None:
        """The folder of the last commit, which holds the state; None before the first."""
        return commit_folder(self.path, self.positions[-1].commit) if self.positions else None

    @property
    def windower(self) -> dict[str, Any]:
        """How the streams were cut at the last commit, which there must be."""
        folder, position = commit_folder(self.path, len(self.positions)), self.positions[-1]
        if CUTTING not in position.files:
            return position.windower
        found: dict[str, Any] = _decode(folder / CUTTING, dict)
        return found

    @property
    def trace_sha256(self) -> str:
        """SHA-256 over the ordered hashes of the trace shards, in hexadecimal."""
        return hash_of_shards(position.files["trace.parquet"] for position in self.positions)

    # What is read is verified: IntegrityError names a file that is not what was written.

    def trace(self) -> pl.LazyFrame:
        """One row per stream and window, in order of closing. Raises IntegrityError."""
        return self._shards("trace.parquet", TRACE_SCHEMA)

    def timings(self) -> pl.LazyFrame:
        """One row per step, in seconds (TIMINGS_SCHEMA); not part of what a replay repeats. Raises
        IntegrityError."""
        return self._shards("timings.parquet", TIMINGS_SCHEMA)

    def predictions(self) -> pl.LazyFrame:
        """One row per predicted event. Raises InputError where the run was made without,
        IntegrityError."""
        if not self.manifest.settings.predictions:
            raise InputError(f"{self.path}: made without predictions; replay with --predictions")
        return self._shards("predictions.parquet", {})

    def verify(self) -> None:
        """Read every file again; IntegrityError names the first that is not what was written."""
        for position in self.positions:
            for name in position.files:
                if not name.startswith("state.") or position is self.positions[-1]:
                    _verify(commit_folder(self.path, position.commit) / name, position.files[name])

    def _shards(self, name: str, schema: Mapping[str, Any]) -> pl.LazyFrame:
        shards = list[Path]()
        for position in self.positions:
            if name in position.files:
                file = commit_folder(self.path, position.commit) / name
                _verify(file, position.files[name])
                shards.append(file.absolute())  # polars would take a leading ~ for the home folder
        if not shards:
            return pl.LazyFrame(schema=dict(schema))
        if not schema:
            return pl.scan_parquet(shards, glob=False)  # a folder may be named run[1]
        # A run may be older than some of the columns, which are null then.
        return pl.scan_parquet(shards, glob=False, schema=dict(schema), missing_columns="insert")


def open_recording(where: str | Path, *, verify: bool = True) -> Recording:
    """Open a recording by its path or "bundled:NAME". Raises as Recording.open does, and InputError
    for what is no path."""
    return Recording.open(locate("recordings", given_path("recording", where)), verify=verify)


def open_run(path: str | Path) -> Run:
    """Read a run folder without changing it.

    Raises InputError where there is none, IntegrityError where it is damaged or of a newer schema.
    """
    path = Path(path)
    file = path / "run.json"
    if not file.is_file():
        raise InputError(f"run={str(path)!r}: no run.json there; give the folder of a replay")
    manifest = _decode(file, Manifest)
    positions = tuple(_positions(path))
    if manifest.summary is not None:
        moved = dataclasses.replace(manifest.summary, trace=trace_glob(path))
        manifest = msgspec.structs.replace(manifest, summary=moved)
    return Run(path, manifest, positions)


def _positions(run: Path) -> Iterator[Position]:
    number = 1
    while (folder := commit_folder(run, number)).is_dir():
        position = _decode(folder / "commit.json", Position)
        if position.commit != number:
            raise IntegrityError(f"{folder}: holds commit {position.commit}, not {number}")
        number += 1
        if commit_folder(run, number).is_dir():  # only the last one's is of use
            position = msgspec.structs.replace(position, windower={})
        yield position
    there = [p.name for p in (run / "commits").glob("[0-9]*") if p.name.isdecimal()]
    beyond = sorted(name for name in there if int(name) > number)
    if beyond:
        raise IntegrityError(f"{folder}: missing, though commit {beyond[0]} is there")


def _decode(file: Path, cls: type[Any]) -> Any:
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        raise IntegrityError(f"{file}: missing from the run") from None
    try:
        plain = msgspec.json.decode(data)
        schema = plain.get("schema", SCHEMA) if isinstance(plain, dict) else SCHEMA
        if isinstance(schema, int) and schema > SCHEMA:
            raise IntegrityError(
                f"{file}: schema {schema} is newer than {SCHEMA}, the newest known here; "
                "upgrade adaptive-sleep"
            )
        return msgspec.convert(plain, cls)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise IntegrityError(f"{file}: damaged: {error}") from None


def commit_folder(run: Path, number: int) -> Path:
    """Where commit `number` (from 1) of a run lies."""
    return run / "commits" / f"{number:06d}"


def trace_glob(run: Path) -> str:
    """The absolute glob of a run's trace shards, in order, and of no other run's."""
    return str(Path(glob.escape(str(run.absolute()))) / "commits" / "*" / "trace.parquet")


def hash_of_shards(hashes: Iterable[str]) -> str:
    """SHA-256 over the ordered hashes of the trace shards, in hexadecimal."""
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def _verify(file: Path, expected: str) -> None:
    if not file.is_file():
        raise IntegrityError(f"{file}: missing from the run")
    with open(file, "rb") as handle:
        if hashlib.file_digest(handle, "sha256").hexdigest() != expected:
            raise IntegrityError(f"{file}: not what was written (its SHA-256 differs)")


def this_machine() -> Machine:
    """What of this machine decides the last bits of a float."""
    import torch

    from adaptive_sleep.kernels import chosen_backend

    return Machine(
        processor=platform.machine(),
        vector=torch.backends.cpu.get_cpu_capability(),
        device="cpu",
        threads=torch.get_num_threads(),
        matmul_precision=torch.get_float32_matmul_precision(),
        kernel=chosen_backend(torch.device("cpu"), torch.float32),
    )


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result may depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def new_manifest(
    source: str,
    policy: str,
    recording: RecordingRef,
    model: ModelRef,
    settings: Settings,
    seed: int,
) -> Manifest:
    """The run.json of a run that begins now, on this machine, with these versions. Raises
    InputError for a seed that is no whole number."""
    return Manifest(
        source=source,
        policy=policy,
        recording=recording,
        model=model,
        settings=settings,
        machine=this_machine(),
        seed=whole("seed", seed),
        versions=versions(),
    )


def differences(old: Manifest, new: Manifest) -> list[str]:
    """Say in words what makes two runs different runs, one entry a field; empty if nothing does."""
    before, after = (_identity(manifest) for manifest in (old, new))
    return [
        f"{name} was {before.get(name)!r}, now {after.get(name)!r}"
        for name in dict.fromkeys((*before, *after))  # in an order of its own, not that of a set
        if before.get(name) != after.get(name)
    ]


def _identity(manifest: Manifest) -> dict[str, Any]:
    """Dotted names of what must be equal; where a recording or model lies may change."""
    flat: dict[str, Any] = {}
    for name, value in msgspec.to_builtins(manifest).items():
        if name in ("finished", "summary"):
            continue
        if isinstance(value, dict):
            flat.update({f"{name}.{key}": inner for key, inner in value.items()})
        else:
            flat[name] = value
    flat["policy"] = flat["policy"].removesuffix("()")  # which an earlier version left out
    return {name: value for name, value in flat.items() if not name.endswith(".path")}
