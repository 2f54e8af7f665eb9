"""Poison Frogs against a network that trains all of its layers.

    adversary's copy of the network ──collision, watermark──► P poisons a target
    clean records + P poisons ──every layer from fresh weights──► label of the target?

Training moves the features, and a single poison is pulled away from its target: poison is
classified as its base, and the target as itself. Many poisons that carry a watermark of the target
keep the two together.
Source: Shafahi et al., arXiv:1804.00792, section 4.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from attacks.core.arrays import Ints
from attacks.core.oracle import Spent
from attacks.core.records import Records
from attacks.core.result import AttackResult
from attacks.core.threat import ThreatModel
from attacks.errors import DataSplitError
from attacks.membership.statistics import logit_confidence
from attacks.poisoning.frogs import FeatureCollision
from attacks.poisoning.networks import Network, NetworkLearner
from attacks.poisoning.outcome import ACCURACY, SUCCESS, mean_over, share
from attacks.poisoning.setting import PoisonedSet, PoisoningData


@dataclass(frozen=True, slots=True, kw_only=True)
class EndToEnd:
    """``targets`` networks, each trained with ``poisons`` records that are aimed at one target.

    Targets are of class ``target_class``. Poison looks like ``base_class`` and is labelled so.
    ``among``: targets are drawn from so many test records that the adversary's copy of the network
    classifies right but is least sure of, the paper's outliers. 0 draws from all that it
    classifies right.

    Raises DataSplitError if both are one class.
    """

    collision: FeatureCollision
    base_class: int
    target_class: int
    poisons: int = 50
    targets: int = 10
    among: int = 0

    def __post_init__(self) -> None:
        if self.base_class == self.target_class or min(self.base_class, self.target_class) < 0:
            raise DataSplitError(
                f"the target is to change sides, got class {self.target_class} and base class "
                f"{self.base_class}: name two different classes"
            )
        if min(self.poisons, self.targets) < 1:
            raise DataSplitError("an attack end to end takes a poison and a target at least")

    def craft(
        self, network: Network, data: PoisoningData, rng: np.random.Generator
    ) -> tuple[tuple[PoisonedSet, ...], Records]:
        """A poisoned set for each target, and the targets with their own labels.

        ``network``: the adversary's copy, whose features are collided. Bases are training records,
        used again if there are fewer of them. DataSplitError for too few records of a class.
        """
        bases = np.flatnonzero(data.train.labels == self.base_class)
        goals = self._goals(network, data.test)
        if not len(bases) or self.targets > len(goals):
            raise DataSplitError(
                f"{len(bases)} bases of class {self.base_class} and {len(goals)} targets of "
                f"class {self.target_class} that the network is right about: at least 1 and "
                f"{self.targets} are needed"
            )
        targets = data.test.select(rng.choice(goals, self.targets, replace=False))
        again = self.poisons > len(bases)
        chosen = [rng.choice(bases, self.poisons, replace=again) for _ in range(self.targets)]
        found = self.collision.craft(
            network.embed,
            data.train.select(np.concatenate(chosen)),
            targets.select(np.repeat(np.arange(self.targets), self.poisons)),
            low=data.low,
            high=data.high,
        )
        labels = np.full(self.poisons, self.base_class, dtype=np.int64)
        sets = tuple(
            PoisonedSet.of(data.train, Records(inputs=part, labels=labels))
            for part in np.split(found.inputs, self.targets)
        )
        return sets, targets

    def _goals(self, network: Network, test: Records) -> Ints:
        """Rows of ``test`` that may become targets."""
        rows = np.flatnonzero(test.labels == self.target_class)
        logits = network.logits(test.inputs[rows])
        right = logits.argmax(axis=1) == self.target_class
        labels = np.full(len(rows), self.target_class, dtype=np.int64)
        order = np.argsort(logit_confidence(logits, labels), kind="stable")
        found: Ints = rows[order[right[order]]]
        return found[: self.among] if self.among else found

    def run(
        self, learner: NetworkLearner, data: PoisoningData, rng: np.random.Generator
    ) -> AttackResult:
        """Train a network for each target and ask it about that target.

        ``poison_success``: targets answered as the base's class. ``accuracy``: mean over networks.
        The artifact says which targets were, (targets,) bool; the same rng draws the same ones.
        """
        start = time.perf_counter()
        clean = learner.fit(data.train, rng)
        sets, targets = self.craft(clean, data, rng)
        networks = learner.fit_all([each.records for each in sets], rng)
        taken = np.array(
            [
                int(network.predict(targets.inputs[[row]])[0]) == self.base_class
                for row, network in enumerate(networks)
            ]
        )
        before = clean.predict(data.test.inputs) == data.test.labels
        right = np.array(
            [(each.predict(data.test.inputs) == data.test.labels).mean() for each in networks]
        )
        return AttackResult(
            attack="poison frogs, end to end",
            oracle=learner.description,
            threat_model=ThreatModel.TRAINING_TIME_ADVERSARY,
            primary=SUCCESS,
            metrics={
                SUCCESS: share(taken),
                ACCURACY: mean_over(right, rng),
                f"{ACCURACY}_change": mean_over(right - float(before.mean()), rng),
            },
            spent=Spent(),
            baseline={
                SUCCESS: share(clean.predict(targets.inputs) == self.base_class),
                ACCURACY: share(before),
            },
            seconds=time.perf_counter() - start,
            notes=(
                f"poison records a target: {self.poisons}, opacity {self.collision.opacity:g}, "
                f"among {len(data.train)} clean records, all layers from fresh weights",
            ),
            artifact=taken,
        )
