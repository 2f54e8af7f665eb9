"""The operation that answers an encrypted query.

    head · envelope ──► lengths ──► header: whose, which plan, which keys ──► the rest
                                                                                │
    head · envelope ◄── audit log, kept reply ◄── evaluation ◄── budget charged ◄┘

A query that cannot be answered is refused as early as that can be known, unread where possible.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from sqlalchemy.engine import Connection
from starlette.requests import Request
from starlette.responses import Response

from he_infer.errors import WireError
from he_infer.server.admission import ReceiveQuota
from he_infer.server.refusal import Refusal
from he_infer.server.routes.body import content_length, expect_length
from he_infer.server.routes.observed import Trace
from he_infer.server.routes.openapi import (
    BINARY,
    MODEL_BASES,
    Operation,
    content,
    matching,
    parameter,
)
from he_infer.server.routes.receiving import check_open, receiving
from he_infer.server.routes.responses import EnvelopeResponse
from he_infer.server.service import InferenceService
from he_infer.server.state.key_index import UnknownKeysError
from he_infer.server.state.tenants import Tenant
from he_infer.server.workers.hosting import HostFacts
from he_infer.wire import HEADER_BYTES, Kind, read_header
from he_infer.wire.protocol import (
    HEAD_LENGTH_HEADER,
    IDEMPOTENCY_HEADER,
    IDEMPOTENCY_KEY,
    head_length,
    parse_query_head,
    reply_head,
    request_id,
)

T = TypeVar("T")
AHEAD_BYTES: Final = 256 * 1024  # read while a query's sender is being looked up
_HEADERS: Final = (
    parameter("Inference-Header-Content-Length", "header", {"type": "integer", "minimum": 1}),
    parameter("Idempotency-Key", "header", matching(IDEMPOTENCY_KEY), required=False),
)


class Inference:
    """The handler of queries; ``quota`` bounds the bytes being received."""

    def __init__(self, service: InferenceService, quota: ReceiveQuota) -> None:
        self._service = service
        self._quota = quota

    def operations(self) -> list[Operation]:
        summary, answers = "answer an encrypted query", {"200": content(BINARY)}
        return [
            Operation(
                "POST", f"{base}/infer", "infer", summary, answers, self.infer, _HEADERS, True
            )
            for base in MODEL_BASES
        ]

    async def infer(self, request: Request, trace: Trace) -> Response:
        service = self._service
        check_open(service)
        async with receiving(request, trace, service) as body:
            first = trace.facts_of(request, service.catalog)
            length = content_length(request.headers.get("content-length"))
            body.head_bytes = head_length(request.headers.get(HEAD_LENGTH_HEADER))
            _expect_one_of(length - body.head_bytes, self._lengths(request, first))
            service.access.credentials(request)  # who shows none is refused unread
            service.workers.check()
            beginning = body.head_bytes + HEADER_BYTES
            with self._quota.reserved(beginning) as hold, trace.stage("receive"):
                head = await body.take(body.head_bytes)
                header = await body.look(HEADER_BYTES)
                # Looking up and reading overlap, but until its sender is known a body holds
                # little of the quota: strangers must not be able to fill it by waiting.
                ahead = min(length - beginning, AHEAD_BYTES)
                hold(ahead)
                bound = await _both(
                    self._bound(request, header, trace), body.ahead(HEADER_BYTES + ahead)
                )
                tenant, facts, keys_digest = bound
                expect_length(length, body.head_bytes + facts.query_bytes, what="head and query")
                identity = parse_query_head(head, length=facts.query_bytes)
                hold(length - beginning - ahead)
                query = await body.rest()
        trace.body_open = False
        with trace.stage("admit"):
            admitted = await service.accounts.admit(
                facts,
                tenant.name,
                query,
                keys_digest=keys_digest,
                request=trace.id,
                idempotency_key=request.headers.get(IDEMPOTENCY_HEADER),
            )
        gone = asyncio.Event()
        watcher = asyncio.create_task(_watch(request, gone))
        try:
            with trace.stage("queue_and_evaluate"):
                answer = await service.answer(admitted, query, gone=gone)
        finally:
            watcher.cancel()
        trace.stages_ms["evaluate"] = answer.evaluate_ms
        head = reply_head(
            len(answer.reply),
            model=facts.name,
            version=facts.version,
            request=request_id(identity, trace.id),
            evaluate_ms=answer.evaluate_ms,
        )
        timeout_s = service.settings.send_timeout_s
        response = EnvelopeResponse(head, answer.reply, timeout_s=timeout_s)
        response.headers["x-evaluate-ms"] = f"{answer.evaluate_ms:.3f}"
        if admitted.kept is not None:
            response.headers["idempotent-replay"] = "true"
        return response

    async def _bound(
        self, request: Request, header: bytes, trace: Trace
    ) -> tuple[Tenant, HostFacts, str]:
        """Whose query this is and what it is bound to, from its envelope's header.

        Raises Refusal and UnknownKeysError: a query that cannot be answered is refused before
        its ciphertexts are read.
        """
        access = self._service.access
        credentials = access.credentials(request)
        parameters = request.path_params

        def find(connection: Connection) -> tuple[Tenant, HostFacts, str, bool]:
            tenant = access.find(connection, *credentials)
            trace.tenant = tenant.name
            claimed = read_header(header)
            if claimed.kind is not Kind.QUERY:
                raise WireError(f"expected a query, got {claimed.kind.name.lower()}")
            facts = self._service.catalog.of_plan(
                parameters["model"], claimed.plan_digest, parameters.get("version")
            )
            digest = claimed.keys_digest
            known = self._service.keys.find_in(connection, facts, tenant.name, digest)
            return tenant, facts, digest, known

        tenant, facts, keys_digest, known = await self._service.state.database.run(find)
        if not known:
            raise UnknownKeysError
        left = tenant.left(time.time())
        if left is not None and left < facts.records and IDEMPOTENCY_HEADER not in request.headers:
            await self._service.accounts.check(tenant.name, facts.records)
        return tenant, facts, keys_digest

    def _lengths(self, request: Request, facts: HostFacts) -> set[int]:
        if "version" in request.path_params:
            return {facts.query_bytes}
        return {fact.query_bytes for fact in self._service.catalog.versions(facts.name)}


def _expect_one_of(found: int, lengths: set[int]) -> None:
    if found not in lengths:
        nearest = max(lengths) if found > max(lengths) else min(lengths)
        expect_length(found, nearest, what="a query envelope")
        raise Refusal(400, "wrong_length", f"no version of this model takes {found} bytes")


async def _both(looking: Coroutine[Any, Any, T], reading: Coroutine[Any, Any, None]) -> T:
    """Look up and read on at the same time; the first of them that fails ends both."""
    tasks = asyncio.ensure_future(looking), asyncio.ensure_future(reading)
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in tasks:
            if task.done() and (error := task.exception()) is not None:
                raise error
        return tasks[0].result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _watch(request: Request, gone: asyncio.Event) -> None:
    """Set ``gone`` when the client closes the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    gone.set()
