"""A real PostgreSQL for tests, started from the system's packages under a user of its own."""

from __future__ import annotations

import glob
import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def _program(name: str) -> str | None:
    # The system's own folder first: a program elsewhere may be a wrapper without its companions.
    for folder in sorted(glob.glob("/usr/lib/postgresql/*/bin"), reverse=True):
        if Path(folder, name).exists():
            return str(Path(folder, name))
    return shutil.which(name)


@contextmanager
def postgresql(folder: Path) -> Iterator[str]:
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
    home = folder / "postgresql"
    home.mkdir()
    if prefix:
        for parent in (home, *folder.parents[:3], folder):
            parent.chmod(parent.stat().st_mode | 0o055)
        os.chown(home, account.pw_uid, account.pw_gid)
    data = home / "data"
    subprocess.run(
        [*prefix, initdb, "-D", str(data), "-A", "trust", "-U", "tester", "-E", "UTF8", "-N"],
        check=True,
        capture_output=True,
        cwd=home,
    )
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [*prefix, server, "-D", str(data), "-h", "127.0.0.1", "-p", str(port), "-k", str(home)],
        stderr=subprocess.PIPE,
        text=True,
        cwd=home,
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if "ready to accept connections" in line:
                break
        else:
            pytest.fail("PostgreSQL did not start")
        yield f"postgresql://tester@127.0.0.1:{port}/postgres"
    finally:
        process.terminate()
        process.wait(30)
        if process.stderr is not None:
            process.stderr.close()
