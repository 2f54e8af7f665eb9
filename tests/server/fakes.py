"""A host without cryptography and an ASGI driver without sockets, for tests of the service."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from he_infer.errors import MismatchError, WireError
from he_infer.params import CKKSParams
from he_infer.plan.client_spec import ClientSpec
from he_infer.server import InferenceService, Settings
from he_infer.server.routes.app import Application
from he_infer.server.state import State
from he_infer.server.workers.hosting import Buffer, HostFacts, Query
from he_infer.server.workers.workers import ThreadPool, Workers
from he_infer.wire import HEADER_BYTES, Expected, KeyLevels, read_header
from he_infer.wire.envelope import Header, Kind
from he_infer.wire.protocol import HEAD_LENGTH_HEADER, query_head

PARAMS = CKKSParams.from_bits(4096, [30], special_bits=31)
LEVELS = (KeyLevels.full(PARAMS, [1]), KeyLevels.full(PARAMS, [2]))


def _keys_envelope(levels: KeyLevels) -> bytes:
    """A header that fits and zeros behind it: what a host without cryptography takes for keys."""
    expected = Expected.evaluation_keys(PARAMS, levels)
    return expected.header.to_bytes() + bytes(expected.body_bytes)


KEYS = tuple(_keys_envelope(levels) for levels in LEVELS)
KEYS_DIGEST = hashlib.sha256(KEYS[0]).hexdigest()
KEYS_PATH = f"/v2/models/toy/keys/{KEYS_DIGEST}"
UPLOADS_PATH = "/v2/models/toy/keys/uploads"


def spec_of(name: str, plan_digest: str, levels: int) -> ClientSpec:
    return ClientSpec(
        model=name,
        plan_digest=plan_digest,
        params=PARAMS,
        input_shape=(4,),
        n_outputs=3,
        batch=1,
        input_slots=np.resize(np.arange(4, dtype=np.int32), (1, 2048)),
        output_slots=np.arange(3, dtype=np.int32),
        n_output_ciphertexts=1,
        input_scale=2.0**20,
        output_scale=2.0**20,
        output_level=0,
        key_levels=LEVELS[levels],
        input_range=(0.0, 1.0),
    )


class FakeHost:
    """Echoes which keys it was given; ``let_go`` holds evaluations until it is set."""

    def __init__(
        self,
        name: str = "toy",
        *,
        plan: str = "a",
        levels: int = 0,
        records: int = 1,
        query_body_bytes: int = 1000,
        let_go: threading.Event | None = None,
    ) -> None:
        self._let_go = let_go
        self.facts = HostFacts(
            name=name,
            plan_digest=plan * 64,
            params_digest=PARAMS.digest,
            levels_digest=LEVELS[levels].digest,
            query_bytes=HEADER_BYTES + query_body_bytes,
            keys_bytes=len(KEYS[levels]),
            loaded_keys_bytes=10_000,
            reply_bytes=64,
            records=records,
            spec=spec_of(name, plan * 64, levels).to_json(),
        )
        self.evaluations = 0
        self.made_ready = 0
        self.queries: list[Query] = []

    def parse_query(self, query: Buffer, keys_digest: str) -> Query:
        """Accepts a query of the right length, bound to these keys, that does not end in 0xff."""
        self.queries.append(Query(keys_digest=keys_digest, inputs=()))
        assert len(query) == self.facts.query_bytes
        assert read_header(query).keys_digest == keys_digest
        if query[-1] == 0xFF:
            raise WireError("a residue is out of range")
        return self.queries[-1]

    def load_keys(self, blocks: Iterable[bytes], digest: str) -> str:
        if hashlib.sha256(b"".join(blocks)).hexdigest() != digest:
            raise MismatchError("the keys' SHA-256 is not the one in the address")
        return digest

    def evaluate(self, query: Query, loaded_keys: Any) -> bytes:
        if self._let_go is not None:
            assert self._let_go.wait(timeout=300)
        self.evaluations += 1
        assert loaded_keys == query.keys_digest
        return query.keys_digest.encode()

    def make_ready(self, loaded_keys: Any) -> None:
        self.made_ready += 1


def envelope_header(host: FakeHost, *, keys: str = KEYS_DIGEST, plan: str | None = None) -> bytes:
    return Header(
        kind=Kind.QUERY,
        size=2,
        level=1,
        count=1,
        n=4096,
        scale=2.0**30,
        body_bytes=host.facts.query_bytes - HEADER_BYTES,
        params_digest=host.facts.params_digest,
        plan_digest=host.facts.plan_digest if plan is None else plan,
        keys_digest=keys,
    ).to_bytes()


def query_request(
    host: FakeHost, *, keys: str = KEYS_DIGEST, plan: str | None = None
) -> tuple[dict[str, str], bytes]:
    """Headers and body of a query that the host accepts."""
    head = query_head(host.facts.query_bytes)
    body = head + envelope_header(host, keys=keys, plan=plan)
    body += bytes(host.facts.query_bytes - HEADER_BYTES)
    headers = {HEAD_LENGTH_HEADER: str(len(head)), "content-length": str(len(body))}
    return headers, body


@dataclass(kw_only=True)
class Reply:
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.json["code"])


async def _listed(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def ask(
    app: Any,
    method: str,
    path: str,
    *,
    headers: Mapping[str, str] | None = None,
    chunks: Iterable[bytes] | AsyncIterator[bytes] = (),
    leave: bool = False,
    query: str = "",
) -> Reply:
    """Send one request; after its chunks the client waits, or leaves with ``leave``."""
    source = chunks if isinstance(chunks, AsyncIterator) else _listed(chunks)
    answered, ended = asyncio.Event(), False
    reply = Reply(status=0)

    async def receive() -> dict[str, Any]:
        nonlocal ended
        chunk = None if ended else await anext(source, None)
        if chunk is not None:
            return {"type": "http.request", "body": chunk, "more_body": True}
        if not ended and not leave:
            ended = True
            return {"type": "http.request", "body": b"", "more_body": False}
        if not leave:
            await answered.wait()
        return {"type": "http.disconnect"}

    async def send(message: Mapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            reply.status = message["status"]
            reply.headers = {k.decode(): v.decode() for k, v in message["headers"]}
        else:
            reply.body += message["body"]
            if not message.get("more_body"):
                answered.set()

    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "scheme": "http",
        "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 1),
        "headers": [(k.lower().encode(), v.encode()) for k, v in (headers or {}).items()],
    }
    await app(scope, receive, send)
    return reply


async def upload_keys(app: Any, *, headers: Mapping[str, str] | None = None) -> Reply:
    """The whole upload in one piece; the answer to its last request, or the first refusal."""
    given = dict(headers or {})
    begun = await ask(app, "POST", UPLOADS_PATH, headers=given)
    if begun.status != 202:
        return begun
    path = begun.headers["location"]
    sent = await send_piece(app, path, 0, KEYS[0], headers=given)
    if sent.status != 202:
        return sent
    return await ask(app, "PUT", path, query=f"digest={KEYS_DIGEST}", headers=given)


async def send_piece(
    app: Any, path: str, start: int, piece: bytes, *, headers: Mapping[str, str] | None = None
) -> Reply:
    given = {
        "content-length": str(len(piece)),
        "content-range": f"bytes {start}-{start + len(piece) - 1}/{len(KEYS[0])}",
        **(headers or {}),
    }
    return await ask(app, "PATCH", path, headers=given, chunks=[piece])


def application(*hosts: FakeHost, settings: Settings | None = None) -> Application:
    """The service over hosts without cryptography, with a state that goes when it is closed."""
    chosen = settings or Settings()
    state = State.open()
    workers = Workers(ThreadPool(hosts, state.blobs, chosen), chosen)
    return Application(InferenceService(workers, state, chosen))


def close(app: Application) -> None:
    app.service.close()
    app.service.state.close()
