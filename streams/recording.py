"""Reading a recording: verify it, scan it, walk through it in blocks of bounded size.

Writing is in `writer`; cutting rows into windows is in `cutting`.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from .errors import AdaptiveSleepError, InputError, IntegrityError
from .events import Block, Channel
from .manifest import (
    NAME,
    Kind,
    Manifest,
    Shard,
    read_manifest,
    recording_sha256,
    unnamed_files,
)
from .rows import NEVER


@dataclass(frozen=True)
class Recording:
    """An event log on disk that replays exactly; make one with `Recording.open`.

    `streams` are in order of first appearance. `left_out` names a cut-off last shard, `orphans`
    names files that no manifest entry knows, `warnings` says both in words.
    """

    path: Path
    manifest: Manifest
    channels: tuple[Channel, ...]
    streams: tuple[str, ...]
    rows: int
    sha256: str
    left_out: tuple[str, ...] = ()
    orphans: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    _shards: tuple[Shard, ...] = field(default=(), repr=False)

    @staticmethod
    def open(path: str | os.PathLike[str], *, verify: bool = True) -> Recording:
        """Open the recording at `path`; with `verify`, hash every shard.

        Raises InputError if there is none, IntegrityError if a shard is missing or changed or the
        schema is newer. A last shard that was cut off is left out, with a warning that names it.
        """
        folder = Path(path)
        manifest, shards, left_out = _settled(folder, verify)
        if left_out and not shards:
            raise IntegrityError(f"{folder}: {left_out[0]}, its only shard, is cut off")
        orphans = unnamed_files(folder, manifest)
        notes = [f"{name} is cut off and was left out" for name in left_out]
        if not manifest.closed:
            notes.append(
                "not closed: still being written, or its writer was killed; rows after "
                "the last flush are not in it"
            )
        for note in notes:
            warnings.warn(f"{folder}: {note}", stacklevel=2)
        if orphans:
            notes.append(f"files that the manifest does not name: {', '.join(orphans)}")
        return Recording(
            path=folder,
            manifest=manifest,
            channels=tuple(entry.channel() for entry in manifest.channels),
            streams=manifest.streams,
            rows=sum(shard.rows for shard in shards),
            sha256=recording_sha256(manifest, shards),
            left_out=left_out,
            orphans=orphans,
            warnings=tuple(notes),
            _shards=shards,
        )

    @property
    def kind(self) -> Kind:
        """Series or tokens."""
        return self.manifest.kind

    @property
    def inputs(self) -> tuple[Channel, ...]:
        """Channels that a model may see: observed and action, in the manifest's order."""
        return tuple(channel for channel in self.channels if channel.role != "label")

    @property
    def labels(self) -> tuple[Channel, ...]:
        """Channels that no model and no policy sees."""
        return tuple(channel for channel in self.channels if channel.role == "label")

    def scan(self) -> pl.LazyFrame:
        """All rows in arrival order, lazily. Raises AdaptiveSleepError as `blocks` does."""
        if not self._shards:
            return pl.LazyFrame(schema=self._schema())
        for shard in self._shards:
            self._refuse_merged(shard)
        files = [self._file(shard) for shard in self._shards]
        return pl.scan_parquet(files, glob=False)

    def blocks(
        self, *, start: int = 0, stop: int | None = None, rows: int = 65_536
    ) -> Iterator[Block]:
        """Rows `start` to `stop` (default: the last) in blocks of at most `rows`.

        Holds one shard in memory at a time; a block does not reach over the end of its shard.
        Raises IntegrityError for a damaged shard, AdaptiveSleepError where the recording was still
        being written when it was opened, and its writer has merged the shard since.
        """
        if start < 0 or rows < 1:
            raise InputError(f"start={start}, rows={rows}: start is at least 0 and rows at least 1")
        end = self.rows if stop is None else min(stop, self.rows)
        first = 0
        for shard in self._shards:
            low, high = max(start, first), min(end, first + shard.rows)
            if low < high:
                frame = self._read(shard, low - first, high - low)
                for at in range(0, high - low, rows):
                    yield self._block(frame.slice(at, rows), low + at)
            first += shard.rows

    def trimmed_manifest(self) -> Manifest:
        """The manifest of the rows that are whole; it differs only where a shard was left out."""
        if not self.left_out:
            return self.manifest
        per_stream = dict.fromkeys(self.streams, 0)
        counted = self.scan().group_by("stream").agg(pl.len()).collect(engine="streaming")
        per_stream.update(counted.iter_rows())
        first, last = (
            self.scan()
            .select(pl.col("time").min().alias("first"), pl.col("time").max().alias("last"))
            .cast(pl.Int64)
            .collect(engine="streaming")
            .row(0)
        )
        return msgspec.structs.replace(
            self.manifest,
            shards=self._shards,
            rows=self.rows,
            stream_rows=tuple(per_stream.values()),
            time_range=None if first is None else (first, last),
            backwards=self._backwards(),
            closed=False,
        )

    def last_times(self) -> NDArray[np.int64]:
        """The time `[streams]` of each stream's last row, in ns; `rows.NEVER` where it has none.

        Raises IntegrityError for a stream that the manifest does not name.
        """
        codes = {name: i for i, name in enumerate(self.streams)}
        found = np.full(len(self.streams), NEVER, np.int64)
        last = self.scan().group_by("stream").agg(pl.col("time").last().cast(pl.Int64))
        for name, time in last.collect(engine="streaming").iter_rows():
            if name not in codes:
                raise self._unnamed()
            found[codes[name]] = time
        return found

    def _unnamed(self) -> IntegrityError:
        return IntegrityError(
            f"{self.path}: holds streams that {NAME} does not name; it was changed by hand or is "
            "damaged"
        )

    def _backwards(self) -> int:
        step = pl.col("time").diff().over("stream") < pl.duration(nanoseconds=0)
        return int(self.scan().select(step.sum()).collect().item() or 0)

    def _schema(self) -> dict[str, pl.DataType]:
        schema: dict[str, pl.DataType] = {
            "stream": pl.String(),
            "sequence": pl.Int64(),
            "time": pl.Datetime("ns", "UTC"),
        }
        if self.kind == "tokens":
            schema["token"] = pl.Int32()
        return schema | {channel.name: pl.Float32() for channel in self.channels}

    def _file(self, shard: Shard) -> Path:
        """Where a shard lies, absolute: polars would take a leading ~ for the home folder."""
        return self.path.absolute() / shard.file

    def _read(self, shard: Shard, offset: int, rows: int) -> pl.DataFrame:
        path = self.path / shard.file
        try:
            frame = pl.scan_parquet(self._file(shard), glob=False).slice(offset, rows).collect()
        except (pl.exceptions.PolarsError, OSError) as error:
            self._refuse_merged(shard)
            raise IntegrityError(f"{path}: cannot be read: {error}") from error
        if dict(frame.schema) != self._schema() or len(frame) != rows:
            raise IntegrityError(f"{path}: columns or rows differ from the manifest")
        return frame

    def _refuse_merged(self, shard: Shard) -> None:
        """Raise AdaptiveSleepError where a writer has put another shard in the place of this."""
        if (self.path / shard.file).exists() or shard in read_manifest(self.path).shards:
            return
        raise AdaptiveSleepError(
            f"{self.path}: was being written when it was opened, and its writer has merged "
            f"{shard.file} with others since; open it again"
        )

    def _block(self, frame: pl.DataFrame, start: int) -> Block:
        try:
            index = frame["stream"].cast(pl.Enum(self.streams)).to_physical()
        except (pl.exceptions.PolarsError, ValueError) as error:  # also of one name given twice
            raise self._unnamed() from error
        values = tokens = None
        if self.channels:
            names = [channel.name for channel in self.channels]
            values = frame[names].to_numpy(order="c").astype(np.float32, copy=False)
        if self.kind == "tokens":
            tokens = frame["token"].to_numpy().astype(np.int64)
        return Block(
            start=start,
            stream=index.to_numpy().astype(np.int64),
            sequence=frame["sequence"].to_numpy(),
            time=frame["time"].to_physical().to_numpy(),
            values=values,
            tokens=tokens,
        )


def _settled(folder: Path, verify: bool) -> tuple[Manifest, tuple[Shard, ...], tuple[str, ...]]:
    """The manifest with its shards as below; read again where a writer merges them meanwhile."""
    manifest = read_manifest(folder)
    while True:
        try:
            return manifest, *_whole_shards(folder, manifest, verify)
        except (IntegrityError, FileNotFoundError):
            before, manifest = manifest, read_manifest(folder)
            if manifest.shards[: len(before.shards)] == before.shards:  # no writer's doing
                raise


def _whole_shards(
    folder: Path, manifest: Manifest, verify: bool
) -> tuple[tuple[Shard, ...], tuple[str, ...]]:
    """The shards that are whole, and the name of the last one if it was cut off."""
    for position, shard in enumerate(manifest.shards):
        path = folder / shard.file
        if not path.is_file():
            raise IntegrityError(f"{path}: this shard is missing")
        size = path.stat().st_size
        if size < shard.bytes and position == len(manifest.shards) - 1:
            return manifest.shards[:-1], (shard.file,)
        if size != shard.bytes:
            raise IntegrityError(f"{path}: {size} bytes, but the manifest says {shard.bytes}")
        if verify:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != shard.sha256:
                raise IntegrityError(
                    f"{path}: SHA-256 is {found[:12]}..., but the manifest says "
                    f"{shard.sha256[:12]}...; the shard was changed or is damaged"
                )
    return manifest.shards, ()
