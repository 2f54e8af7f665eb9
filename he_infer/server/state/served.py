"""Which plans were ever served under a name: a query for an old one is told that it is gone."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import delete, insert, select
from sqlalchemy.engine import Connection

from he_infer.server.state.schema import models


def note_served(connection: Connection, served: Iterable[tuple[str, str]], *, now: float) -> None:
    """Remember (name, plan digest) pairs."""
    for name, digest in served:
        connection.execute(
            delete(models).where(models.c.name == name, models.c.plan_digest == digest)
        )
        connection.execute(insert(models).values(name=name, plan_digest=digest, last_served=now))


def ever_served(connection: Connection) -> set[tuple[str, str]]:
    """All (name, plan digest) pairs remembered."""
    rows = connection.execute(select(models.c.name, models.c.plan_digest))
    return {(row[0], row[1]) for row in rows}
