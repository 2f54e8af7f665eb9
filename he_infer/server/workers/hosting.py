"""What the service needs from one model: parse, evaluate, encode; nothing about HTTP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, Self

from he_infer.server.workers.key_cache import KeyName
from he_infer.wire.protocol import version_of


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What is known of a model without evaluating it; survives JSON between processes.

    ``query_bytes``, ``keys_bytes``, ``reply_bytes``: exact envelope lengths, computed from the
    plan. ``loaded_keys_bytes``: memory that loaded keys take. ``records``: what a query counts
    as against a budget, which is what its ciphertexts can carry. ``spec``: for clients.
    """

    name: str
    plan_digest: str
    params_digest: str
    levels_digest: str
    query_bytes: int
    keys_bytes: int
    loaded_keys_bytes: int
    reply_bytes: int
    records: int
    spec: Mapping[str, Any]

    @property
    def version(self) -> str:
        return version_of(self.plan_digest)

    def key_name(self, digest: str) -> KeyName:
        """What keys with this SHA-256 are bound to if they are for this model."""
        return KeyName(
            digest=digest, params_digest=self.params_digest, levels_digest=self.levels_digest
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(**data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A parsed query: the keys it was encrypted for and its validated ciphertexts."""

    keys_digest: str
    inputs: Sequence[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An encrypted reply envelope, and how long the evaluation took."""

    reply: bytes
    evaluate_ms: float


class IncomingQuery(Protocol):
    """A query that is parsed in pieces; methods raise WireError, never keep a chunk."""

    def feed(self, chunk: bytes) -> None: ...

    def finish(self) -> Query: ...


class IncomingKeys(Protocol):
    """Evaluation keys that arrive; ``finish`` returns them loaded, or raises WireError."""

    def feed(self, chunk: bytes) -> None: ...

    def finish(self) -> Any: ...


class Host(Protocol):
    """One model, ready to answer; safe to use from several threads."""

    @property
    def facts(self) -> HostFacts: ...

    def open_query(self, keys_digest: str) -> IncomingQuery: ...

    def open_keys(self, digest: str) -> IncomingKeys: ...

    def evaluate(self, query: Query, loaded_keys: Any) -> Sequence[bytes]: ...

    def make_ready(self, loaded_keys: Any) -> None:
        """Do now what the next ``evaluate`` under these keys would have to do."""
        ...
