"""Counts what one attack asks, even if an attack before it has already paid for the answer."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from attacks.core.oracle import Answer, Oracle, OracleInfo, QueryLedger, Spent
from attacks.core.wrappers import Recorded


class CountedOracle:
    """An oracle whose own ledger holds the records and requests that this attack asked.

    Attacks of one audit ask the same target the same questions, and a recorded answer is not paid
    twice. An adversary who runs only one attack pays for all of its queries, so all of them count
    here. Bytes and seconds are those that the target's own ledger was charged.
    """

    def __init__(self, oracle: Oracle) -> None:
        self._oracle = oracle
        self._ledger = QueryLedger()

    @property
    def info(self) -> OracleInfo:
        return self._oracle.info

    @property
    def ledger(self) -> QueryLedger:
        return self._ledger

    @property
    def reused(self) -> int:
        """Records that a recording answered."""
        return self._oracle.reused if isinstance(self._oracle, Recorded) else 0

    def query(self, records: ArrayLike) -> Answer:
        array = np.asarray(records)
        before = self._oracle.ledger.spent
        answer = self._oracle.query(array)
        paid = self._oracle.ledger.spent - before
        batch = self.info.batch or max(len(answer), 1)
        self._ledger.charge(
            Spent(
                records=len(answer),
                requests=-(-len(answer) // batch),
                bytes_sent=paid.bytes_sent,
                bytes_received=paid.bytes_received,
                seconds=paid.seconds,
            )
        )
        return answer
