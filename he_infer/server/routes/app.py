"""The ASGI application: Open Inference Protocol V2 over an InferenceService.

The operations stand in the tables of ``information``, ``inference`` and ``keys``.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, Router

from he_infer.server.admission import ReceiveQuota
from he_infer.server.routes.inference import Inference
from he_infer.server.routes.information import Information
from he_infer.server.routes.keys import KeyRoutes
from he_infer.server.routes.metrics import Metrics
from he_infer.server.routes.observed import Observed, Trace, trace_of
from he_infer.server.routes.openapi import Operation, describe, json_object
from he_infer.server.service import InferenceService


class Application:
    """The ASGI callable with the state that its requests share."""

    def __init__(self, service: InferenceService) -> None:
        self.service = service
        self.quota = ReceiveQuota(limit_bytes=service.settings.receive_quota_bytes)
        metrics = Metrics()
        document = {"200": json_object()}
        self.operations = [
            Operation("GET", "/openapi.json", "openapi", "this document", document, self.openapi),
            *Information(service, self.quota, metrics).operations(),
            *Inference(service, self.quota).operations(),
            *KeyRoutes(service, self.quota).operations(),
        ]
        # A bare router: Starlette's own middleware would answer 500 before ours sees an error.
        router = Router(routes=[_route(o) for o in self.operations], redirect_slashes=False)
        self._observed = Observed(router, metrics=metrics, on_secret_key=self._note_secret_key)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._observed(scope, receive, send)

    @property
    def idle(self) -> bool:
        """Whether no request is being answered."""
        return self._observed.in_flight == 0

    async def openapi(self, request: Request, trace: Trace) -> Response:
        return JSONResponse(describe(self.operations))

    async def _note_secret_key(self, trace: Trace) -> None:
        if not trace.tenant:
            return  # a stranger's: the log line and the metrics have it
        await self.service.accounts.note(
            "secret_key_posted",
            {"request": trace.id, "operation": trace.operation, "tenant": trace.tenant},
        )


def _route(operation: Operation) -> Route:
    async def endpoint(request: Request) -> Response:
        return await operation.handle(request, trace_of(request, operation.name))

    return Route(operation.path, endpoint, methods=[operation.method])
