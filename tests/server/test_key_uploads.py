"""Evaluation keys that are lost, damaged or sent twice at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from he_infer.server import Settings
from he_infer.server.app import Application
from he_infer.server.blobs import keys_blob
from he_infer.server.state import audit_log
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

INFER = "/v2/models/toy/infer"
BLOB = keys_blob("anonymous", KEYS_DIGEST)


@pytest.fixture
def toy() -> FakeHost:
    return FakeHost()


@pytest.fixture
def app(toy: FakeHost) -> Iterator[Application]:
    # Nothing stays loaded in workers, as after a restart.
    made = application(toy, settings=Settings(key_cache_bytes=1))
    yield made
    close(made)


async def query(app: Application, toy: FakeHost) -> Reply:
    headers, body = query_request(toy)
    return await ask(app, "POST", INFER, headers=headers, chunks=[body])


@pytest.mark.parametrize("damaged", [False, True])
def test_keys_whose_bytes_are_gone_are_asked_for_again(
    app: Application, toy: FakeHost, damaged: bool
) -> None:
    blobs = app.service.state.blobs

    async def conversation() -> None:
        assert (await upload_keys(app)).status == 201
        blobs.delete(BLOB)
        if damaged:
            blobs.write(BLOB, [KEYS[0][:-1] + b"\1"])
        lost = await query(app, toy)
        assert (lost.status, lost.code) == (404, "unknown_keys")
        assert (await ask(app, "HEAD", KEYS_PATH)).status == 404
        assert (await upload_keys(app)).status == 201
        assert (await query(app, toy)).status == 200

    asyncio.run(conversation())
    with app.service.state.database.transaction() as c:
        events = [entry["event"] for entry in audit_log.entries(c)]
    assert events == ["keys_stored", "failed", "keys_lost", "keys_stored", "answered"]


def test_an_upload_of_known_keys_restores_their_bytes(app: Application, toy: FakeHost) -> None:
    blobs = app.service.state.blobs

    async def conversation() -> None:
        assert (await upload_keys(app)).status == 201
        blobs.delete(BLOB)
        assert (await upload_keys(app)).status == 201
        assert (await query(app, toy)).status == 200

    asyncio.run(conversation())
    assert blobs.size(BLOB) == len(KEYS[0])
