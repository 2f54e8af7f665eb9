"""The inference service without HTTP: models, keys and evaluation."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from he_infer.errors import ParameterError, WireError
from he_infer.inference_protocol import DIGEST, NAME, version_of
from he_infer.server.hosting import Host, IncomingKeys, IncomingQuery, Query
from he_infer.server.refusal import Refusal
from he_infer.server.settings import Settings
from he_infer.store import KeyName, KeyStore, UnknownKeysError
from he_infer.wire import Kind, read_header


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An encrypted reply: envelope pieces in order, and how long the evaluation took."""

    pieces: Sequence[bytes]
    evaluate_ms: float


class InferenceService:
    """Answers encrypted queries for a set of models; safe to share among threads.

    Models can be replaced while the service runs: clients of the one before learn it by a 410.
    """

    def __init__(self, hosts: Iterable[Host], *, settings: Settings) -> None:
        self.settings = settings
        self.keys: KeyStore[Any] = KeyStore(
            quota_bytes=settings.key_quota_bytes, ttl_s=settings.key_ttl_s
        )
        self._lock = threading.Lock()
        self._hosts: dict[str, Host] = {}
        self._retired: set[tuple[str, str]] = set()
        self._draining = threading.Event()
        for host in hosts:
            if host.name in self._hosts:
                raise ParameterError(f'two plans are named "{host.name}": names must differ')
            self.host(host)

    @property
    def ready(self) -> bool:
        """Whether new queries are answered: not before a model is hosted nor while draining."""
        return bool(self._hosts) and not self._draining.is_set()

    @property
    def draining(self) -> bool:
        return self._draining.is_set()

    def drain(self) -> None:
        """Take no new query; those in flight finish."""
        self._draining.set()

    def host(self, host: Host) -> None:
        """Serve a model, in place of the one with the same name if there is one."""
        if not NAME.fullmatch(host.name):
            raise ParameterError(
                "a served model's name needs 1 to 100 letters, digits, dots, dashes, underscores: "
                f"got {host.name!r}"
            )
        with self._lock:
            before = self._hosts.get(host.name)
            if before is not None and before.plan_digest != host.plan_digest:
                self._retired.add((host.name, before.plan_digest))
            self._retired.discard((host.name, host.plan_digest))
            self._hosts[host.name] = host

    def model_names(self) -> list[str]:
        with self._lock:
            return sorted(self._hosts)

    def model(self, name: str, version: str | None = None) -> Host:
        """The model of that name, and version if given; raises Refusal 404, or 410 if replaced."""
        with self._lock:
            host = self._hosts.get(name)
            if host is None:
                raise Refusal(404, "unknown_model", "no model of this name is served here")
            if version is not None and version != version_of(host.plan_digest):
                if any(n == name and version_of(d) == version for n, d in self._retired):
                    raise _replaced()
                raise Refusal(404, "unknown_version", "no such version of this model is served")
            return host

    def key_name(self, host: Host, digest: str) -> KeyName:
        """What keys for ``host`` are stored under; raises Refusal 400 for a malformed digest."""
        if not DIGEST.fullmatch(digest):
            raise Refusal(400, "malformed", "a key digest is 64 lower case hexadecimal digits")
        return KeyName(
            digest=digest, params_digest=host.params_digest, levels_digest=host.levels_digest
        )

    def open_keys(self, host: Host, digest: str) -> IncomingKeys:
        """Start reading evaluation keys whose SHA-256 is said to be ``digest``."""
        self.key_name(host, digest)
        return host.open_keys(digest)

    def store_keys(self, host: Host, digest: str, incoming: IncomingKeys) -> None:
        """Check and load what arrived, then keep it; raises WireError, StoreFullError."""
        name = self.key_name(host, digest)
        self.keys.put(name, incoming.finish(), size_bytes=host.loaded_keys_bytes)

    def open_query(self, host: Host, header: bytes) -> IncomingQuery:
        """Start reading a query by its envelope header, HEADER_BYTES long, and check whose it is.

        Raises Refusal for another plan, UnknownKeysError, and WireError for a false header; so
        a query that cannot be answered is refused before its ciphertexts are read.
        """
        claimed = read_header(header)
        if claimed.kind is not Kind.QUERY:
            raise WireError(f"expected a query, got {claimed.kind.name.lower()}")
        self._check_plan(host, claimed.plan_digest)
        if not self.keys.contains(self.key_name(host, claimed.keys_digest)):
            raise UnknownKeysError("these evaluation keys are not here: upload them (again)")
        incoming = host.open_query(claimed.keys_digest)
        incoming.feed(header)
        return incoming

    def answer(self, host: Host, query: Query) -> Answer:
        """Evaluate a query under the keys that it names; raises UnknownKeysError, BackendError.

        The keys are pinned for the duration, so that no eviction can interfere.
        """
        with self.keys.pinned(self.key_name(host, query.keys_digest)) as loaded:
            start = time.perf_counter()
            pieces = host.evaluate(query, loaded)
            return Answer(pieces=pieces, evaluate_ms=1e3 * (time.perf_counter() - start))

    def _check_plan(self, host: Host, plan_digest: str) -> None:
        if plan_digest == host.plan_digest:
            return
        with self._lock:
            if (host.name, plan_digest) in self._retired:
                raise _replaced()
        raise Refusal(409, "wrong_plan", "this query was made for another plan: fetch the metadata")


def _replaced() -> Refusal:
    return Refusal(
        410, "plan_replaced", "this model was replaced by another version: fetch the metadata again"
    )
