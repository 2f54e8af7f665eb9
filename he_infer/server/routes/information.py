"""Operations that tell what is served and how it is, and what is left of a budget."""

from __future__ import annotations

import time
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from he_infer.server.admission import ReceiveQuota
from he_infer.server.routes.metrics import Metrics
from he_infer.server.routes.observed import Trace
from he_infer.server.routes.openapi import MODEL_BASES, Operation, content, json_object
from he_infer.server.routes.status_page import render
from he_infer.server.service import InferenceService
from he_infer.server.state import key_index
from he_infer.server.workers.hosting import HostFacts
from he_infer.version import __version__
from he_infer.wire.protocol import QUERY_TENSOR, REPLY_TENSOR

PLATFORM: Final = "he_infer_ckks"
EXTENSIONS: Final = ["binary_tensor_data", "evaluation_keys"]
_TEXT: Final = {"type": "string"}


class Information:
    """Handlers that answer from memory; only the budget and the metrics ask the database."""

    def __init__(self, service: InferenceService, quota: ReceiveQuota, metrics: Metrics) -> None:
        self._service = service
        self._quota = quota
        self._metrics = metrics
        self._started = time.time()

    def operations(self) -> list[Operation]:
        ready = {"200": json_object("ready"), "503": json_object("ready")}
        page, text = {"200": content("text/html", _TEXT)}, {"200": content("text/plain", _TEXT)}
        server = {"200": json_object("name", "version")}
        model = {"200": json_object("name", "versions", "parameters")}
        budget = {"200": json_object("tenant", "records_left")}
        listed = {"200": json_object("models")}
        live = {"200": json_object("live")}
        rows = [
            Operation("GET", "/", "status_page", "status page", page, self.status_page),
            Operation("GET", "/metrics", "metrics", "Prometheus", text, self.metrics),
            Operation("GET", "/v2", "server_metadata", "server metadata", server, self.server),
            Operation("GET", "/v2/health/live", "live", "liveness", live, self.live),
            Operation("GET", "/v2/health/ready", "ready", "readiness", ready, self.ready),
            Operation("GET", "/v2/models", "models", "models and versions", listed, self.models),
            Operation("GET", "/v2/budget", "budget", "budget left", budget, self.budget),
        ]
        for base in MODEL_BASES:
            rows += [
                Operation("GET", base, "model_metadata", "metadata", model, self.model),
                Operation(
                    "GET", f"{base}/ready", "model_ready", "readiness", ready, self.model_ready
                ),
            ]
        return rows

    async def status_page(self, request: Request, trace: Trace) -> Response:
        page = render(self._service, uptime_s=time.time() - self._started)
        return HTMLResponse(page.html, headers={"content-security-policy": page.policy})

    async def server(self, request: Request, trace: Trace) -> Response:
        return JSONResponse({"name": "he-infer", "version": __version__, "extensions": EXTENSIONS})

    async def live(self, request: Request, trace: Trace) -> Response:
        return JSONResponse({"live": True})

    async def ready(self, request: Request, trace: Trace) -> Response:
        return self._readiness({})

    async def models(self, request: Request, trace: Trace) -> Response:
        catalog = self._service.catalog
        listed = [
            {"name": fact.name, "version": fact.version}
            for name in catalog.names
            for fact in catalog.versions(name)
        ]
        return JSONResponse({"models": listed})

    async def metrics(self, request: Request, trace: Trace) -> Response:
        stored = await self._service.state.database.run(key_index.stored)
        self._metrics.show(
            self._service.workers.load, receiving_bytes=self._quota.reserved_bytes, stored=stored
        )
        return Response(self._metrics.exposition(), media_type="text/plain; version=0.0.4")

    async def model(self, request: Request, trace: Trace) -> Response:
        facts = trace.facts_of(request, self._service.catalog)
        versions = [fact.version for fact in self._service.catalog.versions(facts.name)]
        return JSONResponse(metadata(facts, versions))

    async def model_ready(self, request: Request, trace: Trace) -> Response:
        return self._readiness({"name": trace.facts_of(request, self._service.catalog).name})

    def _readiness(self, named: dict[str, Any]) -> Response:
        ready = self._service.ready
        return JSONResponse({**named, "ready": ready}, status_code=200 if ready else 503)

    async def budget(self, request: Request, trace: Trace) -> Response:
        tenant = await self._service.access.tenant(request)
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
