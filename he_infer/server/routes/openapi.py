"""The service described in OpenAPI 3.1, for people's tools and for tests that drive it."""

from __future__ import annotations

from typing import Any, Final

from he_infer.version import __version__

JSON: Final = "application/json"
BINARY: Final = "application/octet-stream"
_MODEL: Final = {
    "name": "model",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"},
}
_VERSION: Final = {
    "name": "version",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": "^[0-9a-f]{12}$"},
}
_UPLOAD: Final = {
    "name": "upload",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
}
_DIGEST_SCHEMA: Final = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_DIGEST: Final = {"name": "digest", "in": "path", "required": True, "schema": _DIGEST_SCHEMA}
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


def describe() -> dict[str, Any]:
    """The document."""
    paths: dict[str, Any] = {
        "/": {"get": _operation("status page", {"200": _body("text/html", {"type": "string"})})},
        "/openapi.json": {"get": _operation("this document", {"200": _object()})},
        "/metrics": {
            "get": _operation("Prometheus", {"200": _body("text/plain", {"type": "string"})})
        },
        "/v2": {"get": _operation("server metadata", {"200": _object("name", "version")})},
        "/v2/health/live": {"get": _operation("liveness", {"200": _object("live")})},
        "/v2/health/ready": {"get": _operation("readiness", _ready())},
        "/v2/models": {"get": _operation("models and versions", {"200": _object("models")})},
        "/v2/budget": {
            "get": _operation("budget left", {"200": _object("tenant", "records_left")})
        },
    }
    for base, parameters in (
        ("/v2/models/{model}", [_MODEL]),
        ("/v2/models/{model}/versions/{version}", [_MODEL, _VERSION]),
    ):
        paths |= _of_model(base, parameters)
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


def _of_model(base: str, parameters: list[dict[str, Any]]) -> dict[str, Any]:
    uploads = f"{base}/keys/uploads"
    return {
        base: {
            "parameters": parameters,
            "get": _operation("metadata", {"200": _object("name", "versions", "parameters")}),
        },
        f"{base}/ready": {
            "parameters": parameters,
            "get": _operation("readiness", _ready()),
        },
        f"{base}/infer": {
            "parameters": parameters,
            "post": {
                **_operation(
                    "answer an encrypted query",
                    {"200": _body(BINARY, {"type": "string", "format": "binary"})},
                ),
                "parameters": [
                    _header("Inference-Header-Content-Length", {"type": "integer", "minimum": 1}),
                    _header(
                        "Idempotency-Key",
                        {"type": "string", "pattern": "^[A-Za-z0-9-]{16,64}$"},
                        required=False,
                    ),
                ],
                "requestBody": _bytes(),
            },
        },
        f"{base}/keys/{{digest}}": {
            "parameters": [*parameters, _DIGEST],
            "head": _operation("whether keys are stored", {"200": {"description": "they are"}}),
            "delete": _operation("delete keys", {"204": {"description": "gone"}}),
        },
        uploads: {
            "parameters": parameters,
            "post": _operation("begin an upload of keys", {"202": _object("upload", "bytes")}),
        },
        f"{uploads}/{{upload}}": {
            "parameters": [*parameters, _UPLOAD],
            "get": _operation("how much is here", {"204": {"description": "see Range"}}),
            "patch": {
                **_operation("send a piece", {"202": _object("upload", "received")}),
                "parameters": [
                    _header("Content-Range", {"type": "string", "pattern": "^bytes [0-9]+-"})
                ],
                "requestBody": _bytes(),
            },
            "put": {
                **_operation("complete", {"201": _object("keys")}),
                "parameters": [
                    {"name": "digest", "in": "query", "required": True, "schema": _DIGEST_SCHEMA}
                ],
            },
            "delete": _operation("give up", {"204": {"description": "gone"}}),
        },
    }


def _operation(summary: str, answers: dict[str, Any]) -> dict[str, Any]:
    error = {"content": {JSON: {"schema": {"$ref": "#/components/schemas/Error"}}}}
    refusals = {status: {"description": text, **error} for status, text in _REFUSALS.items()}
    return {"summary": summary, "responses": {**refusals, **answers}}


def _object(*required: str) -> dict[str, Any]:
    return _body(JSON, {"type": "object", "required": list(required)})


def _ready() -> dict[str, Any]:
    return {"200": _object("ready"), "503": _object("ready")}


def _body(kind: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": "success", "content": {kind: {"schema": schema}}}


def _header(name: str, schema: dict[str, Any], *, required: bool = True) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": required, "schema": schema}


def _bytes() -> dict[str, Any]:
    schema = {"type": "string", "format": "binary"}
    return {"required": True, "content": {BINARY: {"schema": schema}}}
