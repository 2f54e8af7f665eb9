"""ASGI responses: a refusal lets its sender finish, a reply has a deadline for its reader."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from he_infer.server.refusal import ClientGoneError, Refusal
from he_infer.server.routes.body import discard
from he_infer.wire.protocol import HEAD_LENGTH_HEADER

_LINGER_BYTES: Final = 4 * 2**20
_LINGER_S: Final = 2.0
_PIECE_BYTES: Final = 256 * 1024


class RefusalResponse(Response):
    """``{"error": …, "code": …}``; with ``linger`` the rest of the request is read and dropped."""

    media_type = "application/json"

    def __init__(self, refusal: Refusal, *, linger: bool) -> None:
        headers = {}
        if refusal.retry_after_s is not None:
            headers["retry-after"] = str(refusal.retry_after_s)
        if refusal.status == 401:
            headers["www-authenticate"] = "Bearer"
        if linger:
            headers["connection"] = "close"
        content: dict[str, Any] = {"error": refusal.message, "code": refusal.code}
        if refusal.received is not None:
            content["received"] = refusal.received
            headers |= range_header(refusal.received)
        super().__init__(json.dumps(content), status_code=refusal.status, headers=headers)
        self._linger = linger

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = {"type": "http.response.start", "status": self.status_code}
        await send({**start, "headers": self.raw_headers})
        body = b"" if scope["method"] == "HEAD" else bytes(self.body)
        await send({"type": "http.response.body", "body": body, "more_body": self._linger})
        if self._linger:
            await discard(receive, limit_bytes=_LINGER_BYTES, timeout_s=_LINGER_S)
            await send({"type": "http.response.body", "body": b"", "more_body": False})


class EnvelopeResponse(Response):
    """A JSON head and an envelope, sent in pieces to a reader that must keep up."""

    media_type = "application/octet-stream"

    def __init__(self, head: bytes, envelope: bytes, *, timeout_s: float) -> None:
        self._head, self._envelope = head, envelope
        length = str(len(head) + len(envelope))
        super().__init__(
            b"", headers={HEAD_LENGTH_HEADER: str(len(head)), "content-length": length}
        )
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = {"type": "http.response.start", "status": self.status_code}
        try:
            async with asyncio.timeout(self._timeout_s):
                await send({**start, "headers": self.raw_headers})
                await send({"type": "http.response.body", "body": self._head, "more_body": True})
                for first in range(0, len(self._envelope), _PIECE_BYTES):
                    body = self._envelope[first : first + _PIECE_BYTES]
                    more = first + _PIECE_BYTES < len(self._envelope)
                    await send({"type": "http.response.body", "body": body, "more_body": more})
        except TimeoutError:
            # The head is out, so no other status can be sent: the connection is dropped.
            raise ClientGoneError from None


def range_header(received: int) -> dict[str, str]:
    """The header that says how many bytes from the beginning are here."""
    return {"range": f"bytes=0-{received - 1}"} if received else {}
