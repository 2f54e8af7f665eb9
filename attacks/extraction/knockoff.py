"""Knockoff nets: train on a pool of inputs with the target's answers (Orekondy et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from attacks.core.arrays import Floats
from attacks.core.oracle import Answer, Oracle, OracleInfo
from attacks.core.result import AttackResult
from attacks.errors import BudgetError
from attacks.extraction.outcome import ExtractionAttempt, check_curve, smaller_budgets
from attacks.extraction.setting import ExtractionData, StolenModel
from attacks.extraction.substitute import (
    Architecture,
    Perceptron,
    SubstituteTraining,
    one_hot,
    train_substitute,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Knockoff:
    """The random strategy: ``queries`` inputs drawn from the pool without replacement, one request.

    Trains on probabilities (from logits, if those come back), or on labels where there is nothing
    else. ``curve_points``: how many smaller budgets, each half the next, the curve shows.
    """

    queries: int = 1000
    curve_points: int = 3
    architecture: Architecture = field(default_factory=Perceptron)
    training: SubstituteTraining = field(default_factory=SubstituteTraining)

    def __post_init__(self) -> None:
        check_curve(self.curve_points)

    def minimum_queries(self, info: OracleInfo) -> int:
        """Two per class."""
        return 2 * info.classes

    def run(self, oracle: Oracle, data: ExtractionData, rng: np.random.Generator) -> AttackResult:
        """Query once, train, judge; ``artifact`` is a Substitute.

        Raises BudgetError below ``minimum_queries`` or if the pool is smaller than the budget.
        """
        info = oracle.info
        if len(data.pool) < self.queries:
            raise BudgetError(
                f"knockoff draws {self.queries} records from a pool of {len(data.pool)}: lower "
                f"the budget to {len(data.pool)} or bring more records"
            )
        attempt = ExtractionAttempt.start("knockoff", self, oracle, data)
        inputs = data.pool[rng.permutation(len(data.pool))[: self.queries]]
        targets = _targets(oracle.query(inputs), info)
        counts = (*smaller_budgets(self.queries, self.curve_points), self.queries)
        stages: list[tuple[int, StolenModel]] = [
            (
                count,
                train_substitute(
                    self.architecture, info, inputs[:count], targets[:count], self.training, rng
                ),
            )
            for count in counts
            if count > 0
        ]
        soft = info.gives_scores
        return attempt.finish(
            stages[-1][1],
            rng,
            stages=stages,
            has_logits=False,
            notes=("trained on probabilities" if soft else "trained on labels only",),
        )


def _targets(answer: Answer, info: OracleInfo) -> Floats:
    if info.gives_scores:
        return answer.require_probabilities()
    return one_hot(answer.labels, info.classes)
