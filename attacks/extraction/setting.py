"""What an extraction attack is given, and how what it stole is judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from attacks.core.arrays import Floats
from attacks.core.oracle import Answer, Oracle, OracleInfo
from attacks.core.records import Records
from attacks.errors import TooFewRecordsError

UNIFORM_RECORDS: Final = 10_000


class StolenModel(Protocol):
    """A model the adversary holds afterwards."""

    def scores(self, inputs: Floats) -> Floats:
        """(B, *input_shape) → (B, classes), logits or log-probabilities; the largest wins."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExtractionData:
    """``seeds``: what the adversary has to start from, may be empty of records.
    ``pool``: unlabelled inputs (B, *input_shape) the adversary can draw queries from; labels of a
    pool are never given. ``test``: the evaluator's held-out records.
    ``reference``: the evaluator's own way to the same target, with a ledger of its own: what it
    is asked is not charged to the attack. ``answers``: what the target says to the test records
    and to uniform inputs, if it was asked before; attacks on one target share it.
    """

    seeds: Records
    pool: Floats
    test: Records
    reference: Oracle
    answers: ReferenceAnswers | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReferenceAnswers:
    """What the target says about the test records and about uniform inputs, asked once.

    ``test_inputs`` (T, *input_shape) with the true ``test_truth`` (T,); ``uniform_inputs``
    (U, *input_shape), drawn from [info.low, info.high]^d; ``test`` and ``uniform``: the target's
    answers to both. Share one among all attacks on a target: it is what the evaluator pays.
    """

    test_inputs: Floats
    test_truth: NDArray[np.int64]
    test: Answer
    uniform_inputs: Floats
    uniform: Answer

    @classmethod
    def of(
        cls,
        data: ExtractionData,
        rng: np.random.Generator,
        uniform_records: int = UNIFORM_RECORDS,
    ) -> ReferenceAnswers:
        """Ask ``data.reference`` about the test records and ``uniform_records`` uniform inputs.

        Raises TooFewRecordsError if there are no test records or no uniform inputs.
        """
        if len(data.test) == 0 or uniform_records < 1:
            raise TooFewRecordsError(
                f"fidelity needs test records and uniform inputs, got {len(data.test)} and "
                f"{uniform_records}",
                needed=1,
            )
        inputs = uniform_inputs(data.reference.info, uniform_records, rng)
        return cls(
            test_inputs=data.test.inputs,
            test_truth=data.test.labels,
            test=data.reference.query(data.test.inputs),
            uniform_inputs=inputs,
            uniform=data.reference.query(inputs),
        )


def uniform_inputs(info: OracleInfo, count: int, rng: np.random.Generator) -> Floats:
    """(count, *input_shape), every value uniform on [info.low, info.high]."""
    return rng.uniform(info.low, info.high, (count, *info.input_shape))
