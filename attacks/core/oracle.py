"""What an adversary can ask: records in, an answer out, and every query on a ledger.

    attack ── query(records) ──► wrappers (budget, labels only, …) ──► MeteredOracle ──► the model
                                                                            │
                                                                       QueryLedger

The innermost oracle keeps the ledger, below every wrapper, so that no attack can avoid it.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Final, NoReturn, Protocol, Self, final, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from attacks.core.arrays import Floats
from attacks.errors import (
    AbilityError,
    BadAnswerError,
    DataSplitError,
    InterruptedOracleError,
)

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
    ``batch``: records that one request carries; None if any number does. ``version``: a digest
    of what answers, and of what wrappers do to the answers; a record of answers is reused only
    for an equal one.
    """

    name: str
    kind: str
    input_shape: tuple[int, ...]
    classes: int
    low: float
    high: float
    answers: frozenset[str]
    batch: int | None = None
    version: str = ""

    def __post_init__(self) -> None:
        if self.classes < 2 or not self.low < self.high or not self.input_shape:
            raise DataSplitError(
                f"{self.name}: a target needs two classes, low < high and an input shape, got "
                f"{self.classes} classes, [{self.low}, {self.high}], {self.input_shape}"
            )
        if self.batch is not None and self.batch < 1:
            raise DataSplitError(f"{self.name}: a request carries at least one record")

    @property
    def features(self) -> int:
        return int(np.prod(self.input_shape))

    @property
    def gives_scores(self) -> bool:
        """Whether an answer carries logits or probabilities."""
        return bool(self.answers & {LOGITS, PROBABILITIES})

    def require_scores(self, attack: str) -> None:
        """Raise AbilityError, before anything is spent, for an attack that needs scores."""
        if not self.gives_scores:
            raise AbilityError(
                f"{attack} needs logits or probabilities, and {self.name} answers "
                f"{', '.join(sorted(self.answers))}: use an attack that works from labels"
            )

    def answering(self, answers: Iterable[str], *, by: str = "") -> OracleInfo:
        """The same target answering something else; ``by``: what changed the answers."""
        version = f"{self.version}+{by}" if by else self.version
        return replace(self, answers=frozenset(answers), version=version)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answer:
    """What came back for B records; fields that the oracle does not give are None.

    ``logits``, ``probabilities``: (B, classes) float64. ``labels``: (B,) int64, always there.
    ``slots``: everything a client decrypts, (ciphertexts, slots) float64, of all requests in a
    row. ``level``, ``scale``: of the reply ciphertexts. ``seconds``: wall time of the call.
    """

    labels: NDArray[np.int64]
    logits: Floats | None = None
    probabilities: Floats | None = None
    slots: Floats | None = None
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

    def require_logits(self) -> Floats:
        """The logits; AbilityError if the oracle does not give them."""
        if self.logits is None:
            raise AbilityError("this attack needs logits, and the oracle does not answer them")
        return self.logits

    def require_scores(self) -> Floats:
        """Logits, else log-probabilities: either identifies softmax(…). Else AbilityError."""
        if self.logits is not None:
            return self.logits
        if self.probabilities is not None:
            return np.log(np.maximum(self.probabilities, np.finfo(np.float64).tiny))
        raise AbilityError(
            "this attack needs logits or probabilities, and the oracle answers only labels"
        )

    def require_probabilities(self) -> Floats:
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
        return self._with(other, 1)

    def __sub__(self, other: Spent) -> Spent:
        return self._with(other, -1)

    def _with(self, other: Spent, sign: int) -> Spent:
        return Spent(
            records=self.records + sign * other.records,
            requests=self.requests + sign * other.requests,
            bytes_sent=self.bytes_sent + sign * other.bytes_sent,
            bytes_received=self.bytes_received + sign * other.bytes_received,
            seconds=self.seconds + sign * other.seconds,
        )


@dataclass(slots=True)
class QueryLedger:
    """What an oracle was asked so far; only the oracle writes to it."""

    _spent: Spent = field(default_factory=Spent)

    @property
    def spent(self) -> Spent:
        return self._spent

    def charge(self, amount: Spent) -> None:
        """Add ``amount``; ValueError for a negative one: what was spent never goes down."""
        if not all(getattr(amount, each.name) >= 0 for each in fields(amount)):
            raise ValueError(f"a ledger only goes up, got {amount}")
        self._spent = self._spent + amount


@runtime_checkable
class Oracle(Protocol):
    """Answers records of shape (B, *info.input_shape), float64, within [info.low, info.high]."""

    @property
    def info(self) -> OracleInfo: ...

    @property
    def ledger(self) -> QueryLedger: ...

    def query(self, records: ArrayLike) -> Answer: ...


class Uncopied:
    """A copy is the object itself, so that no copy asks beside the ledger or the budget."""

    @final
    def __copy__(self) -> Self:
        return self

    @final
    def __deepcopy__(self, memo: object) -> Self:
        return self


class MeteredOracle(Uncopied, ABC):
    """Checks records and answers and keeps the ledger; a target implements :meth:`_answer`.

    Records go out in requests of ``info.batch``. Each request's records are charged before the
    target is asked, since a target that fails may have evaluated them; seconds and bytes after.
    """

    def __init__(self, info: OracleInfo, *, bounded: bool = False) -> None:
        """``bounded``: refuse records that leave [info.low, info.high]."""
        self._info = info
        self._bounded = bounded
        self._ledger = QueryLedger()

    @property
    def info(self) -> OracleInfo:
        return self._info

    @property
    def ledger(self) -> QueryLedger:
        return self._ledger

    @abstractmethod
    def _answer(self, records: Floats) -> Answer:
        """Answer one request of checked records, (B, *input_shape) with 1 ≤ B ≤ info.batch."""

    @final
    def query(self, records: ArrayLike) -> Answer:
        """Answer (B, *input_shape) records.

        Raises DataSplitError, before anything is charged, for records of the wrong shape, not
        finite, or outside the interval of a bounded target; BadAnswerError for answers that are
        not finite or have the wrong shape; InterruptedOracleError, which says how many records
        were answered before, if the target dies.
        """
        array = check_records(records, self._info)
        if self._bounded:
            check_range(array, self._info)
        size = self._info.batch or len(array)
        answers: list[Answer] = []
        for first in range(0, len(array), size):
            try:
                answers.append(self._request(array[first : first + size]))
            except InterruptedOracleError as error:
                raise InterruptedOracleError(
                    f"{error} ({first} of {len(array)} records were answered)", answered=first
                ) from error
        return join_answers(answers)

    def _request(self, records: Floats) -> Answer:
        self._ledger.charge(Spent(records=len(records), requests=1))
        start = time.perf_counter()
        try:
            answer = self._answer(records)
        finally:
            seconds = time.perf_counter() - start
            self._ledger.charge(Spent(seconds=seconds))
        self._ledger.charge(
            Spent(
                requests=max(0, answer.requests - 1),
                bytes_sent=answer.bytes_sent,
                bytes_received=answer.bytes_received,
            )
        )
        check_answer(answer, len(records), self._info)
        return replace(answer, seconds=seconds, requests=max(1, answer.requests))

    @final
    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(
            f"{self._info.name}: an oracle cannot be pickled, its ledger would not count what "
            "the copy is asked: query it in the process that made it"
        )


def join_answers(answers: Sequence[Answer]) -> Answer:
    """The answers to parts of a batch as one; ``level`` and ``scale`` only if all agree."""
    if len(answers) == 1:
        return answers[0]

    def rows(arrays: list[Floats | None]) -> Floats | None:
        present = [array for array in arrays if array is not None]
        return np.concatenate(present) if present and len(present) == len(arrays) else None

    levels = {answer.level for answer in answers}
    scales = {answer.scale for answer in answers}
    return Answer(
        labels=np.concatenate([answer.labels for answer in answers]),
        logits=rows([answer.logits for answer in answers]),
        probabilities=rows([answer.probabilities for answer in answers]),
        slots=rows([answer.slots for answer in answers]),
        level=levels.pop() if len(levels) == 1 else None,
        scale=scales.pop() if len(scales) == 1 else None,
        seconds=sum(answer.seconds for answer in answers),
        requests=sum(answer.requests for answer in answers),
        bytes_sent=sum(answer.bytes_sent for answer in answers),
        bytes_received=sum(answer.bytes_received for answer in answers),
    )


def check_records(records: ArrayLike, info: OracleInfo) -> Floats:
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


def check_range(records: Floats, info: OracleInfo) -> None:
    """Raise DataSplitError unless every value lies in [info.low, info.high], up to rounding."""
    excess = max(info.low - float(records.min()), float(records.max()) - info.high)
    if excess > 1e-6 * max(1.0, info.high - info.low):
        raise DataSplitError(
            f"{info.name}: values lie up to {excess:.3g} outside [{info.low:g}, {info.high:g}], "
            "where answers are meaningless: scale the records, or state a wider interval if the "
            "adversary means to leave it"
        )


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


def softmax(logits: Floats) -> Floats:
    """Softmax over the last axis, without overflow."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    exponentials = np.exp(shifted)
    result: Floats = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return result


def as_logits(outputs: ArrayLike) -> Floats:
    """A model's outputs (B, C) as logits; one output z, (B,) or (B, 1), becomes (0, z).

    The softmax of (0, z) is the sigmoid of z, and its larger logit is where z crosses 0.
    """
    array = np.asarray(outputs, dtype=np.float64)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim == 2 and array.shape[1] == 1:
        return np.concatenate([np.zeros_like(array), array], axis=1)
    return array
