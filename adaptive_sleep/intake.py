"""What of a recording a run takes, and whether a model can read it.

How the rows are cut into windows is in `streams/cutting.py`; the runtime checks the channels again.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adaptive_sleep.config import ModelConfig
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.recording import Recording


def row_range(start: float | int, stop: float | int, rows: int) -> tuple[int, int]:
    """Rows [first, last) of a recording of `rows`; a float is a fraction (rounded), an int a row.

    Raises InputError for what is no number, what lies outside, and a range without a row.
    """
    first, last = _row("start", start, rows), _row("stop", stop, rows)
    if first >= last:
        raise InputError(
            f"start={start}, stop={stop}: no row of {rows} lies between them "
            "(whole numbers count rows, numbers with a point are fractions)"
        )
    return first, last


def _row(name: str, value: float | int, rows: int) -> int:
    value = value.item() if isinstance(value, np.generic) else value
    number = type(value) in (int, float)
    if not number or (isinstance(value, float) and not 0.0 <= value <= 1.0):
        raise InputError(f"{name}={value!r}: a fraction from 0.0 to 1.0, or a whole row number")
    if isinstance(value, float):
        return round(value * rows)
    if not 0 <= value <= rows:
        raise InputError(f"{name}={value}: the recording has rows 0 to {rows}")
    return value


def check_categories(recording: Recording, known: Sequence[str]) -> None:
    """Refuse a recording whose tokens stand for other categories than those that a model was
    trained on (`known`; none: nobody says). Raises InputError."""
    for token, (here, there) in enumerate(zip(recording.manifest.categories, known, strict=False)):
        if here != there:
            raise InputError(
                f"recording: token {token} is {here!r}, but {there!r} to the model; record the log "
                "with the categories of one that the model was trained on "
                "(adaptive-sleep record eventlog --like RECORDING)"
            )


def check_fits(recording: Recording, config: ModelConfig) -> None:
    """Refuse a recording of another kind, a larger vocabulary, or channels in other roles.

    Which channels there are, and their order, the runtime checks. Raises InputError.
    """
    if recording.kind != config.kind:
        raise InputError(
            f"recording: holds {recording.kind}, but the model reads {config.kind}; "
            "use a model that was trained on such a recording"
        )
    vocabulary = recording.manifest.vocabulary or 0
    if vocabulary > config.vocabulary:
        raise InputError(
            f"recording: vocabulary={vocabulary}, but the model knows {config.vocabulary} ids"
        )
    wanted = dict.fromkeys(config.channels, "observed") | dict.fromkeys(config.actions, "action")
    for channel in recording.channels:
        if channel.role != wanted.get(channel.name, channel.role):
            raise InputError(
                f"channel {channel.name!r}: {channel.role} in the recording, "
                f"but {wanted[channel.name]} to the model"
            )
