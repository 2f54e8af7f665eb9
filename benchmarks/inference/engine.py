"""The stages that every engine is timed in: keygen, encrypt, evaluate, decrypt."""

from __future__ import annotations

from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

Query = TypeVar("Query")
Reply = TypeVar("Reply")


class Engine(Protocol[Query, Reply]):
    """One way to answer encrypted queries; set-up that a service does once is not a stage."""

    @property
    def name(self) -> str: ...

    @property
    def backend(self) -> str: ...

    @property
    def batch(self) -> int:
        """Records in one query."""
        ...

    @property
    def n(self) -> int: ...

    @property
    def log_qp(self) -> float | None:
        """None where the library does not tell."""
        ...

    @property
    def note(self) -> str: ...

    @property
    def predicted_ms(self) -> float | None:
        """What a cost model says of one evaluation; None without one."""
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
