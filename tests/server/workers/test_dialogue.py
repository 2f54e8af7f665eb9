"""What the HTTP process and a worker elsewhere say to each other, without any process between."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from he_infer.errors import BackendError
from he_infer.server import Settings
from he_infer.server.refusal import Refusal
from he_infer.server.state.blobs import Blobs, keys_blob
from he_infer.server.state.replies import Answer
from he_infer.server.workers.dialogue import (
    Message,
    WorkerLostError,
    converse,
    message_of,
    perform,
    task_of,
)
from he_infer.server.workers.evaluator import Evaluator
from he_infer.server.workers.hosting import Query, Task
from tests.server.fakes import KEYS, KEYS_DIGEST, FakeHost, envelope_header

GIVEN_UP = Refusal(503, "no_worker", "nobody answers")


class FailingHost(FakeHost):
    """Raises ``failure`` where it would evaluate."""

    failure: BaseException | None = None

    def evaluate(self, query: Query, loaded_keys: Any) -> bytes:
        if self.failure is not None:
            raise self.failure
        return super().evaluate(query, loaded_keys)


@pytest.fixture
def host() -> FailingHost:
    return FailingHost()


@pytest.fixture
def keys(host: FakeHost) -> Task:
    """The task to check keys."""
    return Task(plan_digest=host.facts.plan_digest, tenant="acme", keys_digest=KEYS_DIGEST)


@pytest.fixture
def evaluator(host: FakeHost, tmp_path: Any) -> Evaluator:
    blobs = Blobs(str(tmp_path))
    blobs.write(keys_blob("acme", KEYS_DIGEST), [KEYS[0]])
    return Evaluator([host], blobs, Settings())


def query_of(host: FakeHost, keys: Task) -> Task:
    return replace(keys, query=envelope_header(host).ljust(host.facts.query_bytes, b"\0"))


def ask(
    evaluator: Evaluator,
    host: FakeHost,
    task: Task,
    *,
    change: Callable[[Message], Message] = lambda message: message,
    losses: int = 0,
) -> Answer:
    """The answer of a worker that is lost so many times before, and whose words may change."""
    left = losses

    async def exchange(message: Message, reply_bytes: int) -> Message:
        nonlocal left
        if left:
            left -= 1
            raise WorkerLostError({"why": "worker_died"})
        head, body = message
        told = task_of((json.loads(json.dumps(head)), bytes(body)))
        return change(perform(evaluator, told))

    return asyncio.run(
        converse(exchange, task, facts=[host.facts], attempts=3, pause_s=0.0, given_up=GIVEN_UP)
    )


def test_a_task_survives_the_dialogue(host: FakeHost, keys: Task) -> None:
    for task in (keys, query_of(host, keys)):
        assert task_of(message_of(task)) == task


def test_keys_are_checked_and_queries_answered(
    evaluator: Evaluator, host: FakeHost, keys: Task
) -> None:
    assert ask(evaluator, host, keys) == Answer()
    assert ask(evaluator, host, query_of(host, keys)).reply == KEYS_DIGEST.encode()
    with pytest.raises(Refusal) as unknown:
        ask(evaluator, host, replace(keys, keys_digest="e" * 64))
    assert (unknown.value.status, unknown.value.code) == (404, "unknown_keys")


def test_a_lost_worker_is_followed_by_another(
    evaluator: Evaluator, host: FakeHost, keys: Task
) -> None:
    assert ask(evaluator, host, query_of(host, keys), losses=2).reply
    with pytest.raises(Refusal) as given_up:
        ask(evaluator, host, query_of(host, keys), losses=3)
    assert given_up.value is GIVEN_UP


@pytest.mark.parametrize(
    ("failure", "code", "last"),
    [
        (MemoryError(), "out_of_memory", True),
        (RuntimeError("logit 3.25"), "internal", True),
        (BackendError("logit 3.25"), "internal", False),
    ],
)
def test_what_fails_within_a_worker_says_nothing_of_the_data(
    evaluator: Evaluator,
    host: FailingHost,
    keys: Task,
    failure: BaseException,
    code: str,
    last: bool,
) -> None:
    host.failure = failure
    head, body = perform(evaluator, query_of(host, keys))
    assert (head["refused"][1], head["last"], body) == (code, last, b"")
    assert "3.25" not in json.dumps(head) and head["where"]
    with pytest.raises(Refusal) as refused:
        ask(evaluator, host, query_of(host, keys))
    assert refused.value.code == code


def test_a_reply_of_another_length_is_no_reply(
    evaluator: Evaluator, host: FakeHost, keys: Task
) -> None:
    for task in (keys, query_of(host, keys)):
        with pytest.raises(Refusal) as refused:
            ask(evaluator, host, task, change=lambda m: (m[0], bytes(m[1]) + b"more"))
        assert (refused.value.status, refused.value.code) == (500, "internal")
