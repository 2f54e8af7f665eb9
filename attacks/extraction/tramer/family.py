"""What an adversary supposes the target to be: a family of models with unknown parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from attacks.core.arrays import Floats
from attacks.core.oracle import Answer, OracleInfo
from attacks.extraction.learners import Learner
from attacks.extraction.setting import StolenModel

ROUNDED_DECIMALS: Final = 8  # answers on a grid at least this coarse count as rounded


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Solution:
    """What a family makes of the answers.

    ``relative_residual``: root mean square of what the model leaves unexplained over that of
    what it had to explain. ``up_to_constant``: the logits are known up to one per record.
    ``has_logits``: the scores are logits at all.
    """

    model: StolenModel
    relative_residual: float
    up_to_constant: bool
    has_logits: bool = True
    notes: tuple[str, ...] = ()


class Family(Protocol):
    """What the adversary supposes the target to be, and how its equations are solved."""

    @property
    def learner(self) -> Learner:
        """Fits models of the same family to labels, for the baseline."""
        ...

    def unknowns(self, info: OracleInfo) -> int:
        """How many parameters the target has."""
        ...

    def minimum_queries(self, info: OracleInfo) -> int:
        """The least number of records whose answers can determine them."""
        ...

    def sweep(self, info: OracleInfo, queries: int) -> tuple[int, ...]:
        """Smaller numbers of records worth solving with too; none where that takes long."""
        ...

    def records(self, info: OracleInfo, count: int, rng: np.random.Generator) -> Floats:
        """(count, *input_shape) records to ask about, within [low, high]."""
        ...

    def solve(
        self, inputs: Floats, answer: Answer, info: OracleInfo, rng: np.random.Generator
    ) -> Solution:
        """The model that explains ``answer`` on ``inputs`` (B, *input_shape)."""
        ...


def rounded_decimals(probabilities: Floats) -> int | None:
    """To how many decimals all probabilities are rounded, None if to none of 1 … 8."""
    for decimals in range(1, ROUNDED_DECIMALS + 1):
        steps = probabilities * 10.0**decimals
        if np.abs(steps - np.rint(steps)).max() < 1e-6:
            return decimals
    return None
