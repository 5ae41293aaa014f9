"""Jobs side by side, each in a process of its own and on one thread."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Hashable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread: small products are not worth sharing."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def side_by_side(
    do: Callable[..., Result],
    work: Mapping[Key, tuple[Any, ...]],
    jobs: int | None = None,
    *,
    here: Callable[..., Result] | None = None,
) -> Iterator[tuple[Key, Result]]:
    """Call `do` with each job's arguments, in up to `jobs` processes (None: one for each core), and
    give the results as they come.

    One job at a time is done in this process, by `here` if given: it may do what cannot be sent to
    another, such as telling how far it is.
    """
    most = min(jobs or os.cpu_count() or 1, len(work))
    if most <= 1:
        for key, given in work.items():
            yield key, (here or do)(*given)
        return
    # a fork of a process that has run torch's threads may hang: fresh ones
    with ProcessPoolExecutor(most, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = {pool.submit(do, *given): key for key, given in work.items()}
        for future in as_completed(futures):
            yield futures[future], future.result()
