"""Requests that lie, stall, stop or carry what must not be sent; each has one typed answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from he_infer.server import InferenceService, Settings
from he_infer.server.routes.app import Application
from he_infer.server.state import State, audit_log, tenants
from he_infer.server.workers.hosting import Query
from he_infer.server.workers.workers import ThreadPool, Workers
from he_infer.wire import HEADER_BYTES
from he_infer.wire.protocol import HEAD_LENGTH_HEADER
from tests.server.fakes import (
    UPLOADS_PATH,
    FakeHost,
    Reply,
    application,
    ask,
    close,
    query_request,
    upload_keys,
)

INFER = "/v2/models/toy/infer"
SEAL_OBJECT = b"\x5e\xa1\x10\x04\x03\x02\x00\x00" + bytes(500)
TENSEAL_CONTEXT = b"\x0a\x80\x04" + SEAL_OBJECT


@pytest.fixture
def toy() -> FakeHost:
    return FakeHost()


@pytest.fixture
def app(toy: FakeHost) -> Iterator[Application]:
    quick = Settings(body_grace_s=0.3, body_min_bytes_per_s=1e6)
    made = application(toy, settings=quick)
    yield made
    close(made)


def after_keys(app: Application, headers: dict[str, str], chunks: Any) -> Reply:
    async def conversation() -> Reply:
        await upload_keys(app)
        return await ask(app, "POST", INFER, headers=headers, chunks=chunks)

    return asyncio.run(conversation())


def test_unknown_keys_are_refused_before_the_ciphertexts_are_read(
    app: Application, toy: FakeHost
) -> None:
    headers, body = query_request(toy, keys="e" * 64)
    reply = after_keys(app, headers, [body])
    assert (reply.status, reply.code) == (404, "unknown_keys")
    assert toy.queries == []


def test_a_query_for_another_plan_is_409(app: Application, toy: FakeHost) -> None:
    headers, body = query_request(toy, plan="c" * 64)
    reply = after_keys(app, headers, [body])
    assert (reply.status, reply.code) == (409, "wrong_plan")


def test_a_query_for_a_replaced_plan_is_410(toy: FakeHost) -> None:
    with State.open() as state:
        settings = Settings()
        for host in (toy, FakeHost(plan="f")):
            workers = Workers(ThreadPool([host], state.blobs, settings), settings)
            app = Application(InferenceService(workers, state, settings))
        headers, body = query_request(toy)
        reply = after_keys(app, headers, [body])
        assert (reply.status, reply.code) == (410, "plan_replaced")
        old = asyncio.run(ask(app, "GET", "/v2/models/toy/versions/aaaaaaaaaaaa"))
        assert (old.status, old.code) == (410, "plan_replaced")


@pytest.mark.parametrize(
    ("announced", "status", "code"),
    [
        (None, 411, "length_required"),
        ("x", 400, "malformed"),
        ("-1", 400, "malformed"),
        ("10", 400, "wrong_length"),
        (str(10**14), 413, "too_large"),
        ("9" * 400, 400, "malformed"),
    ],
)
def test_only_the_exact_length_is_read(
    app: Application, toy: FakeHost, announced: str | None, status: int, code: str
) -> None:
    headers, body = query_request(toy)
    del headers["content-length"]
    if announced is not None:
        headers["content-length"] = announced
    reply = asyncio.run(ask(app, "POST", INFER, headers=headers, chunks=[body]))
    assert (reply.status, reply.code) == (status, code)
    assert toy.queries == []


@pytest.mark.parametrize("kept", [1, 100, 500, 1200])
def test_a_truncated_body_is_refused(app: Application, toy: FakeHost, kept: int) -> None:
    headers, body = query_request(toy)
    reply = after_keys(app, headers, [body[:kept]])
    assert (reply.status, reply.code) == (400, "truncated")
    assert toy.evaluations == 0


def test_more_bytes_than_announced_are_refused(app: Application, toy: FakeHost) -> None:
    headers, body = query_request(toy)
    reply = after_keys(app, headers, [body + b"more"])
    assert (reply.status, reply.code) == (400, "wrong_length")


@pytest.mark.parametrize(
    "head",
    [
        b"not json",
        b"[" * 5000,
        b"[]",
        b'{"inputs": []}',
        b'{"inputs": [{"name": "query"}]}',
        b'{"inputs": [{"name": "query", "datatype": "FP32", "shape": [1]}]}',
        b'{"inputs": NaN}',
        b"\xff\xfe",
    ],
)
def test_a_false_head_is_malformed(app: Application, toy: FakeHost, head: bytes) -> None:
    body = head + bytes(toy.facts.query_bytes)
    headers = {HEAD_LENGTH_HEADER: str(len(head)), "content-length": str(len(body))}
    reply = after_keys(app, headers, [body])
    assert (reply.status, reply.code) == (400, "malformed")


@pytest.mark.parametrize("length", [None, "0", "-5", "1e3", "99999999", "٣"])
def test_a_false_head_length_is_refused(
    app: Application, toy: FakeHost, length: str | None
) -> None:
    headers, body = query_request(toy)
    del headers[HEAD_LENGTH_HEADER]
    if length is not None:
        headers[HEAD_LENGTH_HEADER] = length
    reply = after_keys(app, headers, [body])
    assert reply.code in ("malformed", "too_large")
    assert reply.status in (400, 413)


def test_bad_residues_in_the_last_chunk_are_refused(app: Application, toy: FakeHost) -> None:
    headers, body = query_request(toy)
    reply = after_keys(app, headers, [body[:-1] + b"\xff"])
    assert (reply.status, reply.code) == (400, "malformed")
    assert toy.evaluations == 0


def test_a_slow_sender_is_cut_off(app: Application, toy: FakeHost) -> None:
    headers, body = query_request(toy)

    async def dripping() -> AsyncIterator[bytes]:
        for byte in body:
            yield bytes([byte])
            await asyncio.sleep(0.05)

    reply = after_keys(app, headers, dripping())
    assert (reply.status, reply.code) == (408, "too_slow")
    assert reply.headers["connection"] == "close"
    assert app.quota.reserved_bytes == 0


def test_a_client_that_leaves_frees_its_quota(app: Application, toy: FakeHost) -> None:
    headers, body = query_request(toy)

    async def conversation() -> Reply:
        await upload_keys(app)
        return await ask(app, "POST", INFER, headers=headers, chunks=[body[:300]], leave=True)

    assert asyncio.run(conversation()).status == 0
    assert app.quota.reserved_bytes == 0
    assert app.idle


@pytest.mark.parametrize("posted", [SEAL_OBJECT, TENSEAL_CONTEXT])
@pytest.mark.parametrize("method", ["PATCH", "POST"])
def test_a_posted_context_is_refused_unread(app: Application, posted: bytes, method: str) -> None:
    headers = {"content-length": str(len(posted))}

    async def conversation() -> Reply:
        path = INFER
        if method == "PATCH":
            begun = await ask(app, "POST", UPLOADS_PATH)
            path = begun.headers["location"]
            total = begun.json["bytes"]
            headers["content-range"] = f"bytes 0-{len(posted) - 1}/{total}"
        return await ask(app, method, path, headers=headers, chunks=[posted])

    reply = asyncio.run(conversation())
    assert (reply.status, reply.code) == (400, "secret_key_posted")
    assert "burnt" in reply.json["error"]
    state = app.service.state
    with state.database.transaction() as connection:
        (entry,) = audit_log.entries(connection)[-1:]
    assert entry["event"] == "secret_key_posted"
    stored = [path for path in Path(state.blobs.url).rglob("*") if path.is_file()]
    assert stored == []


def test_a_context_within_a_sound_tensor_is_recognised(app: Application, toy: FakeHost) -> None:
    headers, body = query_request(toy)
    head_length = int(headers[HEAD_LENGTH_HEADER])
    context = TENSEAL_CONTEXT.ljust(toy.facts.query_bytes, b"\0")
    reply = after_keys(app, headers, [body[:head_length] + context])
    assert (reply.status, reply.code) == (400, "secret_key_posted")


def test_an_unforeseen_error_says_nothing(toy: FakeHost, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(FakeHost):
        def evaluate(self, query: Query, loaded_keys: Any) -> bytes:
            raise RuntimeError("logit 3.25 of the client")

    app = application(Broken())
    headers, body = query_request(toy)
    reply = after_keys(app, headers, [body])
    close(app)
    assert (reply.status, reply.code) == (500, "internal")
    for text in (reply.body.decode(), caplog.text):
        assert "3.25" not in text and "Traceback" not in text


def test_the_receive_quota_bounds_bodies_together(toy: FakeHost) -> None:
    settings = Settings(receive_quota_bytes=2000, body_grace_s=60.0)
    app = application(toy, settings=settings)
    headers, body = query_request(toy)

    async def conversation() -> tuple[Reply, Reply]:
        resume = asyncio.Event()

        async def halting() -> AsyncIterator[bytes]:
            yield body[:-10]
            await resume.wait()
            yield body[-10:]

        assert (await upload_keys(app)).status == 201
        slow = asyncio.create_task(ask(app, "POST", INFER, headers=headers, chunks=halting()))
        while app.quota.reserved_bytes < len(body):
            await asyncio.sleep(0.01)
        refused = await ask(app, "POST", INFER, headers=headers, chunks=[body])
        resume.set()
        return refused, await slow

    refused, slow = asyncio.run(conversation())
    close(app)
    assert (refused.status, refused.code) == (503, "busy")
    assert slow.status == 200


@pytest.mark.parametrize("sent", [0, 300, 700])
def test_strangers_who_wait_keep_nobody_out(sent: int) -> None:
    toy = FakeHost(query_body_bytes=1_000_000)
    settings = Settings(tokens_required=True, receive_quota_bytes=3_000_000, body_grace_s=60.0)
    app = application(toy, settings=settings)
    with app.service.state.database.transaction() as c:
        tenants.add_tenant(c, "acme", now=0.0)
        token = tenants.issue_token(c, "acme", now=0.0)
    mine = {"authorization": f"Bearer {token}"}
    headers, body = query_request(toy)
    # Who has sent a header that names nobody is refused, and holds nothing from then on.
    beginning = int(headers[HEAD_LENGTH_HEADER]) + HEADER_BYTES
    held = 20 * beginning if sent < beginning else 0

    async def conversation() -> list[Reply]:
        assert (await upload_keys(app, headers=mine)).status == 201
        over, begun = asyncio.Event(), 0

        async def waiting() -> AsyncIterator[bytes]:
            nonlocal begun
            begun += 1
            yield body[:sent]
            await over.wait()

        stranger = {**headers, "authorization": "Bearer hei_" + "A" * 43}
        strangers = [
            asyncio.create_task(ask(app, "POST", INFER, headers=stranger, chunks=waiting()))
            for _ in range(20)
        ]
        # While they are being looked up they may fill the quota, for as long as that takes.
        while begun < 20 or app.quota.reserved_bytes != held:
            await asyncio.sleep(0.01)
        answered = await ask(app, "POST", INFER, headers={**headers, **mine}, chunks=[body])
        over.set()
        await asyncio.gather(*strangers)
        return [answered, *[task.result() for task in strangers]]

    answered, *refused = asyncio.run(conversation())
    close(app)
    assert answered.status == 200
    assert {reply.status for reply in refused} <= {400, 401, 503}
    assert app.quota.reserved_bytes == 0


def events_of(app: Application) -> list[dict[str, Any]]:
    with app.service.state.database.transaction() as connection:
        return audit_log.entries(connection)


LENGTH = {"content-length": str(len(SEAL_OBJECT))}
CHUNKED = {"transfer-encoding": "chunked"}


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("POST", UPLOADS_PATH, LENGTH),
        ("POST", UPLOADS_PATH, CHUNKED),
        ("POST", INFER, CHUNKED),
        ("POST", INFER.replace("toy", "nobody"), LENGTH),
        ("POST", UPLOADS_PATH.replace("toy", "nobody"), LENGTH),
        ("PUT", f"{UPLOADS_PATH}/{'0' * 32}", LENGTH),
        ("PATCH", f"{UPLOADS_PATH}/{'0' * 32}", LENGTH),
        ("PATCH", f"{UPLOADS_PATH}/{'0' * 32}", CHUNKED),
    ],
)
def test_a_secret_is_recognised_wherever_a_body_may_come(
    app: Application, method: str, path: str, headers: dict[str, str]
) -> None:
    reply = asyncio.run(ask(app, method, path, headers=headers, chunks=[SEAL_OBJECT]))
    assert (reply.status, reply.code) == (400, "secret_key_posted")
    (entry,) = events_of(app)
    assert (entry["event"], entry["tenant"]) == ("secret_key_posted", "anonymous")


def test_a_body_where_none_belongs_is_refused(app: Application) -> None:
    async def conversation() -> None:
        begun = await ask(app, "POST", UPLOADS_PATH, headers={"content-length": "0"})
        assert begun.status == 202
        for method, path in (("POST", UPLOADS_PATH), ("PUT", begun.headers["location"])):
            reply = await ask(app, method, path, headers={"content-length": "3"}, chunks=[b"abc"])
            assert (reply.status, reply.code) == (400, "unexpected_body")

    asyncio.run(conversation())


@pytest.mark.parametrize("shown", [None, "Bearer hei_" + "A" * 43])
def test_strangers_do_not_write_into_the_audit_log(toy: FakeHost, shown: str | None) -> None:
    app = application(toy, settings=Settings(tokens_required=True))
    headers = {**LENGTH, "x-request-id": "words-of-a-stranger"}
    if shown is not None:
        headers["authorization"] = shown

    async def conversation() -> bytes:
        for path in (INFER, UPLOADS_PATH):
            reply = await ask(app, "POST", path, headers=headers, chunks=[SEAL_OBJECT])
            assert (reply.status, reply.code) == (400, "secret_key_posted")
        return (await ask(app, "GET", "/metrics")).body

    metrics = asyncio.run(conversation()).decode()
    assert events_of(app) == []
    close(app)
    assert 'he_infer_refusals_total{code="secret_key_posted"} 2.0' in metrics
