"""The database: SQLite in a folder by default, or PostgreSQL by URL.

Its work is done in threads, so that the event loop need not wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from sqlalchemy import create_engine, event, insert, select, text
from sqlalchemy.engine import Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from he_infer.errors import ParameterError, ServiceError
from he_infer.server.state.schema import SCHEMA_VERSION, metadata, versions

T = TypeVar("T")
_WAIT_S: Final = 10.0
_THREADS: Final = 4  # PostgreSQL; SQLite writes one transaction at a time anyway
_READING: Final = "he_infer_reading"
_READ_ONLY: Final = {"postgresql_readonly": True, "isolation_level": "REPEATABLE READ"}
_SCHEMA_LOCK: Final = 0x48454953


class DatabaseError(ServiceError):
    """The database cannot be reached or refuses to work."""


class Database:
    """An engine and the threads that use it; ``close`` ends both.

    ``url``: of SQLAlchemy, ``sqlite:///…`` or ``postgresql+psycopg://…``. Tables are made if
    there are none. Raises ParameterError for an address that is none, DatabaseError if it
    cannot be opened or holds tables of another version.
    """

    def __init__(self, url: str) -> None:
        try:
            parsed = make_url(url)
            if parsed.drivername in ("postgresql", "postgres"):
                parsed = parsed.set(drivername="postgresql+psycopg")
            self._sqlite = parsed.get_backend_name() == "sqlite"
            if not self._sqlite and parsed.get_backend_name() != "postgresql":
                raise ParameterError("the database must be SQLite or PostgreSQL: give such a URL")
            self._engine = _sqlite(parsed) if self._sqlite else _postgresql(parsed)
            self._reading = self._engine.execution_options(
                **({_READING: True} if self._sqlite else _READ_ONLY)
            )
        except (ArgumentError, NoSuchModuleError, ImportError) as error:
            raise ParameterError(
                "the database address is not one: expected sqlite:///PATH or "
                "postgresql://USER@HOST/NAME (which needs the package psycopg)"
            ) from error
        try:
            with self.transaction() as connection:
                lock(connection, _SCHEMA_LOCK)
                metadata.create_all(connection)
                found = connection.scalar(select(versions.c.version))
                if found is None:
                    connection.execute(insert(versions).values(version=SCHEMA_VERSION))
                elif found != SCHEMA_VERSION:
                    raise DatabaseError(
                        f"the database has tables of version {found}, this release uses "
                        f"{SCHEMA_VERSION}: use another database, or the release that made it"
                    )
        except DatabaseError:
            self._engine.dispose()
            raise
        self._threads = ThreadPoolExecutor(
            max_workers=1 if self._sqlite else _THREADS, thread_name_prefix="database"
        )

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A connection in a transaction that commits at the end; raises DatabaseError."""
        with self._begun(self._engine) as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection that sees one state and keeps nobody from writing; raises DatabaseError.

        Fetch within, print outside: whoever reads may be slow.
        """
        with self._begun(self._reading) as connection:
            yield connection

    @contextmanager
    def _begun(self, engine: Engine) -> Iterator[Connection]:
        try:
            with engine.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            # The driver's words may quote what was being written.
            kind = type(error.orig).__name__ if isinstance(error, DBAPIError) else ""
            raise DatabaseError(
                f"the database failed ({kind or type(error).__name__}): see that it runs, can be "
                "reached and has room"
            ) from error

    async def run(self, work: Callable[[Connection], T]) -> T:
        """``work`` in a transaction, in a thread of the database's."""

        def transact() -> T:
            with self.transaction() as connection:
                return work(connection)

        return await asyncio.get_running_loop().run_in_executor(self._threads, transact)

    def close(self) -> None:
        self._threads.shutdown(wait=True)
        self._engine.dispose()


def lock(connection: Connection, number: int) -> None:
    """Hold one of the database's advisory locks until the transaction is over."""
    # SQLite's transactions exclude each other from their beginning.
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SELECT pg_advisory_xact_lock({number})"))


def _sqlite(url: Any) -> Engine:
    engine = create_engine(
        url,
        poolclass=QueuePool,
        pool_size=4,
        connect_args={"timeout": _WAIT_S, "check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # or the driver would begin transactions itself
        # Replies are kept, 100 kB and more each: larger pages write them in fewer pieces.
        pragmas = ("page_size=16384", "journal_mode=WAL", "synchronous=NORMAL", "secure_delete=ON")
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        # A transaction that began by reading could not write later while another one does.
        reading = connection.get_execution_options().get(_READING)
        # Straight to the driver: three of these are a part of every query's time.
        driver: Any = connection.connection.driver_connection
        driver.execute("BEGIN" if reading else "BEGIN IMMEDIATE")

    return engine


def _postgresql(url: Any) -> Engine:
    return create_engine(
        url,
        pool_size=_THREADS,
        pool_pre_ping=True,
        connect_args={"connect_timeout": int(_WAIT_S)},
    )
