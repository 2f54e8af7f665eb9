"""The routes of evaluation keys: known by digest, sent in pieces, resumed where they broke off.

HEAD, DELETE  …/keys/{sha256}                    200 or 204 if they are here, else 404
POST          …/keys/uploads                     202 with a Location: a new upload
GET           …/keys/uploads/{id}                204 with the Range received
PATCH         …/keys/uploads/{id}                202: a piece with Content-Range; 416 out of order
PUT           …/keys/uploads/{id}?digest=…       201: complete, checked and usable
DELETE        …/keys/uploads/{id}                204: given up
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from he_infer.errors import HEInferError
from he_infer.server.admission import ReceiveQuota
from he_infer.server.key_uploads import OutOfOrderError, parse_range
from he_infer.server.refusal import Refusal
from he_infer.server.routes.body import Body, content_length, expect_length
from he_infer.server.routes.burnt import refuse_burnt
from he_infer.server.routes.observed import Trace, trace_of
from he_infer.server.service import InferenceService
from he_infer.server.state.key_index import UnknownKeysError, Upload
from he_infer.server.workers.hosting import HostFacts


class KeyRoutes:
    """Handlers over a service's key store; ``quota`` bounds the bytes being received."""

    def __init__(self, service: InferenceService, quota: ReceiveQuota) -> None:
        self._service = service
        self._keys = service.keys
        self._quota = quota

    def routes(self, base: str) -> list[Route]:
        uploads = f"{base}/keys/uploads"
        return [
            Route(uploads, self.begin, methods=["POST"]),
            Route(f"{uploads}/{{upload}}", self.upload, methods=["GET", "PATCH", "PUT", "DELETE"]),
            Route(f"{base}/keys/{{digest}}", self.stored, methods=["HEAD", "DELETE"]),
        ]

    async def stored(self, request: Request) -> Response:
        trace = trace_of(request, f"{request.method.lower()}_keys")
        facts, tenant = await self._whose(request, trace)
        digest = request.path_params["digest"]
        if request.method == "DELETE":
            await self._keys.delete(facts, tenant, digest, trace.id)
            return Response(status_code=204)
        if not await self._keys.known(facts, tenant, digest):
            raise UnknownKeysError
        return Response(status_code=200)

    async def begin(self, request: Request) -> Response:
        trace = trace_of(request, "begin_upload")
        self._check_open()
        body = self._body(request)
        try:
            facts, tenant = await self._whose(request, trace)
            _expect_none(trace)
            upload = await self._keys.begin(facts, tenant)
        except (Refusal, HEInferError) as error:
            await self._refuse(body, error, trace, request)
            raise
        location = f"{request.url.path.rstrip('/')}/{upload.id}"
        return JSONResponse(
            _state(upload.id, upload.bytes, 0), status_code=202, headers={"location": location}
        )

    async def upload(self, request: Request) -> Response:
        trace = trace_of(request, f"{request.method.lower()}_upload")
        body = self._body(request)
        try:
            return await self._upload(request, body, trace)
        except (Refusal, HEInferError) as error:
            await self._refuse(body, error, trace, request)
            raise
        finally:
            trace.received_bytes = body.received_bytes

    async def _upload(self, request: Request, body: Body, trace: Trace) -> Response:
        facts, tenant = await self._whose(request, trace)
        upload = await self._keys.find(facts, tenant, request.path_params["upload"])
        if request.method != "PATCH":
            _expect_none(trace)
        if request.method == "GET":
            return Response(status_code=204, headers=_range(upload.received))
        if request.method == "DELETE":
            await self._keys.abandon(upload)
            return Response(status_code=204)
        self._check_open()
        try:
            if request.method == "PATCH":
                received = await self._receive(request, body, facts, upload, trace)
                return JSONResponse(
                    _state(upload.id, upload.bytes, received),
                    status_code=202,
                    headers=_range(received),
                )
            digest = request.query_params.get("digest", "")
            with trace.stage("load"):
                await self._keys.finish(facts, upload, digest, trace.id)
            return JSONResponse({"keys": digest}, status_code=201)
        except OutOfOrderError as error:
            content = {"error": str(error), "code": "out_of_order", "received": error.received}
            headers = _range(error.received)
            if trace.body_open:
                headers["connection"] = "close"
            return JSONResponse(content, status_code=416, headers=headers)

    async def _receive(
        self, request: Request, body: Body, facts: HostFacts, upload: Upload, trace: Trace
    ) -> int:
        length = content_length(request.headers.get("content-length"))
        start, size = parse_range(request.headers.get("content-range"), total=upload.bytes)
        expect_length(length, size, what="this piece")
        if start != upload.received:
            raise OutOfOrderError(upload.received)
        with self._quota.reserved(length), trace.stage("receive"):
            piece = await body.rest()
        trace.body_open = False
        with trace.stage("store"):
            return await self._keys.append(facts, upload, start, piece)

    def _body(self, request: Request) -> Body:
        return Body.of(request.receive, request.headers, settings=self._service.settings)

    async def _refuse(self, body: Body, error: Exception, trace: Trace, request: Request) -> None:
        """Raise another refusal if what was posted may hold a secret key."""
        await refuse_burnt(body, error, trace, request=request, access=self._service.access)

    async def _whose(self, request: Request, trace: Trace) -> tuple[HostFacts, str]:
        parameters = request.path_params
        facts = self._service.catalog.find(parameters["model"], parameters.get("version"))
        trace.model = facts.name
        tenant = await self._service.access.tenant(request)
        trace.tenant = tenant.name
        return facts, tenant.name

    def _check_open(self) -> None:
        if self._service.draining:
            raise Refusal(503, "draining", "this server is stopping: retry", retry_after_s=1)


def _expect_none(trace: Trace) -> None:
    if trace.body_open:
        raise Refusal(400, "unexpected_body", "only PATCH takes bytes of keys: send them in pieces")


def _state(identity: str, total: int, received: int) -> dict[str, str | int]:
    return {"upload": identity, "bytes": total, "received": received}


def _range(received: int) -> dict[str, str]:
    return {"range": f"bytes=0-{received - 1}"} if received else {}
