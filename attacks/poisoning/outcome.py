"""What a poisoned model does, beside the same model trained without poison.

    clean records ──craft──► poisoned set ──filter?──► learner ──► model ──┬─ probes ──► success
          └────────────────────────────────────────► learner ──► model ──┤
                                                                          └─ test ────► accuracy

A probe is a record that the evaluator asks about after the training, with the label that the
adversary wants for it. Both models answer the same probes and test records. So the effect of the
poison is a paired difference.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Protocol

import numpy as np
from scipy import stats

from attacks.core.arrays import Bools, Floats, Ints
from attacks.core.intervals import CONFIDENCE, Estimate, bootstrap, clopper_pearson
from attacks.core.oracle import Oracle, Spent
from attacks.core.records import Records
from attacks.core.result import AttackResult
from attacks.core.threat import ThreatModel
from attacks.errors import DataSplitError
from attacks.poisoning.setting import (
    Classifier,
    PoisonedSet,
    PoisoningData,
)

SUCCESS: Final = "poison_success"
ACCURACY: Final = "accuracy"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Crafted:
    """What an attack made.

    ``training``: the set that a learner is given. ``probes``: inputs with the labels that the
    adversary wants for them. Raises DataSplitError without a probe.
    """

    training: PoisonedSet
    probes: Records

    def __post_init__(self) -> None:
        if not len(self.probes):
            raise DataSplitError(
                "nothing is left to ask a poisoned model: give test records of other classes than "
                "the adversary's"
            )

    @classmethod
    def of(
        cls,
        records: Records,
        chosen: Ints,
        *,
        asked: Floats,
        target: int,
    ) -> Crafted:
        """``chosen`` rows of ``records`` are poison, so that ``asked`` (B, *shape) is answered
        ``target``."""
        is_poison = np.zeros(len(records), dtype=np.bool_)
        is_poison[chosen] = True
        return cls(
            training=PoisonedSet(records=records, is_poison=is_poison),
            probes=Records(inputs=asked, labels=np.full(len(asked), target, dtype=np.int64)),
        )


class Crafting(Protocol):
    """An attack that changes records of the training set. ``note``: what it did, for reports."""

    @property
    def name(self) -> str: ...

    @property
    def note(self) -> str: ...

    def craft(self, data: PoisoningData, rng: np.random.Generator) -> Crafted: ...


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """An oracle as a classifier that the evaluator asks."""

    oracle: Oracle

    def predict(self, inputs: Floats) -> Ints:
        """(B, *shape) → (B,) labels; errors as the oracle's."""
        return self.oracle.query(inputs).labels


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Verdicts:
    """Which probes have the label that the adversary wants, and which test records are right."""

    success: Bools
    right: Bools

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


def share(outcomes: Bools) -> Estimate:
    """The share of outcomes that are true, with Clopper and Pearson's interval."""
    return clopper_pearson(int(np.count_nonzero(outcomes)), len(outcomes))


def paired_change(before: Bools, after: Bools) -> Estimate:
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


def mean_over(values: Floats, rng: np.random.Generator) -> Estimate:
    """The mean over models or experiments, (B,), with an interval by resampling them."""
    return bootstrap(lambda rows: float(values[rows].mean()), len(values), rng, method="bootstrap")


def compare(
    poisoned: Classifier,
    clean: Classifier,
    crafted: Crafted,
    data: PoisoningData,
    *,
    attack: str,
    learner: str,
    started: float,
    extra: Mapping[str, Estimate] = MappingProxyType({}),
    notes: tuple[str, ...] = (),
) -> AttackResult:
    """The poisoned model's figures, with the clean one's as baseline and the paired changes.

    Metrics: ``poison_success``, ``accuracy``, ``poison_success_change``, ``accuracy_change`` and
    ``extra`` ones, such as what a filter removed. ``started``: of ``time.perf_counter`` when the
    attack began.
    """
    seconds = time.perf_counter() - started
    after = Verdicts.of(poisoned, crafted.probes, data.test)
    before = Verdicts.of(clean, crafted.probes, data.test)
    return AttackResult(
        attack=attack,
        oracle=learner,
        threat_model=ThreatModel.TRAINING_TIME_ADVERSARY,
        primary=SUCCESS,
        metrics={
            **after.metrics(),
            f"{SUCCESS}_change": paired_change(before.success, after.success),
            f"{ACCURACY}_change": paired_change(before.right, after.right),
            **extra,
        },
        spent=Spent(),
        seconds=seconds,
        baseline=before.metrics(),
        notes=notes,
        artifact=crafted,
    )
