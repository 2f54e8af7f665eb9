"""Tokens, budgets, idempotency, uploads in pieces and several versions, over the ASGI app."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest

from he_infer.server import InferenceService, Settings
from he_infer.server.key_uploads import parse_range
from he_infer.server.refusal import Refusal
from he_infer.server.routes.app import Application
from he_infer.server.state import State, audit_log, tenants
from he_infer.server.workers.workers import ThreadPool, Workers
from tests.server.fakes import (
    KEYS,
    KEYS_DIGEST,
    KEYS_PATH,
    UPLOADS_PATH,
    FakeHost,
    Reply,
    application,
    ask,
    close,
    query_request,
    send_piece,
    upload_keys,
)

INFER = "/v2/models/toy/infer"


@pytest.fixture
def toy() -> FakeHost:
    return FakeHost(records=10)


@pytest.fixture
def app(toy: FakeHost) -> Iterator[Application]:
    made = application(toy, settings=Settings(tokens_required=True))
    yield made
    close(made)


def token_of(app: Application, name: str, **budget: Any) -> dict[str, str]:
    with app.service.state.database.transaction() as c:
        tenants.add_tenant(c, name, now=0.0, **budget)
        return {"authorization": f"Bearer {tenants.issue_token(c, name, now=0.0)}"}


async def query(app: Application, toy: FakeHost, who: dict[str, str], **extra: str) -> Reply:
    headers, body = query_request(toy)
    given = {**headers, **who, **{k.replace("_", "-"): v for k, v in extra.items()}}
    return await ask(app, "POST", INFER, headers=given, chunks=[body])


def test_without_a_token_nothing_but_public_facts(app: Application, toy: FakeHost) -> None:
    async def conversation() -> None:
        for method, path in (("HEAD", KEYS_PATH), ("POST", UPLOADS_PATH), ("GET", "/v2/budget")):
            reply = await ask(app, method, path)
            assert reply.status == 401
            assert reply.headers["www-authenticate"] == "Bearer"
        for header in ("Basic eDp5", "Bearer nonsense", "Bearer hei_" + "A" * 43, "Bearer"):
            assert (await query(app, toy, {"authorization": header})).status == 401
        assert (await ask(app, "GET", "/v2/models/toy")).status == 200

    asyncio.run(conversation())
    assert toy.evaluations == 0


def test_one_tenant_does_not_learn_of_anothers_keys(app: Application, toy: FakeHost) -> None:
    first, second = token_of(app, "first"), token_of(app, "second")

    async def conversation() -> None:
        assert (await upload_keys(app, headers=first)).status == 201
        assert (await ask(app, "HEAD", KEYS_PATH, headers=first)).status == 200
        assert (await ask(app, "HEAD", KEYS_PATH, headers=second)).status == 404
        assert (await query(app, toy, second)).code == "unknown_keys"
        assert (await ask(app, "DELETE", KEYS_PATH, headers=second)).status == 404
        assert (await query(app, toy, first)).status == 200

    asyncio.run(conversation())


def test_a_budget_counts_records_not_requests(app: Application, toy: FakeHost) -> None:
    who = token_of(app, "acme", records_limit=25, period_s=3600.0)
    with app.service.state.database.transaction() as c:
        tenants.set_budget(c, "acme", now=time.time(), records_limit=25, period_s=3600.0)

    async def conversation() -> list[Reply]:
        await upload_keys(app, headers=who)
        replies = [await query(app, toy, who) for _ in range(3)]
        replies.append(await ask(app, "GET", "/v2/budget", headers=who))
        return replies

    *answered, refused, budget = asyncio.run(conversation())
    assert [reply.status for reply in answered] == [200, 200]
    assert (refused.status, refused.code) == (429, "budget_spent")
    assert 3500 < int(refused.headers["retry-after"]) <= 3601
    assert budget.json["records_left"] == 5
    assert toy.evaluations == 2


def test_the_same_request_is_evaluated_and_charged_once(app: Application, toy: FakeHost) -> None:
    who = token_of(app, "acme", records_limit=100)

    async def conversation() -> None:
        await upload_keys(app, headers=who)
        first = await query(app, toy, who, idempotency_key="k" * 16)
        again = await query(app, toy, who, idempotency_key="k" * 16)
        assert (first.status, again.status) == (200, 200)
        assert "idempotent-replay" not in first.headers
        assert again.headers["idempotent-replay"] == "true"
        assert again.body[-64:] == first.body[-64:]
        headers, body = query_request(toy)
        other = await ask(
            app,
            "POST",
            INFER,
            headers={**headers, **who, "idempotency-key": "k" * 16},
            chunks=[body[:-1] + b"\1"],
        )
        assert (other.status, other.code) == (409, "idempotency_mismatch")
        short = await query(app, toy, who, idempotency_key="k")
        assert (short.status, short.code) == (400, "malformed")
        left = await ask(app, "GET", "/v2/budget", headers=who)
        assert left.json["records_left"] == 90

    asyncio.run(conversation())
    assert toy.evaluations == 1


def test_what_fails_is_given_back_and_logged(app: Application, toy: FakeHost) -> None:
    who = token_of(app, "acme", records_limit=100)

    async def conversation() -> None:
        await upload_keys(app, headers=who)
        headers, body = query_request(toy)
        bad = body[:-1] + b"\xff"
        reply = await ask(app, "POST", INFER, headers={**headers, **who}, chunks=[bad])
        assert (reply.status, reply.code) == (400, "malformed")
        left = await ask(app, "GET", "/v2/budget", headers=who)
        assert left.json["records_left"] == 100

    asyncio.run(conversation())
    with app.service.state.database.transaction() as c:
        events = [(e["event"], e.get("code")) for e in audit_log.entries(c)]
        audit_log.verify(c)
    assert events == [("keys_stored", None), ("failed", "malformed")]


def test_pieces_out_of_order_are_told_where_to_go_on(app: Application) -> None:
    who = token_of(app, "acme")
    data = KEYS[0]

    async def conversation() -> None:
        begun = await ask(app, "POST", UPLOADS_PATH, headers=who)
        path = begun.headers["location"]
        assert (begun.status, begun.json["bytes"]) == (202, len(data))
        assert (await send_piece(app, path, 0, data[:1000], headers=who)).status == 202
        wrong = await send_piece(app, path, 2000, data[2000:3000], headers=who)
        assert (wrong.status, wrong.code) == (416, "out_of_order")
        assert wrong.headers["range"] == "bytes=0-999"
        assert wrong.json["received"] == 1000
        early = await ask(app, "PUT", path, query=f"digest={KEYS_DIGEST}", headers=who)
        assert early.status == 416
        state = await ask(app, "GET", path, headers=who)
        assert (state.status, state.headers["range"]) == (204, "bytes=0-999")
        told = await ask(app, "HEAD", path, headers=who)
        assert (told.status, told.headers["range"]) == (204, "bytes=0-999")
        assert (await send_piece(app, path, 1000, data[1000:], headers=who)).status == 202
        done = await ask(app, "PUT", path, query=f"digest={KEYS_DIGEST}", headers=who)
        assert done.status == 201
        assert (await ask(app, "GET", path, headers=who)).status == 404

    asyncio.run(conversation())


def test_another_digest_ends_the_upload(app: Application) -> None:
    who = token_of(app, "acme")

    async def conversation() -> None:
        path = (await ask(app, "POST", UPLOADS_PATH, headers=who)).headers["location"]
        await send_piece(app, path, 0, KEYS[0], headers=who)
        wrong = await ask(app, "PUT", path, query=f"digest={'0' * 64}", headers=who)
        assert (wrong.status, wrong.code) == (409, "mismatch")
        assert (await ask(app, "GET", path, headers=who)).status == 404
        assert (await ask(app, "HEAD", KEYS_PATH, headers=who)).status == 404

    asyncio.run(conversation())


def test_a_given_up_upload_frees_its_quota(toy: FakeHost) -> None:
    settings = Settings(key_quota_bytes=len(KEYS[0]) + 100)
    app = application(toy, settings=settings)

    async def conversation() -> None:
        path = (await ask(app, "POST", UPLOADS_PATH)).headers["location"]
        full = await ask(app, "POST", UPLOADS_PATH)
        assert (full.status, full.code) == (507, "key_store_full")
        assert (await ask(app, "DELETE", path)).status == 204
        assert (await upload_keys(app)).status == 201

    asyncio.run(conversation())
    close(app)


def test_reservations_do_not_pile_up(app: Application) -> None:
    who = token_of(app, "acme")

    async def conversation() -> None:
        paths = []
        for _ in range(12):
            begun = await ask(app, "POST", UPLOADS_PATH, headers=who)
            assert begun.status == 202
            paths.append(begun.headers["location"])
        states = [(await ask(app, "GET", path, headers=who)).status for path in paths]
        assert states == [404] * 4 + [204] * 8

    asyncio.run(conversation())


@pytest.mark.parametrize(
    "text", [None, "", "bytes 0-9", "bytes 5-4/10", "bytes 0-10/10", "bytes 0-9/11", "0-9/10"]
)
def test_bad_ranges_are_refused(text: str | None) -> None:
    with pytest.raises(Refusal):
        parse_range(text, total=10)


def test_several_versions_are_served_side_by_side() -> None:
    old, new = FakeHost(plan="a"), FakeHost(plan="b")
    with State.open() as state:
        settings = Settings()
        workers = Workers(ThreadPool([old, new], state.blobs, settings), settings)
        app = Application(InferenceService(workers, state, settings))

        async def conversation() -> None:
            await upload_keys(app)
            assert (await ask(app, "GET", "/v2/models/toy")).json["versions"] == [
                "a" * 12,
                "b" * 12,
            ]
            for host in (old, new):
                headers, body = query_request(host)
                reply = await ask(app, "POST", INFER, headers=headers, chunks=[body])
                assert reply.status == 200
            path = f"/v2/models/toy/versions/{'b' * 12}/infer"
            headers, body = query_request(old)
            reply = await ask(app, "POST", path, headers=headers, chunks=[body])
            assert (reply.status, reply.code) == (409, "wrong_plan")

        asyncio.run(conversation())
        workers.close()
    assert (old.evaluations, new.evaluations) == (1, 1)
