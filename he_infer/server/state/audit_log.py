"""An append-only log whose entries form a hash chain.

    digest_k = SHA-256(digest_{k−1} ‖ entry_k),  digest_0 = SHA-256("he-infer audit log 1")

Whoever changes, drops or reorders an entry must change all digests after it. Cutting entries off
the end leaves a valid hash chain, so an operator should note the head elsewhere from time to time
and verify against it. Entries hold digests, names and counts. They never hold a payload, a key or
a token.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import select, text
from sqlalchemy.engine import Connection

from he_infer.errors import HEInferError
from he_infer.server.state.database import lock
from he_infer.server.state.schema import audit_log

GENESIS: Final = hashlib.sha256(b"he-infer audit log 1").hexdigest()
_AT_A_TIME: Final = 1000
_LOCK: Final = 0x4845495F  # among a database's advisory locks
_HEAD: Final = text("SELECT sequence, digest FROM audit_log ORDER BY sequence DESC LIMIT 1")
# Only behind the entry that ``digest`` was computed from.
_APPEND: Final = text(
    "INSERT INTO audit_log (sequence, entry, digest) SELECT :sequence, :entry, :digest "
    "WHERE :previous = coalesce("
    "(SELECT digest FROM audit_log ORDER BY sequence DESC LIMIT 1), :genesis)"
)


class BrokenHashChainError(HEInferError):
    """The audit log was altered: ``sequence`` is the first entry that does not fit."""

    def __init__(self, message: str, *, sequence: int) -> None:
        super().__init__(message)
        self.sequence = sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The end of a log: how many entries, and the digest of the last one."""

    entries: int
    digest: str

    def __str__(self) -> str:
        return f"{self.entries}:{self.digest}"


class AuditLog:
    """Writes to a database's log and remembers where it ended.

    Several processes, each with an ``AuditLog`` of its own, may write to one database.
    """

    def __init__(self) -> None:
        self._end: Head | None = None

    def append(
        self, connection: Connection, event: str, fields: Mapping[str, Any], *, now: float
    ) -> None:
        """Add an entry in the transaction of what it tells about."""
        lock(connection, _LOCK)
        # The log mostly ends with what this process wrote last. That may have been rolled back
        # since, or another process may have written. Then nothing is inserted, and the end is
        # looked up.
        for known in (self._end, None):
            head = known or read_head(connection)
            line = {"sequence": head.entries + 1, "time": round(now, 3), "event": event, **fields}
            entry = json.dumps(line, sort_keys=True, separators=(",", ":"))
            digest = link(head.digest, entry)
            given = {"sequence": head.entries + 1, "entry": entry, "digest": digest}
            given |= {"previous": head.digest, "genesis": GENESIS}
            if connection.execute(_APPEND, given).rowcount == 1:
                self._end = Head(entries=head.entries + 1, digest=digest)
                return
        raise HEInferError("the audit log changed under its lock: see who else writes to it")


def link(previous: str, entry: str) -> str:
    """The digest of an entry behind the one with the digest ``previous``."""
    return hashlib.sha256(bytes.fromhex(previous) + entry.encode()).hexdigest()


def read_head(connection: Connection) -> Head:
    row = connection.execute(_HEAD).one_or_none()
    return Head(entries=0, digest=GENESIS) if row is None else Head(entries=row[0], digest=row[1])


def verify(connection: Connection, *, noted: Head | None = None) -> Head:
    """Check every entry, and that a head noted before is part of the hash chain. Returns the
    present head.

    Raises BrokenHashChainError naming the first entry that does not fit.
    """
    digest, done = GENESIS, 0
    noted_found = noted is None or noted == Head(entries=0, digest=GENESIS)
    while True:
        rows = connection.execute(
            select(audit_log.c.sequence, audit_log.c.entry, audit_log.c.digest)
            .where(audit_log.c.sequence > done)
            .order_by(audit_log.c.sequence)
            .limit(_AT_A_TIME)
        ).all()
        if not rows:
            break
        for sequence, entry, stated in rows:
            if sequence != done + 1:
                raise BrokenHashChainError(f"entry {done + 1} is missing", sequence=done + 1)
            digest = link(digest, entry)
            if digest != stated or _sequence_in(entry) != sequence:
                raise BrokenHashChainError(f"entry {sequence} was altered", sequence=sequence)
            done = sequence
            noted_found = noted_found or noted == Head(entries=done, digest=digest)
    if not noted_found:
        assert noted is not None
        where = min(noted.entries, done + 1)
        raise BrokenHashChainError(
            f"the head noted at entry {noted.entries} is not in this log: it was cut or rewritten",
            sequence=where,
        )
    return Head(entries=done, digest=digest)


def entries(connection: Connection, *, since: int = 0, limit: int = 1000) -> list[dict[str, Any]]:
    """Entries after number ``since``, oldest first."""
    rows = connection.execute(
        select(audit_log.c.entry)
        .where(audit_log.c.sequence > since)
        .order_by(audit_log.c.sequence)
        .limit(limit)
    )
    return [json.loads(row[0]) for row in rows]


def _sequence_in(entry: str) -> int | None:
    try:
        found = json.loads(entry).get("sequence")
    except (ValueError, AttributeError):
        return None
    return found if isinstance(found, int) else None
