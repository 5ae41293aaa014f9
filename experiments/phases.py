"""A recording of this machine while it goes through real work in phases, named by a label channel.

It makes the bundled telemetry: `python -m adaptive_sleep.experiments.phases --out R --minutes 64`.
The plan is a pure function of length and seed; the work runs in short-lived child processes
(POSIX: they fork).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adaptive_sleep.experiments.console import guarded
from adaptive_sleep.streams.errors import InputError
from adaptive_sleep.streams.host import record_host

KINDS = ("idle", "cpu", "memory", "disk", "storm", "mixed")
WORK = ("cpu", "memory", "disk", "storm")
SPLITS = (("training", 0.6), ("validation", 0.1), ("test", 0.3))
_TYPICAL_SECONDS, _SHORTEST_SECONDS = 34.0, 15.0


@dataclass(frozen=True)
class Phase:
    """One phase: start and length in seconds, the work it is made of, and how hard it is."""

    kind: str
    split: str
    start: float
    seconds: float
    parts: tuple[str, ...]
    intensity: float


def plan_phases(minutes: float, seed: int) -> list[Phase]:
    """Plan phases that fill `minutes` exactly, every kind at least twice in every split.

    No phase reaches over the border of a split, and none follows another of its kind. Raises
    InputError for minutes that are not above 0 and finite, and for a seed below 0.
    """
    if not 0 < minutes < math.inf:
        raise InputError(f"minutes={minutes}: a finite number above 0")
    if seed < 0:
        raise InputError(f"seed={seed}: 0 or more")
    rng = np.random.default_rng([seed, 20])
    phases: list[Phase] = []
    start = 0.0
    for split, share in SPLITS:
        whole = minutes * 60 * share
        count = max(2 * len(KINDS), round(whole / _TYPICAL_SECONDS))
        kinds = _order(rng, count, phases[-1].kind if phases else None)
        shortest = min(_SHORTEST_SECONDS, 0.45 * whole / count)
        weights = rng.uniform(0.05, 1.0, count)
        lengths = shortest + (whole - count * shortest) * weights / weights.sum()
        for kind, seconds in zip(kinds, lengths, strict=True):
            parts = {"idle": (), "mixed": tuple(rng.permutation(WORK)[:2].tolist())}
            phases.append(
                Phase(kind, split, start, float(seconds), parts.get(kind, (kind,)), rng.random())
            )
            start += float(seconds)
    return phases


def _order(rng: np.random.Generator, count: int, before: str | None) -> list[str]:
    """Random order with every kind `count // 6` times or once more, none beside its like."""
    pool = [*KINDS * (count // len(KINDS)), *rng.permutation(KINDS)[: count % len(KINDS)].tolist()]
    while True:
        left, order = list(pool), [before]
        while left:
            free = [kind for kind in left if kind != order[-1]]
            if not free:
                break  # only the kind just placed is left: draw again
            order.append(free[int(rng.integers(len(free)))])
            left.remove(str(order[-1]))
        else:
            return [str(kind) for kind in order[1:]]


# The workers are self-contained, so that nothing of ours is imported while they start. Each ends
# at its time limit or when its parent is gone, and leaves no file behind.
_PRELUDE = """
import os, sys, time, signal
parent, seconds, hard = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
seed, folder = int(sys.argv[4]), sys.argv[5]
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
end = time.monotonic() + seconds
def alive():
    return time.monotonic() < end and os.getppid() == parent
"""
_WORKERS = {
    "cpu": """
period, duty = 2 + seed % 5, 0.6 + 0.4 * hard
while alive():
    busy = time.monotonic() + period * duty
    while time.monotonic() < busy and alive():
        sum(i * i for i in range(2000))
    time.sleep(period * (1 - duty))
""",
    "memory": """
chunks, held = int(24 + 32 * hard), []
pause = seconds * 0.75 / chunks
while alive():
    if len(held) < chunks:
        held.append(bytearray(os.urandom(4096)) * 8192)
    time.sleep(pause)
""",
    "disk": """
path, block = os.path.join(folder, 'disk-%d' % os.getpid()), os.urandom(1 << 20)
period, size = 1.0 + (seed % 3) * 0.5, int(8 + 24 * hard)
try:
    while alive():
        began = time.monotonic()
        with open(path, 'wb') as file:
            for _ in range(size):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        os.unlink(path)
        time.sleep(max(period - (time.monotonic() - began), 0.05))
finally:
    if os.path.exists(path):
        os.unlink(path)
""",
    "storm": """
import socket
batch, period, message = int(10 + 50 * hard), 0.25, b'x' * int(2000 + 30000 * hard)
server = socket.create_server(('127.0.0.1', 0), backlog=64)
server.settimeout(1.0)
while alive():
    began = time.monotonic()
    for _ in range(batch):
        child = os.fork()
        if child == 0:
            sum(range(20000))
            try:
                socket.create_connection(server.getsockname(), 1.0).sendall(message)
            finally:
                os._exit(0)
        try:
            answered, _from = server.accept()
            while answered.recv(65536):
                pass
            answered.close()
        except OSError:
            pass
        os.waitpid(child, 0)
    time.sleep(max(period - (time.monotonic() - began), 0.01))
""",
}


def _start(phase: Phase, number: int, folder: Path) -> list[subprocess.Popen[bytes]]:
    started = []
    for part in phase.parts:
        copies = 2 if part == "cpu" and phase.intensity > 0.5 else 1
        for _ in range(copies):
            arguments = (os.getpid(), phase.seconds, phase.intensity, number, folder)
            code = _PRELUDE + _WORKERS[part]
            command = [sys.executable, "-I", "-S", "-c", code, *map(str, arguments)]
            started.append(subprocess.Popen(command, stdin=subprocess.DEVNULL))
    return started


def _stop(children: list[subprocess.Popen[bytes]]) -> None:
    for child in children:
        child.terminate()
    for child in children:
        try:
            child.wait(timeout=2)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _write_label(path: Path, kind: str) -> None:
    temporary = path.with_suffix(".next")
    temporary.write_text(kind + "\n", encoding="utf-8")
    os.replace(temporary, path)


def run_phases(phases: Sequence[Phase], folder: Path, label: Path, stop: threading.Event) -> None:
    """Put the machine through `phases` by the clock, naming the current one in the file `label`."""
    began = time.monotonic()
    for number, phase in enumerate(phases):
        if stop.is_set():
            return
        children: list[subprocess.Popen[bytes]] = []
        try:
            _write_label(label, phase.kind)
            children = _start(phase, number, folder)
            stop.wait(max(began + phase.start + phase.seconds - time.monotonic(), 0.0))
        except OSError as error:  # a phase that cannot start is idle, and the log says so
            print(f"phase {number} ({phase.kind}): {error}", file=sys.stderr, flush=True)
            stop.wait(max(began + phase.start + phase.seconds - time.monotonic(), 0.0))
        finally:
            _stop(children)


def record_phases(
    out: Path, *, minutes: float, seed: int, hz: float, stop: threading.Event | None = None
) -> Path:
    """Record this machine at `hz` while it goes through `plan_phases(minutes, seed)`."""
    phases = plan_phases(minutes, seed)
    stop = stop or threading.Event()
    said = [0.0]

    def progress(seconds: float, rows: int) -> None:
        if seconds - said[0] >= 60:
            said[0] = seconds
            print(f"{seconds:7.0f} s  {rows} rows", file=sys.stderr, flush=True)

    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".phases-", dir=out.parent) as name:
        folder, label = Path(name), Path(name) / "phase"
        worker = threading.Thread(target=run_phases, args=(phases, folder, label, stop))
        worker.start()
        try:
            return record_host(
                out,
                seconds=minutes * 60,
                hz=hz,
                label_files={"phase": label},
                provenance=_provenance(minutes, seed, len(phases)),
                on_progress=progress,
                stop=stop,
            )
        finally:
            stop.set()
            worker.join()


def _provenance(minutes: float, seed: int, count: int) -> dict[str, str]:
    splits = ", ".join(f"{name} {share:.0%}" for name, share in SPLITS)
    return {
        "made_by": f"python -m adaptive_sleep.experiments.phases --minutes {minutes:g} "
        f"--seed {seed}",
        "phases": f"{count} phases of {', '.join(KINDS)}, each at least twice in each split by "
        f"time ({splits}), in random order and of varied length; label channel 'phase'",
        "work": "real work in child processes: busy loops with pauses on 1 or 2 cores; memory "
        "grown to 0.8-1.8 GB; files written, fsynced and deleted; many short processes, each of "
        "which sends a few kB over loopback; mixed is two of these. Other programs ran on the "
        "machine at the same time.",
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Plan, and unless `--plan-only`, record. Exits as the command line does."""
    return guarded(lambda: _main(arguments))


def _main(arguments: Sequence[str] | None) -> None:
    parser = argparse.ArgumentParser(prog="python -m adaptive_sleep.experiments.phases")
    parser.add_argument("--out", type=Path, help="folder of the new recording")
    parser.add_argument("--minutes", type=float, default=64.0)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--hz", type=float, default=5.0)
    parser.add_argument("--plan-only", action="store_true", help="print the plan as JSON lines")
    chosen = parser.parse_args(arguments)
    if chosen.plan_only:
        for phase in plan_phases(chosen.minutes, chosen.seed):
            print(json.dumps(phase.__dict__))
        return
    if chosen.out is None:
        parser.error("--out is needed unless --plan-only is given")
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    made = record_phases(
        chosen.out, minutes=chosen.minutes, seed=chosen.seed, hz=chosen.hz, stop=stop
    )
    print(made)


if __name__ == "__main__":
    raise SystemExit(main())
