"""Oracles around oracles: each changes one thing, and they compose.

    Budget(LabelsOnly(oracle), records=2_000)

Every wrapper shares the ledger of the innermost oracle. Put Recorded around the random wrappers
(Noisy, Scaled, Shifted), so that it keeps the answers that the attack saw.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final, final

import numpy as np
from numpy.typing import ArrayLike

from attacks.core.arrays import Floats
from attacks.core.oracle import (
    LABELS,
    LOGITS,
    PROBABILITIES,
    SLOTS,
    Answer,
    Oracle,
    OracleInfo,
    QueryLedger,
    Uncopied,
    check_answer,
    check_records,
    softmax,
)
from attacks.core.replay import AnswerFile, Questions, rows_as_one, without_slots
from attacks.core.replay import Replayed as Replayed
from attacks.errors import (
    AbilityError,
    BudgetError,
    DataSplitError,
    InterruptedOracleError,
)

# Targets that take any number of records at once are still recorded in parts.
_PART_RECORDS: Final = 4096
Change = Callable[[Floats], Floats]


class _Wrapper(Uncopied):
    """The public side of the oracle beneath; the oracle itself is not handed out."""

    def __init__(self, oracle: Oracle, info: OracleInfo) -> None:
        self._oracle = oracle
        self._info = info

    @property
    def info(self) -> OracleInfo:
        return self._info

    @property
    def ledger(self) -> QueryLedger:
        return self._oracle.ledger


@final
class Budget(_Wrapper):
    """Refuses to ask more than ``records`` records in all, before anything is charged.

    Refused queries cost nothing; a query that fails costs what the ledger was charged for it.
    Raises BudgetError, which says what is left and what budget would have done.
    """

    def __init__(self, oracle: Oracle, *, records: int) -> None:
        if records < 1:
            raise BudgetError(f"a budget is at least 1 record, got {records}")
        super().__init__(oracle, oracle.info)
        self._records = records
        self._used = 0

    @property
    def left(self) -> int:
        """Records that may still be asked."""
        return self._records - self._used

    def query(self, records: ArrayLike) -> Answer:
        array = check_records(records, self._info)
        if len(array) > self.left:
            raise BudgetError(
                f"{self._info.name}: {len(array)} records asked with {self.left} of a budget of "
                f"{self._records} left: at least {self._used + len(array)} are needed"
            )
        before = self.ledger.spent.records
        try:
            answer = self._oracle.query(array)
        except Exception:
            # A target that fails half-way may be charged for less than it was asked.
            charged = self.ledger.spent.records - before
            self._used += min(len(array), max(0, charged))
            raise
        self._used += len(array)
        return answer


@final
class LabelsOnly(_Wrapper):
    """Answers labels and nothing that would say more."""

    def __init__(self, oracle: Oracle) -> None:
        super().__init__(oracle, oracle.info.answering({LABELS}))

    def query(self, records: ArrayLike) -> Answer:
        return _redacted(self._oracle.query(records))


@final
class Softmax(_Wrapper):
    """Answers probabilities instead of logits: those of the oracle, else their softmax.

    Raises AbilityError on an oracle that answers only labels.
    """

    def __init__(self, oracle: Oracle) -> None:
        _require_scores(oracle.info, "probabilities")
        super().__init__(oracle, oracle.info.answering({LABELS, PROBABILITIES}, by="softmax"))

    def query(self, records: ArrayLike) -> Answer:
        answer = self._oracle.query(records)
        return replace(_redacted(answer), probabilities=answer.require_probabilities())


@final
class Rounded(_Wrapper):
    """Answers logits and probabilities rounded to ``decimals`` places; labels as they were.

    Raises AbilityError on an oracle that answers only labels, DataSplitError for decimals < 0.
    """

    def __init__(self, oracle: Oracle, *, decimals: int) -> None:
        _require_scores(oracle.info, "rounded scores")
        if decimals < 0:
            raise DataSplitError(f"decimals are 0 or more, got {decimals}")
        info = oracle.info.answering(oracle.info.answers - {SLOTS}, by=f"rounded({decimals})")
        super().__init__(oracle, info)
        self._decimals = decimals

    def query(self, records: ArrayLike) -> Answer:
        answer = self._oracle.query(records)
        return replace(
            _redacted(answer),
            logits=_changed(answer.logits, self._round),
            probabilities=_changed(answer.probabilities, self._round),
        )

    def _round(self, scores: Floats) -> Floats:
        return np.round(scores, self._decimals)


class _Randomised(_Wrapper, ABC):
    """Scores changed by numbers that are drawn from ``rng`` anew for every answer; labels stay."""

    def __init__(self, oracle: Oracle, size: float, rng: np.random.Generator, *, by: str) -> None:
        answers = oracle.info.answers - {SLOTS}
        super().__init__(oracle, oracle.info.answering(answers, by=f"{by}({size!r})"))
        self._size = size
        self._rng = rng

    def query(self, records: ArrayLike) -> Answer:
        answer = self._oracle.query(records)
        change = self._draw(len(answer))
        return replace(
            _redacted(answer),
            logits=_changed(answer.logits, change),
            probabilities=_changed(
                answer.probabilities, lambda found: self._probabilities(found, change)
            ),
        )

    @abstractmethod
    def _draw(self, count: int) -> Change:
        """What to do to the logits (count, classes) of this answer."""

    def _probabilities(self, found: Floats, change: Change) -> Floats:
        """Those of the changed logits."""
        return softmax(change(np.log(np.maximum(found, np.finfo(np.float64).tiny))))


@final
class Noisy(_Randomised):
    """Adds N(0, ``scale``²) to every logit, drawn anew for every answer from ``rng``.

    Probabilities are disturbed by the same draw in the logarithm and normalised again; labels
    follow the disturbed scores. Raises AbilityError on an oracle that answers only labels,
    DataSplitError for a scale that is not positive.
    """

    def __init__(self, oracle: Oracle, *, scale: float, rng: np.random.Generator) -> None:
        _require_scores(oracle.info, "noisy scores")
        if not (np.isfinite(scale) and scale > 0):
            raise DataSplitError(f"noise needs a finite scale above 0, got {scale}")
        super().__init__(oracle, scale, rng, by="noisy")

    def query(self, records: ArrayLike) -> Answer:
        answer = super().query(records)
        scores = answer.logits if answer.logits is not None else answer.probabilities
        assert scores is not None  # the oracle answers either, or __init__ had refused it
        return replace(answer, labels=np.argmax(scores, axis=1).astype(np.int64))

    def _draw(self, count: int) -> Change:
        noise = self._rng.normal(scale=self._size, size=(count, self._info.classes))
        return lambda scores: scores + noise


@final
class Scaled(_Randomised):
    """Multiplies each record's scores by one factor in [1/``spread``, ``spread``], log-uniform.

    Drawn anew for every answer from ``rng``; labels stay. Probabilities become those of the
    scaled logits. Raises AbilityError on an oracle that answers only labels, DataSplitError for
    a spread that is not above 1.
    """

    def __init__(self, oracle: Oracle, *, spread: float, rng: np.random.Generator) -> None:
        _require_scores(oracle.info, "scaled scores")
        if not (np.isfinite(spread) and spread > 1):
            raise DataSplitError(f"scaling needs a finite spread above 1, got {spread}")
        super().__init__(oracle, spread, rng, by="scaled")

    def _draw(self, count: int) -> Change:
        factors = self._size ** self._rng.uniform(-1, 1, (count, 1))
        return lambda scores: scores * factors


@final
class Shifted(_Randomised):
    """Adds one number, uniform on ±``radius``, to all logits of a record; labels stay.

    Drawn anew for every answer from ``rng``. Probabilities do not see it. Raises AbilityError
    on an oracle without logits, DataSplitError for a radius that is not positive.
    """

    def __init__(self, oracle: Oracle, *, radius: float, rng: np.random.Generator) -> None:
        if LOGITS not in oracle.info.answers:
            raise AbilityError(f"{oracle.info.name} answers no logits, and only they can shift")
        if not (np.isfinite(radius) and radius > 0):
            raise DataSplitError(f"a shift needs a finite radius above 0, got {radius}")
        super().__init__(oracle, radius, rng, by="shifted")

    def _draw(self, count: int) -> Change:
        shifts = self._rng.uniform(-self._size, self._size, (count, 1))
        return lambda scores: scores + shifts

    def _probabilities(self, found: Floats, change: Change) -> Floats:
        return found


@final
class Recorded(_Wrapper):
    """Keeps every answer in a file, and does not ask again what the file has.

    ``path``: made if missing; AnswerFileError if it holds answers of another target. Records go
    out a request at a time and are kept as soon as they are answered, so that a target that
    dies leaves everything it answered; ``answered`` of the InterruptedOracleError then counts
    the records of the query that are kept. The n-th time a record is asked in a run gives its
    n-th answer, so a run that is repeated sees the same answers and pays only for what is
    missing. Slots, level and scale belong to requests and are not kept.
    """

    def __init__(self, oracle: Oracle, path: Path) -> None:
        super().__init__(oracle, without_slots(oracle.info))
        self._file = AnswerFile(Path(path), oracle.info)
        self._questions = Questions()
        self._reused = 0

    @property
    def reused(self) -> int:
        """Records answered from the file so far, which the ledger was not charged for."""
        return self._reused

    def close(self) -> None:
        """Close the file; also done when nothing refers to this oracle any more."""
        self._file.close()

    def query(self, records: ArrayLike) -> Answer:
        array = check_records(records, self._info)
        keys = self._questions.keys(array)
        found = self._file.find(keys)
        missing = [index for index, answer in enumerate(found) if answer is None]
        paid = []
        size = self._info.batch or _PART_RECORDS
        for first in range(0, len(missing), size):
            part = missing[first : first + size]
            try:
                answer = self._oracle.query(array[part])
            except InterruptedOracleError as error:
                kept = len(array) - len(missing) + first
                raise InterruptedOracleError(
                    f"interrupted with {kept} of {len(array)} records answered and kept, ask "
                    f"again to go on: {error}",
                    answered=kept,
                ) from error
            self._file.add([keys[index] for index in part], answer)
            paid.append(answer)
        self._questions.count(keys)
        self._reused += len(array) - len(missing)
        whole = rows_as_one([answer for answer in self._file.find(keys) if answer is not None])
        check_answer(whole, len(array), self._info)
        return replace(
            whole,
            seconds=sum(answer.seconds for answer in paid),
            requests=sum(answer.requests for answer in paid),
            bytes_sent=sum(answer.bytes_sent for answer in paid),
            bytes_received=sum(answer.bytes_received for answer in paid),
        )


def _redacted(answer: Answer) -> Answer:
    """Labels and what they cost, without anything else that a client could learn from."""
    return replace(answer, logits=None, probabilities=None, slots=None, level=None, scale=None)


def _changed(scores: Floats | None, change: Change) -> Floats | None:
    return None if scores is None else change(scores)


def _require_scores(info: OracleInfo, what: str) -> None:
    if not info.gives_scores:
        raise AbilityError(f"{info.name} answers only labels, no {what} can be made of them")
