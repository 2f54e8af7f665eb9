"""What the service needs from one model, and what it asks of a worker; nothing about HTTP."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from he_infer.server.state.key_index import KeyName
from he_infer.wire.protocol import version_of

Buffer: TypeAlias = bytes | bytearray | memoryview


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A tenant's query to evaluate under stored keys; without a query, keys to check and load."""

    plan_digest: str
    tenant: str
    keys_digest: str
    query: Buffer | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A parsed query: the keys it was encrypted for and its validated ciphertexts."""

    keys_digest: str
    inputs: Sequence[Any]


class Host(Protocol):
    """One model, ready to answer; safe to use from several threads."""

    @property
    def facts(self) -> HostFacts: ...

    def parse_query(self, query: Buffer, keys_digest: str) -> Query:
        """Check a whole envelope, bound to these keys; raises WireError."""
        ...

    def load_keys(self, blocks: Iterable[bytes], digest: str) -> Any:
        """Parse an envelope of evaluation keys as it is read, and expand them; raises WireError."""
        ...

    def evaluate(self, query: Query, loaded_keys: Any) -> bytes:
        """The reply envelope; raises BackendError."""
        ...

    def make_ready(self, loaded_keys: Any) -> None:
        """Do now what the next ``evaluate`` under these keys would have to do."""
        ...
