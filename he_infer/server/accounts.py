"""What one query costs and leaves behind: records of a budget, a kept reply, audit entries.

Each change is made in one transaction.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy.engine import Connection

from he_infer.server.refusal import Refusal
from he_infer.server.settings import Settings
from he_infer.server.state import State, replies, tenants
from he_infer.server.state.replies import Answer
from he_infer.server.workers.hosting import Buffer, HostFacts
from he_infer.wire.protocol import IDEMPOTENCY_KEY


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """A query that was charged, or, with its ``kept`` reply, was answered before and is not.

    ``period_start``: of the budget's period that it was charged to.
    """

    tenant: str
    facts: HostFacts
    request: str
    request_digest: str
    keys_digest: str
    idempotency_key: str | None
    kept: Answer | None
    period_start: float


class Accounts:
    """Admits queries against budgets and settles them."""

    def __init__(self, state: State, settings: Settings) -> None:
        self._database = state.database
        self._log = state.audit_log
        self._settings = settings

    async def admit(
        self,
        facts: HostFacts,
        tenant: str,
        query: Buffer,
        *,
        keys_digest: str,
        request: str,
        idempotency_key: str | None,
    ) -> Admitted:
        """Charge a query that was received; raises BudgetSpentError, or Refusal 400.

        With an idempotency key that was used before for these bytes nothing is charged; raises
        OtherRequestError for other bytes, InProgressError while the first is being answered.
        """
        if idempotency_key is not None and not IDEMPOTENCY_KEY.fullmatch(idempotency_key):
            raise Refusal(
                400, "malformed", "an idempotency key has 16 to 64 letters, digits, dashes"
            )
        request_digest = hashlib.sha256(query).hexdigest()
        timeout_s = self._settings.evaluation_timeout_s * 3 + 60

        def charge(connection: Connection) -> tuple[Answer | None, float]:
            now = time.time()
            if idempotency_key is not None:
                named = (tenant, idempotency_key, request_digest)
                kept = replies.begin(connection, *named, now=now, timeout_s=timeout_s)
                if kept is not None:
                    return kept, 0.0
            return None, tenants.charge(connection, tenant, facts.records, now=now)

        kept, period_start = await self._database.run(charge)
        return Admitted(
            tenant=tenant,
            facts=facts,
            request=request,
            request_digest=request_digest,
            keys_digest=keys_digest,
            idempotency_key=idempotency_key,
            kept=kept,
            period_start=period_start,
        )

    async def check(self, tenant: str, records: int) -> None:
        """Raise BudgetSpentError if a query would; nothing is charged."""

        def work(connection: Connection) -> None:
            start = tenants.charge(connection, tenant, records, now=time.time())
            tenants.refund(connection, tenant, records, period_start=start)

        await self._database.run(work)

    async def settle(self, admitted: Admitted, answer: Answer) -> None:
        """Keep the reply and log that it was given, before it is given."""

        def work(connection: Connection) -> None:
            now = time.time()
            if admitted.idempotency_key is not None:
                replies.keep(
                    connection,
                    admitted.tenant,
                    admitted.idempotency_key,
                    answer,
                    now=now,
                    most=self._settings.replies_per_tenant,
                )
            fields = self._fields(admitted)
            fields["reply"] = hashlib.sha256(answer.reply).hexdigest()
            fields["records"] = admitted.facts.records
            self._log.append(connection, "answered", fields, now=now)

        await self._database.run(work)

    async def withdraw(self, admitted: Admitted, code: str) -> None:
        """Give back what a query that failed was charged, and log that."""

        def work(connection: Connection) -> None:
            if admitted.idempotency_key is not None:
                replies.forget(connection, admitted.tenant, admitted.idempotency_key)
            tenants.refund(
                connection,
                admitted.tenant,
                admitted.facts.records,
                period_start=admitted.period_start,
            )
            fields = {**self._fields(admitted), "code": code}
            self._log.append(connection, "failed", fields, now=time.time())

        await self._database.run(work)

    async def note(self, event: str, fields: dict[str, Any]) -> None:
        """An entry in the audit log for something that was not a query."""
        await self._database.run(lambda c: self._log.append(c, event, fields, now=time.time()))

    async def sweep(self) -> None:
        before = time.time() - self._settings.reply_ttl_s
        await self._database.run(lambda c: replies.expire(c, before=before))

    def _fields(self, admitted: Admitted) -> dict[str, Any]:
        return {
            "request": admitted.request,
            "tenant": admitted.tenant,
            "model": admitted.facts.name,
            "plan": admitted.facts.plan_digest,
            "keys": admitted.keys_digest,
            "query": admitted.request_digest,
        }
