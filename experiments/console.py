"""What every command shares: results on stdout, progress and errors on stderr, exit codes.

No command lives here.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import re
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from adaptive_sleep.streams.errors import AdaptiveSleepError, InputError, IntegrityError

FAILED, WRONG_USE, INTERRUPTED, TERMINATED = 1, 2, 130, 143
DEBUG = "ADAPTIVE_SLEEP_DEBUG"
FOLDED, HEADER, PIPED = 24, 12, 160  # characters: of folded text, a broken header, a piped table

Advance = Callable[..., None]
"""`advance(done, total=None, note="")`: how far the work is, in any unit."""


def note(text: str) -> None:
    """Say something beside the result, on stderr."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def told_when_unread() -> Iterator[None]:
    """Say so where whoever read stdout has gone, and a run has ended by it."""
    try:
        yield
    except BrokenPipeError:
        note("stdout was closed: the run ended there, with all that had arrived")
        raise


def print_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object on stdout; what is not finite becomes null."""
    print_encoded(json.dumps(_finite(value), ensure_ascii=False, allow_nan=False))


def print_encoded(text: str) -> None:
    """Print JSON on stdout at once, with escapes for what its encoding may not have."""
    if (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "") != "utf8":
        text = re.sub("[^\x00-\x7f]", lambda found: json.dumps(found[0])[1:-1], text)
    print(text, flush=True)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    if isinstance(value, (str, int)) or value is None:
        return value
    return str(value)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> None:
    """Print a table on stdout, the first `left` columns flush left, the others flush right.

    Headers of figures break at spaces; where the terminal is narrow text is folded, though not
    below `FOLDED` characters. Figures are never cut: what needs more is wider than the terminal.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table, needed = Table(box=None, pad_edge=False, header_style="bold"), 0
    for index, column in enumerate(columns):
        longest = max(len(part) for part in (*column.split(), *(row[index] for row in rows)))
        longest = max(longest, min(len(column), HEADER))
        least = min(longest, FOLDED) if index < left else longest
        needed += least + (2 if index else 0)  # rich puts two blanks between columns
        if index < left:
            table.add_column(column, overflow="fold", min_width=least)
        else:
            table.add_column(column, justify="right", width=least)
    for row in rows:
        table.add_row(*[Text(cell) for cell in row])
    # Without a terminal rich would fold at 80 columns, and a pipe has no width.
    console = Console(width=None if sys.stdout.isatty() else PIPED, highlight=False)
    console.width = max(console.width, needed)
    console.print(table)


def print_facts(facts: Mapping[str, str]) -> None:
    """Print names and values on stdout, one a line, aligned."""
    width = max((len(name) for name in facts), default=0)
    for name, value in facts.items():
        print(f"{name:<{width}}  {value}")


@contextmanager
def progress(label: str) -> Iterator[Advance]:
    """Show progress on stderr while the block runs, and nothing where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield lambda done, total=None, note="": None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None, note="")

        def advance(done: float, total: float | None = None, note: str = "") -> None:
            bar.update(task, completed=done, total=total, note=note)

        yield advance


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Show each warning once, as a line on stderr without the code that it comes from."""
    said: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if str(message) not in said:
            said.add(str(message))
            note(f"warning: {message}")

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)  # Python would drop what one line says twice
        warnings.showwarning = show
        yield


@contextmanager
def terminable() -> Iterator[list[int]]:
    """SIGTERM, by which systemd, docker and a shutdown end a command, does as Ctrl-C does.

    Processes that were begun here are told too, as a terminal tells them. Gives a list of the
    SIGTERMs that came, empty at first. Where SIGTERM is ignored, or handled already, it stays so.
    """
    came: list[int] = []
    here = threading.current_thread() is threading.main_thread()
    if not here or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield came
        return

    def end(number: int, frame: FrameType | None) -> None:
        came.append(number)
        # a shell lets what it puts into the background ignore Ctrl-C, and so its children
        heeded = callable(signal.getsignal(signal.SIGINT))
        for child in multiprocessing.active_children():
            with suppress(ProcessLookupError):  # it may have just ended
                if child.pid is not None:
                    os.kill(child.pid, signal.SIGINT if heeded else signal.SIGTERM)
        if not heeded:
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGINT)

    signal.signal(signal.SIGTERM, end)
    try:
        yield came
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _printable() -> None:
    """Let stdout show by an escape what its encoding does not have, rather than fail midway."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None and sys.stdout.errors == "strict":
        reconfigure(errors="backslashreplace")


def guarded(run: Callable[[], None]) -> int:
    """Run a command and return its exit code; an error is one message, never a traceback.

    Ctrl-C ends it with 130 and SIGTERM with 143, unless the command ends well by them.
    """
    _printable()
    with terminable() as terminated:
        code = _guarded(run)
        return TERMINATED if terminated and code == INTERRUPTED else code


def _guarded(run: Callable[[], None]) -> int:
    try:
        with plain_warnings():
            run()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else FAILED if end.code else 0
        if code == INTERRUPTED:
            note("interrupted; nothing is left half written")
        return code
    except KeyboardInterrupt:
        note("interrupted; nothing is left half written")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone; point stdout elsewhere so that closing it is silent.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        if os.environ.get(DEBUG):
            traceback.print_exc()
        note(f"error: {_message(error)}")
        return WRONG_USE if isinstance(error, (InputError, IntegrityError)) else FAILED
    return 0


def _message(error: Exception) -> str:
    if isinstance(error, AdaptiveSleepError):
        return "; ".join((str(error), *getattr(error, "__notes__", ())))
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}"
    if isinstance(error, ModuleNotFoundError):
        return f"this command needs the module {error.name}, which is not installed"
    return f"{type(error).__name__}: {error} (set {DEBUG}=1 to see where)"
