"""Evaluates on a Ray cluster: stateless replicas of a Ray Serve deployment, scaled by their queue.

The HTTP process stays what it is; it hands queries to replicas and asks another one when a
replica, or the machine under it, goes away. Keys lie where every machine can read them: a shared
folder or an object store, named by ``--blobs``. Ray itself pickles between its own processes, so
its ports belong into a network that only the cluster's machines can reach.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from he_infer.errors import HEInferError, ServiceError
from he_infer.plan.file import load_plan
from he_infer.plan.plan import Plan
from he_infer.server.admission import Gate
from he_infer.server.logs import log_event, where_raised
from he_infer.server.refusal import Refusal, refusal_for
from he_infer.server.settings import Settings
from he_infer.server.state.blobs import Blobs
from he_infer.server.workers.evaluator import Evaluator
from he_infer.server.workers.hosting import Answer, HostFacts
from he_infer.server.workers.plan_host import PlanHost, facts_of
from he_infer.server.workers.workers import Load, Workers

ATTEMPTS: Final = 8
APPLICATION: Final = "he-infer"
_PAUSE_S: Final = 0.5
_START_S: Final = 300.0
Reply = dict[str, Any]


class Replica:
    """Lives in a process of the cluster: plans loaded, keys read when they are first used."""

    def __init__(self, plans: list[bytes], settings: dict[str, Any], blobs_url: str) -> None:
        chosen = Settings(**settings)
        hosts = [
            PlanHost(plan_of(data), backend=chosen.backend, threads=chosen.threads_per_evaluation)
            for data in plans
        ]
        self._evaluator = Evaluator(
            hosts,
            Blobs(blobs_url),
            cache_bytes=chosen.key_cache_bytes,
            cache_ttl_s=chosen.key_cache_ttl_s,
        )

    def work(self, plan_digest: str, tenant: str, keys: str | None, query: bytes) -> Reply:
        """Check ``keys``, or evaluate ``query``; refusals travel as data."""
        try:
            if keys is not None:
                self._evaluator.check_keys(plan_digest, tenant, keys)
                return {}
            answer = self._evaluator.evaluate(plan_digest, tenant, query)
            return {"evaluate_ms": answer.evaluate_ms, "reply": answer.reply}
        except HEInferError as error:
            refused = refusal_for(error)
            where = where_raised(error) if refused.status >= 500 else ""
        except Exception as error:
            refused, where = refusal_for(HEInferError()), where_raised(error)
        parts = (refused.status, refused.code, refused.message, refused.retry_after_s)
        return {"refused": parts, "where": where}


def plan_of(data: bytes) -> Plan:
    """A plan from its file's bytes, which travel to machines that do not have the file."""
    import tempfile

    with tempfile.NamedTemporaryFile(suffix=".plan") as file:
        file.write(data)
        file.flush()
        return load_plan(file.name)


def cluster_workers(
    address: str | None, *, most_replicas: int | None = None
) -> Callable[[Sequence[Path], str, Settings], Workers]:
    """What ``run`` makes workers with; ``address`` None starts or joins a local cluster.

    ``settings.workers`` replicas at least, ``most_replicas`` (default: four times as many) at
    most, one core each.
    """

    def make(plans: Sequence[Path], blobs_url: str, settings: Settings) -> Workers:
        most = 4 * settings.workers if most_replicas is None else most_replicas
        return ClusterWorkers(plans, blobs_url, settings, address=address, most_replicas=most)

    return make


class ClusterWorkers:
    """A Ray Serve deployment as workers. Raises ServiceError if it cannot be started."""

    def __init__(
        self,
        plans: Sequence[Path],
        blobs_url: str,
        settings: Settings,
        *,
        address: str | None,
        most_replicas: int,
    ) -> None:
        try:
            import ray
            from ray import serve
        except ImportError as error:
            raise ServiceError(
                "a cluster needs Ray: install the extra, pip install 'he-infer[cluster]'"
            ) from error
        hosts = [load_plan(path) for path in plans]
        self._facts = [facts_of(plan) for plan in hosts]
        self._settings = settings
        self._gate = Gate(places=most_replicas, queue=settings.queue)
        self._most = most_replicas
        self._restarts = 0
        try:
            if not ray.is_initialized():
                ray.init(address=address, log_to_driver=False, include_dashboard=False)
            serve.start(proxy_location="Disabled")
            deployment = serve.deployment(
                name="replica",
                max_ongoing_requests=2,
                autoscaling_config={
                    "min_replicas": settings.workers,
                    "max_replicas": most_replicas,
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

    @property
    def facts(self) -> Sequence[HostFacts]:
        return self._facts

    @property
    def load(self) -> Load:
        return Load(
            workers=self._most,
            busy=self._gate.inside,
            waiting=self._gate.waiting,
            restarts=self._restarts,
        )

    def check(self) -> None:
        self._gate.check()

    async def check_keys(self, plan_digest: str, tenant: str, digest: str) -> None:
        async with self._gate.turn():
            await self._ask(plan_digest, tenant, digest, b"")

    async def evaluate(
        self, plan_digest: str, tenant: str, query: bytes, *, gone: asyncio.Event | None
    ) -> Answer:
        async with self._gate.turn(gone):
            answer = await self._ask(plan_digest, tenant, None, query)
            return Answer(reply=answer["reply"], evaluate_ms=float(answer["evaluate_ms"]))

    async def stop(self) -> None:
        """Nothing here belongs to an event loop."""

    def close(self) -> None:
        """Take the deployment down; the cluster belongs to whoever started it."""
        from ray import serve

        serve.delete(APPLICATION)

    async def _ask(self, plan_digest: str, tenant: str, keys: str | None, query: bytes) -> Reply:
        """Ask a replica; if it goes away, ask another one: evaluation changes nothing."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                async with asyncio.timeout(self._settings.evaluation_timeout_s):
                    answer: Reply = await self._handle.work.remote(plan_digest, tenant, keys, query)
            except TimeoutError:
                raise Refusal(
                    503, "evaluation_timeout", "the evaluation took too long", retry_after_s=5
                ) from None
            except Exception as error:
                # Ray has a dozen ways to say that an actor, its node or its connection is gone.
                self._restarts += 1
                fields = {"attempt": attempt, "error": type(error).__name__}
                log_event(logging.WARNING, "replica_lost", fields)
                await asyncio.sleep(_PAUSE_S * attempt)
                continue
            refused = answer.get("refused")
            if refused is None:
                return answer
            if answer.get("where"):
                log_event(logging.ERROR, "worker_failure", {"error": answer["where"]})
            status, code, text, retry = refused
            raise Refusal(status, code, text, retry_after_s=retry)
        raise Refusal(503, "no_worker", "no replica answers: retry later", retry_after_s=10)
