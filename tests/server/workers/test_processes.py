"""Workers that are processes: killed, limited and replaced without losing a query."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from attacks.oracles.channels import PlanChannel
from he_infer import zoo
from he_infer.compiler.pipeline import compile
from he_infer.errors import ServiceError
from he_infer.plan.file import save_plan
from he_infer.plan.plan import Plan
from he_infer.server import Settings
from he_infer.server.refusal import Refusal
from he_infer.server.state.blobs import Blobs, keys_blob
from he_infer.server.workers.environment import worker_environment
from he_infer.server.workers.hosting import Task
from he_infer.server.workers.processes import ProcessPool
from he_infer.server.workers.workers import Workers


@pytest.fixture(scope="module")
def plan() -> Plan:
    return compile(zoo.load("digits-mlp"), zoo.sample("digits-mlp", 256), name="digits")


@pytest.fixture(scope="module")
def client(plan: Plan) -> PlanChannel:
    return PlanChannel(plan)


class Served:
    """Workers over a plan file, with one client's keys stored."""

    def __init__(self, folder: Path, plan: Plan, client: PlanChannel, settings: Settings) -> None:
        save_plan(plan, folder / "p.plan")
        blobs = Blobs(str(folder / "blobs"))
        evaluation = client._keys.evaluation_keys(plan.key_levels)
        # The client's own digest: its channel binds queries to the keys it made first.
        client._digest = evaluation.digest
        blobs.write(keys_blob("acme", evaluation.digest), [evaluation.to_bytes()])
        self.pool = ProcessPool([folder / "p.plan"], blobs.url, settings)
        self.workers = Workers(self.pool, settings)
        self.plan, self.client = plan, client
        zeros = np.zeros((client.inputs, client.slots), dtype=np.complex128)
        self.query = client.query(zeros)

    def task(self, query: bytes | None, keys_digest: str | None = None) -> Task:
        return Task(
            plan_digest=self.plan.digest,
            tenant="acme",
            keys_digest=keys_digest or self.client._digest,
            query=query,
        )

    async def ask(self, query: bytes | None = None) -> bytes:
        answer = await self.workers.ask(self.task(query or self.query))
        assert answer.evaluate_ms > 0
        return answer.reply


def run(served: Served, conversation: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        try:
            await conversation()
        finally:
            await served.workers.stop()

    asyncio.run(whole())


@pytest.fixture
def served(tmp_path: Path, plan: Plan, client: PlanChannel) -> Iterator[Served]:
    made = Served(tmp_path, plan, client, Settings(workers=2))
    yield made
    made.workers.close()


def test_queries_survive_their_workers(served: Served) -> None:
    async def conversation() -> None:
        first = await served.ask()
        for _ in range(3):
            (pid,) = served.pool.pids
            os.kill(pid, signal.SIGKILL)
            assert len(await served.ask()) == len(first)
            assert served.pool.pids != [pid]
        await asyncio.gather(*(served.ask() for _ in range(4)))
        assert len(served.pool.pids) == 2

    run(served, conversation)
    assert served.workers.load.restarts == 3


def test_the_process_with_the_plans_is_replaced_too(served: Served) -> None:
    async def conversation() -> None:
        await served.ask()
        served.pool._zygote.kill()
        served.pool._zygote.wait()
        (pid,) = served.pool.pids
        os.kill(pid, signal.SIGKILL)
        await served.ask()

    run(served, conversation)


def test_refusals_cross_the_pipe_with_their_codes(served: Served) -> None:
    async def conversation() -> None:
        with pytest.raises(Refusal) as malformed:
            await served.ask(served.query[:-100] + b"\xff" * 100)
        assert (malformed.value.status, malformed.value.code) == (400, "malformed")
        with pytest.raises(Refusal) as unknown:
            await served.workers.ask(served.task(None, "0" * 64))
        assert unknown.value.code == "unknown_keys"
        await served.ask()

    run(served, conversation)
    assert served.workers.load.restarts == 0


def test_a_worker_that_takes_too_long_is_stopped(
    tmp_path: Path, plan: Plan, client: PlanChannel
) -> None:
    made = Served(tmp_path, plan, client, Settings(evaluation_timeout_s=0.001))

    async def conversation() -> None:
        with pytest.raises(Refusal) as slow:
            await made.ask()
        assert (slow.value.status, slow.value.code) == (503, "evaluation_timeout")

    run(made, conversation)
    assert made.workers.load.restarts == 1
    made.workers.close()


def test_a_worker_out_of_memory_refuses_and_is_replaced(
    tmp_path: Path, plan: Plan, client: PlanChannel
) -> None:
    made = Served(tmp_path, plan, client, Settings(worker_memory_bytes=1 << 20))

    async def conversation() -> None:
        with pytest.raises(Refusal) as refused:
            await made.ask()
        assert refused.value.code in ("out_of_memory", "internal", "evaluation_failed")

    run(made, conversation)
    assert made.workers.load.restarts >= 1
    made.workers.close()


def test_a_plan_that_cannot_be_loaded_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "x.plan").write_bytes(b"no plan")
    with pytest.raises(ServiceError, match="not a readable plan file"):
        ProcessPool([tmp_path / "x.plan"], str(tmp_path), Settings())


SECRETS = {
    "HE_INFER_TOKEN": "hei_x",
    "HE_INFER_PASSPHRASE": "x",
    "PGPASSWORD": "x",
    "DATABASE_URL": "postgresql://he:x@db/he",
    "SMTP_PASSWORD": "x",
}
STORE = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
HARMLESS = {"PATH": "/usr/bin", "LANG": "C.UTF-8", "PYTHONPATH": "."}


@pytest.mark.parametrize(
    ("blobs", "store"), [("/srv/state/blobs", {}), ("file:///srv", {}), ("s3://bucket/keys", STORE)]
)
def test_workers_inherit_no_secret_that_is_not_for_them(blobs: str, store: dict[str, str]) -> None:
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    found = worker_environment({**SECRETS, **STORE, **HARMLESS}, blobs_url=blobs)
    assert found == {**HARMLESS, **store, **threads}


def test_a_running_worker_holds_none(
    tmp_path: Path, plan: Plan, client: PlanChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in SECRETS | STORE:
        monkeypatch.setenv(name, "canary-of-the-environment")
    made = Served(tmp_path, plan, client, Settings())

    async def conversation() -> None:
        await made.ask()
        for pid in (made.pool._zygote.pid, *made.pool.pids):
            held = Path(f"/proc/{pid}/environ").read_bytes()
            assert b"PATH=" in held and b"canary-of-the-environment" not in held

    run(made, conversation)
    made.workers.close()
