"""The database and the blob store of one service, opened and closed together."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Final, Self

from he_infer.errors import ParameterError
from he_infer.server.state.audit_log import AuditLog
from he_infer.server.state.blobs import Blobs
from he_infer.server.state.database import Database

DATABASE_FILE: Final = "state.sqlite"
BLOBS_FOLDER: Final = "blobs"


class State:
    """A database and a blob store, opened together; ``close`` it, or use it in a ``with``."""

    def __init__(self, database: Database, blobs: Blobs, *, owned: Path | None = None) -> None:
        self.database = database
        self.blobs = blobs
        self.audit_log = AuditLog()
        self._owned = owned

    @classmethod
    def open(
        cls, folder: Path | None = None, *, database: str | None = None, blobs: str | None = None
    ) -> Self:
        """The state in ``folder``, either part replaced by a URL; of a temporary one if all None.

        Folders are made with mode 0700. Raises ParameterError or DatabaseError.
        """
        owned = None
        if folder is None and (database is None or blobs is None):
            folder = owned = Path(tempfile.mkdtemp(prefix="he-infer-"))
        if folder is not None:
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                (folder / BLOBS_FOLDER).mkdir(mode=0o700, exist_ok=True)
            except OSError as error:
                raise ParameterError(
                    f"cannot use {folder} for the server's state: {error.strerror}"
                ) from error
            database = database or f"sqlite:///{folder / DATABASE_FILE}"
            blobs = blobs or str(folder / BLOBS_FOLDER)
        assert database is not None and blobs is not None
        previous = os.umask(0o077)  # SQLite makes its files with what the umask leaves
        try:
            return cls(Database(database), Blobs(blobs), owned=owned)
        except BaseException:
            if owned is not None:
                shutil.rmtree(owned, ignore_errors=True)
            raise
        finally:
            os.umask(previous)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database; a temporary state is deleted."""
        self.database.close()
        if self._owned is not None:
            shutil.rmtree(self._owned, ignore_errors=True)
