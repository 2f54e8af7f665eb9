"""Operations on evaluation keys: known by digest, sent in pieces, resumed where they broke off.

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

from he_infer.server.admission import ReceiveQuota
from he_infer.server.key_uploads import out_of_order, parse_range
from he_infer.server.refusal import Refusal
from he_infer.server.routes.body import content_length, expect_length
from he_infer.server.routes.observed import Trace
from he_infer.server.routes.openapi import MODEL_BASES, Operation, json_object, matching, parameter
from he_infer.server.routes.receiving import check_open, receiving
from he_infer.server.routes.responses import range_header
from he_infer.server.service import InferenceService
from he_infer.server.state.key_index import UnknownKeysError, Upload
from he_infer.server.workers.hosting import HostFacts
from he_infer.wire.protocol import DIGEST


class KeyRoutes:
    """Handlers over a service's key store; ``quota`` bounds the bytes being received."""

    def __init__(self, service: InferenceService, quota: ReceiveQuota) -> None:
        self._service = service
        self._keys = service.keys
        self._quota = quota

    def operations(self) -> list[Operation]:
        pieces = {"202": json_object("upload", "received")}
        gone = {"204": {"description": "gone"}}
        first = {"type": "string", "pattern": "^bytes [0-9]+-"}
        piece = (parameter("Content-Range", "header", first),)
        digest = (parameter("digest", "query", matching(DIGEST)),)
        begun, known = {"202": json_object("upload", "bytes")}, {"200": {"description": "they are"}}
        here, done = {"204": {"description": "see Range"}}, {"201": json_object("keys")}
        rows = []
        for base in MODEL_BASES:
            uploads, keys = f"{base}/keys/uploads", f"{base}/keys/{{digest}}"
            one = f"{uploads}/{{upload}}"
            rows += [
                Operation(
                    "POST", uploads, "begin_upload", "begin an upload of keys", begun, self.begin
                ),
                Operation("GET", one, "get_upload", "how much is here", here, self.received),
                Operation(
                    "PATCH", one, "patch_upload", "send a piece", pieces, self.piece, piece, True
                ),
                Operation("PUT", one, "put_upload", "complete", done, self.complete, digest),
                Operation("DELETE", one, "delete_upload", "give up", gone, self.abandon),
                Operation("HEAD", keys, "head_keys", "whether keys are stored", known, self.known),
                Operation("DELETE", keys, "delete_keys", "delete keys", gone, self.delete),
            ]
        return rows

    async def known(self, request: Request, trace: Trace) -> Response:
        facts, tenant = await self._whose(request, trace)
        if not await self._keys.known(facts, tenant, request.path_params["digest"]):
            raise UnknownKeysError
        return Response(status_code=200)

    async def delete(self, request: Request, trace: Trace) -> Response:
        facts, tenant = await self._whose(request, trace)
        await self._keys.delete(facts, tenant, request.path_params["digest"], trace.id)
        return Response(status_code=204)

    async def begin(self, request: Request, trace: Trace) -> Response:
        check_open(self._service)
        async with receiving(request, trace, self._service):
            facts, tenant = await self._whose(request, trace)
            _expect_none(trace)
            upload = await self._keys.begin(facts, tenant)
        location = f"{request.url.path.rstrip('/')}/{upload.id}"
        return JSONResponse(_state(upload, 0), status_code=202, headers={"location": location})

    async def received(self, request: Request, trace: Trace) -> Response:
        async with receiving(request, trace, self._service):
            _, upload = await self._upload(request, trace)
            _expect_none(trace)
        return Response(status_code=204, headers=range_header(upload.received))

    async def abandon(self, request: Request, trace: Trace) -> Response:
        async with receiving(request, trace, self._service):
            _, upload = await self._upload(request, trace)
            _expect_none(trace)
            await self._keys.abandon(upload)
        return Response(status_code=204)

    async def piece(self, request: Request, trace: Trace) -> Response:
        async with receiving(request, trace, self._service) as body:
            facts, upload = await self._upload(request, trace)
            check_open(self._service)
            length = content_length(request.headers.get("content-length"))
            start, size = parse_range(request.headers.get("content-range"), total=upload.bytes)
            expect_length(length, size, what="this piece")
            if start != upload.received:
                raise out_of_order(upload.received)
            with self._quota.reserved(length), trace.stage("receive"):
                piece = await body.rest()
            trace.body_open = False
            with trace.stage("store"):
                received = await self._keys.append(facts, upload, start, piece)
        headers = range_header(received)
        return JSONResponse(_state(upload, received), status_code=202, headers=headers)

    async def complete(self, request: Request, trace: Trace) -> Response:
        digest = request.query_params.get("digest", "")
        async with receiving(request, trace, self._service):
            facts, upload = await self._upload(request, trace)
            _expect_none(trace)
            check_open(self._service)
            with trace.stage("load"):
                await self._keys.finish(facts, upload, digest, trace.id)
        return JSONResponse({"keys": digest}, status_code=201)

    async def _whose(self, request: Request, trace: Trace) -> tuple[HostFacts, str]:
        facts = trace.facts_of(request, self._service.catalog)
        tenant = await self._service.access.tenant(request)
        trace.tenant = tenant.name
        return facts, tenant.name

    async def _upload(self, request: Request, trace: Trace) -> tuple[HostFacts, Upload]:
        facts, tenant = await self._whose(request, trace)
        return facts, await self._keys.find(facts, tenant, request.path_params["upload"])


def _expect_none(trace: Trace) -> None:
    if trace.body_open:
        raise Refusal(400, "unexpected_body", "only PATCH takes bytes of keys: send them in pieces")


def _state(upload: Upload, received: int) -> dict[str, str | int]:
    return {"upload": upload.id, "bytes": upload.bytes, "received": received}
