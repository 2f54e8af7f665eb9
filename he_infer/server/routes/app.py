"""The ASGI application: Open Inference Protocol V2 over an InferenceService.

GET   /, /openapi.json, /metrics, /v2, /v2/health/live, /v2/health/ready, /v2/models, /v2/budget
GET   /v2/models/{m}[/versions/{v}][/ready]
POST  /v2/models/{m}[/versions/{v}]/infer
      /v2/models/{m}[/versions/{v}]/keys/…      see key_routes
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from sqlalchemy.engine import Connection
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route, Router

from he_infer.errors import HEInferError, WireError
from he_infer.server.admission import ReceiveQuota
from he_infer.server.metrics import Metrics
from he_infer.server.refusal import Refusal
from he_infer.server.routes.body import Body, content_length, expect_length
from he_infer.server.routes.burnt import refuse_burnt
from he_infer.server.routes.keys import KeyRoutes
from he_infer.server.routes.observed import Observed, Trace, trace_of
from he_infer.server.routes.openapi import describe
from he_infer.server.routes.responses import EnvelopeResponse
from he_infer.server.routes.status_page import render
from he_infer.server.service import InferenceService
from he_infer.server.state import key_index
from he_infer.server.state.key_index import UnknownKeysError
from he_infer.server.state.tenants import Tenant
from he_infer.server.workers.hosting import HostFacts
from he_infer.version import __version__
from he_infer.wire import HEADER_BYTES, Kind, read_header
from he_infer.wire.protocol import (
    HEAD_LENGTH_HEADER,
    IDEMPOTENCY_HEADER,
    QUERY_TENSOR,
    REPLY_TENSOR,
    head_length,
    parse_query_head,
    reply_head,
    request_id,
)

T = TypeVar("T")
PLATFORM: Final = "he_infer_ckks"
AHEAD_BYTES: Final = 256 * 1024  # read while a query's sender is being looked up
EXTENSIONS: Final = ["binary_tensor_data", "evaluation_keys"]


class Application:
    """The ASGI callable with the state that its requests share."""

    def __init__(self, service: InferenceService) -> None:
        self.service = service
        self.metrics = Metrics()
        self.quota = ReceiveQuota(limit_bytes=service.settings.receive_quota_bytes)
        self._observed = Observed(self._router(), metrics=self.metrics, on_burnt=self._note_burnt)
        self.started = time.time()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._observed(scope, receive, send)

    @property
    def idle(self) -> bool:
        """Whether no request is being answered."""
        return self._observed.in_flight == 0

    def _router(self) -> Router:
        model, version = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
        routes: list[BaseRoute] = [
            Route("/", self.status_page),
            Route("/openapi.json", self.openapi),
            Route("/v2", self.server_metadata),
            Route("/v2/health/live", self.live),
            Route("/v2/health/ready", self.ready),
            Route("/v2/models", self.models),
            Route("/v2/budget", self.budget),
            Route("/metrics", self.exposition),
        ]
        keys = KeyRoutes(self.service, self.quota)
        for base in (model, version):
            routes += [
                Route(base, self.model_metadata),
                Route(f"{base}/ready", self.model_ready),
                Route(f"{base}/infer", self.infer, methods=["POST"]),
                *keys.routes(base),
            ]
        # A bare router: Starlette's own middleware would answer 500 before ours sees an error.
        return Router(routes=routes, redirect_slashes=False)

    # -- what anybody may see ----------------------------------------------------------

    async def status_page(self, request: Request) -> Response:
        trace_of(request, "status_page")
        page = render(self.service, uptime_s=time.time() - self.started)
        return HTMLResponse(page.html, headers={"content-security-policy": page.policy})

    async def openapi(self, request: Request) -> Response:
        trace_of(request, "openapi")
        return JSONResponse(describe())

    async def server_metadata(self, request: Request) -> Response:
        trace_of(request, "server_metadata")
        return JSONResponse({"name": "he-infer", "version": __version__, "extensions": EXTENSIONS})

    async def live(self, request: Request) -> Response:
        trace_of(request, "live")
        return JSONResponse({"live": True})

    async def ready(self, request: Request) -> Response:
        trace_of(request, "ready")
        ready = self.service.ready
        return JSONResponse({"ready": ready}, status_code=200 if ready else 503)

    async def models(self, request: Request) -> Response:
        trace_of(request, "models")
        catalog = self.service.catalog
        listed = [
            {"name": fact.name, "version": fact.version}
            for name in catalog.names
            for fact in catalog.versions(name)
        ]
        return JSONResponse({"models": listed})

    async def exposition(self, request: Request) -> Response:
        trace_of(request, "metrics")
        self.metrics.show(self.service.workers.load, receiving_bytes=self.quota.reserved_bytes)
        count, size = await self.service.state.database.run(key_index.stored)
        self.metrics.keys.set(count)
        self.metrics.key_bytes.set(size)
        return Response(self.metrics.exposition(), media_type="text/plain; version=0.0.4")

    async def model_metadata(self, request: Request) -> Response:
        facts = self._facts(request, trace_of(request, "model_metadata"))
        versions = [fact.version for fact in self.service.catalog.versions(facts.name)]
        return JSONResponse(metadata(facts, versions))

    async def model_ready(self, request: Request) -> Response:
        facts = self._facts(request, trace_of(request, "model_ready"))
        ready = self.service.ready
        status = 200 if ready else 503
        return JSONResponse({"name": facts.name, "ready": ready}, status_code=status)

    # -- what tenants may do -----------------------------------------------------------

    async def budget(self, request: Request) -> Response:
        trace_of(request, "budget")
        tenant = await self.service.access.tenant(request)
        now = time.time()
        resets = None if tenant.period_s is None else tenant.period_start + tenant.period_s - now
        return JSONResponse(
            {
                "tenant": tenant.name,
                "records_limit": tenant.records_limit,
                "records_left": tenant.left(now),
                "period_s": tenant.period_s,
                "resets_in_s": None if resets is None else max(0.0, round(resets, 1)),
            }
        )

    async def infer(self, request: Request) -> Response:
        trace = trace_of(request, "infer")
        if self.service.draining:
            raise Refusal(503, "draining", "this server is stopping: retry", retry_after_s=1)
        body = Body.of(request.receive, request.headers, settings=self.service.settings)
        head_bytes = 0
        try:
            first = self._facts(request, trace)
            length = content_length(request.headers.get("content-length"))
            head_bytes = head_length(request.headers.get(HEAD_LENGTH_HEADER))
            _expect_one_of(length - head_bytes, self._lengths(request, first))
            self.service.access.credentials(request)  # who shows none is refused unread
            self.service.workers.check()
            beginning = head_bytes + HEADER_BYTES
            with self.quota.reserved(beginning) as held, trace.stage("receive"):
                head = await body.take(head_bytes)
                header = await body.take(HEADER_BYTES)
                # Looking up and reading overlap, but until its sender is known a body holds
                # little of the quota: strangers must not be able to fill it by waiting.
                ahead = min(length - beginning, AHEAD_BYTES)
                held.grow(ahead)
                bound = await _both(self._bound(request, header, trace), body.ahead(ahead))
                tenant, facts, keys_digest = bound
                expect_length(length, head_bytes + facts.query_bytes, what="head and query")
                identity = parse_query_head(head, length=facts.query_bytes)
                held.grow(length - beginning - ahead)
                query = header + await body.rest()
        except (Refusal, HEInferError) as error:
            access = self.service.access
            await refuse_burnt(
                body, error, trace, request=request, access=access, head_bytes=head_bytes
            )
            raise
        finally:
            trace.received_bytes = body.received_bytes
        trace.body_open = False
        with trace.stage("admit"):
            admitted = await self.service.accounts.admit(
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
                answer = await self.service.answer(admitted, query, gone=gone)
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
        timeout_s = self.service.settings.send_timeout_s
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
        access = self.service.access
        credentials = access.credentials(request)
        parameters = request.path_params

        def find(connection: Connection) -> tuple[Tenant, HostFacts, str, bool]:
            tenant = access.find(connection, *credentials)
            trace.tenant = tenant.name
            claimed = read_header(header)
            if claimed.kind is not Kind.QUERY:
                raise WireError(f"expected a query, got {claimed.kind.name.lower()}")
            facts = self.service.catalog.of_plan(
                parameters["model"], claimed.plan_digest, parameters.get("version")
            )
            digest = claimed.keys_digest
            known = self.service.keys.find_in(connection, facts, tenant.name, digest)
            return tenant, facts, digest, known

        tenant, facts, keys_digest, known = await self.service.state.database.run(find)
        if not known:
            raise UnknownKeysError
        left = tenant.left(time.time())
        if left is not None and left < facts.records and IDEMPOTENCY_HEADER not in request.headers:
            await self.service.accounts.check(tenant.name, facts.records)
        return tenant, facts, keys_digest

    def _facts(self, request: Request, trace: Trace) -> HostFacts:
        parameters = request.path_params
        facts = self.service.catalog.find(parameters["model"], parameters.get("version"))
        trace.model = facts.name
        return facts

    def _lengths(self, request: Request, facts: HostFacts) -> set[int]:
        if "version" in request.path_params:
            return {facts.query_bytes}
        return {fact.query_bytes for fact in self.service.catalog.versions(facts.name)}

    async def _note_burnt(self, trace: Trace) -> None:
        if not trace.tenant:
            return  # a stranger's: the log line and the metrics have it
        await self.service.accounts.note(
            "secret_key_posted",
            {"request": trace.id, "operation": trace.operation, "tenant": trace.tenant},
        )


def metadata(facts: HostFacts, versions: list[str]) -> dict[str, Any]:
    """V2 model metadata; ``parameters`` hold the client spec and every length in bytes."""
    return {
        "name": facts.name,
        "versions": versions,
        "platform": PLATFORM,
        "inputs": [{"name": QUERY_TENSOR, "datatype": "UINT8", "shape": [facts.query_bytes]}],
        "outputs": [{"name": REPLY_TENSOR, "datatype": "UINT8", "shape": [facts.reply_bytes]}],
        "parameters": {
            "client_spec": facts.spec,
            "plan_digest": facts.plan_digest,
            "params_digest": facts.params_digest,
            "query_bytes": facts.query_bytes,
            "reply_bytes": facts.reply_bytes,
            "keys_bytes": facts.keys_bytes,
            "records_per_query": facts.records,
        },
    }


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
