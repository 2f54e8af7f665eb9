"""Where key bytes lie: a folder by default, any object store that fsspec knows by URL.

Names are relative and made by this package, never by a client. A blob appears whole or not at
all. Blobs are read back against their digest, so a damaged one is as good as missing.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterable, Iterator
from typing import Final

import fsspec

from he_infer.errors import HEInferError, ParameterError

_BLOCK_BYTES: Final = 1 << 20


class NoRoomError(HEInferError):
    """The place where keys are stored is full."""


class MissingBlobError(HEInferError):
    """No blob of this name, or it cannot be read."""


class Blobs:
    """Named byte strings under ``url``: a path, ``file://``, ``memory://``, ``s3://`` …

    Raises ParameterError for an address that fsspec does not understand. Safe to share among
    threads.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            self._files, self._root = fsspec.core.url_to_fs(url, skip_instance_cache=False)
            self._files.makedirs(self._root, exist_ok=True)
        except (ValueError, ImportError, OSError) as error:
            raise ParameterError(
                "cannot store keys there: expected a folder, or the URL of an object store whose "
                "fsspec package is installed"
            ) from error

    def write(self, name: str, chunks: Iterable[bytes | bytearray | memoryview]) -> int:
        """Store the chunks in a row under ``name``; how many bytes. Raises NoRoomError."""
        path = self._path(name)
        written = 0
        try:
            self._files.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
            file = self._files.open(path, "wb", autocommit=False)
            try:
                with file:
                    for chunk in chunks:
                        written += file.write(chunk)
            except BaseException:
                with contextlib.suppress(OSError, AttributeError):
                    file.discard()
                raise
            file.commit()
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise NoRoomError("the key store's disk is full: try later") from error
            raise
        return written

    def read(self, name: str) -> Iterator[bytes]:
        """The bytes under ``name`` in blocks; raises MissingBlobError."""
        try:
            with self._files.open(self._path(name), "rb") as file:
                while block := file.read(_BLOCK_BYTES):
                    yield block
        except OSError as error:
            raise MissingBlobError("a stored key cannot be read") from error

    def size(self, name: str) -> int | None:
        """Bytes under ``name``; None if there is no such blob."""
        try:
            return int(self._files.size(self._path(name)))
        except OSError:
            return None

    def delete(self, name: str) -> None:
        """Remove a blob; none is no error."""
        with contextlib.suppress(OSError):
            self._files.rm_file(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


def keys_blob(tenant: str, digest: str) -> str:
    return f"keys/{tenant}/{digest}"


def part_blob(name: str) -> str:
    return f"uploads/{name}"
