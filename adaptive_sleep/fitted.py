"""Policies that were fitted to one model: which they are, however wrapped, and no other model.

A policy never sees a model, so it only says which one it belongs to: an attribute `model_hash`, the
hash of that model. Whoever brings the two together asks here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from adaptive_sleep.contract import label, parts
from adaptive_sleep.streams.errors import InputError

_SHOWN = 12  # characters of a hash


class Hashed(Protocol):
    """The part of a model that is asked for; not every policy needs it, so it may be slow."""

    @property
    def hash(self) -> str:
        """What the model is known by."""
        ...


def fitted_to(policy: object) -> Iterator[tuple[object, str]]:
    """The policies that say which model they belong to, with that model's hash: `policy` itself and
    those that it wraps, however deep."""
    for part in parts(policy):
        own = getattr(part, "model_hash", None)
        if isinstance(own, str):
            yield part, own


def check_fitted(policy: object, model: Hashed) -> None:
    """Refuse a policy that was fitted to another model, or wraps one.

    Raises InputError naming the policy and both hashes.
    """
    for part, hash_ in fitted_to(policy):
        if hash_ != model.hash:
            raise InputError(
                f"policy {label(part)} was fitted to model {hash_[:_SHOWN]}, this is "
                f"{model.hash[:_SHOWN]}; fit it, or train it, with this one"
            )
