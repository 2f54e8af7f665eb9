"""Answers kept for a while, so that a client may ask again after a broken connection.

A client names a request by an idempotency key. The same key with the same bytes is answered
from here, once evaluated and once charged; with other bytes it is refused.
"""

from __future__ import annotations

import secrets
from dataclasses import asdict, dataclass
from typing import Final

from sqlalchemy import delete, select, text, update
from sqlalchemy.engine import Connection

from he_infer.errors import HEInferError
from he_infer.server.state.schema import replies


class OtherRequestError(HEInferError):
    """The idempotency key was used for a request with other bytes."""


class InProgressError(HEInferError):
    """A request with this idempotency key is being answered at this moment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An encrypted reply envelope, and how long its evaluation took.

    Empty if only keys were checked.
    """

    reply: bytes = b""
    evaluate_ms: float = 0.0


def begin(
    connection: Connection,
    tenant: str,
    key: str,
    request_digest: str,
    *,
    now: float,
    timeout_s: float,
) -> Answer | None:
    """Reserve a key, or return the reply that is kept under it.

    A reservation older than ``timeout_s`` is taken over: who made it has died. Raises
    OtherRequestError or InProgressError.
    """
    given = {"tenant": tenant, "key": key, "digest": request_digest, "now": now}
    if connection.execute(_RESERVE, given).rowcount == 1:
        return None
    where = (replies.c.tenant == tenant) & (replies.c.idempotency_key == key)
    row = connection.execute(select(replies).where(where).with_for_update()).one()
    if row.request_digest != request_digest:
        raise OtherRequestError(
            "this idempotency key belongs to a request with other bytes: draw a new one"
        )
    if row.reply is not None:
        return Answer(reply=row.reply, evaluate_ms=row.evaluate_ms)
    if row.created + timeout_s > now:
        raise InProgressError("a request with this idempotency key is being answered: retry")
    connection.execute(update(replies).where(where).values(created=now))
    return None


def keep(
    connection: Connection,
    tenant: str,
    key: str,
    answer: Answer,
    *,
    now: float,
    most: int,
) -> None:
    """Keep the reply to a reserved request; the tenant's oldest beyond ``most`` go."""
    connection.execute(_KEEP, {"tenant": tenant, "key": key, "now": now, **asdict(answer)})
    # Counting costs more than keeping: every eighth time is often enough. Which time that is
    # must not be for the client to choose, who chooses the key.
    count = 0 if secrets.randbelow(_COUNT_ONE_IN) else connection.scalar(_COUNT, {"tenant": tenant})
    if count is not None and count > most:
        oldest = (
            select(replies.c.idempotency_key)
            .where(replies.c.tenant == tenant, replies.c.reply.is_not(None))
            .order_by(replies.c.created)
            .limit(count - most)
        )
        names = [row[0] for row in connection.execute(oldest)]
        connection.execute(
            delete(replies).where(replies.c.tenant == tenant, replies.c.idempotency_key.in_(names))
        )


def forget(connection: Connection, tenant: str, key: str) -> None:
    """Give a reservation up: the request was refused."""
    connection.execute(
        delete(replies).where(
            replies.c.tenant == tenant,
            replies.c.idempotency_key == key,
            replies.c.reply.is_(None),
        )
    )


def expire(connection: Connection, *, before: float) -> None:
    connection.execute(delete(replies).where(replies.c.created < before))


_COUNT_ONE_IN: Final = 8
_RESERVE: Final = text(
    "INSERT INTO replies (tenant, idempotency_key, request_digest, created) "
    "VALUES (:tenant, :key, :digest, :now) ON CONFLICT DO NOTHING"
)
_KEEP: Final = text(
    "UPDATE replies SET reply = :reply, evaluate_ms = :evaluate_ms, created = :now "
    "WHERE tenant = :tenant AND idempotency_key = :key"
)
_COUNT: Final = text("SELECT count(*) FROM replies WHERE tenant = :tenant")
