"""Every request gets an id, one log line, metrics, and an answer whatever happens inside."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from he_infer.server.catalog import Catalog
from he_infer.server.logs import log_event, where_raised
from he_infer.server.refusal import ClientGoneError, Refusal, refusal_for
from he_infer.server.routes.metrics import Metrics
from he_infer.server.routes.responses import RefusalResponse
from he_infer.server.workers.hosting import HostFacts
from he_infer.wire.protocol import request_id


@dataclass(slots=True, kw_only=True)
class Trace:
    """What one request did, for its log line and metrics. It never holds a payload.

    ``secret_key``: whether it looked as if a secret key had been posted. ``body_open``: whether
    the sender may still have something to send.
    """

    id: str
    operation: str = "other"
    model: str = ""
    tenant: str = ""
    secret_key: bool = False
    body_open: bool = False
    received_bytes: int = 0
    stages_ms: dict[str, float] = field(default_factory=dict)

    def facts_of(self, request: Request, catalog: Catalog) -> HostFacts:
        """The model that the request's path names, noted here; raises Refusal 404 or 410."""
        parameters = request.path_params
        facts = catalog.find(parameters["model"], parameters.get("version"))
        self.model = facts.name
        return facts

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage; stages of one name add up."""
        start = time.perf_counter()
        try:
            yield
        finally:
            elapsed = 1e3 * (time.perf_counter() - start)
            self.stages_ms[name] = self.stages_ms.get(name, 0.0) + elapsed


class Observed:
    """Middleware around ``app``, which raises Refusal or HEInferError to refuse.

    Any other exception is answered with 500. ``on_secret_key``: called for a request that may have
    posted a secret key.
    """

    def __init__(
        self, app: ASGIApp, *, metrics: Metrics, on_secret_key: Callable[[Trace], Awaitable[None]]
    ) -> None:
        self._app = app
        self._on_secret_key = on_secret_key
        self._metrics = metrics
        self.in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise ClientGoneError  # no lifespan and no websockets here
        headers = dict(scope["headers"])
        proposed = headers.get(b"x-request-id", b"").decode("ascii", "replace")
        trace = Trace(id=request_id(proposed, uuid.uuid4().hex))
        length = headers.get(b"content-length", b"0")
        trace.body_open = length != b"0" or b"transfer-encoding" in headers
        scope.setdefault("state", {})["trace"] = trace
        # With an application in the scope the router raises for a wrong path or method.
        scope["app"] = self
        status = 0
        code = ""

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = trace.id
            await send(message)

        start = time.perf_counter()
        level = logging.INFO
        self.in_flight += 1
        try:
            await self._app(scope, receive, send_with_id)
        except ClientGoneError:
            # Returning with the reply cut short makes the server close the connection.
            code = "client_gone"
        except Exception as error:
            refusal = _as_refusal(error)
            code = refusal.code
            if trace.secret_key:
                await self._on_secret_key(trace)
            if refusal.status >= 500 and not isinstance(error, Refusal):
                level = logging.ERROR
                failure = {"request": trace.id, "error": where_raised(error)}
                log_event(logging.ERROR, "failure", failure)
            if not status:
                response = RefusalResponse(refusal, linger=trace.body_open)
                await response(scope, receive, send_with_id)
        finally:
            self.in_flight -= 1
            self._record(scope, trace, status, code, level, time.perf_counter() - start)

    def _record(
        self, scope: Scope, trace: Trace, status: int, code: str, level: int, seconds: float
    ) -> None:
        self._metrics.requests.labels(trace.operation, str(status)).inc()
        if code:
            self._metrics.refusals.labels(code).inc()
        if trace.received_bytes:
            self._metrics.received_bytes.labels(trace.operation).inc(trace.received_bytes)
        for stage, elapsed_ms in trace.stages_ms.items():
            self._metrics.stages.labels(trace.operation, stage).observe(elapsed_ms / 1e3)
        stages = {f"{stage}_ms": round(ms, 1) for stage, ms in trace.stages_ms.items()}
        log_event(
            level,
            "request",
            {
                "request": trace.id,
                "operation": trace.operation,
                "method": scope["method"],
                "model": trace.model,
                "tenant": trace.tenant,
                "status": status,
                "code": code,
                "received_bytes": trace.received_bytes,
                "total_ms": round(1e3 * seconds, 1),
                **stages,
            },
        )


def trace_of(request: Request, operation: str) -> Trace:
    """The trace of a request, with its operation named."""
    trace: Trace = request.scope["state"]["trace"]
    trace.operation = operation
    return trace


def _as_refusal(error: Exception) -> Refusal:
    if isinstance(error, HTTPException):
        code = "method_not_allowed" if error.status_code == 405 else "not_found"
        return Refusal(error.status_code, code, f"{code.replace('_', ' ')}: see GET /v2")
    return refusal_for(error)
