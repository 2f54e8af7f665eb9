"""The OpenAPI document names every operation and describes what is in its path."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator

import pytest

from he_infer.server.routes.app import Application
from tests.server.fakes import FakeHost, application, ask, close

PUBLIC = {
    "/": {"get"},
    "/openapi.json": {"get"},
    "/metrics": {"get"},
    "/v2": {"get"},
    "/v2/health/live": {"get"},
    "/v2/health/ready": {"get"},
    "/v2/models": {"get"},
    "/v2/budget": {"get"},
}
OF_A_MODEL = {
    "": {"get"},
    "/ready": {"get"},
    "/infer": {"post"},
    "/keys/{digest}": {"head", "delete"},
    "/keys/uploads": {"post"},
    "/keys/uploads/{upload}": {"get", "patch", "put", "delete"},
}
BASES = ("/v2/models/{model}", "/v2/models/{model}/versions/{version}")
EXPECTED = PUBLIC | {base + path: names for base in BASES for path, names in OF_A_MODEL.items()}


@pytest.fixture
def app() -> Iterator[Application]:
    made = application(FakeHost())
    yield made
    close(made)


def test_every_operation_is_described(app: Application) -> None:
    paths = asyncio.run(ask(app, "GET", "/openapi.json")).json["paths"]
    assert {path: set(entry) - {"parameters"} for path, entry in paths.items()} == EXPECTED
    for path, entry in paths.items():
        described = {p["name"] for p in entry.get("parameters", ())}
        assert described == set(re.findall(r"{(\w+)}", path))


def test_what_has_a_body_or_headers_says_so(app: Application) -> None:
    paths = asyncio.run(ask(app, "GET", "/openapi.json")).json["paths"]
    for base in BASES:
        infer, uploads = paths[f"{base}/infer"]["post"], paths[f"{base}/keys/uploads/{{upload}}"]
        assert [p["required"] for p in infer["parameters"]] == [True, False]
        assert "requestBody" in infer and "requestBody" in uploads["patch"]
        assert uploads["patch"]["parameters"][0]["name"] == "Content-Range"
        assert uploads["put"]["parameters"][0]["in"] == "query"
        assert "requestBody" not in uploads["put"]
        assert "503" in paths[f"{base}/ready"]["get"]["responses"]
