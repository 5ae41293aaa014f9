"""Writing a recording: rows are buffered, flushed as shards, and compacted when it is closed.

A kill at any moment loses only rows that were not flushed. Reading is in `recording`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import os
import time as clock
import warnings
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

import msgspec
import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from .errors import AdaptiveSleepError, InputError, nearest
from .events import Channel, checked_name
from .given import given_path
from .manifest import (
    NAME,
    Kind,
    Manifest,
    Shard,
    held,
    read_manifest,
    refuse_existing,
    sync_folder,
    unnamed_files,
    write_atomically,
    write_manifest,
)
from .rows import (
    MOST_NS,
    NEVER,
    Rows,
    checked_names,
    checked_time,
    checked_tokens,
    checked_values,
    columns,
    joined,
    numbered,
    rows_within,
    steps_back,
)
from .schema import (
    check_extension,
    checked_categories,
    checked_schema,
    checked_seconds,
    checked_whole,
    entries,
    extended,
)

_SHARD_ROWS = 262_144
_SMALL_SHARDS = 64  # so many small shards at the end are merged, so that the manifest stays short


class RecordingWriter:
    """Writes one recording; use it as a context manager.

    A clean exit flushes, compacts and closes; an exception or an interrupt flushes, and what killed
    the process keeps what was flushed: every `shard_rows` rows (default: 262,144, or what 128 MiB
    hold) and, if given, `flush_seconds`, for which `append` and `tick` look at the clock. With
    `append`, an existing recording of the same schema goes on after its last whole shard; a channel
    may name more categories, the provenance more keys. The folder is held until the writer is
    closed. Warns once for a channel in which float32 has rounded a whole number.

    Raises InputError for an existing path, one below a file, one that another writer holds, a
    schema that differs, or one that no reader could open; nothing is written then.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        kind: Kind,
        channels: Sequence[Channel] = (),
        tokenizer: str | None = None,
        vocabulary: int | None = None,
        categories: Sequence[str] = (),
        provenance: Mapping[str, str] | None = None,
        shard_rows: int | None = None,
        append: bool = False,
        flush_seconds: float | None = None,
    ) -> None:
        if shard_rows is not None:
            shard_rows = checked_whole("shard_rows", shard_rows, 1, MOST_NS, "the greatest int64")
        if flush_seconds is not None:
            flush_seconds = checked_seconds("flush_seconds", flush_seconds)
        wanted = checked_schema(
            kind=kind,
            channels=channels,
            tokenizer=tokenizer,
            vocabulary=vocabulary,
            categories=categories,
            provenance=provenance,
        )
        self.path = given_path("path", path)
        self.channels = tuple(entry.channel() for entry in wanted.channels)
        self._shard_rows = shard_rows or rows_within(len(self.channels), _SHARD_ROWS)
        self._flush_seconds = flush_seconds
        self._rounded: set[str] = set()  # channels of which that is said
        self._last_time = np.zeros(0, np.int64)  # of every stream, before what is pending
        with contextlib.ExitStack() as lock:  # let go where the rest fails
            begin = self._resume if append and self._exists() else self._create
            self._manifest = begin(wanted, lock)
            self._lock = lock.pop_all()
        self._serial = _next_serial(self._manifest)
        self._index = {name: i for i, name in enumerate(self._manifest.streams)}
        self._pending: list[Rows] = []
        self._pending_rows = 0
        self._pending_from = self._manifest.rows  # the rows of the recording before them
        self._flushed_at = clock.monotonic()
        self._open = True

    # ---- rows -------------------------------------------------------------------------------

    def append(
        self,
        stream: str,
        time_ns: ArrayLike,
        *,
        values: ArrayLike | None = None,
        tokens: ArrayLike | None = None,
    ) -> None:
        """Add one event, or `[n]` events, of one stream in arrival order.

        `time_ns` `[n]` int64 (ns UTC); `values` `[n, C]` in the order of the channels, NaN =
        missing; `tokens` `[n]`. Raises InputError, and then nothing was added.
        """
        time = checked_time(time_ns)
        self._add([stream], np.zeros(len(time), np.int64), time, values, tokens)

    def append_rows(
        self,
        streams: Sequence[str] | pl.Series,
        time_ns: ArrayLike,
        *,
        values: ArrayLike | None = None,
        tokens: ArrayLike | None = None,
    ) -> None:
        """Add `[n]` events of any streams, `streams` `[n]` naming them; else as `append`."""
        time = checked_time(time_ns)
        named = checked_names(streams, len(time))
        names = named.unique(maintain_order=True).to_list()
        codes = named.cast(pl.Enum(names)).to_physical().to_numpy().astype(np.int64)
        self._add(names, codes, time, values, tokens)

    def _add(
        self,
        names: list[str],
        local: NDArray[np.int64],
        time: NDArray[np.int64],
        values: ArrayLike | None,
        tokens: ArrayLike | None,
    ) -> None:
        if not self._open:
            raise InputError(f"{self.path}: this writer is closed; open it with append=True")
        names = [checked_name(name) for name in names]
        array = checked_values(values, len(time), self.channels, self._manifest.kind, self._rounded)
        ids = checked_tokens(tokens, len(time), self._manifest)
        if len(time) == 0:
            return
        for name in names:
            self._index.setdefault(name, len(self._index))
        codes = np.array([self._index[name] for name in names], dtype=np.int64)[local]
        self._pending.append(Rows(codes, time, array, ids))
        self._pending_rows += len(time)
        if self._pending_rows >= self._shard_rows:
            self.flush()
        self.tick()

    def name_categories(self, channel: str, categories: Sequence[str]) -> None:
        """Name the codes 0..n-1 of a label channel; the manifest has them from the next flush.

        Raises InputError where a code that has a name would lose it.
        """
        labels = {known.name: known for known in self.channels if known.role == "label"}
        if channel not in list(labels):
            raise InputError(f"no label channel {channel!r}{nearest(str(channel), labels)}")
        named = checked_categories(f"channel {channel!r}: categories", categories)
        check_extension(channel, labels[channel].categories, named)
        self.channels = tuple(
            dataclasses.replace(known, categories=named) if known.name == channel else known
            for known in self.channels
        )

    # ---- shards -----------------------------------------------------------------------------

    def tick(self) -> None:
        """Flush if `flush_seconds` have passed and something is pending; once closed, do nothing.

        Call it now and then where no event may come for a while. Raises as `flush` does.
        """
        if not self._open or not self._pending_rows or self._flush_seconds is None:
            return
        if clock.monotonic() - self._flushed_at >= self._flush_seconds:
            self.flush()

    def flush(self) -> None:
        """Write pending rows as shards; they survive a kill once this returns.

        Raises AdaptiveSleepError when the disk is full; the rows that did not fit stay pending.
        """
        self._flushed_at = clock.monotonic()
        self._pending_rows = sum(map(len, self._pending))  # an interrupt leaves some uncounted
        self._forget_written()
        while self._pending:
            self._pending = [joined(self._pending)]
            self._write(self._pending[0][: self._shard_rows])
            self._forget_written()
        if len(self._small_tail()) >= _SMALL_SHARDS:
            self._compact(self._small_tail())

    def _forget_written(self) -> None:
        """Let go of rows that the manifest has, also where an interrupt came right after it."""
        written = self._manifest.rows - self._pending_from
        if not written:
            return
        rows = joined(self._pending)
        rest, done = rows[written:], rows[:written]
        last = _longer(self._last_time, len(self._manifest.streams))
        last[done.stream] = done.time  # of a stream's rows the last one's stays
        left, begin = [rest] if len(rest) else [], self._manifest.rows
        self._last_time = last  # first: interrupted here, all this is done again
        self._pending, self._pending_rows, self._pending_from = left, len(rest), begin

    def _write(self, rows: Rows) -> None:
        """Publish one more shard."""
        sequence, manifest = self._counted(rows)
        shard = self._write_shard(columns(rows, sequence, manifest.streams, self.channels))
        self._publish(msgspec.structs.replace(manifest, shards=(*manifest.shards, shard)))

    def _counted(self, rows: Rows) -> tuple[NDArray[np.int64], Manifest]:
        """Their numbers `[n]` within their streams, and the manifest that counts them."""
        had = self._manifest
        streams = max(len(had.streams), int(rows.stream.max()) + 1)
        counts = np.zeros(streams, np.int64)
        counts[: len(had.streams)] = had.stream_rows
        counted = counts + np.bincount(rows.stream, minlength=streams)
        times = [*(had.time_range or ()), int(rows.time.min()), int(rows.time.max())]
        return numbered(rows, counts), msgspec.structs.replace(
            had,
            streams=tuple(self._index)[:streams],
            stream_rows=tuple(counted.tolist()),
            backwards=had.backwards + steps_back(rows, _longer(self._last_time, streams)),
            time_range=(min(times), max(times)),
            closed=False,
        )

    def close(self) -> None:
        """Flush, merge small shards, mark the recording as closed, and let go of its folder."""
        if not self._open:
            return
        self.flush()
        self._compact(self._manifest.shards)
        self._publish(msgspec.structs.replace(self._manifest, closed=True))
        for name in unnamed_files(self.path, self._manifest):  # of a flush that was interrupted
            (self.path / name).unlink(missing_ok=True)
        self._open = False
        self._lock.close()

    def _write_shard(self, frame: pl.DataFrame, level: int = 3) -> Shard:
        buffer = io.BytesIO()  # in memory first: a full disk is then our own OSError to handle
        frame.write_parquet(buffer, compression="zstd", compression_level=level)
        data = buffer.getbuffer()
        name = f"part-{self._serial:06d}.parquet"
        write_atomically(self.path / name, data)
        self._serial += 1
        return Shard(name, len(frame), len(data), hashlib.sha256(data).hexdigest())

    def _publish(self, manifest: Manifest) -> None:
        """Write a manifest, its rows and channels as they now are; where that fails, remove new
        shards that none names."""
        rows = sum(shard.rows for shard in manifest.shards)
        channels = entries(self.channels)
        manifest = msgspec.structs.replace(manifest, rows=rows, channels=channels)
        try:
            write_manifest(self.path, manifest)
        except BaseException:
            self._remove(set(manifest.shards) - set(self._manifest.shards))
            raise
        self._manifest = manifest

    def _remove(self, shards: set[Shard]) -> None:
        """Remove shards, but for those that the manifest on the disk names: it may be the new one,
        where what came after it failed."""
        named = set(read_manifest(self.path).shards) if shards else shards
        for shard in shards - named:
            (self.path / shard.file).unlink(missing_ok=True)

    def _small_tail(self) -> tuple[Shard, ...]:
        shards = self._manifest.shards
        first = len(shards)
        while first and shards[first - 1].rows * 2 <= self._shard_rows:
            first -= 1
        return shards[first:]

    def _compact(self, tail: tuple[Shard, ...]) -> None:
        """Merge neighbours of `tail` up to `shard_rows`; the old files go after the manifest."""
        groups: list[list[Shard]] = []
        for shard in tail:
            if groups and sum(s.rows for s in groups[-1]) + shard.rows <= self._shard_rows:
                groups[-1].append(shard)
            else:
                groups.append([shard])
        if len(groups) == len(tail):
            return
        merged: list[Shard] = []
        kept = self._manifest.shards[: len(self._manifest.shards) - len(tail)]
        try:
            for group in groups:
                merged.append(group[0] if len(group) == 1 else self._merge(group))
            self._publish(msgspec.structs.replace(self._manifest, shards=(*kept, *merged)))
        except AdaptiveSleepError:  # no room to merge: the small shards stay, and are whole
            self._remove(set(merged) - set(tail))
            return
        for shard in set(tail) - set(merged):
            (self.path / shard.file).unlink(missing_ok=True)
        sync_folder(self.path)

    def _merge(self, group: list[Shard]) -> Shard:
        files = [self.path.absolute() / shard.file for shard in group]
        frames = [pl.read_parquet(file, glob=False) for file in files]
        return self._write_shard(pl.concat(frames), level=12)

    # ---- beginning and end ------------------------------------------------------------------

    def _exists(self) -> bool:
        return (self.path / NAME).exists()

    def _create(self, manifest: Manifest, lock: contextlib.ExitStack) -> Manifest:
        refuse_existing(self.path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:  # a file is in the way
            raise InputError(f"{self.path}: cannot be made there: {error.strerror}") from None
        lock.enter_context(held(self.path, "path"))
        refuse_existing(self.path)  # again: another may have begun and closed it meanwhile
        write_manifest(self.path, manifest)
        return manifest

    def _resume(self, wanted: Manifest, lock: contextlib.ExitStack) -> Manifest:
        from .recording import Recording  # reading what is there needs the reader

        lock.enter_context(held(self.path, "path"))
        joint = extended(read_manifest(self.path), wanted, self.path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # said below, with what is done about it
            recording = Recording.open(self.path)
        dropped = [*recording.left_out, *recording.orphans]
        if dropped:
            warnings.warn(
                f"{self.path}: appending after row {recording.rows}; dropped {', '.join(dropped)} "
                "(cut off, or never finished)",
                stacklevel=3,
            )
        self.channels = tuple(entry.channel() for entry in joint.channels)
        kept = recording.trimmed_manifest()
        self._last_time = recording.last_times()
        found = msgspec.structs.replace(
            kept, channels=joint.channels, provenance=joint.provenance, closed=False
        )
        write_manifest(self.path, found)
        for name in dropped:
            (self.path / name).unlink(missing_ok=True)
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close; after an error or an interrupt keep what was appended and leave it unclosed, so
        that `append=True` goes on."""
        try:
            if error is None:
                self.close()
            elif self._open:
                self.flush()
        except Exception as second:
            if error is None:
                raise
            # The first error is the one to know of.
            error.add_note(f"{self._pending_rows} rows could not be written either: {second}")
        finally:
            self._open = False
            self._lock.close()


def _next_serial(manifest: Manifest) -> int:
    return max((int(s.file.split("-")[1].split(".")[0]) for s in manifest.shards), default=-1) + 1


def _longer(last: NDArray[np.int64], streams: int) -> NDArray[np.int64]:
    """The last times `[streams]`, those of new streams as `Recording.last_times` has them."""
    return np.pad(last, (0, streams - len(last)), constant_values=NEVER)
