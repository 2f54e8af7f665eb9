"""Files that only their owner may read, written in one step."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from he_infer.errors import KeyFileError


def write_private(path: Path, data: bytes, *, overwrite: bool) -> None:
    """Write all or nothing, with mode 0600, and never over a file that somebody made meanwhile.

    Raises KeyFileError if the file exists and ``overwrite`` is false, or cannot be written.
    """
    temporary = path.parent / f".{path.name}.{os.urandom(8).hex()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(temporary, flags, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            temporary.replace(path)
        else:
            os.link(temporary, path)  # unlike a rename, fails if the file exists
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except FileExistsError as error:
        raise KeyFileError(f"{path.name} exists: choose another name") from error
    except OSError as error:
        raise KeyFileError(f"cannot write {path.name}: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def read_file(path: Path, *, most_bytes: int, private: bool) -> bytes:
    """The first ``most_bytes`` of a regular file, that nobody else can read if it is ``private``.

    Raises OSError, or KeyFileError for an exposed or an odd file.
    """
    # Without O_NONBLOCK a named pipe in the file's place would never be opened.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        # Checked on the open file, so that it cannot be swapped between check and use.
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise KeyFileError(f"{path.name} is not a regular file")
        if private and os.name == "posix" and stat.S_IMODE(status.st_mode) & 0o077:
            raise KeyFileError(f"others can read {path.name}: run chmod 600 on it")
        return file.read(most_bytes)
