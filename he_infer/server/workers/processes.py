"""Queries are evaluated in worker processes, which may be killed without losing a query."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from he_infer.errors import ServiceError
from he_infer.server.logs import log_event
from he_infer.server.refusal import Refusal
from he_infer.server.settings import Settings
from he_infer.server.state.replies import Answer
from he_infer.server.workers import pipes
from he_infer.server.workers.dialogue import Message, WorkerLostError, converse
from he_infer.server.workers.environment import worker_environment
from he_infer.server.workers.hosting import HostFacts, Task

ATTEMPTS: Final = 3
_LINE_BYTES: Final = 1 << 20


@dataclass(slots=True, eq=False)
class _Worker:
    pid: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.writer.close()


class ProcessPool:
    """``settings.workers`` processes forked from one that has the plans loaded.

    Loading happens here, before any socket listens. Raises ServiceError if it fails. Workers
    are forked when first needed, from within the event loop.
    """

    def __init__(self, plans: Sequence[Path], blobs_url: str, settings: Settings) -> None:
        self.places = settings.workers
        self.restarts = 0
        self._timeout_s = settings.evaluation_timeout_s
        self._idle: list[_Worker] = []
        self._asked: dict[str, Any] = {
            "plans": [str(path.resolve()) for path in plans],
            "settings": asdict(settings),
            "blobs": blobs_url,
        }
        self._start_zygote()

    @property
    def pids(self) -> list[int]:
        """Of the workers that wait for work."""
        return [worker.pid for worker in self._idle]

    async def ask(self, task: Task) -> Answer:
        """Raises Refusal; see ``dialogue.converse``."""
        return await converse(
            self._exchange,
            task,
            facts=self.facts,
            attempts=ATTEMPTS,
            pause_s=0.0,
            given_up=Refusal(
                500, "evaluation_failed", f"{ATTEMPTS} workers died over this query: do not retry"
            ),
        )

    async def stop(self) -> None:
        """End the workers, which are idle by now: they leave when their sockets close."""
        for worker in self._idle:
            worker.writer.close()
            with contextlib.suppress(OSError):
                await worker.writer.wait_closed()
        self._idle.clear()

    def close(self) -> None:
        """End the process that workers come from."""
        self._control.close()
        try:
            self._zygote.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._zygote.kill()
            self._zygote.wait()

    async def _exchange(self, message: Message, reply_bytes: int) -> Message:
        """Ask a worker that is idle, or a new one; raises WorkerLostError."""
        worker = self._idle.pop() if self._idle else await self._fork()
        try:
            async with asyncio.timeout(self._timeout_s):
                worker.writer.writelines(pipes.encode(message))
                await worker.writer.drain()
                head, reply = await pipes.receive_async(worker.reader, most_bytes=reply_bytes)
        except TimeoutError:  # an OSError, and not the end of a worker by itself
            log_event(logging.WARNING, "worker_replaced", self._end(worker, "evaluation_timeout"))
            raise
        except (pipes.BrokenPipeMessageError, OSError) as error:
            raise WorkerLostError(self._end(worker, "worker_died")) from error
        except BaseException:
            # Cancelled in the middle of a message: what the worker says next is not for us.
            worker.kill()
            raise
        if head.get("last") or ("refused" not in head and len(reply) != reply_bytes):
            log_event(logging.WARNING, "worker_replaced", self._end(worker, "worker_left"))
        else:
            self._idle.append(worker)
        return head, reply

    def _end(self, worker: _Worker, why: str) -> dict[str, Any]:
        self.restarts += 1
        worker.kill()
        return {"worker": worker.pid, "why": why}

    async def _fork(self) -> _Worker:
        ours, theirs = socket.socketpair()
        with theirs:
            pid = self._ask_zygote(theirs)
        ours.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(sock=ours, limit=_LINE_BYTES)
        return _Worker(pid=pid, reader=reader, writer=writer)

    def _ask_zygote(self, theirs: socket.socket) -> int:
        for last in (False, True):
            try:
                socket.send_fds(self._control, [b"f"], [theirs.fileno()])
                answer = pipes.receive(self._control, most_bytes=0)
                if answer is not None:
                    return int(answer[0]["pid"])
            except (OSError, pipes.BrokenPipeMessageError):
                pass
            if not last:
                log_event(logging.WARNING, "zygote_replaced", {})
                self._end_zygote()
                self._start_zygote()
        raise Refusal(503, "no_worker", "no worker can be started: retry later", retry_after_s=5)

    def _end_zygote(self) -> None:
        self._control.close()
        self._zygote.kill()
        self._zygote.wait()

    def _start_zygote(self) -> None:
        self._control, theirs = socket.socketpair()
        with theirs:
            environment = worker_environment(os.environ, blobs_url=self._asked["blobs"])
            self._zygote = subprocess.Popen(
                [sys.executable, "-m", "he_infer.server.workers.zygote", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,  # a terminal's interrupt is not for workers
            )
        try:
            pipes.send(self._control, (self._asked, b""))
            answer = pipes.receive(self._control, most_bytes=0)
        except (OSError, pipes.BrokenPipeMessageError):
            answer = None
        except BaseException:  # asked to leave while plans are loaded
            self._end_zygote()
            raise
        if answer is None or "error" in answer[0]:
            self._control.close()
            self._zygote.wait()
            reason = "it ended while loading" if answer is None else answer[0]["error"]
            raise ServiceError(f"the plans cannot be served: {reason}")
        self.facts = tuple(HostFacts(**facts) for facts in answer[0]["facts"])
