"""Label flipping, the plainest poison: unchanged records with wrong labels.

Source: Biggio, Nelson and Laskov, Support vector machines under adversarial label noise, 2011.
The adversary contributes a share of the training set, so the set keeps its size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from attacks.core.records import Records
from attacks.core.result import AttackResult
from attacks.errors import DataSplitError
from attacks.poisoning.networks import NetworkLearner, with_and_without
from attacks.poisoning.outcome import Crafted
from attacks.poisoning.setting import PoisonBudget, PoisoningData


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelFlipping:
    """``budget`` of the training records, all of class ``source``, are labelled ``target``.

    Success is the share of test records of ``source`` that are then answered ``target``. Raises
    DataSplitError if both are the same class.
    """

    budget: PoisonBudget
    source: int
    target: int

    def __post_init__(self) -> None:
        if self.source == self.target or min(self.source, self.target) < 0:
            raise DataSplitError(
                f"flipping takes records of one class to another, got {self.source} to "
                f"{self.target}: name two different classes"
            )

    def craft(self, data: PoisoningData, rng: np.random.Generator) -> Crafted:
        """The flipped set, and the test records of the source as probes.

        Raises DataSplitError for classes that the data do not have, or fewer records of the
        source than the budget asks for.
        """
        data.check_class(self.target)
        train, test = data.train, data.test
        candidates = np.flatnonzero(train.labels == self.source)
        wanted = self.budget.records(len(train))
        if wanted > len(candidates):
            raise DataSplitError(
                f"{wanted} labels are to be flipped, and class {self.source} has "
                f"{len(candidates)} training records: lower the budget to "
                f"{len(candidates) / len(train):.3%}"
            )
        chosen = rng.choice(candidates, wanted, replace=False)
        labels = train.labels.copy()
        labels[chosen] = self.target
        return Crafted.of(
            Records(inputs=train.inputs, labels=labels),
            chosen,
            asked=test.inputs[test.labels == self.source],
            target=self.target,
        )

    name: ClassVar[str] = "label flipping"

    @property
    def note(self) -> str:
        return f"{self.budget.fraction:.1%} of the labels, class {self.source} to {self.target}"

    def run(
        self, learner: NetworkLearner, data: PoisoningData, rng: np.random.Generator
    ) -> AttackResult:
        """Train with and without poison and compare."""
        return with_and_without(self, learner, data, rng)
