"""What an attacker can ask: records in, an answer out, and every query on a ledger.

    attack ── query(records) ──► wrappers (budget, labels only, …) ──► MeteredOracle ──► the model
                                                                            │
                                                                       QueryLedger

The ledger sits in the innermost oracle, below every wrapper, so no attack can pass it by.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Final, Protocol, final, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from attacks.errors import AbilityError, BadAnswerError, DataSplitError

LOGITS: Final = "logits"
PROBABILITIES: Final = "probabilities"
LABELS: Final = "labels"
SLOTS: Final = "slots"


@dataclass(frozen=True, slots=True, kw_only=True)
class OracleInfo:
    """What is public about a target.

    ``name``: for reports. ``kind``: plaintext, simulated or encrypted. ``input_shape``: of one
    record, without the batch axis. ``low``, ``high``: the interval every input value has to lie
    in. ``answers``: which of "logits", "probabilities", "labels", "slots" an answer carries.
    """

    name: str
    kind: str
    input_shape: tuple[int, ...]
    classes: int
    low: float
    high: float
    answers: frozenset[str]

    def __post_init__(self) -> None:
        if self.classes < 2 or not self.low < self.high or not self.input_shape:
            raise DataSplitError(
                f"{self.name}: a target needs two classes, low < high and an input shape, got "
                f"{self.classes} classes, [{self.low}, {self.high}], {self.input_shape}"
            )

    @property
    def features(self) -> int:
        return int(np.prod(self.input_shape))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answer:
    """What came back for B records; fields that the oracle does not give are None.

    ``logits``, ``probabilities``: (B, classes) float64. ``labels``: (B,) int64, always there.
    ``slots``: everything a client decrypts, (ciphertexts, slots) float64, of all requests in a
    row. ``level``, ``scale``: of the reply ciphertexts. ``seconds``: wall time of the call.
    """

    labels: NDArray[np.int64]
    logits: NDArray[np.float64] | None = None
    probabilities: NDArray[np.float64] | None = None
    slots: NDArray[np.float64] | None = None
    level: int | None = None
    scale: float | None = None
    seconds: float = 0.0
    requests: int = 1
    bytes_sent: int = 0
    bytes_received: int = 0

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def of_logits(cls, logits: ArrayLike) -> Answer:
        """An answer that carries logits (B, classes) and the labels they give."""
        array = np.asarray(logits, dtype=np.float64)
        return cls(labels=np.argmax(array, axis=1).astype(np.int64), logits=array)

    @classmethod
    def of_probabilities(cls, probabilities: ArrayLike) -> Answer:
        """An answer that carries probabilities (B, classes) and the labels they give."""
        array = np.asarray(probabilities, dtype=np.float64)
        return cls(labels=np.argmax(array, axis=1).astype(np.int64), probabilities=array)

    def require_logits(self) -> NDArray[np.float64]:
        """The logits; AbilityError if the oracle does not give them."""
        if self.logits is None:
            raise AbilityError("this attack needs logits, and the oracle does not answer them")
        return self.logits

    def require_scores(self) -> NDArray[np.float64]:
        """Logits, else log-probabilities: either identifies softmax(…). Else AbilityError."""
        if self.logits is not None:
            return self.logits
        if self.probabilities is not None:
            return np.log(np.maximum(self.probabilities, np.finfo(np.float64).tiny))
        raise AbilityError(
            "this attack needs logits or probabilities, and the oracle answers only labels"
        )

    def require_probabilities(self) -> NDArray[np.float64]:
        """Probabilities as answered, else the softmax of the logits. Else AbilityError."""
        if self.probabilities is not None:
            return self.probabilities
        if self.logits is not None:
            return softmax(self.logits)
        raise AbilityError(
            "this attack needs probabilities or logits, and the oracle answers only labels"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What was spent up to some moment; subtract two of them for the cost of what lay between."""

    records: int = 0
    requests: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    seconds: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            records=self.records + other.records,
            requests=self.requests + other.requests,
            bytes_sent=self.bytes_sent + other.bytes_sent,
            bytes_received=self.bytes_received + other.bytes_received,
            seconds=self.seconds + other.seconds,
        )

    def __sub__(self, other: Spent) -> Spent:
        return Spent(
            records=self.records - other.records,
            requests=self.requests - other.requests,
            bytes_sent=self.bytes_sent - other.bytes_sent,
            bytes_received=self.bytes_received - other.bytes_received,
            seconds=self.seconds - other.seconds,
        )


@dataclass(slots=True)
class QueryLedger:
    """What an oracle was asked so far; only the oracle writes to it."""

    _spent: Spent = field(default_factory=Spent)

    @property
    def spent(self) -> Spent:
        return self._spent

    def charge(self, amount: Spent) -> None:
        """Add ``amount``; amounts never go down."""
        self._spent = self._spent + amount


@runtime_checkable
class Oracle(Protocol):
    """Answers records of shape (B, *info.input_shape), float64, within [info.low, info.high]."""

    @property
    def info(self) -> OracleInfo: ...

    @property
    def ledger(self) -> QueryLedger: ...

    def query(self, records: ArrayLike) -> Answer: ...


class MeteredOracle(ABC):
    """Checks records and answers and keeps the ledger; a target implements :meth:`_answer`.

    Records are charged before the target is asked, since a target that fails may have
    evaluated them; seconds and bytes after.
    """

    def __init__(self, info: OracleInfo) -> None:
        self._info = info
        self._ledger = QueryLedger()

    @property
    def info(self) -> OracleInfo:
        return self._info

    @property
    def ledger(self) -> QueryLedger:
        return self._ledger

    @abstractmethod
    def _answer(self, records: NDArray[np.float64]) -> Answer:
        """Answer checked records, (B, *input_shape) with B ≥ 1."""

    @final
    def query(self, records: ArrayLike) -> Answer:
        """Answer (B, *input_shape) records.

        Raises DataSplitError for records of the wrong shape or that are not finite,
        BadAnswerError for answers that are not finite or have the wrong shape.
        """
        array = check_records(records, self._info)
        self._ledger.charge(Spent(records=len(array)))
        start = time.perf_counter()
        answer = self._answer(array)
        seconds = time.perf_counter() - start
        self._ledger.charge(
            Spent(
                requests=answer.requests,
                bytes_sent=answer.bytes_sent,
                bytes_received=answer.bytes_received,
                seconds=seconds,
            )
        )
        check_answer(answer, len(array), self._info)
        return replace(answer, seconds=seconds)


def check_records(records: ArrayLike, info: OracleInfo) -> NDArray[np.float64]:
    """The records as float64; DataSplitError unless they are (B ≥ 1, *input_shape) and finite."""
    array = np.asarray(records, dtype=np.float64)
    if array.ndim == 0 or array.shape[1:] != info.input_shape or len(array) == 0:
        sides = ", ".join(map(str, info.input_shape))
        raise DataSplitError(
            f"{info.name}: expected records of shape (count, {sides}), got {array.shape}"
        )
    if not np.isfinite(array).all():
        raise DataSplitError(f"{info.name}: a record holds a value that is not finite")
    return array


def check_answer(answer: Answer, count: int, info: OracleInfo) -> None:
    """Raise BadAnswerError unless the answer holds finite numbers for ``count`` records."""
    if answer.labels.shape != (count,):
        raise BadAnswerError(
            f"{info.name}: {count} records were answered by labels of shape {answer.labels.shape}"
        )
    for what, scores in (("logits", answer.logits), ("probabilities", answer.probabilities)):
        if scores is None:
            continue
        if scores.shape != (count, info.classes):
            raise BadAnswerError(
                f"{info.name}: {count} records were answered by {what} of shape {scores.shape}"
            )
        broken = int(np.count_nonzero(~np.isfinite(scores).all(axis=1)))
        if broken:
            raise BadAnswerError(
                f"{info.name}: {broken} of {count} answers are not finite: the inputs may lie "
                "outside the range the model was made for, or its logits may overflow"
            )


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Softmax over the last axis, without overflow."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    exponentials = np.exp(shifted)
    result: NDArray[np.float64] = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return result
