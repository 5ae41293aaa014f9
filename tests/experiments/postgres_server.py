"""A PostgreSQL server of our own, on loopback and in a folder of its own, for tests of studies.

`make test-services` sees that it is installed. Where it is not, tests that need it are skipped.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

USER = "postgres"


def missing() -> str:
    """Why no server can be started here; "" if one can."""
    if _program("initdb") is None:
        return "PostgreSQL is not installed (make test-services installs it)"
    if find_spec("psycopg") is None:
        return "psycopg is not installed (make test-services installs it)"
    return ""


def _program(name: str) -> str | None:
    """The newest of Debian's, which are not on the path, or whatever is on the path."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(found[-1]) if found else shutil.which(name)


def _as_owner(folder: Path) -> list[str]:
    """What goes before a command of the server, which refuses to run as root."""
    if os.getuid():
        return []
    shutil.chown(folder, USER)
    return ["runuser", "-u", USER, "--"]


@contextmanager
def server() -> Iterator[str]:
    """A running server, as the URL of its databases, without a name.

    Its folder is not pytest's, which only root could enter where root runs the tests.
    """
    with tempfile.TemporaryDirectory(prefix="adaptive-sleep-") as made:
        yield from _running(Path(made))


def _running(folder: Path) -> Iterator[str]:
    owner, data = _as_owner(folder), folder / "data"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def run(program: str, *given: str) -> None:
        command = [*owner, str(_program(program)), *given]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=folder)
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stdout}{done.stderr}")

    run("initdb", "-D", str(data), "-U", USER, "--auth=trust", "--no-sync")
    options = f"-c listen_addresses=127.0.0.1 -p {port} -k {folder} -c fsync=off"
    run("pg_ctl", "-D", str(data), "-o", options, "-l", str(folder / "log"), "-w", "start")
    try:
        yield f"postgresql://{USER}@127.0.0.1:{port}"
    finally:
        run("pg_ctl", "-D", str(data), "-m", "immediate", "-w", "stop")


def new_database(server_url: str, name: str) -> str:
    """Make an empty database and return its URL."""
    import psycopg

    with psycopg.connect(f"{server_url}/postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    return f"{server_url}/{name}"
