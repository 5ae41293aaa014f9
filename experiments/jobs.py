"""Jobs side by side, each in a process of its own and on one thread."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import contextmanager
from multiprocessing import connection
from typing import Any, TypeVar

import torch

Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")
Given = tuple[Any, ...]  # the arguments of a job


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
    work: Mapping[Key, Given],
    jobs: int | None = None,
    *,
    here: Callable[..., Result] | None = None,
    then: Callable[[Key, Result], Mapping[Key, Given]] | None = None,
) -> Iterator[tuple[Key, Result]]:
    """Call `do` with each job's arguments, in up to `jobs` processes (None: one for each core), and
    give the results as they come. Where one fails, no other is begun, and its error is raised once
    those under way are done.

    One job at a time is done in this process, by `here` if given: it may do what cannot be sent to
    another, such as telling how far it is. `then` names the jobs that a result makes possible: one
    at a time they come next, side by side after those that wait already.
    """
    most = jobs or os.cpu_count() or 1
    if then is None:
        most = min(most, len(work))
    if most <= 1:
        yield from _one_by_one(here or do, work, then)
        return
    with _processes(most) as pool:
        futures = {pool.submit(do, *given): key for key, given in work.items()}
        try:
            while futures:
                for future in wait(futures, return_when=FIRST_COMPLETED).done:
                    key, result = futures.pop(future), future.result()
                    more = then(key, result) if then else {}
                    futures |= {pool.submit(do, *given): other for other, given in more.items()}
                    yield key, result
        finally:  # if one fails, those that wait are not begun
            pool.shutdown(wait=False, cancel_futures=True)


def apart(do: Callable[..., Result], *given: Any) -> Result:
    """Call `do` in a process of its own, which ends with it."""
    with _processes(1) as pool:
        return pool.submit(do, *given).result()


def _processes(most: int) -> ProcessPoolExecutor:
    """Processes for jobs, which end when this one does, however it ends."""
    # a fork of a process that has run torch's threads may hang: fresh ones
    fresh = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(most, mp_context=fresh, initializer=_end_with_parent)


def _end_with_parent() -> None:
    """Watch the process that started this one. Killed, it would leave a job behind that goes on
    writing where the next one takes it up."""
    parent = multiprocessing.parent_process()
    if parent is None:  # not started by multiprocessing
        return

    def watch(sentinel: int) -> None:
        connection.wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, args=(parent.sentinel,), daemon=True).start()


def _one_by_one(
    do: Callable[..., Result],
    work: Mapping[Key, Given],
    then: Callable[[Key, Result], Mapping[Key, Given]] | None,
) -> Iterator[tuple[Key, Result]]:
    for key, given in work.items():
        result = do(*given)
        yield key, result
        if then:
            yield from _one_by_one(do, then(key, result), then)
