"""The errors that users meet, and the wording they share.

They live on the lowest floor so that every part raises the same ones; `adaptive_sleep` exports
them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AdaptiveSleepError(Exception):
    """Anything this package refuses, with a message meant for the person who reads it."""


class InputError(AdaptiveSleepError, ValueError):
    """Bad input: the message names the field, the value, what is allowed and the repair."""


class IntegrityError(AdaptiveSleepError):
    """A file is damaged, incomplete, or belongs to something else."""


class OverloadWarning(UserWarning):
    """Live input arrives faster than the model works, so sleep is being skipped."""


def nearest(word: str, options: Iterable[str]) -> str:
    """Return ", did you mean 'x'?" for the closest option, or the empty string.

    >>> nearest("suprise", ["surprise", "fixed"])
    ", did you mean 'surprise'?"
    """
    close = difflib.get_close_matches(word, list(options), n=1, cutoff=0.5)
    return f", did you mean {close[0]!r}?" if close else ""
