"""A Ray cluster of two nodes on this machine; one of them is killed under load."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import logging
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.service.rig import in_the_clear, records_of, zoo_plan
from he_infer.plan.file import save_plan
from he_infer.plan.plan import Plan
from he_infer.server import Settings

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed"),
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ray
        from ray import serve
        from ray.cluster_utils import Cluster

        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
        made.second = made.add_node(num_cpus=2)
        ray.init(address=made.address, log_to_driver=False, logging_level=logging.ERROR)
        yield made
        serve.shutdown()
        ray.shutdown()
        made.shutdown()
        # What Ray leaves open is found here, where it is ignored, and not in a test after this.
        gc.collect()


@pytest.fixture(scope="module")
def plan() -> Plan:
    return zoo_plan("digits-mlp", model="digits")


def test_a_killed_node_loses_no_request(cluster: Any, plan: Plan, tmp_path: Path) -> None:
    from attacks.oracles.channels import PlanChannel
    from he_infer.plan.client_spec import expected_reply
    from he_infer.server.state.blobs import Blobs, keys_blob
    from he_infer.server.workers.cluster import ClusterPool
    from he_infer.server.workers.hosting import Task
    from he_infer.server.workers.workers import Workers
    from he_infer.wire import Ciphertext, read_envelope

    save_plan(plan, tmp_path / "p.plan")
    channel = PlanChannel(plan)
    evaluation = channel._keys.evaluation_keys(plan.key_levels)
    channel._digest = evaluation.digest
    blobs = Blobs(str(tmp_path / "blobs"))
    blobs.write(keys_blob("acme", evaluation.digest), [evaluation.to_bytes()])
    settings = Settings(workers=3, queue=64)
    pool = ClusterPool(
        [tmp_path / "p.plan"], blobs.url, settings, address=cluster.address, most_replicas=3
    )
    workers = Workers(pool, settings)
    records = records_of(plan, 1)
    query = channel.query(channel.spec.pack(records).astype(np.complex128))
    keys = Task(plan_digest=plan.digest, tenant="acme", keys_digest=evaluation.digest)
    exact = in_the_clear(plan, records)
    expected = expected_reply(plan.client_spec, evaluation.digest)

    async def ask() -> float:
        answer = await workers.ask(replace(keys, query=query))
        frames = read_envelope(answer.reply, expected, limit_bytes=expected.total_bytes)
        slots = [channel.decrypt(f).real for f in frames if isinstance(f, Ciphertext)]
        found = plan.client_spec.unpack(np.stack(slots), 1)
        return float(np.abs(found - exact).max())

    async def conversation() -> list[float]:
        await workers.ask(keys)
        errors: list[float] = []
        enough = False

        async def client() -> None:
            while not enough:
                errors.append(await ask())

        async def reach(count: int) -> None:
            """Until so many answers have come, or a client has failed."""
            deadline = time.monotonic() + 300
            while len(errors) < count and not any(task.done() for task in clients):
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)

        clients = [asyncio.create_task(client()) for _ in range(4)]
        await reach(20)
        before = len(errors)
        await asyncio.to_thread(cluster.remove_node, cluster.second, False)
        # Long enough for Ray to notice and to stop sending there, with answers before and after.
        await asyncio.sleep(20)
        await reach(len(errors) + 20)
        enough = True
        await asyncio.gather(*clients)
        assert len(errors) > before > 0
        return errors

    errors = asyncio.run(conversation())
    workers.close()
    assert max(errors) < 2.0**-7


def test_shadow_models_train_on_the_cluster(cluster: Any) -> None:
    import joblib

    from attacks.cli.audit import training_on

    with training_on(cluster.address):
        assert joblib.effective_n_jobs() > 1
        found = joblib.Parallel()(joblib.delayed(pow)(base, 2) for base in range(6))
    assert found == [0, 1, 4, 9, 16, 25]
