"""Operations as rows of a table, and the OpenAPI 3.1 document that follows from the table.

A row is all that a route needs: adding one adds the route, its name in logs and metrics, and its
entry in the document.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from he_infer.server.routes.observed import Trace
from he_infer.version import __version__
from he_infer.wire.protocol import DIGEST, NAME, UPLOAD, VERSION

JSON: Final = "application/json"
BINARY: Final = "application/octet-stream"
MODEL_BASES: Final = ("/v2/models/{model}", "/v2/models/{model}/versions/{version}")
_IN_PATHS: Final = {"model": NAME, "version": VERSION, "upload": UPLOAD, "digest": DIGEST}
_BYTES: Final = {"type": "string", "format": "binary"}
_ERROR: Final = {
    "type": "object",
    "required": ["error", "code"],
    "properties": {"error": {"type": "string"}, "code": {"type": "string"}},
}
_REFUSALS: Final = {
    "400": "malformed",
    "401": "no valid token or certificate",
    "403": "token and certificate contradict each other",
    "404": "no such model, version, keys or upload",
    "405": "another method is meant",
    "408": "the body came too slowly",
    "409": "bound to other parameters, another plan or other keys",
    "410": "the plan was replaced",
    "411": "a Content-Length is needed",
    "413": "too large",
    "416": "a piece out of order",
    "429": "the budget of records is spent",
    "503": "busy, stopping, or a part of the service is down",
    "507": "the quota or the disk is full",
}


class Operation(NamedTuple):
    """One method of one path, with what it is called in logs and metrics.

    ``answers``: descriptions by status, refusals apart. ``parameters``: in headers or the query;
    those in the path are known. ``takes_bytes``: whether it has a request body.
    """

    method: str
    path: str
    name: str
    summary: str
    answers: Mapping[str, Any]
    handle: Callable[[Request, Trace], Awaitable[Response]]
    parameters: tuple[dict[str, Any], ...] = ()
    takes_bytes: bool = False


def describe(operations: Iterable[Operation]) -> dict[str, Any]:
    """The document."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        names = re.findall(r"{(\w+)}", operation.path)
        shared = {"parameters": [parameter(n, "path", matching(_IN_PATHS[n])) for n in names]}
        entry = paths.setdefault(operation.path, shared if names else {})
        entry[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "he-infer",
            "version": __version__,
            "description": "Open Inference Protocol V2 with the binary data extension; tensors "
            "are encrypted envelopes.",
        },
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Error": _ERROR},
        },
        "security": [{}, {"token": []}],
    }


def _operation(operation: Operation) -> dict[str, Any]:
    error = {"content": {JSON: {"schema": {"$ref": "#/components/schemas/Error"}}}}
    refusals = {status: {"description": text, **error} for status, text in _REFUSALS.items()}
    found: dict[str, Any] = {
        "summary": operation.summary,
        "responses": {**refusals, **operation.answers},
    }
    if operation.parameters:
        found["parameters"] = list(operation.parameters)
    if operation.takes_bytes:
        found["requestBody"] = {"required": True, "content": {BINARY: {"schema": _BYTES}}}
    return found


def parameter(
    name: str, place: str, schema: Mapping[str, Any], *, required: bool = True
) -> dict[str, Any]:
    """A parameter in the ``place`` path, query or header."""
    return {"name": name, "in": place, "required": required, "schema": schema}


def matching(pattern: re.Pattern[str]) -> dict[str, str]:
    """The schema of a string that matches as a whole."""
    return {"type": "string", "pattern": f"^{pattern.pattern}$"}


def json_object(*required: str) -> dict[str, Any]:
    """An answer that is a JSON object with these members at least."""
    return content(JSON, {"type": "object", "required": list(required)})


def content(kind: str, schema: Mapping[str, Any] = _BYTES) -> dict[str, Any]:
    """An answer of a media type."""
    return {"description": "success", "content": {kind: {"schema": schema}}}
