"""Who may wait: a bounded queue for evaluations and a byte quota for bodies being received."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from he_infer.server.refusal import Refusal

T = TypeVar("T")


class Gate:
    """Runs evaluations in threads, ``threads`` at a time, while at most ``queue`` wait.

    Used from one event loop. ``close`` joins the threads.
    """

    def __init__(self, *, threads: int, queue: int) -> None:
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="evaluate")
        self._threads = threads
        self._queue = queue
        self.admitted = 0

    @property
    def waiting(self) -> int:
        return max(0, self.admitted - self._threads)

    def check(self) -> None:
        """Raise Refusal 503 if one more evaluation would have to wait in a full queue."""
        if self.admitted >= self._threads + self._queue:
            raise Refusal(
                503, "busy", f"{self._queue} queries are waiting already: retry", retry_after_s=1
            )

    async def run(self, work: Callable[[], T], *, gone: asyncio.Event) -> T | None:
        """Run ``work`` in turn; None if ``gone`` was set while it still waited its turn.

        Raises Refusal 503 if the queue is full, and whatever ``work`` raises.
        """
        self.check()
        self.admitted += 1
        future = self._pool.submit(work)
        result = asyncio.wrap_future(future)
        watch = asyncio.create_task(gone.wait())
        try:
            either: set[asyncio.Future[Any]] = {result, watch}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not result.done() and future.cancel():
                return None
            return await result
        finally:
            watch.cancel()
            self.admitted -= 1

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


class ReceiveQuota:
    """Bytes that may be under way into this process at one time; used from one event loop."""

    def __init__(self, *, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self.reserved_bytes = 0

    @contextmanager
    def reserved(self, size_bytes: int) -> Iterator[None]:
        """Hold ``size_bytes`` of the quota; raises Refusal 503 if they are not free.

        One body alone is always let in, whatever its size: its length was checked before.
        """
        if self.reserved_bytes and self.reserved_bytes + size_bytes > self._limit_bytes:
            raise Refusal(503, "busy", "too many bodies are being received: retry", retry_after_s=2)
        self.reserved_bytes += size_bytes
        try:
            yield
        finally:
            self.reserved_bytes -= size_bytes
