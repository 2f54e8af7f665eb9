"""Substitute training from labels with Jacobian-based augmentation (Papernot et al. 2017).

Each round trains the substitute on what was labelled so far, moves every record by λ along the sign
of the Jacobian row of its label, and has the new half labelled: queries go where the substitute's
borders are.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from attacks.core.arrays import Floats
from attacks.core.oracle import Oracle, OracleInfo
from attacks.core.result import AttackResult
from attacks.errors import BudgetError, DataSplitError
from attacks.extraction.outcome import ExtractionAttempt
from attacks.extraction.setting import ExtractionData, StolenModel
from attacks.extraction.substitute import (
    Architecture,
    Perceptron,
    Substitute,
    SubstituteTraining,
    one_hot,
    train_substitute,
)
from attacks.extraction.transferability import transfer_rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservoir:
    """From round ``after`` on, only ``size`` records chosen at random are moved and labelled."""

    after: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PapernotSubstitute:
    """Papernot et al. 2017, algorithm 1: ``queries`` labels, half of them new in every round.

    ``seeds``: records to start from, the first of the adversary's (its pool where there are
    too few); with 100 and 6,400 queries there are six doublings. ``step``: λ in input units.
    ``step_period``: after so many rounds λ changes sign, as in the paper's section 5.2; None
    keeps it. ``reservoir``: bounds the growth, None doubles. ``epsilon``: of the FGSM examples
    whose transfer is measured, in input units.
    """

    queries: int = 6400
    seeds: int = 100
    step: float = 0.1
    step_period: int | None = None
    reservoir: Reservoir | None = None
    epsilon: float = 0.3
    architecture: Architecture = field(default_factory=Perceptron)
    training: SubstituteTraining = field(default_factory=SubstituteTraining)

    def __post_init__(self) -> None:
        if self.seeds < 1 or not self.step > 0 or not self.epsilon > 0:
            raise DataSplitError(
                f"substitute training takes at least one seed and positive steps, got "
                f"{self.seeds}, {self.step} and {self.epsilon}"
            )
        if self.step_period is not None and self.step_period < 1:
            raise DataSplitError(f"a period is at least one round, got {self.step_period}")

    @classmethod
    def scaled(cls, info: OracleInfo, *, queries: int, seeds: int) -> PapernotSubstitute:
        """The paper's attack with at most so many queries and seeds, its steps, which are for
        inputs on [0, 1], scaled to the interval of these."""
        usual, span = cls(), info.high - info.low
        return cls(
            queries=min(queries, usual.queries),
            seeds=min(seeds, usual.seeds),
            step=usual.step * span,
            epsilon=usual.epsilon * span,
        )

    def minimum_queries(self, info: OracleInfo) -> int:
        """The seeds have to be labelled, and at least two per class told apart."""
        return max(self.seeds, 2 * info.classes)

    def run(self, oracle: Oracle, data: ExtractionData, rng: np.random.Generator) -> AttackResult:
        """Label, train, augment until the budget is spent; ``artifact`` is a Substitute.

        Raises BudgetError below ``minimum_queries``, DataSplitError if there is nothing to start
        from. Metric "transfer": of FGSM examples of the test records, asked of the reference.
        """
        info = oracle.info
        records = np.concatenate([data.seeds.inputs, data.pool])[: self.seeds]
        if len(records) < self.seeds:
            raise DataSplitError(
                f"substitute training starts from {self.seeds} records, the adversary has "
                f"{len(records)}: ask for fewer seeds"
            )
        attempt = ExtractionAttempt.start("papernot-substitute", self, oracle, data)
        labels = oracle.query(records).labels
        substitute = self._train(info, records, labels, rng)
        stages: list[tuple[int, StolenModel]] = [(len(records), substitute)]
        rounds = 0
        while len(records) < self.queries:
            moved = self._augment(substitute, records, labels, rounds, rng)
            moved = moved[: self.queries - len(records)]
            records = np.concatenate([records, moved])
            labels = np.concatenate([labels, oracle.query(moved).labels])
            substitute = self._train(info, records, labels, rng)
            stages.append((len(records), substitute))
            rounds += 1
        transfer = transfer_rate(substitute.module, data.reference, data.test, self.epsilon)
        return attempt.finish(
            substitute,
            rng,
            stages=stages,
            has_logits=False,
            extra={"transfer": transfer},
            notes=(
                f"{rounds} rounds of augmentation from {self.seeds} seeds; {transfer.value:.1%} of "
                f"FGSM examples at epsilon {self.epsilon:g} transfer",
            ),
        )

    def _train(
        self, info: OracleInfo, records: Floats, labels: NDArray[np.int64], rng: np.random.Generator
    ) -> Substitute:
        targets = one_hot(labels, info.classes)
        return train_substitute(self.architecture, info, records, targets, self.training, rng)

    def _augment(
        self,
        substitute: Substitute,
        records: Floats,
        labels: NDArray[np.int64],
        rounds: int,
        rng: np.random.Generator,
    ) -> Floats:
        if self.reservoir is not None and rounds >= self.reservoir.after:
            if self.reservoir.size < 1:
                raise BudgetError("a reservoir of no record never spends the budget: give it one")
            chosen = rng.permutation(len(records))[: self.reservoir.size]
            records, labels = records[chosen], labels[chosen]
        sign = 1.0
        if self.step_period is not None and (rounds // self.step_period) % 2 == 1:
            sign = -1.0
        direction = np.sign(substitute.score_gradient(records, labels))
        moved: Floats = np.clip(
            records + sign * self.step * direction, substitute.low, substitute.high
        )
        return moved
