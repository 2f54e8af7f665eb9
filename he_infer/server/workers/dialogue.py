"""What the HTTP process and a worker elsewhere say to each other, over pipes or a cluster alike.

    → {"plan": …, "tenant": …, "keys": …, "evaluate": true} + query    or false: check the keys
    ← {"evaluate_ms": …} + reply     or {"refused": [status, code, message, retry after], …}

A message is a JSON object and bytes. Nothing is pickled by this package. A refusal that is the
server's own fault says ``where`` it was raised, for the log. ``last`` says that the worker will
leave, because it may be in a state that nobody thought of.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from he_infer.errors import HEInferError
from he_infer.server.logs import log_event, where_raised
from he_infer.server.refusal import Refusal, refusal_for
from he_infer.server.state.replies import Answer
from he_infer.server.workers.evaluator import Evaluator
from he_infer.server.workers.hosting import Buffer, HostFacts, Task

Message = tuple[dict[str, Any], Buffer]


class WorkerLostError(Exception):
    """The worker died, or does not keep to the dialogue; ``fields`` are for the log."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        super().__init__()
        self.fields = fields


def message_of(task: Task) -> Message:
    head = {"plan": task.plan_digest, "tenant": task.tenant, "keys": task.keys_digest}
    return {**head, "evaluate": task.query is not None}, task.query or b""


def task_of(message: Message) -> Task:
    head, body = message
    return Task(
        plan_digest=str(head["plan"]),
        tenant=str(head["tenant"]),
        keys_digest=str(head["keys"]),
        query=body if head["evaluate"] else None,
    )


def perform(evaluator: Evaluator, task: Task) -> Message:
    """The worker's side: do a task and say what came of it; never raises an Exception."""
    try:
        answer = evaluator.do(task)
        return {"evaluate_ms": answer.evaluate_ms}, answer.reply
    except MemoryError:
        refused = Refusal(503, "out_of_memory", "a worker ran out of memory: retry later")
        where, last = "MemoryError", True
    except Exception as error:
        refused, last = refusal_for(error), not isinstance(error, HEInferError)
        where = where_raised(error) if refused.status >= 500 else ""
    parts = [refused.status, refused.code, refused.message, refused.retry_after_s]
    return {"refused": parts, "where": where, "last": last}, b""


async def converse(
    exchange: Callable[[Message, int], Awaitable[Message]],
    task: Task,
    *,
    facts: Sequence[HostFacts],
    attempts: int,
    pause_s: float,
    given_up: Refusal,
) -> Answer:
    """The HTTP process' side: ask a worker and, if it is lost, ask another one.

    ``exchange`` sends a message to some worker and returns its answer, whose bytes should be as
    many as it is told. It raises WorkerLostError or TimeoutError. This raises Refusal: the
    worker's own, ``given_up`` after so many ``attempts``, 503 for an evaluation that took too
    long, 500 for a reply of another length.
    """
    reply_bytes = 0
    if task.query is not None:
        reply_bytes = next(f.reply_bytes for f in facts if f.plan_digest == task.plan_digest)
    for attempt in range(1, attempts + 1):
        try:
            head, reply = await exchange(message_of(task), reply_bytes)
        except TimeoutError:
            raise Refusal(
                503, "evaluation_timeout", "the evaluation took too long", retry_after_s=5
            ) from None
        except WorkerLostError as lost:
            log_event(logging.WARNING, "worker_replaced", {**lost.fields, "attempt": attempt})
            await asyncio.sleep(pause_s * attempt)
            continue
        if head.get("where"):
            log_event(logging.ERROR, "worker_failure", {"error": head["where"]})
        if "refused" in head:
            status, code, text, retry_after_s = head["refused"]
            raise Refusal(status, code, text, retry_after_s=retry_after_s)
        if len(reply) != reply_bytes:
            raise refusal_for(None)
        return Answer(reply=bytes(reply), evaluate_ms=float(head["evaluate_ms"]))
    raise given_up
