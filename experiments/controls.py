"""Controls: passes that are prescribed, from a trace as it was or shuffled over its windows.

An adaptive policy must beat its own histogram of passes; what is compared is decided elsewhere.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from adaptive_sleep.contract import policy
from adaptive_sleep.experiments.runs import open_run
from adaptive_sleep.signals import WindowSignals
from adaptive_sleep.streams.errors import InputError, IntegrityError
from adaptive_sleep.streams.tasks.task import checked_seed
from adaptive_sleep.trace import PLANNED

COLUMNS = ("stream", "window", "passes")


@policy("prescribed")
@dataclass(frozen=True)
class Prescribed:
    """Sleep as a trace says: its passes, window by window, or the same passes shuffled.

    Run it without a budget: these are passes that were run, and a budget would clip them again.
    `path` is a run folder, whose trace is verified, or a trace in Parquet; `shuffle` seeds a
    permutation of the passes over all windows; `sha256` is found out if left empty, and is what the
    trace must hash to if given.
    """

    path: str = ""
    shuffle: int | None = None
    sha256: str = ""
    _passes: dict[tuple[str, int], int] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if not self.path:
            raise InputError(
                "prescribed(path=''): give a run folder or a trace; passes that were prescribed "
                "in memory cannot be made again from a spec string"
            )
        object.__setattr__(self, "shuffle", _checked_seed(self.shuffle))
        _fill(self, _read(self.path))

    def plan(self, signals: WindowSignals) -> NDArray[np.int64]:
        """The prescribed passes; raises InputError for a window that has none."""
        passes = np.empty(len(signals), dtype=np.int64)
        for row in range(len(signals)):
            key = (str(signals.stream[row]), int(signals.window[row]))
            if key not in self._passes:
                raise InputError(
                    f"{self}: prescribes nothing for stream {key[0]!r}, window {key[1]}; "
                    "it is for another recording or another window length"
                )
            passes[row] = self._passes[key]
        return passes


def prescribed(trace: pl.LazyFrame | pl.DataFrame) -> Prescribed:
    """The passes of a trace (columns stream, window, passes), held in memory."""
    return _in_memory(trace, None)


def shuffled(trace: pl.LazyFrame | pl.DataFrame, seed: int) -> Prescribed:
    """A trace's own histogram of passes, permuted over all its windows."""
    return _in_memory(trace, seed)


def slept_windows(trace: pl.LazyFrame) -> pl.LazyFrame:
    """The windows of a run that a policy planned for: all but those of questions."""
    return trace.filter(PLANNED)


def _in_memory(trace: pl.LazyFrame | pl.DataFrame, seed: int | None) -> Prescribed:
    made = object.__new__(Prescribed)
    shuffle = _checked_seed(seed)
    for name, value in (("path", ""), ("shuffle", shuffle), ("sha256", ""), ("_passes", {})):
        object.__setattr__(made, name, value)
    _fill(made, trace.lazy())
    return made


def _checked_seed(shuffle: int | None) -> int | None:
    """The seed of a shuffle, or None. Raises InputError."""
    return None if shuffle is None else checked_seed(shuffle, "shuffle")


def _read(path: str) -> pl.LazyFrame:
    where = Path(path)
    if where.is_dir():
        return open_run(where).trace()
    if not where.is_file():
        raise InputError(f"prescribed(path={path!r}): no such run folder or trace")
    return pl.scan_parquet(where.absolute(), glob=False)  # polars would expand a leading ~


def _fill(made: Prescribed, trace: pl.LazyFrame) -> None:
    """Put the passes of a trace into a policy, and the hash that names them."""
    frame = _checked(trace, made.path)
    text = "\n".join(
        f"{stream!r} {window} {passes}" for stream, window, passes in frame.iter_rows()
    )
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    if made.sha256 not in ("", sha256):
        raise IntegrityError(
            f"prescribed(path={made.path!r}): its passes hash to {sha256[:12]}..., "
            f"not to {made.sha256[:12]}...; the trace has changed"
        )
    object.__setattr__(made, "sha256", sha256)
    passes = frame["passes"].to_numpy()
    if made.shuffle is not None:
        # Rows are sorted, so that the permutation depends on the windows and the seed alone.
        passes = np.random.default_rng(made.shuffle).permutation(passes)
    keys = zip(frame["stream"], frame["window"], strict=True)
    made._passes.update(zip(keys, passes.tolist(), strict=True))


def _checked(trace: pl.LazyFrame, path: str) -> pl.DataFrame:
    """The three columns, sorted; InputError where they are missing, doubled, below 1 or cannot be
    read.

    Without windows of questions: nobody plans for them, so their single pass is none to shuffle.
    """
    try:
        schema = trace.collect_schema()
    except (pl.exceptions.PolarsError, OSError):
        raise InputError(f"prescribed(path={path!r}): no trace in Parquet") from None
    names = schema.names()
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        raise InputError(f"prescribed(path={path!r}): no column {', '.join(missing)}")
    for name in ("window", "passes"):
        if not schema[name].is_integer():
            raise InputError(
                f"prescribed(path={path!r}): column {name} holds {schema[name]}, expected integers"
            )
    if "right" in names and "scored" in names:
        if "asked" not in names:  # a trace in a file may be older than this column
            trace = trace.with_columns(asked=pl.lit(None, pl.Int64))
        trace = slept_windows(trace)
    columns = (pl.col("stream").cast(pl.String), pl.col("window", "passes").cast(pl.Int64))
    try:
        frame = trace.select(columns).sort("stream", "window").collect()
    except (pl.exceptions.PolarsError, OSError) as error:  # such as a file that is damaged within
        raise InputError(f"prescribed(path={path!r}): cannot be read: {error}") from None
    if frame.select("stream", "window").is_duplicated().any():
        raise InputError(f"prescribed(path={path!r}): a window is prescribed twice")
    if frame["passes"].null_count() or (frame["passes"] < 1).any():
        raise InputError(f"prescribed(path={path!r}): passes must be at least 1 in every window")
    return frame
