"""Where certificates and their keys lie: PEM files, private to their owner, written in one step."""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from he_infer.errors import KeyFileError

_MAX_FILE_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """Two PEM files: a certificate, for a server with its chain, and its private key."""

    certificate: Path
    private_key: Path


def paths_of(folder: Path, stem: str) -> Issued:
    """``<stem>.pem`` and ``<stem>.key`` in a folder."""
    return Issued(certificate=folder / f"{stem}.pem", private_key=folder / f"{stem}.key")


def read(path: Path, *, private: bool) -> bytes:
    """A PEM file's bytes; raises OSError, or KeyFileError for an exposed key or an odd file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        # Checked on the open file, so that it cannot be swapped between check and use.
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise KeyFileError(f"expected {path.name} to be a regular file: put the PEM file there")
        if private and os.name == "posix" and stat.S_IMODE(status.st_mode) & 0o077:
            raise KeyFileError(f"others can read {path.name}: run chmod 600 on it")
        return file.read(_MAX_FILE_BYTES)


def prepare(folder: Path, issued: Issued, *, overwrite: bool) -> None:
    """Make the folder; refuse one that others can enter, or files that are there already."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = stat.S_IMODE(folder.stat().st_mode)
    except OSError as error:
        raise KeyFileError(f"cannot use the folder {folder}: {error.strerror}") from error
    if os.name == "posix" and mode & 0o077:
        raise KeyFileError(
            f"expected a folder that only its owner can enter (mode 0700), {folder} has "
            f"{mode:04o}: run chmod 700 on it, or name a new one"
        )
    for path in (issued.certificate, issued.private_key):
        if path.exists() and not overwrite:
            raise KeyFileError(f"{path.name} exists: choose another name or ask to overwrite it")


def write(issued: Issued, *, private_key: bytes, certificates: bytes, overwrite: bool) -> None:
    """Write both files; raises KeyFileError if one exists and ``overwrite`` is false."""
    _write_file(issued.private_key, private_key, overwrite=overwrite)
    _write_file(issued.certificate, certificates, overwrite=overwrite)


def _write_file(path: Path, data: bytes, *, overwrite: bool) -> None:
    """All or nothing, with mode 0600, and never over a file that somebody made meanwhile."""
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
    except FileExistsError as error:
        raise KeyFileError(f"{path.name} exists: choose another name") from error
    except OSError as error:
        raise KeyFileError(f"cannot write {path.name}: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
