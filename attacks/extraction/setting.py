"""What an extraction attack is given, and how what it stole is judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from attacks.core.oracle import Oracle
from attacks.core.records import Records

if TYPE_CHECKING:
    from attacks.extraction.fidelity import ReferenceAnswers


class StolenModel(Protocol):
    """A model the attacker holds afterwards."""

    def scores(self, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
        """(B, *input_shape) → (B, classes), logits or log-probabilities; the largest wins."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExtractionData:
    """``seeds``: what the attacker has to start from, may be empty of records.
    ``pool``: unlabelled inputs (B, *input_shape) the attacker can draw queries from; labels of a
    pool are never given. ``test``: the evaluator's held-out records.
    ``reference``: the evaluator's own way to the same target, with a ledger of its own: what it
    is asked is not charged to the attack. ``answers``: what the target says to the test records
    and to uniform inputs, if it was asked before; attacks on one target share it.
    """

    seeds: Records
    pool: NDArray[np.float64]
    test: Records
    reference: Oracle
    answers: ReferenceAnswers | None = None
