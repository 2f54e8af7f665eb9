"""Evaluation keys that are lost, damaged or sent twice at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from he_infer.server import Settings
from he_infer.server.refusal import Refusal
from he_infer.server.routes.app import Application
from he_infer.server.state import audit_log
from he_infer.server.state.blobs import keys_blob
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


class BusyHost(FakeHost):
    """Refuses to load keys while ``busy``."""

    busy = False

    def load_keys(self, blocks: Iterable[bytes], digest: str) -> str:
        if self.busy:
            raise Refusal(503, "busy", "no room")
        return super().load_keys(blocks, digest)


async def arrived(app: Application) -> str:
    """The path of an upload whose bytes are all here."""
    path = (await ask(app, "POST", UPLOADS_PATH)).headers["location"]
    assert (await send_piece(app, path, 0, KEYS[0])).status == 202
    return path


async def finish(app: Application, path: str, digest: str = KEYS_DIGEST) -> int:
    return (await ask(app, "PUT", path, query=f"digest={digest}")).status


def test_an_upload_that_fails_leaves_anothers_keys_alone() -> None:
    toy = BusyHost()
    app = application(toy, settings=Settings(key_cache_bytes=1))
    blobs = app.service.state.blobs

    async def conversation() -> None:
        assert (await upload_keys(app)).status == 201
        # The first found no row yet when the second began; both go on from there.
        mine = await arrived(app)
        known, asked = app.service.keys.known, 0

        async def not_yet(*given: Any) -> bool:
            nonlocal asked
            asked += 1
            return False if asked == 1 else await known(*given)

        app.service.keys.known = not_yet  # type: ignore[method-assign, assignment]
        toy.busy = True
        assert await finish(app, mine) == 503
        toy.busy = False
        assert (await query(app, toy)).status == 200
        assert await finish(app, mine) == 201

    asyncio.run(conversation())
    assert blobs.size(BLOB) == len(KEYS[0])
    close(app)


def test_another_uploads_content_never_lies_under_a_digest_of_mine(
    app: Application, toy: FakeHost
) -> None:
    blobs = app.service.state.blobs
    written: list[str] = []
    write = blobs.write

    def noted(name: str, chunks: Any) -> int:
        count = write(name, chunks)
        written.append(name)
        return count

    async def conversation() -> None:
        blobs.write = noted  # type: ignore[method-assign]
        assert await finish(app, await arrived(app), "0" * 64) == 409
        assert keys_blob("anonymous", "0" * 64) not in written
        assert blobs.size(keys_blob("anonymous", "0" * 64)) is None

    asyncio.run(conversation())


def test_a_failed_upload_leaves_no_bytes_behind() -> None:
    toy = BusyHost()
    toy.busy = True
    app = application(toy)

    async def conversation() -> None:
        path = await arrived(app)
        assert await finish(app, path) == 503
        assert app.service.state.blobs.size(BLOB) is None
        toy.busy = False
        assert await finish(app, path) == 201

    asyncio.run(conversation())
    close(app)
