"""What the service needs from one model: parse, evaluate, encode; nothing about HTTP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A parsed query: the keys it was encrypted for and its validated ciphertexts."""

    keys_digest: str
    inputs: Sequence[Any]


class IncomingQuery(Protocol):
    """A query that is parsed while it arrives; methods raise WireError, never keep a chunk."""

    def feed(self, chunk: bytes) -> None: ...

    def finish(self) -> Query: ...


class IncomingKeys(Protocol):
    """Evaluation keys that arrive; ``finish`` returns them loaded, or raises WireError."""

    def feed(self, chunk: bytes) -> None: ...

    def finish(self) -> Any: ...


class Host(Protocol):
    """One model, ready to answer; safe to use from several threads.

    ``query_bytes``, ``keys_bytes``, ``reply_bytes``: exact envelope lengths, computed from the
    plan. ``loaded_keys_bytes``: memory that loaded keys take.
    """

    @property
    def name(self) -> str: ...
    @property
    def plan_digest(self) -> str: ...
    @property
    def params_digest(self) -> str: ...
    @property
    def levels_digest(self) -> str:
        """Names the list of evaluation keys that the model needs."""
        ...

    @property
    def query_bytes(self) -> int: ...
    @property
    def keys_bytes(self) -> int: ...
    @property
    def loaded_keys_bytes(self) -> int: ...
    @property
    def reply_bytes(self) -> int: ...

    def spec_json(self) -> Mapping[str, Any]: ...

    def open_query(self, keys_digest: str) -> IncomingQuery: ...

    def open_keys(self, digest: str) -> IncomingKeys: ...

    def evaluate(self, query: Query, loaded_keys: Any) -> Sequence[bytes]: ...
