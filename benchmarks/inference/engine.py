"""The stages that every engine is timed in: keygen, encrypt, evaluate, decrypt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

Query = TypeVar("Query")
Reply = TypeVar("Reply")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a record says of an engine whatever it was asked.

    ``log_qp``: None where the library does not tell. ``predicted_ms``: what a cost model says of
    one evaluation; None without a model.
    """

    engine: str
    backend: str
    n: int
    log_qp: float | None
    note: str = ""
    predicted_ms: float | None = None


class Engine(Protocol[Query, Reply]):
    """One way to answer encrypted queries; set-up that a service does once is not a stage."""

    @property
    def batch(self) -> int:
        """Records in one query."""
        ...

    @property
    def facts(self) -> Facts:
        """Final once ``keygen`` was called."""
        ...

    def keygen(self) -> int:
        """Make all keys; returns the bytes of what the server is given."""
        ...

    def prepare(self) -> None:
        """Load the keys on the server's side and encode the weights, as a service does once."""
        ...

    def encrypt(self, records: NDArray[np.float32]) -> Query:
        """``records``: (batch, *record)."""
        ...

    def evaluate(self, query: Query) -> Reply: ...

    def decrypt(self, reply: Reply, count: int) -> NDArray[np.float64]:
        """Logits (count, outputs)."""
        ...

    def upload_bytes(self, query: Query) -> int: ...

    def download_bytes(self, reply: Reply) -> int: ...
