"""The ASGI application: Open Inference Protocol V2 over an InferenceService.

GET   /v2, /v2/health/live, /v2/health/ready, /v2/models, /metrics
GET   /v2/models/{m}[/versions/{v}][/ready]
POST  /v2/models/{m}[/versions/{v}]/infer
HEAD, PUT, DELETE  /v2/models/{m}/keys/{sha256}
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, Router

from he_infer.errors import HEInferError
from he_infer.inference_protocol import (
    HEAD_LENGTH_HEADER,
    QUERY_TENSOR,
    REPLY_TENSOR,
    head_length,
    parse_query_head,
    reply_head,
    request_id,
    version_of,
)
from he_infer.server.admission import Gate, ReceiveQuota
from he_infer.server.body import Body, content_length, expect_length
from he_infer.server.hosting import Host
from he_infer.server.metrics import Metrics
from he_infer.server.observed import Observed, Trace
from he_infer.server.refusal import KEY_BURNT, ClientGoneError, Refusal
from he_infer.server.responses import EnvelopeResponse
from he_infer.server.service import Answer, InferenceService
from he_infer.version import __version__
from he_infer.wire import HEADER_BYTES, looks_like_seal_object, looks_like_tenseal_context

T = TypeVar("T")
PLATFORM: Final = "he_infer_ckks"
_PEEK_BYTES: Final = 64
EXTENSIONS: Final = ["binary_tensor_data", "evaluation_keys"]


class Application:
    """The ASGI callable with the state that its requests share; ``close`` joins its threads."""

    def __init__(self, service: InferenceService) -> None:
        self.service = service
        settings = service.settings
        self.metrics = Metrics()
        self.gate = Gate(threads=settings.evaluation_threads, queue=settings.queue)
        self.quota = ReceiveQuota(limit_bytes=settings.receive_quota_bytes)
        # Parsing holds the GIL in numpy calls of milliseconds: off the loop, one at a time.
        self._parser = ThreadPoolExecutor(max_workers=1, thread_name_prefix="parse")
        self._observed = Observed(self._router(), metrics=self.metrics)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._observed(scope, receive, send)

    @property
    def idle(self) -> bool:
        """Whether no request is being answered."""
        return self._observed.in_flight == 0

    def close(self) -> None:
        self.gate.close()
        self._parser.shutdown(wait=True, cancel_futures=True)

    def _router(self) -> Router:
        model, version = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
        routes = [
            Route("/v2", self.server_metadata),
            Route("/v2/health/live", self.live),
            Route("/v2/health/ready", self.ready),
            Route("/v2/models", self.models),
            Route("/metrics", self.exposition),
            Route(f"{model}/keys/{{digest}}", self.keys, methods=["HEAD", "PUT", "DELETE"]),
        ]
        for base in (model, version):
            routes += [
                Route(base, self.model_metadata),
                Route(f"{base}/ready", self.model_ready),
                Route(f"{base}/infer", self.infer, methods=["POST"]),
            ]
        # A bare router: Starlette's own middleware would answer 500 before ours sees an error.
        return Router(routes=routes, redirect_slashes=False)

    async def server_metadata(self, request: Request) -> Response:
        _trace(request, "server_metadata")
        return JSONResponse({"name": "he-infer", "version": __version__, "extensions": EXTENSIONS})

    async def live(self, request: Request) -> Response:
        _trace(request, "live")
        return JSONResponse({"live": True})

    async def ready(self, request: Request) -> Response:
        _trace(request, "ready")
        ready = self.service.ready
        return JSONResponse({"ready": ready}, status_code=200 if ready else 503)

    async def models(self, request: Request) -> Response:
        _trace(request, "models")
        hosts = [self.service.model(name) for name in self.service.model_names()]
        listed = [{"name": h.name, "version": version_of(h.plan_digest)} for h in hosts]
        return JSONResponse({"models": listed})

    async def exposition(self, request: Request) -> Response:
        _trace(request, "metrics")
        self.metrics.admitted.set(self.gate.admitted)
        self.metrics.receiving_bytes.set(self.quota.reserved_bytes)
        self.metrics.key_bytes.set(self.service.keys.held_bytes)
        self.metrics.keys.set(len(self.service.keys))
        return Response(self.metrics.exposition(), media_type="text/plain; version=0.0.4")

    async def model_metadata(self, request: Request) -> Response:
        host = self._host(request, _trace(request, "model_metadata"))
        return JSONResponse(metadata(host))

    async def model_ready(self, request: Request) -> Response:
        host = self._host(request, _trace(request, "model_ready"))
        ready = self.service.ready
        status = 200 if ready else 503
        return JSONResponse({"name": host.name, "ready": ready}, status_code=status)

    async def keys(self, request: Request) -> Response:
        trace = _trace(request, f"{request.method.lower()}_keys")
        if request.method == "PUT":
            self._check_open()
        host = self._host(request, trace)
        digest = request.path_params["digest"]
        name = self.service.key_name(host, digest)
        if request.method == "PUT":
            return await self._receive_keys(request, host, digest, trace)
        known = self.service.keys.contains(name)
        if not known:
            raise Refusal(404, "unknown_keys", "these evaluation keys are not here: upload them")
        if request.method == "DELETE":
            self.service.keys.delete(name)
        return Response(status_code=204 if request.method == "DELETE" else 200)

    async def _receive_keys(
        self, request: Request, host: Host, digest: str, trace: Trace
    ) -> Response:
        length = content_length(request.headers.get("content-length"))
        body = Body(request.receive, length=length, settings=self.service.settings)
        try:
            expect_length(length, host.keys_bytes, what="an evaluation key envelope")
            if self.service.keys.contains(self.service.key_name(host, digest)):
                return await self._drain_known(body, trace)
            with self.quota.reserved(length):
                incoming = self.service.open_keys(host, digest)
                await self._parse_all(body, incoming.feed, trace)
                trace.body_open = False
                with trace.stage("load"):
                    await self._off_loop(lambda: self.service.store_keys(host, digest, incoming))
        except (Refusal, HEInferError) as error:
            await _refuse_burnt(body, error, trace)
            raise
        finally:
            trace.received_bytes = body.received_bytes
        return JSONResponse({"keys": digest}, status_code=201)

    async def _drain_known(self, body: Body, trace: Trace) -> Response:
        """The keys are here: read what comes without keeping it, as HTTP wants for success."""
        with trace.stage("receive"):
            async for _ in body.blocks():
                pass
        trace.body_open = False
        return Response(status_code=200)

    async def infer(self, request: Request) -> Response:
        trace = _trace(request, "infer")
        self._check_open()
        host = self._host(request, trace)
        length = content_length(request.headers.get("content-length"))
        body = Body(request.receive, length=length, settings=self.service.settings)
        answer_id, head_bytes = trace.id, 0
        try:
            head_bytes = head_length(request.headers.get(HEAD_LENGTH_HEADER))
            expect_length(length, head_bytes + host.query_bytes, what="head and query")
            self.gate.check()
            with self.quota.reserved(length):
                with trace.stage("receive"):
                    head = await body.take(head_bytes)
                identity = parse_query_head(head, length=host.query_bytes)
                answer_id = request_id(identity, trace.id)
                with trace.stage("receive"):
                    header = await body.take(HEADER_BYTES)
                incoming = self.service.open_query(host, header)
                await self._parse_all(body, incoming.feed, trace)
                trace.body_open = False
                query = incoming.finish()
        except (Refusal, HEInferError) as error:
            await _refuse_burnt(body, error, trace, head_bytes=head_bytes)
            raise
        finally:
            trace.received_bytes = body.received_bytes
        answer = await self._evaluate(request, lambda: self.service.answer(host, query), trace)
        head = reply_head(
            sum(len(piece) for piece in answer.pieces),
            model=host.name,
            version=version_of(host.plan_digest),
            request=answer_id,
            evaluate_ms=answer.evaluate_ms,
        )
        timeout_s = self.service.settings.send_timeout_s
        response = EnvelopeResponse(head, answer.pieces, timeout_s=timeout_s)
        response.headers["x-evaluate-ms"] = f"{answer.evaluate_ms:.3f}"
        return response

    async def _parse_all(self, body: Body, feed: Callable[[bytes], None], trace: Trace) -> None:
        """Feed the rest of a body to a parser as it arrives."""
        blocks = body.blocks()
        while True:
            with trace.stage("receive"):
                block = await anext(blocks, None)
            if block is None:
                return
            with trace.stage("parse"):
                await self._off_loop(lambda block=block: feed(block))  # type: ignore[misc]

    async def _evaluate(self, request: Request, work: Callable[[], Answer], trace: Trace) -> Answer:
        """Wait for a turn and evaluate; gives up the turn if the client leaves before it."""
        gone = asyncio.Event()

        async def watch() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            gone.set()

        watcher = asyncio.create_task(watch())
        try:
            with trace.stage("queue_and_evaluate"):
                answer = await self.gate.run(work, gone=gone)
        finally:
            watcher.cancel()
        if answer is None:
            raise ClientGoneError
        trace.stages_ms["evaluate"] = answer.evaluate_ms
        return answer

    async def _off_loop(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._parser, work)

    def _host(self, request: Request, trace: Trace) -> Host:
        host = self.service.model(request.path_params["model"], request.path_params.get("version"))
        trace.model = host.name
        return host

    def _check_open(self) -> None:
        if self.service.draining:
            raise Refusal(503, "draining", "this server is stopping: retry", retry_after_s=5)


def metadata(host: Host) -> dict[str, Any]:
    """V2 model metadata; ``parameters`` hold the client spec and every length in bytes."""
    return {
        "name": host.name,
        "versions": [version_of(host.plan_digest)],
        "platform": PLATFORM,
        "inputs": [{"name": QUERY_TENSOR, "datatype": "UINT8", "shape": [host.query_bytes]}],
        "outputs": [{"name": REPLY_TENSOR, "datatype": "UINT8", "shape": [host.reply_bytes]}],
        "parameters": {
            "client_spec": host.spec_json(),
            "plan_digest": host.plan_digest,
            "params_digest": host.params_digest,
            "query_bytes": host.query_bytes,
            "reply_bytes": host.reply_bytes,
            "keys_bytes": host.keys_bytes,
        },
    }


def _trace(request: Request, operation: str) -> Trace:
    trace: Trace = request.scope["state"]["trace"]
    trace.operation = operation
    return trace


async def _refuse_burnt(body: Body, error: Exception, trace: Trace, *, head_bytes: int = 0) -> None:
    """Replace a refusal if what was posted looks like a SEAL object: its key may be burnt."""
    trace.body_open = not body.ended
    if isinstance(error, Refusal) and error.status in (408, 410, 503):
        return
    beginning = await body.peek(head_bytes + _PEEK_BYTES)
    trace.body_open = not body.ended
    starts = (beginning, beginning[head_bytes:])
    if any(looks_like_tenseal_context(b) or looks_like_seal_object(b) for b in starts):
        raise Refusal(400, "secret_key_posted", KEY_BURNT) from None
