"""CPU seconds of what a step spends on deciding, measured within the step itself.

A step without signals would be another step: other caches, other passes. So the calls that measure
and decide are wrapped while a step runs, and the step goes on as it would. What is measured within
a kernel, on numbers that it holds already, has no time of its own: `bench_within` finds what that
costs. Not counted are the entropy of a prediction, within the kernel of its loss, and what the row
of a window in the trace has too: its counters, and how far a pass moved the fast weights after
which nobody is asked.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from adaptive_sleep import advancing, boundary, memory, runtime, sleep

PHASES = ("signals", "policy")
# Everything that a step would not do if there were nothing to decide. Calls may lie within one
# another: each counts what is its own.
PARTS: tuple[tuple[Any, str, str], ...] = (
    (boundary, "window_signals", "signals"),
    (memory.FastWeights, "change_since", "signals"),
    (sleep, "_ask", "signals"),
    (boundary, "outcomes", "policy"),
    (boundary, "observe", "policy"),
    (boundary, "plan_passes", "policy"),
    (boundary, "_clip", "policy"),
    (boundary._Meter, "__call__", "policy"),
    (boundary, "policy_flops", "policy"),
    (advancing, "told", "policy"),
    (runtime, "policy_state", "policy"),
)


class Watch:
    """CPU seconds of this thread by phase, and how often each part was called."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self.calls = {name: 0 for _, name, _ in PARTS}
        self._inner: list[float] = []  # per open call: seconds of the calls within it

    def around(self, call: Callable[..., Any], name: str, phase: str) -> Callable[..., Any]:
        """`call`, timed."""

        @functools.wraps(call)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self._inner.append(0.0)
            start = time.thread_time()
            try:
                return call(*args, **kwargs)
            finally:
                spent = time.thread_time() - start
                self.seconds[phase] += spent - self._inner.pop()
                self.calls[name] += 1
                if self._inner:
                    self._inner[-1] += spent

        return timed


@contextmanager
def watching() -> Iterator[Watch]:
    """Time the parts of all steps that are made within, in this thread."""
    watch = Watch()
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in PARTS]
    try:
        for (owner, name, phase), (*_, call) in zip(PARTS, before, strict=True):
            setattr(owner, name, watch.around(call, name, phase))
        yield watch
    finally:
        for owner, name, call in before:
            setattr(owner, name, call)
