"""Queries are evaluated on a Ray cluster, by stateless replicas of a Ray Serve deployment.

Ray Serve scales the replicas by their queue. The HTTP process hands queries to replicas, and asks
another one when a replica or the machine under it goes away. Keys lie where every machine can read
them: in a shared folder or an object store, named by ``--blobs``. Ray pickles what its processes
send to each other, so its ports belong into a network that only the cluster's machines can reach.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from he_infer.errors import ServiceError
from he_infer.plan.file import load_plan
from he_infer.plan.plan import Plan
from he_infer.server.refusal import Refusal
from he_infer.server.settings import Settings
from he_infer.server.state.blobs import Blobs
from he_infer.server.state.replies import Answer
from he_infer.server.workers.dialogue import (
    Message,
    WorkerLostError,
    converse,
    perform,
    task_of,
)
from he_infer.server.workers.evaluator import Evaluator
from he_infer.server.workers.hosting import Task
from he_infer.server.workers.plan_host import facts_of, hosts_of

ATTEMPTS: Final = 8
APPLICATION: Final = "he-infer"
_PAUSE_S: Final = 0.5


class Replica:
    """Lives in a process of the cluster: plans loaded, keys read when they are first used."""

    def __init__(self, plans: list[bytes], settings: dict[str, Any], blobs_url: str) -> None:
        chosen = Settings(**settings)
        hosts = hosts_of(map(plan_of, plans), chosen)
        self._evaluator = Evaluator(hosts, Blobs(blobs_url), chosen)

    def work(self, message: Message) -> Message:
        """Do the task that a message holds; refusals travel as data."""
        return perform(self._evaluator, task_of(message))


def plan_of(data: bytes) -> Plan:
    """A plan from its file's bytes, which travel to machines that do not have the file."""
    with tempfile.NamedTemporaryFile(suffix=".plan") as file:
        file.write(data)
        file.flush()
        return load_plan(file.name)


class ClusterPool:
    """A Ray Serve deployment as workers. Raises ServiceError if it cannot be started.

    ``address``: of the cluster; None starts or joins a local one. There are ``settings.workers``
    replicas at least, and ``most_replicas`` at most (by default four times as many), on one core
    each.
    """

    def __init__(
        self,
        plans: Sequence[Path],
        blobs_url: str,
        settings: Settings,
        *,
        address: str | None,
        most_replicas: int | None = None,
    ) -> None:
        try:
            import ray
            from ray import serve
        except ImportError as error:
            raise ServiceError(
                "a cluster needs Ray: install the extra, pip install 'he-infer[cluster]'"
            ) from error
        self.facts = tuple(facts_of(load_plan(path)) for path in plans)
        self.places = 4 * settings.workers if most_replicas is None else most_replicas
        self.restarts = 0
        self._timeout_s = settings.evaluation_timeout_s
        try:
            if not ray.is_initialized():
                ray.init(address=address, log_to_driver=False, include_dashboard=False)
            serve.start(proxy_location="Disabled")
            deployment = serve.deployment(
                name="replica",
                max_ongoing_requests=2,
                autoscaling_config={
                    "min_replicas": settings.workers,
                    "max_replicas": self.places,
                    "target_ongoing_requests": 1,
                    "downscale_delay_s": 60,
                },
                health_check_period_s=2,
                health_check_timeout_s=10,
                ray_actor_options={"num_cpus": 1},
            )(Replica)
            self._handle = serve.run(
                deployment.bind([p.read_bytes() for p in plans], asdict(settings), blobs_url),
                name=APPLICATION,
                route_prefix=None,
            )
        except (RuntimeError, ConnectionError, TimeoutError, ValueError) as error:
            raise ServiceError(
                f"the cluster does not take the deployment: {type(error).__name__}: see its log"
            ) from error

    async def ask(self, task: Task) -> Answer:
        """Raises Refusal; see ``dialogue.converse``."""
        return await converse(
            self._exchange,
            task,
            facts=self.facts,
            attempts=ATTEMPTS,
            pause_s=_PAUSE_S,
            given_up=Refusal(503, "no_worker", "no replica answers: retry later", retry_after_s=10),
        )

    async def stop(self) -> None:
        """Nothing here belongs to an event loop."""

    def close(self) -> None:
        """Take the deployment down; the cluster belongs to whoever started it."""
        from ray import serve

        serve.delete(APPLICATION)

    async def _exchange(self, message: Message, reply_bytes: int) -> Message:
        try:
            async with asyncio.timeout(self._timeout_s):
                answer: Message = await self._handle.work.remote(message)
                return answer
        except TimeoutError:
            raise
        except Exception as error:
            # Ray has a dozen ways to say that an actor, its node or its connection is gone.
            self.restarts += 1
            raise WorkerLostError({"error": type(error).__name__}) from error
