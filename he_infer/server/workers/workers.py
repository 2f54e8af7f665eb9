"""The seam between the HTTP process and what evaluates: threads here, processes, or a cluster."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar

from he_infer.server.admission import Gate
from he_infer.server.settings import Settings
from he_infer.server.state.blobs import Blobs
from he_infer.server.workers.evaluator import Evaluator
from he_infer.server.workers.hosting import Answer, Host, HostFacts

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How busy the workers are: ``restarts`` counts those that had to be replaced."""

    workers: int
    busy: int
    waiting: int
    restarts: int


class Workers(Protocol):
    """Evaluates in a bounded number of places, with a bounded queue before them.

    ``check`` raises Refusal 503 when the queue is full, before a body is read. The others raise
    that, ClientGoneError where ``gone`` is set before their turn, Refusal, WireError,
    UnknownKeysError or BackendError. A worker that dies is replaced and its query asked again:
    evaluation changes nothing.
    """

    @property
    def facts(self) -> Sequence[HostFacts]: ...

    @property
    def load(self) -> Load: ...

    def check(self) -> None: ...

    async def check_keys(self, plan_digest: str, tenant: str, digest: str) -> None: ...

    async def evaluate(
        self, plan_digest: str, tenant: str, query: bytes, *, gone: asyncio.Event | None
    ) -> Answer: ...

    async def stop(self) -> None:
        """Let go of what belongs to the event loop, in which this is called last."""
        ...

    def close(self) -> None: ...


class ThreadWorkers:
    """Evaluates in threads of this process: for tests, demos and audits of one's own models.

    Bytes from strangers belong into processes that may be killed; see ``processes``.
    """

    def __init__(self, hosts: Sequence[Host], blobs: Blobs, settings: Settings) -> None:
        self._facts = tuple(host.facts for host in hosts)
        self._gate = Gate(places=settings.workers, queue=settings.queue)
        self._evaluator = Evaluator(
            hosts,
            blobs,
            cache_bytes=settings.key_cache_bytes,
            cache_ttl_s=settings.key_cache_ttl_s,
        )
        self._threads = ThreadPoolExecutor(settings.workers, thread_name_prefix="evaluate")
        self._workers = settings.workers

    @property
    def facts(self) -> Sequence[HostFacts]:
        return self._facts

    @property
    def load(self) -> Load:
        return Load(
            workers=self._workers, busy=self._gate.inside, waiting=self._gate.waiting, restarts=0
        )

    def check(self) -> None:
        self._gate.check()

    async def check_keys(self, plan_digest: str, tenant: str, digest: str) -> None:
        async with self._gate.turn():
            await self._run(lambda: self._evaluator.check_keys(plan_digest, tenant, digest))

    async def evaluate(
        self, plan_digest: str, tenant: str, query: bytes, *, gone: asyncio.Event | None
    ) -> Answer:
        async with self._gate.turn(gone):
            answer = await self._run(lambda: self._evaluator.evaluate(plan_digest, tenant, query))
        with contextlib.suppress(RuntimeError):  # closing
            self._threads.submit(self._evaluator.make_ready, plan_digest, query)
        return answer

    async def stop(self) -> None:
        """Nothing here belongs to an event loop."""

    def close(self) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)
