"""Who may wait: a bounded queue for evaluations, and a byte quota for bodies on their way in."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from he_infer.server.refusal import ClientGoneError, Refusal


class Gate:
    """Lets ``places`` in at a time while at most ``queue`` wait, first come, first served.

    Used from one event loop at a time.
    """

    def __init__(self, *, places: int, queue: int) -> None:
        self._places = places
        self._queue = queue
        self._inside = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def inside(self) -> int:
        return self._inside

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def check(self) -> None:
        """Raise Refusal 503 if one more would find the queue full."""
        if self._inside >= self._places and len(self._waiting) >= self._queue:
            raise Refusal(
                503, "busy", f"{self._queue} queries are waiting already: retry", retry_after_s=1
            )

    @asynccontextmanager
    async def turn(self, gone: asyncio.Event | None = None) -> AsyncIterator[None]:
        """Wait for a place and hold it.

        Raises Refusal 503 if the queue is full, ClientGoneError if ``gone`` is set before the
        turn has come.
        """
        self.check()
        if self._inside >= self._places or self._waiting:
            await self._wait(gone)
        else:
            self._inside += 1
        try:
            yield
        finally:
            self._leave()

    async def _wait(self, gone: asyncio.Event | None) -> None:
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(mine)
        watch = None if gone is None else asyncio.create_task(gone.wait())
        try:
            either: set[asyncio.Future[Any]] = {mine} if watch is None else {mine, watch}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not mine.done():
                raise ClientGoneError
        except BaseException:
            if mine.done():  # the place was handed over just before: pass it on
                self._leave()
            else:
                self._waiting.remove(mine)
            raise
        finally:
            if watch is not None:
                watch.cancel()

    def _leave(self) -> None:
        # A place is handed on without becoming free in between, so nobody overtakes.
        while self._waiting:
            following = self._waiting.popleft()
            if not following.done():
                following.set_result(None)
                return
        self._inside -= 1


class ReceiveQuota:
    """Bytes that may be under way into this process at one time; used from one event loop."""

    def __init__(self, *, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self.reserved_bytes = 0

    @contextmanager
    def reserved(self, size_bytes: int) -> Iterator[Callable[[int], None]]:
        """Hold ``size_bytes`` of the quota for one body; raises Refusal 503 if they are not free.

        Yields a function that holds so many bytes more: little is held until a body's sender is
        known. One body alone is always let in, whatever its size: its length was checked before.
        """
        held_bytes = 0

        def hold(more_bytes: int) -> None:
            nonlocal held_bytes
            others = self.reserved_bytes - held_bytes
            if others and self.reserved_bytes + more_bytes > self._limit_bytes:
                raise Refusal(
                    503, "busy", "too many bodies are being received: retry", retry_after_s=2
                )
            self.reserved_bytes += more_bytes
            held_bytes += more_bytes

        try:
            hold(size_bytes)
            yield hold
        finally:
            self.reserved_bytes -= held_bytes
