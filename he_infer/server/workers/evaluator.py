"""Parses and evaluates, in whatever process that happens: models, and a cache of loaded keys."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

from he_infer.errors import WireError
from he_infer.server.state.blobs import Blobs, MissingBlobError, keys_blob
from he_infer.server.workers.hosting import Answer, Host
from he_infer.server.workers.key_cache import KeyStore, StoreFullError, UnknownKeysError
from he_infer.wire import Kind, read_header

_BLOCK_BYTES: Final = 1 << 18


class Evaluator:
    """Hosts by plan digest; keys come from ``blobs`` and stay loaded while they are used.

    ``cache_bytes``, ``cache_ttl_s``: of loaded keys. Safe to use from several threads.
    """

    def __init__(
        self, hosts: Sequence[Host], blobs: Blobs, *, cache_bytes: int, cache_ttl_s: float
    ) -> None:
        self._hosts = {host.facts.plan_digest: host for host in hosts}
        self._blobs = blobs
        self._cache: KeyStore[Any] = KeyStore(quota_bytes=cache_bytes, ttl_s=cache_ttl_s)

    def check_keys(self, plan_digest: str, tenant: str, digest: str) -> None:
        """Parse and load stored keys; raises WireError or BackendError if they are unusable."""
        self._loaded(self._hosts[plan_digest], tenant, digest)

    def evaluate(self, plan_digest: str, tenant: str, query: bytes | memoryview) -> Answer:
        """Envelope in, envelope out; raises WireError, UnknownKeysError, BackendError.

        Stored keys that are damaged are as good as unknown: their client can send them again.
        """
        host = self._hosts[plan_digest]
        header = read_header(query)
        if header.kind is not Kind.QUERY:
            raise WireError(f"expected a query, got {header.kind.name.lower()}")
        incoming = host.open_query(header.keys_digest)
        view = memoryview(query)
        for start in range(0, len(view), _BLOCK_BYTES):
            incoming.feed(bytes(view[start : start + _BLOCK_BYTES]))
        parsed = incoming.finish()
        try:
            loaded = self._loaded(host, tenant, parsed.keys_digest)
        except WireError as error:  # they were sound when they came
            raise UnknownKeysError(
                "these evaluation keys were damaged here: upload them again"
            ) from error
        start_s = time.perf_counter()
        pieces = host.evaluate(parsed, loaded)
        evaluate_ms = 1e3 * (time.perf_counter() - start_s)
        return Answer(reply=b"".join(pieces), evaluate_ms=evaluate_ms)

    def make_ready(self, plan_digest: str, query: bytes | memoryview) -> None:
        """Once ``query`` was answered: shorten the answer to the next one under its keys."""
        host = self._hosts[plan_digest]
        try:
            with self._cache.pinned(host.facts.key_name(read_header(query).keys_digest)) as loaded:
                host.make_ready(loaded)
        except UnknownKeysError:
            pass  # too large for the cache

    def _loaded(self, host: Host, tenant: str, digest: str) -> Any:
        name = host.facts.key_name(digest)
        try:
            with self._cache.pinned(name) as found:
                return found
        except UnknownKeysError:
            pass
        incoming = host.open_keys(digest)
        try:
            for block in self._blobs.read(keys_blob(tenant, digest)):
                incoming.feed(block)
        except MissingBlobError as error:
            raise UnknownKeysError(
                "these evaluation keys are not here: upload them (again)"
            ) from error
        loaded = incoming.finish()
        try:
            self._cache.put(name, loaded, size_bytes=host.facts.loaded_keys_bytes)
        except StoreFullError:
            pass  # larger than the whole cache: used once and dropped
        return loaded
