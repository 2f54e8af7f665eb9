"""What a poisoned model does, beside the same model trained without poison.

    clean records ──craft──► poisoned set ──filter?──► learner ──► model ──┬─ probes ──► success
          └────────────────────────────────────────► learner ──► model ──┤
                                                                          └─ test ────► accuracy

A probe is a record that the evaluator asks after the training, with the label that the attacker
wants for it. Both models answer the same probes and test records, so that what poison changed is a
paired difference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from attacks.core.intervals import CONFIDENCE, Estimate, clopper_pearson
from attacks.core.oracle import Oracle
from attacks.core.records import Records
from attacks.core.result import AttackResult
from attacks.errors import DataSplitError
from attacks.poisoning.setting import Classifier, PoisonedSet, PoisoningData, PoisoningReport

SUCCESS: Final = "poison_success"
ACCURACY: Final = "accuracy"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Crafted:
    """What an attack made: ``training``, the set that a learner is given, and ``probes``, inputs
    with the labels that the attacker wants for them. DataSplitError without a probe."""

    training: PoisonedSet
    probes: Records

    def __post_init__(self) -> None:
        if not len(self.probes):
            raise DataSplitError(
                "nothing is left to ask a poisoned model: give test records of other classes than "
                "the attacker's"
            )


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """An oracle as a classifier: the evaluator's questions, one record each."""

    oracle: Oracle

    def predict(self, inputs: NDArray[np.float64]) -> NDArray[np.int64]:
        """(B, *shape) → (B,) labels; errors as the oracle's."""
        return self.oracle.query(inputs).labels


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Verdicts:
    """Which of the probes went the attacker's way and which test records were right, as bits."""

    success: NDArray[np.bool_]
    right: NDArray[np.bool_]

    @classmethod
    def of(cls, classifier: Classifier, probes: Records, test: Records) -> Verdicts:
        """Ask the probes and the test records, in this order, at once."""
        answers = classifier.predict(np.concatenate([probes.inputs, test.inputs]))
        return cls(
            success=answers[: len(probes)] == probes.labels,
            right=answers[len(probes) :] == test.labels,
        )

    def metrics(self) -> dict[str, Estimate]:
        return {SUCCESS: share(self.success), ACCURACY: share(self.right)}


def share(outcomes: NDArray[np.bool_]) -> Estimate:
    """The share of outcomes that are true, with Clopper and Pearson's interval."""
    return clopper_pearson(int(np.count_nonzero(outcomes)), len(outcomes))


def paired_change(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> Estimate:
    """How much larger the share of true outcomes is afterwards, over the same records (B,).

    Only records whose outcome changed carry information; the interval is Agresti and Min's (2005)
    adjusted Wald interval for matched pairs, which adds half a pair to each of the four cells.
    """
    if before.shape != after.shape or before.ndim != 1 or not len(before):
        raise DataSplitError(
            f"outcomes of shape {before.shape} and {after.shape} are not those of the same records"
        )
    count = len(before)
    gained = int(np.count_nonzero(after & ~before))
    lost = int(np.count_nonzero(before & ~after))
    n, up, down = count + 2, gained + 0.5, lost + 0.5
    center = (up - down) / n
    z = float(stats.norm.ppf(0.5 + CONFIDENCE / 2))
    half = z * math.sqrt(max(0.0, (up + down) - (up - down) ** 2 / n)) / n
    value = (gained - lost) / count
    return Estimate(
        value=value,
        low=max(-1.0, min(value, center - half)),
        high=min(1.0, max(value, center + half)),
        method="Agresti-Min, matched pairs",
        count=count,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Names and costs that a result states beside its figures.

    ``extra``: further figures after poison, such as what a filter removed.
    """

    attack: str
    learner: str
    seconds: float
    extra: Mapping[str, Estimate] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def compare(
    poisoned: Classifier,
    clean: Classifier,
    crafted: Crafted,
    data: PoisoningData,
    about: Comparison,
) -> AttackResult:
    """The poisoned model's figures, with the clean one's as baseline and the paired changes.

    Metrics: ``poison_success``, ``accuracy``, ``poison_success_change``, ``accuracy_change``.
    """
    after = Verdicts.of(poisoned, crafted.probes, data.test)
    before = Verdicts.of(clean, crafted.probes, data.test)
    metrics = {
        **after.metrics(),
        f"{SUCCESS}_change": paired_change(before.success, after.success),
        f"{ACCURACY}_change": paired_change(before.right, after.right),
        **about.extra,
    }
    return PoisoningReport(
        attack=about.attack,
        learner=about.learner,
        primary=SUCCESS,
        metrics=metrics,
        baseline=before.metrics(),
        seconds=about.seconds,
        notes=about.notes,
        artifact=crafted,
    ).result()
