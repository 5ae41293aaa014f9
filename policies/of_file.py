"""Policies that are read from a file: a run that was saved goes on with the same file, or not."""

from __future__ import annotations

from typing import Any

from adaptive_sleep.streams.errors import InputError


class OfFile:
    """Keeps the digest of a policy's file with the state of a run."""

    file: str
    _digest: str

    def state_dict(self) -> dict[str, Any]:
        """Return the digest of the file."""
        return {"file": self._digest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Refuse the state of another file. Raises InputError."""
        if state.get("file", self._digest) != self._digest:
            raise InputError(
                f"file={self.file!r}: holds {self._digest[:12]}, the run that goes on began with "
                f"{state['file'][:12]}; give it the file that it began with"
            )
