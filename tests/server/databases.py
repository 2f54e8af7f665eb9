"""A real PostgreSQL for tests, started from the system's packages under a user of its own."""

from __future__ import annotations

import glob
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_START_S = 300.0  # guards against waiting for ever


def _program(name: str) -> str | None:
    # The system's own folder first: a program elsewhere may be a wrapper without its companions.
    for folder in sorted(glob.glob("/usr/lib/postgresql/*/bin"), reverse=True):
        if Path(folder, name).exists():
            return str(Path(folder, name))
    return shutil.which(name)


@contextmanager
def postgresql() -> Iterator[str]:
    """The URL of an empty database on loopback; skips where PostgreSQL is not installed."""
    initdb, server = _program("initdb"), _program("postgres")
    if initdb is None or server is None:
        pytest.skip("PostgreSQL is not installed")
    prefix: list[str] = []
    if os.geteuid() == 0:  # it refuses to run as root
        try:
            account = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("there is no user to run PostgreSQL as")
        prefix = ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}"]
        prefix += ["--clear-groups"]
    # Not in pytest's own folder, which every pytest that starts closes to other users.
    with tempfile.TemporaryDirectory(prefix="he-infer-postgresql-") as name:
        home = Path(name)
        if prefix:
            os.chown(home, account.pw_uid, account.pw_gid)
        data, log = home / "data", home / "log"
        subprocess.run(
            [*prefix, initdb, "-D", str(data), "-A", "trust", "-U", "tester", "-E", "UTF8", "-N"],
            check=True,
            capture_output=True,
            cwd=home,
        )
        with socket.socket() as held, log.open("w") as errors:
            # Bound without listening, it lets PostgreSQL have the port and nobody else.
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.bind(("127.0.0.1", 0))
            port = held.getsockname()[1]
            command = [*prefix, server, "-D", str(data), "-k", str(home), "-c", "fsync=off"]
            process = subprocess.Popen(
                [*command, "-h", "127.0.0.1", "-p", str(port)], stderr=errors, cwd=home
            )
            try:
                deadline = time.monotonic() + _START_S
                while "ready to accept connections" not in log.read_text():
                    if process.poll() is not None or time.monotonic() > deadline:
                        pytest.fail(f"PostgreSQL did not start: {log.read_text()[-500:]}")
                    time.sleep(0.02)
                yield f"postgresql://tester@127.0.0.1:{port}/postgres"
            finally:
                process.send_signal(signal.SIGINT)  # SIGTERM would wait for connections to end
                process.wait(_START_S)
