"""The V2 routes and what a sound conversation looks like."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Iterator

import pytest

from he_infer.server import Settings
from he_infer.server.logs import JsonFormatter
from he_infer.server.routes.app import Application
from he_infer.wire.protocol import HEAD_LENGTH_HEADER
from tests.server.fakes import (
    KEYS,
    KEYS_DIGEST,
    KEYS_PATH,
    FakeHost,
    Reply,
    application,
    ask,
    close,
    query_request,
    upload_keys,
)


@pytest.fixture
def toy() -> FakeHost:
    return FakeHost()


@pytest.fixture
def app(toy: FakeHost) -> Iterator[Application]:
    made = application(toy, FakeHost("other", plan="b", levels=1))
    yield made
    close(made)


def get(app: Application, path: str) -> Reply:
    return asyncio.run(ask(app, "GET", path))


@pytest.mark.parametrize(
    "path",
    [
        "/v2",
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models",
        "/v2/models/toy",
        "/v2/models/toy/ready",
        "/v2/models/toy/versions/aaaaaaaaaaaa",
        "/v2/models/toy/versions/aaaaaaaaaaaa/ready",
    ],
)
def test_documented_paths_answer_json(app: Application, path: str) -> None:
    reply = get(app, path)
    assert reply.status == 200
    assert isinstance(reply.json, dict)
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-request-id"]


def test_server_metadata_has_the_fields_of_the_protocol(app: Application) -> None:
    data = get(app, "/v2").json
    assert set(data) == {"name", "version", "extensions"}
    assert "binary_tensor_data" in data["extensions"]


def test_model_metadata_carries_the_client_spec(app: Application, toy: FakeHost) -> None:
    data = get(app, "/v2/models/toy").json
    assert data["name"] == "toy"
    assert data["versions"] == ["a" * 12]
    assert data["inputs"] == [
        {"name": "query", "datatype": "UINT8", "shape": [toy.facts.query_bytes]}
    ]
    assert data["outputs"] == [{"name": "reply", "datatype": "UINT8", "shape": [64]}]
    assert data["parameters"]["client_spec"] == toy.facts.spec


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v2/models/nobody", 404, "unknown_model"),
        ("GET", "/v2/models/toy/versions/cccccccccccc", 404, "unknown_version"),
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/v2/models/toy/infer", 405, "method_not_allowed"),
        ("DELETE", KEYS_PATH, 404, "unknown_keys"),
        ("DELETE", "/v2/models/toy/keys/XYZ", 400, "malformed"),
    ],
)
def test_refusals_are_json_with_a_code(
    app: Application, method: str, path: str, status: int, code: str
) -> None:
    reply = asyncio.run(ask(app, method, path))
    assert (reply.status, reply.code) == (status, code)
    assert set(reply.json) == {"error", "code"}


def test_keys_then_query(app: Application, toy: FakeHost) -> None:
    async def conversation() -> None:
        assert (await ask(app, "HEAD", KEYS_PATH)).status == 404
        assert (await upload_keys(app)).status == 201
        assert (await ask(app, "HEAD", KEYS_PATH)).status == 200
        assert (await upload_keys(app)).status == 201  # again: kept once
        headers, body = query_request(toy)
        for path in ("/v2/models/toy/infer", "/v2/models/toy/versions/aaaaaaaaaaaa/infer"):
            reply = await ask(app, "POST", path, headers=headers, chunks=[body])
            assert reply.status == 200
            head_length = int(reply.headers[HEAD_LENGTH_HEADER])
            assert reply.body[head_length:] == KEYS_DIGEST.encode()
            head = json.loads(reply.body[:head_length])
            assert head["model_version"] == "a" * 12
            assert head["outputs"][0]["parameters"]["binary_data_size"] == 64
            assert head["parameters"]["evaluate_ms"] >= 0
            assert float(reply.headers["x-evaluate-ms"]) >= 0
        assert (await ask(app, "DELETE", KEYS_PATH)).status == 204
        reply = await ask(app, "POST", path, headers=headers, chunks=[body])
        assert (reply.status, reply.code) == (404, "unknown_keys")

    asyncio.run(conversation())
    assert toy.evaluations == 2


def test_keys_of_one_model_are_unknown_to_another(app: Application) -> None:
    async def conversation() -> int:
        await upload_keys(app)
        return (await ask(app, "HEAD", KEYS_PATH.replace("toy", "other"))).status

    assert asyncio.run(conversation()) == 404


def test_a_full_queue_answers_503_before_reading_the_body() -> None:
    let_go = threading.Event()
    toy = FakeHost(let_go=let_go)
    app = application(toy, settings=Settings(queue=1))

    async def conversation() -> list[Reply]:
        await upload_keys(app)
        headers, body = query_request(toy)

        async def query() -> Reply:
            return await ask(app, "POST", "/v2/models/toy/infer", headers=headers, chunks=[body])

        admitted = [asyncio.create_task(query()) for _ in range(2)]
        # The first is parsed by a thread, which may begin after its place was taken.
        while (load := app.service.workers.load).busy + load.waiting < 2 or not toy.queries:
            await asyncio.sleep(0.01)
        opened = len(toy.queries)
        refused = await query()
        assert len(toy.queries) == opened
        assert (await ask(app, "GET", "/v2/health/ready")).status == 200  # still responsive
        let_go.set()
        return [refused, *await asyncio.gather(*admitted)]

    refused, *answered = asyncio.run(conversation())
    close(app)
    assert (refused.status, refused.code) == (503, "busy")
    assert int(refused.headers["retry-after"]) >= 1
    assert [reply.status for reply in answered] == [200, 200]


def test_a_client_that_leaves_the_queue_is_not_evaluated() -> None:
    let_go = threading.Event()
    toy = FakeHost(let_go=let_go)
    app = application(toy)

    async def conversation() -> None:
        await upload_keys(app)
        headers, body = query_request(toy)
        path = "/v2/models/toy/infer"
        first = asyncio.create_task(ask(app, "POST", path, headers=headers, chunks=[body]))
        while app.service.workers.load.busy < 1:
            await asyncio.sleep(0.01)
        gone = await ask(app, "POST", path, headers=headers, chunks=[body], leave=True)
        assert gone.status == 0
        let_go.set()
        assert (await first).status == 200

    asyncio.run(conversation())
    close(app)
    assert toy.evaluations == 1


def test_draining_is_unready_and_takes_no_query(app: Application, toy: FakeHost) -> None:
    app.service.drain()
    assert get(app, "/v2/health/ready").status == 503
    assert get(app, "/v2/health/live").status == 200
    headers, body = query_request(toy)
    reply = asyncio.run(ask(app, "POST", "/v2/models/toy/infer", headers=headers, chunks=[body]))
    assert (reply.status, reply.code) == (503, "draining")


def test_log_lines_are_json_and_hold_no_payload(
    app: Application, toy: FakeHost, caplog: pytest.LogCaptureFixture
) -> None:
    async def conversation() -> None:
        await upload_keys(app)
        headers, body = query_request(toy)
        headers["x-request-id"] = "mine-1"
        await ask(app, "POST", "/v2/models/toy/infer", headers=headers, chunks=[body])

    with caplog.at_level(logging.INFO, logger="he_infer.server"):
        asyncio.run(conversation())
    lines = [json.loads(JsonFormatter().format(record)) for record in caplog.records]
    assert [line["operation"] for line in lines] == [
        "begin_upload",
        "patch_upload",
        "put_upload",
        "infer",
    ]
    assert lines[-1]["request"] == "mine-1"
    assert {"receive_ms", "admit_ms", "evaluate_ms", "total_ms"} <= set(lines[-1])
    assert KEYS[0][200:260].decode("latin-1") not in json.dumps(lines)


def test_metrics_count_requests_and_stages(app: Application, toy: FakeHost) -> None:
    async def conversation() -> bytes:
        await upload_keys(app)
        headers, body = query_request(toy)
        await ask(app, "POST", "/v2/models/toy/infer", headers=headers, chunks=[body])
        return (await ask(app, "GET", "/metrics")).body

    text = asyncio.run(conversation()).decode()
    assert 'he_infer_requests_total{operation="infer",status="200"} 1.0' in text
    assert 'he_infer_stage_seconds_count{operation="infer",stage="evaluate"} 1.0' in text
    assert "he_infer_key_store_entries 1.0" in text
    assert "he_infer_key_store_bytes " in text
