"""What a worker holds in whatever process it is: models, and a cache of loaded keys."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from he_infer.errors import WireError
from he_infer.server.settings import Settings
from he_infer.server.state.blobs import Blobs, MissingBlobError, keys_blob
from he_infer.server.state.key_index import UnknownKeysError
from he_infer.server.state.replies import Answer
from he_infer.server.workers.hosting import Host, Task
from he_infer.server.workers.key_cache import KeyCache


class Evaluator:
    """Models, by the digest of their plans; keys come from ``blobs`` and stay loaded while used.

    Safe to use from several threads.
    """

    def __init__(self, hosts: Sequence[Host], blobs: Blobs, settings: Settings) -> None:
        self._hosts = {host.facts.plan_digest: host for host in hosts}
        self._blobs = blobs
        self._cache: KeyCache[Any] = KeyCache(
            quota_bytes=settings.key_cache_bytes, ttl_s=settings.key_cache_ttl_s
        )

    def do(self, task: Task) -> Answer:
        """Evaluate a query, or load and so check keys.

        Raises WireError, UnknownKeysError or BackendError. A query whose stored keys are damaged
        is refused as if they were unknown: its client can send them again.
        """
        host = self._hosts[task.plan_digest]
        if task.query is None:
            self._loaded(host, task)
            return Answer()
        query = host.parse_query(task.query, task.keys_digest)
        try:
            loaded = self._loaded(host, task)
        except WireError as error:  # they were sound when they came
            raise UnknownKeysError(
                "these evaluation keys were damaged here: upload them again"
            ) from error
        start_s = time.perf_counter()
        reply = host.evaluate(query, loaded)
        return Answer(reply=reply, evaluate_ms=1e3 * (time.perf_counter() - start_s))

    def make_ready(self, task: Task) -> None:
        """Once ``task`` was answered: shorten the answer to the next one under its keys."""
        host = self._hosts[task.plan_digest]
        loaded = self._cache.get(host.facts.key_name(task.keys_digest))
        if loaded is not None:
            host.make_ready(loaded)

    def _loaded(self, host: Host, task: Task) -> Any:
        name = host.facts.key_name(task.keys_digest)
        loaded = self._cache.get(name)
        if loaded is None:
            blocks = self._blobs.read(keys_blob(task.tenant, task.keys_digest))
            try:
                loaded = host.load_keys(blocks, task.keys_digest)
            except MissingBlobError as error:
                raise UnknownKeysError from error
            self._cache.put(name, loaded, size_bytes=host.facts.loaded_keys_bytes)
        return loaded
