"""Which evaluation keys are stored for whom, and which uploads are under way.

The bytes themselves lie in blobs.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Final

from sqlalchemy import delete, func, insert, select, text, update
from sqlalchemy.engine import Connection

from he_infer.errors import HEInferError
from he_infer.server.state.schema import keys, parts, uploads

_USED: Final = text(
    "SELECT used FROM evaluation_keys WHERE tenant = :tenant AND digest = :digest "
    "AND params_digest = :params_digest AND levels_digest = :levels_digest AND used >= :oldest"
)


class UnknownKeysError(HEInferError):
    """No keys are stored under this name: never uploaded, expired, deleted, evicted or damaged.

    Their client can send them (again).
    """

    def __init__(
        self, message: str = "these evaluation keys are not here: upload them (again)"
    ) -> None:
        super().__init__(message)


class StoreFullError(HEInferError):
    """A tenant's quota of stored keys is taken by keys that are in use or arriving."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyName:
    """What stored keys are bound to: the bytes' SHA-256, parameters and list of keys."""

    digest: str
    params_digest: str
    levels_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """Keys that arrive in pieces: ``received`` of ``bytes`` are here."""

    id: str
    tenant: str
    plan_digest: str
    bytes: int
    received: int


def find_keys(
    connection: Connection, tenant: str, name: KeyName, *, now: float, ttl_s: float
) -> bool:
    """Whether a tenant's keys are stored for such a model; counts as a use.

    The time of use is written at most once a hundredth of the time to live: most lookups read.
    """
    row = connection.execute(
        _USED,
        {"tenant": tenant, **asdict(name), "oldest": now - ttl_s},
    ).one_or_none()
    if row is None:
        return False
    if row[0] < now - ttl_s / 100:
        connection.execute(
            update(keys)
            .where(keys.c.tenant == tenant, keys.c.digest == name.digest)
            .values(used=now)
        )
    return True


def add_keys(
    connection: Connection, tenant: str, name: KeyName, size_bytes: int, *, now: float
) -> None:
    """Note keys whose bytes are in place; noting them again is no error."""
    connection.execute(delete(keys).where(keys.c.tenant == tenant, keys.c.digest == name.digest))
    connection.execute(
        insert(keys).values(tenant=tenant, **asdict(name), bytes=size_bytes, created=now, used=now)
    )


def delete_keys(connection: Connection, tenant: str, digest: str) -> bool:
    found = connection.execute(delete(keys).where(keys.c.tenant == tenant, keys.c.digest == digest))
    return bool(found.rowcount)


def make_room(
    connection: Connection,
    tenant: str,
    size_bytes: int,
    *,
    quota_bytes: int,
    pinned: Collection[str],
) -> list[str]:
    """Forget a tenant's keys, least recently used first, until ``size_bytes`` more fit its quota.

    Returns the digests whose bytes may go. Raises StoreFullError if those in use and the uploads
    under way leave too little room; nothing is forgotten then.
    """
    arriving = connection.scalar(
        select(func.coalesce(func.sum(uploads.c.bytes), 0)).where(uploads.c.tenant == tenant)
    )
    rows = connection.execute(
        select(keys.c.digest, keys.c.bytes).where(keys.c.tenant == tenant).order_by(keys.c.used)
    ).all()
    held = int(arriving or 0) + sum(size for _, size in rows)
    leaving: list[str] = []
    for digest, size in rows:
        if held + size_bytes <= quota_bytes:
            break
        if digest not in pinned:
            leaving.append(digest)
            held -= size
    if held + size_bytes > quota_bytes:
        raise StoreFullError(
            f"{size_bytes} bytes of keys do not fit a quota of {quota_bytes}, of which {held} are "
            "in use or arriving: delete keys, or try later"
        )
    connection.execute(delete(keys).where(keys.c.tenant == tenant, keys.c.digest.in_(leaving)))
    return leaving


def expired_keys(connection: Connection, *, before: float) -> list[tuple[str, str]]:
    """Forget keys not used since ``before``; returns (tenant, digest) of each."""
    rows = connection.execute(
        select(keys.c.tenant, keys.c.digest).where(keys.c.used < before)
    ).all()
    connection.execute(delete(keys).where(keys.c.used < before))
    return [(row[0], row[1]) for row in rows]


def stored(connection: Connection) -> tuple[int, int]:
    """How many keys are stored, and their bytes."""
    count, total = connection.execute(
        select(func.count(), func.coalesce(func.sum(keys.c.bytes), 0))
    ).one()
    return int(count), int(total)


# -- uploads -----------------------------------------------------------------------


def begin_upload(connection: Connection, upload: Upload, *, now: float) -> None:
    connection.execute(insert(uploads).values(**asdict(upload), used=now))


def drop_surplus(connection: Connection, tenant: str, *, most: int) -> list[str]:
    """Give up a tenant's uploads beyond ``most``, the oldest first; names of their pieces."""
    rows = connection.execute(
        select(uploads.c.id).where(uploads.c.tenant == tenant).order_by(uploads.c.used.desc())
    ).all()
    return _end_uploads(connection, [row[0] for row in rows[most:]])


def find_upload(connection: Connection, tenant: str, identity: str) -> Upload | None:
    columns = (uploads.c[field.name] for field in fields(Upload))
    row = connection.execute(
        select(*columns).where(uploads.c.id == identity, uploads.c.tenant == tenant)
    ).one_or_none()
    return None if row is None else Upload(**row._mapping)


def add_part(
    connection: Connection, upload: Upload, *, start: int, size: int, name: str, now: float
) -> bool:
    """Note a piece whose bytes are in place; False if another request was faster."""
    moved = connection.execute(
        update(uploads)
        .where(uploads.c.id == upload.id, uploads.c.received == start)
        .values(received=start + size, used=now)
    )
    if moved.rowcount != 1:
        return False
    connection.execute(insert(parts).values(upload=upload.id, start=start, bytes=size, name=name))
    return True


def parts_of(connection: Connection, identity: str) -> list[str]:
    """Names of an upload's pieces, in order."""
    rows = connection.execute(
        select(parts.c.name).where(parts.c.upload == identity).order_by(parts.c.start)
    )
    return [row[0] for row in rows]


def end_upload(connection: Connection, identity: str) -> list[str]:
    """Forget an upload; names of its pieces."""
    pieces = parts_of(connection, identity)
    connection.execute(delete(parts).where(parts.c.upload == identity))
    connection.execute(delete(uploads).where(uploads.c.id == identity))
    return pieces


def expired_uploads(connection: Connection, *, before: float) -> list[str]:
    """Forget uploads without a byte since ``before``; names of their pieces."""
    rows = connection.execute(select(uploads.c.id).where(uploads.c.used < before)).all()
    return _end_uploads(connection, [row[0] for row in rows])


def _end_uploads(connection: Connection, identities: Sequence[str]) -> list[str]:
    pieces = []
    for identity in identities:
        pieces += end_upload(connection, identity)
    return pieces
