"""A host without cryptography and an ASGI driver without sockets, for tests of the service."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from he_infer.errors import MismatchError, WireError
from he_infer.inference_protocol import HEAD_LENGTH_HEADER, query_head
from he_infer.server.hosting import Query
from he_infer.wire import HEADER_BYTES
from he_infer.wire.envelope import Header, Kind


class CountedQuery:
    """Accepts a header and then exactly ``length`` bytes, and keeps none of them."""

    def __init__(self, length: int, keys_digest: str) -> None:
        self._left = length
        self._keys_digest = keys_digest
        self.largest_chunk = 0

    def feed(self, chunk: bytes) -> None:
        self.largest_chunk = max(self.largest_chunk, len(chunk))
        self._left -= len(chunk)
        if b"\xff" in chunk[-1:]:
            raise WireError("a residue is out of range")

    def finish(self) -> Query:
        assert self._left == 0
        return Query(keys_digest=self._keys_digest, inputs=())


class HashedKeys:
    def __init__(self, digest: str) -> None:
        self._digest = digest
        self._hash = hashlib.sha256()

    def feed(self, chunk: bytes) -> None:
        self._hash.update(chunk)

    def finish(self) -> str:
        if self._hash.hexdigest() != self._digest:
            raise MismatchError("the keys' SHA-256 is not the one in the address")
        return self._digest


class FakeHost:
    """Echoes which keys it was given; ``let_go`` holds evaluations until it is set."""

    def __init__(
        self,
        name: str = "toy",
        *,
        plan: str = "a",
        levels_digest: str = "1, 2",
        query_body_bytes: int = 1000,
        let_go: threading.Event | None = None,
    ) -> None:
        self._name = name
        self._plan = plan
        self._levels_digest = levels_digest
        self._let_go = let_go
        self._query_bytes = HEADER_BYTES + query_body_bytes
        self.evaluations = 0
        self.queries: list[CountedQuery] = []

    @property
    def name(self) -> str:
        return self._name

    @property
    def plan_digest(self) -> str:
        return self._plan * 64

    @property
    def params_digest(self) -> str:
        return "d" * 64

    @property
    def levels_digest(self) -> str:
        return self._levels_digest

    @property
    def query_bytes(self) -> int:
        return self._query_bytes

    @property
    def keys_bytes(self) -> int:
        return 5000

    @property
    def loaded_keys_bytes(self) -> int:
        return 10_000

    @property
    def reply_bytes(self) -> int:
        return 64

    def spec_json(self) -> Mapping[str, Any]:
        return {"model": self._name}

    def open_query(self, keys_digest: str) -> CountedQuery:
        self.queries.append(CountedQuery(self._query_bytes, keys_digest))
        return self.queries[-1]

    def open_keys(self, digest: str) -> HashedKeys:
        return HashedKeys(digest)

    def evaluate(self, query: Query, loaded_keys: Any) -> Sequence[bytes]:
        if self._let_go is not None:
            assert self._let_go.wait(timeout=30)
        self.evaluations += 1
        assert loaded_keys == query.keys_digest
        return [query.keys_digest[:32].encode(), query.keys_digest[32:].encode()]


KEYS = b"k" * 5000
KEYS_DIGEST = hashlib.sha256(KEYS).hexdigest()
KEYS_PATH = f"/v2/models/toy/keys/{KEYS_DIGEST}"


def envelope_header(host: FakeHost, *, keys: str = KEYS_DIGEST, plan: str | None = None) -> bytes:
    return Header(
        kind=Kind.QUERY,
        size=2,
        level=1,
        count=1,
        n=4096,
        scale=2.0**30,
        body_bytes=host.query_bytes - HEADER_BYTES,
        params_digest=host.params_digest,
        plan_digest=host.plan_digest if plan is None else plan,
        keys_digest=keys,
    ).to_bytes()


def query_request(
    host: FakeHost, *, keys: str = KEYS_DIGEST, plan: str | None = None
) -> tuple[dict[str, str], bytes]:
    """Headers and body of a query that the host accepts."""
    head = query_head(host.query_bytes)
    body = head + envelope_header(host, keys=keys, plan=plan)
    body += bytes(host.query_bytes - HEADER_BYTES)
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
) -> Reply:
    """Send one request; after its chunks the client waits, or leaves with ``leave``."""
    source = chunks if isinstance(chunks, AsyncIterator) else _listed(chunks)
    pending = [await anext(source, None)]
    answered = asyncio.Event()
    reply = Reply(status=0)

    async def receive() -> dict[str, Any]:
        chunk = pending[0]
        if chunk is None:
            if not leave:
                await answered.wait()
            return {"type": "http.disconnect"}
        pending[0] = await anext(source, None)
        more = pending[0] is not None or leave
        return {"type": "http.request", "body": chunk, "more_body": more}

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
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 1),
        "headers": [(k.lower().encode(), v.encode()) for k, v in (headers or {}).items()],
    }
    await app(scope, receive, send)
    return reply


async def upload_keys(app: Any) -> Reply:
    return await ask(
        app, "PUT", KEYS_PATH, headers={"content-length": str(len(KEYS))}, chunks=[KEYS]
    )
