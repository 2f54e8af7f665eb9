"""Who may ask, and for how many records: tenants, their tokens and their budgets.

A token is 256 random bits, so its plain SHA-256 is enough to keep: nobody can guess towards it.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Final

from sqlalchemy import delete, insert, text, update
from sqlalchemy.engine import Connection

from he_infer.errors import HEInferError, ParameterError
from he_infer.server.state.schema import tenants, tokens
from he_infer.wire.protocol import NAME

ANONYMOUS: Final = "anonymous"
TOKEN_PREFIX: Final = "hei_"  # lets scanners for leaked secrets know one
_TOKEN: Final = re.compile(r"hei_[A-Za-z0-9_-]{43}")


class BudgetSpentError(HEInferError):
    """The tenant's budget of records does not cover the query."""

    def __init__(self, message: str, *, retry_after_s: int | None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """``records_limit`` records in every ``period_s`` seconds; None: no limit, no period."""

    name: str
    active: bool
    records_limit: int | None
    period_s: float | None
    records_used: int
    period_start: float

    def left(self, now: float) -> int | None:
        """Records left at ``now``; None without a limit."""
        if self.records_limit is None:
            return None
        used = 0 if self._is_over(now) else self.records_used
        return max(0, self.records_limit - used)

    def _is_over(self, now: float) -> bool:
        return self.period_s is not None and now >= self.period_start + self.period_s


def add_tenant(
    connection: Connection,
    name: str,
    *,
    now: float,
    records_limit: int | None = None,
    period_s: float | None = None,
) -> None:
    """Add a tenant; raises ParameterError for a bad name, a budget below 0 or a name in use."""
    if not NAME.fullmatch(name):
        raise ParameterError(
            f"a tenant's name has 1 to 100 letters, digits, dots, dashes, underscores: got {name!r}"
        )
    _check_budget(records_limit, period_s)
    if find_tenant(connection, name) is not None:
        raise ParameterError(f"there is a tenant {name} already: choose another name")
    connection.execute(
        insert(tenants).values(
            name=name,
            created=now,
            active=True,
            records_limit=records_limit,
            period_s=period_s,
            period_start=now,
            records_used=0,
        )
    )


def set_budget(
    connection: Connection,
    name: str,
    *,
    now: float,
    records_limit: int | None,
    period_s: float | None,
) -> None:
    """Give a tenant another budget, nothing of it used; raises ParameterError."""
    _check_budget(records_limit, period_s)
    budget = {"records_limit": records_limit, "period_s": period_s}
    _change(connection, name, {**budget, "period_start": now, "records_used": 0})


def set_active(connection: Connection, name: str, active: bool) -> None:
    """Let a tenant in or lock it out; raises ParameterError for an unknown one."""
    _change(connection, name, {"active": active})


def find_tenant(connection: Connection, name: str) -> Tenant | None:
    row = connection.execute(_BY_NAME, {"name": name}).one_or_none()
    return None if row is None else Tenant(**row._mapping)


def all_tenants(connection: Connection) -> list[Tenant]:
    return [Tenant(**row._mapping) for row in connection.execute(_ALL)]


def issue_token(
    connection: Connection, tenant: str, *, now: float, lifetime_s: float | None = None
) -> str:
    """A new token of a tenant: shown once, kept as a hash. Raises ParameterError."""
    if find_tenant(connection, tenant) is None:
        raise ParameterError(f"there is no tenant {tenant}: add it first")
    if lifetime_s is not None and not lifetime_s > 0:
        raise ParameterError("a token's lifetime must be positive")
    token = TOKEN_PREFIX + secrets.token_urlsafe(32)
    expires = None if lifetime_s is None else now + lifetime_s
    connection.execute(
        insert(tokens).values(
            digest=token_digest(token), tenant=tenant, created=now, expires=expires
        )
    )
    return token


def revoke_tokens(connection: Connection, tenant: str, *, keep: str | None = None) -> int:
    """Revoke a tenant's tokens, but for ``keep`` if given; how many there were."""
    chosen = tokens.c.tenant == tenant
    if keep is not None:
        chosen &= tokens.c.digest != token_digest(keep)
    return int(connection.execute(delete(tokens).where(chosen)).rowcount)


def tenant_of_token(connection: Connection, token: str, *, now: float) -> Tenant | None:
    """The tenant that a token lets in; None if it is unknown, expired or locked out."""
    if not _TOKEN.fullmatch(token):
        return None
    row = connection.execute(_BY_TOKEN, {"digest": token_digest(token), "now": now}).one_or_none()
    return None if row is None else Tenant(**row._mapping)


def charge(connection: Connection, tenant: str, records: int, *, now: float) -> float:
    """Take records from a tenant's budget, all or none; raises BudgetSpentError.

    Returns when the period began that they were taken from, for ``refund``.
    """
    given = {"name": tenant, "records": records, "now": now}
    period_start: float | None = connection.scalar(_CHARGE, given)
    # The budget is spent, or its period is over: then it begins anew.
    if period_start is None and connection.execute(_RENEW, given).rowcount:
        period_start = connection.scalar(_CHARGE, given)
    if period_start is not None:
        return period_start
    found = find_tenant(connection, tenant)
    left = 0 if found is None else found.left(now)
    retry: int | None = None
    if found is not None and found.period_s is not None and records <= (found.records_limit or 0):
        retry = max(1, int(found.period_start + found.period_s - now) + 1)
    raise BudgetSpentError(
        f"a query counts as {records} records and {left} are left: "
        + ("wait for the next period" if retry is not None else "ask for a larger budget"),
        retry_after_s=retry,
    )


def refund(connection: Connection, tenant: str, records: int, *, period_start: float) -> None:
    """Give records back that a refused query had taken, unless their period is over."""
    connection.execute(
        update(tenants)
        .where(
            tenants.c.name == tenant,
            tenants.c.records_used >= records,
            tenants.c.period_start == period_start,
        )
        .values(records_used=tenants.c.records_used - records)
    )


def token_digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


_TYPES: Final = tuple(tenants.c[field.name] for field in fields(Tenant))
# Those of every query are written out: putting an expression together takes longer than SQLite
# takes to answer it.
_COLUMNS: Final = ", ".join(field.name for field in fields(Tenant))
_ALL: Final = text(f"SELECT {_COLUMNS} FROM tenants ORDER BY name").columns(*_TYPES)
_BY_NAME: Final = text(f"SELECT {_COLUMNS} FROM tenants WHERE name = :name").columns(*_TYPES)
_BY_TOKEN: Final = text(
    f"SELECT {_COLUMNS} FROM tenants WHERE active AND name = (SELECT tenant FROM tokens "
    "WHERE digest = :digest AND (expires IS NULL OR expires > :now))"
).columns(*_TYPES)
_CHARGE: Final = text(
    "UPDATE tenants SET records_used = records_used + :records WHERE name = :name "
    "AND (period_s IS NULL OR period_start + period_s > :now) "
    "AND (records_limit IS NULL OR records_used + :records <= records_limit) "
    "RETURNING period_start"
)
_RENEW: Final = text(
    "UPDATE tenants SET records_used = 0, period_start = :now WHERE name = :name "
    "AND period_start + period_s <= :now"
)


def _check_budget(records_limit: int | None, period_s: float | None) -> None:
    if records_limit is not None and not 0 <= records_limit < 2**62:
        raise ParameterError(f"a budget counts 0 or more records, got {records_limit}")
    if period_s is not None and not 1 <= period_s < 1e10:
        raise ParameterError(f"a budget's period is at least one second, got {period_s}")
    if period_s is not None and records_limit is None:
        raise ParameterError("a period needs a number of records: give both")


def _change(connection: Connection, name: str, values: Mapping[str, object]) -> None:
    changed = connection.execute(update(tenants).where(tenants.c.name == name).values(values))
    if changed.rowcount != 1:
        raise ParameterError(f"there is no tenant {name}: add it first")
