"""The seam between the HTTP process and what evaluates.

Workers ──► Pool:  ThreadPool    threads of this process
 queue             ProcessPool   child processes, see ``processes``
                   ClusterPool   replicas on a Ray cluster, see ``cluster``
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from he_infer.server.admission import Gate
from he_infer.server.settings import Settings
from he_infer.server.state.blobs import Blobs
from he_infer.server.state.replies import Answer
from he_infer.server.workers.evaluator import Evaluator
from he_infer.server.workers.hosting import Host, HostFacts, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How busy the workers are: ``restarts`` counts those that had to be replaced."""

    workers: int
    busy: int
    waiting: int
    restarts: int


class Pool(Protocol):
    """Does ``places`` tasks at a time; ``restarts``: workers replaced so far.

    A worker that dies is replaced and its task given to another one: evaluation changes nothing.
    """

    @property
    def facts(self) -> Sequence[HostFacts]: ...

    @property
    def places(self) -> int: ...

    @property
    def restarts(self) -> int: ...

    async def ask(self, task: Task) -> Answer:
        """Raises Refusal, WireError, UnknownKeysError or BackendError."""
        ...

    async def stop(self) -> None:
        """Let go of what belongs to the event loop, in which this is called last."""
        ...

    def close(self) -> None: ...


class Workers:
    """A pool with a bounded queue before it."""

    def __init__(self, pool: Pool, settings: Settings) -> None:
        self.pool = pool
        self._gate = Gate(places=pool.places, queue=settings.queue)

    @property
    def facts(self) -> Sequence[HostFacts]:
        return self.pool.facts

    @property
    def load(self) -> Load:
        return Load(
            workers=self.pool.places,
            busy=self._gate.inside,
            waiting=self._gate.waiting,
            restarts=self.pool.restarts,
        )

    def check(self) -> None:
        """Raise Refusal 503 if the queue is full, before a body is read."""
        self._gate.check()

    async def ask(self, task: Task, *, gone: asyncio.Event | None = None) -> Answer:
        """Wait for a place and do the task; raises what ``Pool.ask`` and ``check`` raise.

        Raises ClientGoneError if ``gone`` is set before the task's turn has come.
        """
        async with self._gate.turn(gone):
            return await self.pool.ask(task)

    async def stop(self) -> None:
        """Let go of what belongs to the event loop, in which this is called last."""
        await self.pool.stop()

    def close(self) -> None:
        self.pool.close()


class ThreadPool:
    """Evaluates in threads of this process: for tests, demos and audits of one's own models.

    Bytes from strangers belong into processes that may be killed; see ``processes``.
    """

    restarts = 0

    def __init__(self, hosts: Sequence[Host], blobs: Blobs, settings: Settings) -> None:
        self.facts = tuple(host.facts for host in hosts)
        self.places = settings.workers
        self._evaluator = Evaluator(hosts, blobs, settings)
        self._threads = ThreadPoolExecutor(settings.workers, thread_name_prefix="evaluate")

    async def ask(self, task: Task) -> Answer:
        loop = asyncio.get_running_loop()
        answer = await loop.run_in_executor(self._threads, self._evaluator.do, task)
        if task.query is not None:
            with contextlib.suppress(RuntimeError):  # closing
                self._threads.submit(self._evaluator.make_ready, task)
        return answer

    async def stop(self) -> None:
        """Nothing here belongs to an event loop."""

    def close(self) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)
