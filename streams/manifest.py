"""The manifest of a recording; how a file gets onto the disk whole or not at all, and how a folder
is held by one writer.

Shards are written by `writer` and read by `recording`; here are only their names and hashes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from .errors import AdaptiveSleepError, InputError, IntegrityError
from .events import Channel, Role

SCHEMA = 1
NAME = "manifest.json"
TEMPORARY = ".tmp"
Kind = Literal["series", "tokens"]
NO_LOCKS = (errno.EBADF, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # a file system has none
RESERVED = ("stream", "sequence", "time", "token")


class ChannelEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A `Channel` as the manifest writes it."""

    name: str
    role: Role = "observed"
    unit: str = ""
    categories: tuple[str, ...] = ()
    delay_ns: int = 0

    def channel(self) -> Channel:
        """The channel as the rest of the code has it."""
        return Channel(self.name, self.role, self.unit, self.categories, self.delay_ns)


class Shard(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One Parquet file: its name in the folder, its rows, its size and its hash."""

    file: str
    rows: int
    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that is known of a recording without opening a shard.

    `time_range` is the least and the greatest time, in ns UTC. `backwards` counts events whose time
    lies before that of the event before it in its stream. `closed` is false while a writer is at
    work, and stays false if it was killed.
    """

    schema: int
    kind: Kind
    channels: tuple[ChannelEntry, ...] = ()
    streams: tuple[str, ...] = ()
    tokenizer: str | None = None
    vocabulary: int | None = None
    categories: tuple[str, ...] = ()
    rows: int = 0
    stream_rows: tuple[int, ...] = ()
    backwards: int = 0
    time_range: tuple[int, int] | None = None
    shards: tuple[Shard, ...] = ()
    closed: bool = False
    provenance: dict[str, str] = {}


class _Version(msgspec.Struct):
    schema: int


def read_manifest(folder: Path) -> Manifest:
    """Read `folder`/manifest.json.

    Raises InputError if there is no recording, IntegrityError if it is damaged or newer than us.
    """
    path = folder / NAME
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"{folder} is no recording: a recording is a folder that holds {NAME}"
        ) from None
    try:
        schema = msgspec.json.decode(text, type=_Version).schema
        if schema > SCHEMA:
            raise IntegrityError(
                f"{path}: schema {schema} is newer than {SCHEMA}, the newest this version reads; "
                "upgrade adaptive-sleep"
            )
        manifest = msgspec.json.decode(text, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise IntegrityError(f"{path}: damaged or not a manifest: {error}") from None
    _check(path, manifest)
    return manifest


def _check(path: Path, manifest: Manifest) -> None:
    rows = sum(shard.rows for shard in manifest.shards)
    if manifest.rows != rows or sum(manifest.stream_rows) != rows:
        raise IntegrityError(
            f"{path}: rows={manifest.rows}, but the shards add up to {rows} and the streams to "
            f"{sum(manifest.stream_rows)}; the manifest was changed by hand or is damaged"
        )
    if len(manifest.streams) != len(manifest.stream_rows):
        raise IntegrityError(f"{path}: streams and stream_rows differ in length")
    for shard in manifest.shards:
        if Path(shard.file).name != shard.file:
            raise IntegrityError(f"{path}: shard {shard.file!r} lies outside the recording")


def unnamed_files(folder: Path, manifest: Manifest) -> tuple[str, ...]:
    """Shards and temporary files that a killed writer left, and that the manifest does not name."""
    named = {shard.file for shard in manifest.shards}
    left = [*folder.glob("part-*.parquet"), *folder.glob("*" + TEMPORARY)]
    return tuple(sorted(path.name for path in left if path.name not in named))


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Replace the manifest of `folder` in one step that survives a kill or a power cut."""
    write_atomically(folder / NAME, msgspec.json.format(msgspec.json.encode(manifest), indent=1))


def recording_sha256(manifest: Manifest, shards: tuple[Shard, ...]) -> str:
    """Hash of what a recording says: its schema and the hashes of `shards`, in order."""
    described = (
        manifest.schema,
        manifest.kind,
        manifest.channels,
        manifest.streams,
        manifest.tokenizer,
        manifest.vocabulary,
        manifest.categories,
        [shard.sha256 for shard in shards],
    )
    return hashlib.sha256(msgspec.json.encode(described)).hexdigest()


def write_atomically(path: Path, data: bytes | memoryview) -> None:
    """Write `data` to `path`: all of it or nothing, on the disk when this returns.

    Raises AdaptiveSleepError when the disk is full; what was at `path` is then untouched.
    """
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise AdaptiveSleepError(
                f"{path}: the disk is full ({len(data):,} bytes were to be written); "
                "what was written before is whole and readable"
            ) from error
        raise


def write_file(target: Path, data: bytes) -> Path:
    """Write a file whole or not at all; returns its path.

    Raises InputError where the folder does not exist, AdaptiveSleepError where it cannot be
    written (a full disk); then nothing is left.
    """
    if not target.parent.is_dir():
        raise InputError(f"{target}: the folder {target.parent} does not exist")
    try:
        write_atomically(target, data)
    except OSError as error:
        raise AdaptiveSleepError(f"{target}: cannot be written: {error.strerror}") from error
    return target


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` that becomes `out` on a clean exit, and is gone on any other, with the
    parent folders that were made for it. Where a kill left one, the next for the same `out` removes
    it.

    Raises InputError if `out` exists and is no empty folder, or is one that nothing can replace;
    AdaptiveSleepError if it became one meanwhile.
    """
    target = _replaceable(out)
    made: list[Path] = []
    beside = target.parent / f".{target.name}.{os.getpid()}{TEMPORARY}"
    part = beside / target.name  # within what is held, since its writer holds it itself
    try:
        with contextlib.ExitStack() as ours:
            try:
                _make_parents(target, made)
                _remove_abandoned(target)
                try:
                    _take(beside, part, ours)
                except FileNotFoundError:  # another removed it before it was held
                    _take(beside, part, ours)
            except OSError as error:
                raise InputError(f"{out}: cannot be made there: {error.strerror}") from None
            yield part
            try:
                os.replace(part, target)
            except OSError as error:
                raise AdaptiveSleepError(
                    f"{out}: cannot be put in place: {error.strerror}"
                ) from error
        sync_folder(target.parent)
    except BaseException:
        for parent in reversed(made):
            with contextlib.suppress(OSError):  # what is not empty is no longer ours alone
                parent.rmdir()
        raise


def _take(beside: Path, part: Path, ours: contextlib.ExitStack) -> None:
    """Make and hold a folder that goes with `ours`, and in it a new one, `part`."""
    beside.mkdir(exist_ok=True)
    ours.enter_context(held(beside))
    ours.callback(shutil.rmtree, beside, ignore_errors=True)
    part.mkdir()


def _remove_abandoned(target: Path) -> None:
    """Remove what killed writers left beside `target`; where a lock cannot tell, it stays."""
    left = re.compile(rf"\.{re.escape(target.name)}\.\d+{re.escape(TEMPORARY)}")
    with contextlib.suppress(OSError):  # such as a folder that may not be listed
        for path in target.parent.iterdir():
            if left.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
                with contextlib.suppress(OSError):
                    _remove_unheld(path)


def _remove_unheld(folder: Path) -> None:
    """Remove a folder; raises OSError where another holds it, or where that cannot be told."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(handle)


def _replaceable(out: Path) -> Path:
    """Where `out` leads, links followed; raises InputError unless a folder can be put there."""
    refuse_existing(out)
    try:
        target = out.resolve()
    except (OSError, RuntimeError) as error:  # links that go in a circle
        raise InputError(f"{out}: leads nowhere: {error}") from None
    if os.path.ismount(target) or (target.exists() and target.samefile(Path.cwd())):
        what = "where a disk is mounted" if os.path.ismount(target) else "the working folder"
        raise InputError(f"{out}: {what} cannot be replaced; name a folder within it")
    return target


def _make_parents(target: Path, made: list[Path]) -> None:
    """Make the parent folders of `target` that are missing, and add each to `made`."""
    missing = [parent for parent in target.parents if not parent.exists()]
    for parent in reversed(missing):
        parent.mkdir(exist_ok=True)
        made.append(parent)


@contextlib.contextmanager
def held(folder: Path, field: str = "out") -> Iterator[None]:
    """Hold an existing folder, so that no other writer, of this process or another, is there; where
    its file system knows no such lock (some network ones), nothing is held. Raises InputError that
    names `field` where another holds it."""
    handle = os.open(folder, os.O_RDONLY)
    owner = os.getpid()
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"{field}={str(folder)!r}: another process is writing there, or another writer of "
                "this one; wait for it, or name another folder"
            ) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        yield
    finally:
        if os.getpid() == owner:  # a fork shares the lock, so that closing alone would leave it
            with contextlib.suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_UN)
        os.close(handle)


def refuse_existing(out: Path) -> None:
    """Raise InputError if `out` exists and is no empty folder."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists already; choose another path, or append to a recording")


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
