"""Request bodies of a known length, read as they arrive from senders that may be slow or lie."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final, Self

from he_infer.server.refusal import ClientGoneError, Refusal
from he_infer.server.settings import Settings
from he_infer.wire.protocol import MAX_HEAD_BYTES, decimal

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_KEPT_BYTES: Final = MAX_HEAD_BYTES + 64  # of the beginning, to tell what a refused body was
_PEEK_S: Final = 1.0


def content_length(text: str | None) -> int:
    """The Content-Length of a request that has a body; raises Refusal 411 or 400."""
    if text is None:
        raise Refusal(411, "length_required", "send a Content-Length: chunked bodies are not read")
    length = decimal(text)
    if length is None:
        raise Refusal(400, "malformed", "the Content-Length is not a decimal number")
    return length


def expect_length(found: int, expected: int, *, what: str) -> None:
    """Refuse a body whose length is not the only possible one, before reading any of it."""
    if found > expected:
        raise Refusal(
            413, "too_large", f"{what} has exactly {expected} bytes, {found} were announced"
        )
    if found < expected:
        raise Refusal(
            400, "wrong_length", f"{what} has exactly {expected} bytes, {found} were announced"
        )


class Body:
    """Exactly ``length`` bytes of an ASGI request.

    The server waits for a sender ``grace + received / min_rate`` seconds altogether; the time
    that it spends itself, parsing, is not counted against the sender.
    """

    def __init__(self, receive: Receive, *, length: int, settings: Settings) -> None:
        self._receive = receive
        self._length = length
        self._grace_s = settings.body_grace_s
        self._min_bytes_per_s = settings.body_min_bytes_per_s
        self._pending = bytearray()
        self._beginning = bytearray()
        self._waited_s = 0.0
        self.head_bytes = 0  # of the beginning, where an envelope comes after a head
        self.received_bytes = 0
        self.ended = False  # whether the client has nothing more to send

    @classmethod
    def of(cls, receive: Receive, headers: Mapping[str, str], *, settings: Settings) -> Self:
        """The body that these headers announce; of one without a usable length, its beginning."""
        text = headers.get("content-length")
        length = None if text is None else decimal(text)
        if length is None:
            length = 0 if text is None and "transfer-encoding" not in headers else sys.maxsize
        return cls(receive, length=length, settings=settings)

    @property
    def complete(self) -> bool:
        """Whether all of it was received."""
        return self.received_bytes >= self._length

    async def take(self, size: int) -> bytes:
        """The next ``size`` bytes, for a head that must be seen whole."""
        taken = await self.look(size)
        del self._pending[:size]
        return taken

    async def look(self, size: int) -> bytes:
        """As ``take``, but the bytes stay in place."""
        while len(self._pending) < size:
            if self.complete:
                raise Refusal(400, "truncated", "the body is shorter than the head it announces")
            await self._more()
        return bytes(memoryview(self._pending)[:size])

    async def ahead(self, size: int) -> None:
        """Receive at least ``size`` bytes, or all that is left, before they are taken."""
        while not self.complete and len(self._pending) < size:
            await self._more()

    async def rest(self) -> bytearray:
        """All that is left; not copied, so ``wipe`` reaches it."""
        await self.ahead(self._length)
        return self._pending

    def wipe(self) -> None:
        """Overwrite what was received, but for what ``take`` returned."""
        for kept in (self._pending, self._beginning):
            kept[:] = bytes(len(kept))

    async def peek(self, size: int) -> bytes:
        """Up to ``size`` bytes from the beginning, of a body that was refused; never raises."""
        try:
            async with asyncio.timeout(_PEEK_S):
                while not self.ended and len(self._beginning) < min(size, self._length):
                    await self._more()
        except (TimeoutError, Refusal, ClientGoneError):
            pass
        return bytes(self._beginning[:size])

    async def _more(self) -> None:
        """Receive one ASGI message; raises Refusal 408 or 400, or ClientGoneError."""
        patience_s = self._grace_s + self.received_bytes / self._min_bytes_per_s - self._waited_s
        start = time.monotonic()
        try:
            message = await asyncio.wait_for(self._receive(), timeout=max(patience_s, 1e-3))
        except TimeoutError:
            raise Refusal(
                408, "too_slow", f"the body arrived at less than {self._min_bytes_per_s:.0f} B/s"
            ) from None
        self._waited_s += time.monotonic() - start
        self.ended = not message.get("more_body", False)
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        chunk = message.get("body", b"")
        self.received_bytes += len(chunk)
        if len(self._beginning) < _KEPT_BYTES:
            self._beginning += chunk[: _KEPT_BYTES - len(self._beginning)]
        if self.received_bytes > self._length:
            raise Refusal(400, "wrong_length", "more bytes came than were announced")
        if self.received_bytes < self._length and not message.get("more_body", False):
            raise Refusal(400, "truncated", "the body ended before its announced length")
        self._pending += chunk


async def discard(receive: Receive, *, limit_bytes: int, timeout_s: float) -> None:
    """Read and drop what a refused client still sends, so that it gets to read the answer.

    Closing a socket with unread bytes resets the connection, which can destroy the reply.
    """
    dropped = 0
    try:
        async with asyncio.timeout(timeout_s):
            while dropped < limit_bytes:
                message = await receive()
                dropped += len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
    except TimeoutError:
        return
