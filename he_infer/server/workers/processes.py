"""Evaluates in worker processes, which may be killed at any time without losing a query."""

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
from he_infer.server.admission import Gate
from he_infer.server.logs import log_event
from he_infer.server.refusal import Refusal
from he_infer.server.settings import Settings
from he_infer.server.workers import pipes
from he_infer.server.workers.environment import worker_environment
from he_infer.server.workers.hosting import Answer, HostFacts
from he_infer.server.workers.workers import Load

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


class ProcessWorkers:
    """``settings.workers`` processes forked from one that has the plans loaded.

    Loading happens here, before any socket listens. Raises ServiceError if it fails. Workers
    are forked when first needed, from within the event loop.
    """

    def __init__(self, plans: Sequence[Path], blobs_url: str, settings: Settings) -> None:
        self._settings = settings
        self._gate = Gate(places=settings.workers, queue=settings.queue)
        self._idle: list[_Worker] = []
        self._restarts = 0
        self._asked: dict[str, Any] = {
            "plans": [str(path.resolve()) for path in plans],
            "settings": asdict(settings),
            "blobs": blobs_url,
        }
        self._start_zygote()

    @property
    def facts(self) -> Sequence[HostFacts]:
        return self._facts

    @property
    def load(self) -> Load:
        return Load(
            workers=self._settings.workers,
            busy=self._gate.inside,
            waiting=self._gate.waiting,
            restarts=self._restarts,
        )

    @property
    def pids(self) -> list[int]:
        """Of the workers that wait for work."""
        return [worker.pid for worker in self._idle]

    def check(self) -> None:
        self._gate.check()

    async def check_keys(self, plan_digest: str, tenant: str, digest: str) -> None:
        async with self._gate.turn():
            head = {"do": "check_keys", "plan": plan_digest, "tenant": tenant, "keys": digest}
            await self._ask(head, b"", reply_bytes=0)

    async def evaluate(
        self, plan_digest: str, tenant: str, query: bytes, *, gone: asyncio.Event | None
    ) -> Answer:
        reply_bytes = next(f.reply_bytes for f in self._facts if f.plan_digest == plan_digest)
        async with self._gate.turn(gone):
            head = {"do": "evaluate", "plan": plan_digest, "tenant": tenant}
            answer, reply = await self._ask(head, query, reply_bytes=reply_bytes)
            return Answer(reply=reply, evaluate_ms=float(answer["evaluate_ms"]))

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

    async def _ask(self, head: dict[str, Any], body: bytes, *, reply_bytes: int) -> pipes.Message:
        """Ask a worker; if it dies, ask another one."""
        message = pipes.encode(head, body)
        for attempt in range(1, ATTEMPTS + 1):
            worker = self._idle.pop() if self._idle else await self._fork()
            try:
                async with asyncio.timeout(self._settings.evaluation_timeout_s):
                    worker.writer.write(message)
                    await worker.writer.drain()
                    answer, reply = await pipes.receive_async(worker.reader, most_bytes=reply_bytes)
            except TimeoutError:
                self._replace(worker, "evaluation_timeout", attempt)
                raise Refusal(
                    503, "evaluation_timeout", "the evaluation took too long and was stopped"
                ) from None
            except (pipes.BrokenPipeMessageError, OSError):
                self._replace(worker, "worker_died", attempt)
                continue
            except BaseException:
                # Cancelled in the middle of a message: what the worker says next is not for us.
                worker.kill()
                raise
            if answer.get("last"):
                self._replace(worker, "worker_left", attempt)
            else:
                self._idle.append(worker)
            refused = answer.get("refused")
            if refused is not None:
                if answer.get("where"):
                    log_event(logging.ERROR, "worker_failure", {"error": answer["where"]})
                status, code, text, retry = refused
                raise Refusal(status, code, text, retry_after_s=retry)
            if "evaluate_ms" in answer and len(reply) != reply_bytes:
                self._replace(worker, "wrong_reply_length", attempt)
                raise Refusal(500, "internal", "the server failed to answer; see its log")
            return answer, reply
        raise Refusal(
            500, "evaluation_failed", f"{ATTEMPTS} workers died over this query: do not retry"
        )

    def _replace(self, worker: _Worker, why: str, attempt: int) -> None:
        self._restarts += 1
        worker.kill()
        if worker in self._idle:
            self._idle.remove(worker)
        fields = {"worker": worker.pid, "why": why, "attempt": attempt}
        log_event(logging.WARNING, "worker_replaced", fields)

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
                self._control.close()
                self._zygote.kill()
                self._zygote.wait()
                self._start_zygote()
        raise Refusal(503, "no_worker", "no worker can be started: retry later", retry_after_s=5)

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
            pipes.send(self._control, self._asked)
            answer = pipes.receive(self._control, most_bytes=0)
        except (OSError, pipes.BrokenPipeMessageError):
            answer = None
        except BaseException:  # asked to leave while plans are loaded
            self._control.close()
            self._zygote.kill()
            self._zygote.wait()
            raise
        if answer is None or "error" in answer[0]:
            self._control.close()
            self._zygote.wait()
            reason = "it ended while loading" if answer is None else answer[0]["error"]
            raise ServiceError(f"the plans cannot be served: {reason}")
        self._facts = tuple(HostFacts.from_json(f) for f in answer[0]["facts"])
