"""Writing a recording: rows are buffered, flushed as shards, and compacted when it is closed.

A kill at any moment loses only rows that were not flushed. Reading is in `recording`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import itertools
import os
import time as clock
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from .errors import AdaptiveSleepError, InputError, nearest
from .events import Channel, checked_name
from .manifest import (
    NAME,
    Kind,
    Manifest,
    Shard,
    held,
    read_manifest,
    refuse_existing,
    sync_folder,
    write_atomically,
    write_manifest,
)
from .rows import (
    Rows,
    checked_names,
    checked_time,
    checked_tokens,
    checked_values,
    columns,
    rows_within,
)
from .schema import check_extension, checked_categories, checked_schema, entries, extended

_SHARD_ROWS = 262_144
_SMALL_SHARDS = 64  # so many small shards at the end are merged, so that the manifest stays short


class RecordingWriter:
    """Writes one recording; use it as a context manager.

    A clean exit flushes, compacts and closes; an exception or an interrupt flushes, and what killed
    the process keeps what was flushed: every `shard_rows` rows (default: 262,144, or what 128 MiB
    hold) and, if given, `flush_seconds`, for which `append` and `tick` look at the clock. With
    `append`, an existing recording of the same schema goes on after its last whole shard; a channel
    may name more categories. The folder is held until the writer is closed.

    Raises InputError for an existing path, one that another writer holds, a schema that differs, or
    one that no reader could open; nothing is written then.
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
        if shard_rows is not None and shard_rows < 1:
            raise InputError(f"shard_rows={shard_rows}: a shard holds at least 1 row")
        wanted = checked_schema(
            kind=kind,
            channels=channels,
            tokenizer=tokenizer,
            vocabulary=vocabulary,
            categories=categories,
            provenance=provenance,
        )
        self.path = Path(path)
        self.channels = tuple(entry.channel() for entry in wanted.channels)
        self._shard_rows = shard_rows or rows_within(len(self.channels), _SHARD_ROWS)
        self._flush_seconds = flush_seconds
        with contextlib.ExitStack() as lock:  # let go where the rest fails
            begin = self._resume if append and self._exists() else self._create
            self._manifest = begin(wanted, lock)
            self._last_time = _last_times(self.path, self._manifest)
            self._lock = lock.pop_all()
        self._serial = _next_serial(self._manifest)
        self._index = {name: i for i, name in enumerate(self._manifest.streams)}
        self._counts = list(self._manifest.stream_rows)
        self._backwards = self._manifest.backwards
        self._pending: list[Rows] = []
        self._writing: list[Shard] = []  # of what is pending, while their manifest is written
        self._pending_rows = 0
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
        array = checked_values(values, len(time), self.channels, self._manifest.kind)
        ids = checked_tokens(tokens, len(time), self._manifest)
        if len(time) == 0:
            return
        for name in names:
            if name not in self._index:
                self._index[name] = len(self._index)
                self._counts.append(0)
        codes = np.array([self._index[name] for name in names], dtype=np.int64)[local]
        streams = _by_stream(codes)
        sequence = np.empty(len(codes), np.int64)
        for code, rows in streams:
            sequence[rows] = np.arange(self._counts[code], self._counts[code] + len(rows))
        self._pending.append(Rows(codes, sequence, time, array, ids))
        self._count(streams, time)
        if self._pending_rows >= self._shard_rows:
            self.flush()
        self.tick()

    def _count(
        self, streams: Sequence[tuple[int, NDArray[np.int64]]], time: NDArray[np.int64]
    ) -> None:
        """Count rows by stream, and steps back in time."""
        self._pending_rows += len(time)
        for code, rows in streams:
            times = time[rows]
            before = self._last_time.get(code, int(times[0]))
            self._backwards += int(np.count_nonzero(times[1:] < times[:-1]) + (times[0] < before))
            self._last_time[code] = int(times[-1])
            self._counts[code] += len(rows)

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

        Raises AdaptiveSleepError when the disk is full; the rows stay pending.
        """
        self._flushed_at = clock.monotonic()
        self._forget_written()
        if self._pending_rows:
            frame = columns(self._pending, list(self._index), self.channels)
            shards = [
                self._write_shard(frame.slice(first, self._shard_rows))
                for first in range(0, len(frame), self._shard_rows)
            ]
            low = min(int(rows.time.min()) for rows in self._pending)
            high = max(int(rows.time.max()) for rows in self._pending)
            if self._manifest.time_range is not None:
                low = min(low, self._manifest.time_range[0])
                high = max(high, self._manifest.time_range[1])
            self._writing = shards
            self._publish((*self._manifest.shards, *shards), (low, high))
            self._forget_written()
        if len(self._small_tail()) >= _SMALL_SHARDS:
            self._compact(self._small_tail())

    def _forget_written(self) -> None:
        """Let go of rows that a flush has written, also one that was interrupted right after."""
        if self._writing and self._writing[-1] in self._manifest.shards:
            self._pending, self._pending_rows, self._writing = [], 0, []

    def close(self) -> None:
        """Flush, merge small shards, mark the recording as closed, and let go of its folder."""
        if not self._open:
            return
        self.flush()
        self._compact(self._manifest.shards)
        self._publish(self._manifest.shards, self._manifest.time_range, closed=True)
        self._open = False
        self._lock.close()

    def _keep(self) -> None:
        """Flush after an error, wherever it came: an interrupt may have left an append counted in
        part, or a flush that is written and not yet forgotten."""
        self._forget_written()
        counts = np.zeros(len(self._index), np.int64)
        counts[: len(self._manifest.stream_rows)] = self._manifest.stream_rows
        for rows in self._pending:
            counts += np.bincount(rows.stream, minlength=len(counts))
        self._counts = counts.tolist()
        self._pending_rows = sum(len(rows.stream) for rows in self._pending)
        self.flush()

    def _write_shard(self, frame: pl.DataFrame, level: int = 3) -> Shard:
        buffer = io.BytesIO()  # in memory first: a full disk is then our own OSError to handle
        frame.write_parquet(buffer, compression="zstd", compression_level=level)
        data = buffer.getbuffer()
        name = f"part-{self._serial:06d}.parquet"
        write_atomically(self.path / name, data)
        self._serial += 1
        return Shard(name, len(frame), len(data), hashlib.sha256(data).hexdigest())

    def _publish(
        self, shards: tuple[Shard, ...], time_range: tuple[int, int] | None, closed: bool = False
    ) -> None:
        manifest = msgspec.structs.replace(
            self._manifest,
            channels=entries(self.channels),
            streams=tuple(self._index),
            stream_rows=tuple(self._counts),
            rows=sum(shard.rows for shard in shards),
            backwards=self._backwards,
            time_range=time_range,
            shards=shards,
            closed=closed,
        )
        write_manifest(self.path, manifest)
        self._manifest = manifest

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
        merged: list[Shard] = []
        try:
            for group in groups:
                merged.append(group[0] if len(group) == 1 else self._merge(group))
        except AdaptiveSleepError:  # no room to merge: the small shards stay, and are whole
            for shard in set(merged) - set(tail):
                (self.path / shard.file).unlink()
            return
        if len(merged) == len(tail):
            return
        kept = self._manifest.shards[: len(self._manifest.shards) - len(tail)]
        self._publish((*kept, *merged), self._manifest.time_range)
        for shard in set(tail) - set(merged):
            (self.path / shard.file).unlink(missing_ok=True)
        sync_folder(self.path)

    def _merge(self, group: list[Shard]) -> Shard:
        frames = [pl.read_parquet(self.path / shard.file, glob=False) for shard in group]
        return self._write_shard(pl.concat(frames), level=12)

    # ---- beginning and end ------------------------------------------------------------------

    def _exists(self) -> bool:
        return (self.path / NAME).exists()

    def _create(self, manifest: Manifest, lock: contextlib.ExitStack) -> Manifest:
        refuse_existing(self.path)
        self.path.mkdir(parents=True, exist_ok=True)
        lock.enter_context(held(self.path, "path"))
        refuse_existing(self.path)  # again: another may have begun and closed it meanwhile
        write_manifest(self.path, manifest)
        return manifest

    def _resume(self, wanted: Manifest, lock: contextlib.ExitStack) -> Manifest:
        from .recording import Recording  # reading what is there needs the reader

        lock.enter_context(held(self.path, "path"))
        named = extended(read_manifest(self.path), wanted, self.path).channels
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
        self.channels = tuple(entry.channel() for entry in named)
        kept = recording.trimmed_manifest()
        found = msgspec.structs.replace(kept, channels=named, closed=False)
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
                self._keep()
        except Exception as second:
            if error is None:
                raise
            # The first error is the one to know of.
            error.add_note(f"{self._pending_rows} rows could not be written either: {second}")
        finally:
            self._open = False
            self._lock.close()


def _by_stream(codes: NDArray[np.int64]) -> list[tuple[int, NDArray[np.int64]]]:
    """Each stream's code and its rows, in order."""
    order = np.argsort(codes, kind="stable")
    present, first = np.unique(codes[order], return_index=True)
    ends = [*first.tolist(), len(codes)]
    pairs = itertools.pairwise(ends)
    return [(code, order[a:b]) for code, (a, b) in zip(present.tolist(), pairs, strict=True)]


def _next_serial(manifest: Manifest) -> int:
    return max((int(s.file.split("-")[1].split(".")[0]) for s in manifest.shards), default=-1) + 1


def _last_times(path: Path, manifest: Manifest) -> dict[int, int]:
    """The last time of every stream, so that `backwards` goes on right after a cut."""
    if not manifest.shards:
        return {}
    files = [path / shard.file for shard in manifest.shards]
    last = (
        pl.scan_parquet(files, glob=False)
        .group_by("stream")
        .agg(pl.col("time").last().cast(pl.Int64))
    )
    codes = {name: i for i, name in enumerate(manifest.streams)}
    return {codes[name]: time for name, time in last.collect(engine="streaming").iter_rows()}
