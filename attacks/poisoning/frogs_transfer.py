"""Poison Frogs in transfer learning: one poison, one retrained layer, one target.

    frozen extractor f ──► features of N clean records ───────────┐
    base b, target t ──collision──► one poison, labelled as b ────┴─► head ──► label of t?

The paper's condition is that N is smaller than the number of the head's weights. Then the head can
fit every record, the poison among them. With many more records it has to choose.
Source: Shafahi et al., arXiv:1804.00792, section 3.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from attacks.core.arrays import Bools, Floats, Ints
from attacks.core.oracle import Spent
from attacks.core.records import Records
from attacks.core.result import AttackResult
from attacks.core.threat import ThreatModel
from attacks.defences.outliers import Centroids, radii
from attacks.errors import DataSplitError
from attacks.poisoning.frogs import Collisions, FeatureCollision, check_pairs
from attacks.poisoning.networks import HeadTraining, evaluate, train_heads
from attacks.poisoning.outcome import ACCURACY, SUCCESS, mean_over, share
from attacks.poisoning.setting import PoisoningData

# Heads that are trained at once, and test records that judge each of them.
_AT_ONCE: Final = 32
_JUDGES: Final = 2000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FrozenFeatures:
    """``module``: (B, *shape) → (B, features), whose weights nobody trains. ``description``:
    for reports."""

    module: nn.Module
    description: str

    def __call__(self, inputs: Tensor) -> Tensor:
        """Differentiable by the inputs."""
        return torch.as_tensor(self.module.double().eval()(inputs))

    def of(self, inputs: Floats) -> Floats:
        """(B, *shape) → (B, features)."""
        return evaluate(self.module, inputs).reshape(len(inputs), -1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Frogs:
    """What the attack made. ``training``: the clean records, shared by all experiments. ``bases``,
    ``targets``, ``collisions``: one row an experiment.
    """

    training: Records
    bases: Records
    targets: Records
    collisions: Collisions

    @property
    def poison(self) -> Records:
        """The poison of every experiment, labelled as its base."""
        return Records(inputs=self.collisions.inputs, labels=self.bases.labels)

    def sets(self, extractor: FrozenFeatures) -> tuple[Floats, Ints]:
        """Features (T, N + 1, F) and labels (T, N + 1) of every experiment's training set: the
        clean records, then its own poison."""
        count = len(self.poison)
        clean, poison = extractor.of(self.training.inputs), extractor.of(self.poison.inputs)
        features = np.concatenate([np.repeat(clean[None], count, axis=0), poison[:, None]], axis=1)
        known = np.repeat(self.training.labels[None], count, axis=0)
        return features, np.concatenate([known, self.poison.labels[:, None]], axis=1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Spheres:
    """A sphere filter as an adversary who knows of it sees it.

    ``centroids`` (C, F) and ``radii`` (C,) of every class in feature space come from records of
    the same kind as the defender's.
    """

    centroids: Floats
    radii: Floats

    @classmethod
    def of(cls, features: Records, *, removed: float, margin: float) -> Spheres:
        """Around the records' class means, through the quantile that leaves ``removed`` outside,
        shrunk to ``margin`` of it, since the defender's records are others."""
        centroids = Centroids.of(features.inputs, features.labels)
        away = centroids.distances(features.inputs, features.labels)
        found = radii(away, features.labels, removed)
        return cls(centroids=centroids.points, radii=margin * found)

    def nearest(self, aims: Floats, labels: Ints) -> Floats:
        """(B, F): the points nearest to ``aims`` inside the spheres of ``labels``."""
        center, radius = self.centroids[labels], self.radii[labels][:, None]
        away = aims - center
        length = np.linalg.norm(away, axis=1, keepdims=True)
        result: Floats = center + away * np.minimum(
            1.0, radius / np.maximum(length, np.finfo(np.float64).tiny)
        )
        return result


@dataclass(frozen=True, slots=True, kw_only=True)
class OneShotTransfer:
    """``targets`` experiments over the same ``per_class`` clean records of every class.

    ``candidates``: bases that are tried for each target. The poison that comes nearest to the
    target in features is used, and one record of it goes into each training set. ``inside``:
    spheres that the poison's features have to stay in, for an adversary who knows of a filter.
    """

    collision: FeatureCollision
    targets: int = 60
    per_class: int = 20
    candidates: int = 4
    training: HeadTraining = field(default_factory=HeadTraining)
    inside: Spheres | None = None

    def __post_init__(self) -> None:
        if min(self.targets, self.per_class, self.candidates) < 1:
            raise DataSplitError("one shot takes a target, a record a class and a base at least")

    def craft(
        self, extractor: FrozenFeatures, data: PoisoningData, rng: np.random.Generator
    ) -> Frogs:
        """Targets from the test records, bases and training sets from the training records.

        Raises DataSplitError for a class with too few records.
        """
        by_class = [
            rng.permutation(np.flatnonzero(data.train.labels == label))
            for label in range(data.classes)
        ]
        needed = self.per_class + self.candidates
        short = [label for label, rows in enumerate(by_class) if len(rows) < needed]
        if short:
            raise DataSplitError(
                f"class {short[0]} has {len(by_class[short[0]])} training records, and {needed} "
                "are needed: take fewer per class, or fewer candidates"
            )
        if self.targets > len(data.test):
            raise DataSplitError(f"{self.targets} targets among {len(data.test)} test records")
        targets = data.test.select(rng.choice(len(data.test), self.targets, replace=False))
        offered = []
        for label in targets.labels:
            base_class = int(rng.choice(np.delete(np.arange(data.classes), label)))
            unused = by_class[base_class][self.per_class :]
            offered.append(rng.choice(unused, self.candidates, replace=False))
        chosen = np.concatenate([rows[: self.per_class] for rows in by_class])
        bases, collisions = self._nearest(
            extractor, data.train.select(np.concatenate(offered)), targets, data
        )
        return Frogs(
            training=data.train.select(chosen), bases=bases, targets=targets, collisions=collisions
        )

    def _nearest(
        self, extractor: FrozenFeatures, bases: Records, targets: Records, data: PoisoningData
    ) -> tuple[Records, Collisions]:
        """Collide every candidate and keep the best for each target."""
        repeated = targets.select(np.repeat(np.arange(len(targets)), self.candidates))
        check_pairs(bases, repeated)
        aims = extractor.of(repeated.inputs)
        if self.inside is not None:
            aims = self.inside.nearest(aims, bases.labels)
        found = self.collision.towards(extractor, bases.inputs, aims, low=data.low, high=data.high)
        after = found.after.reshape(len(targets), self.candidates)
        rows = np.arange(len(targets)) * self.candidates + after.argmin(axis=1)
        return bases.select(rows), found.select(rows)

    def run(
        self, extractor: FrozenFeatures, data: PoisoningData, rng: np.random.Generator
    ) -> AttackResult:
        """Train a head for each target, with and without its poison, and compare.

        ``poison_success``: targets answered as their base's class. ``accuracy``: mean over heads
        on test records; its change is from the head without poison. ``poison_fitted``: poisons
        that their head answers as labelled. ``looks_like_base``: poisons whose nearest clean
        training record in inputs is of the base's class. ``distance_to_base``: in inputs.
        ``feature_distance_left``: of the distance between base and target.
        """
        start = time.perf_counter()
        frogs = self.craft(extractor, data, rng)
        features, wanted = frogs.sets(extractor)
        clean, poison = features[0, :-1], features[:, -1]
        aims = extractor.of(frogs.targets.inputs)
        tests = data.test.select(slice(0, _JUDGES))
        judges = extractor.of(tests.inputs)
        without = train_heads(
            clean[None], frogs.training.labels[None], classes=data.classes, training=self.training
        )
        right_before = float((without.predict(judges[None])[0] == tests.labels).mean())
        taken_before = without.predict(aims[None])[0] == frogs.poison.labels
        taken, fitted, right = [], [], []
        for at in range(0, len(poison), _AT_ONCE):
            mine = slice(at, at + _AT_ONCE)
            labels = frogs.poison.labels[mine]
            heads = train_heads(
                features[mine], wanted[mine], classes=data.classes, training=self.training
            )
            taken.append(heads.predict(aims[mine, None])[:, 0] == labels)
            fitted.append(heads.predict(poison[mine, None])[:, 0] == labels)
            right.append((heads.predict(judges[None]) == tests.labels).mean(axis=1))
        right_after = np.concatenate(right)
        left = frogs.collisions.after / frogs.collisions.before
        return AttackResult(
            attack="poison frogs, one shot",
            oracle=f"a layer on {extractor.description}",
            threat_model=ThreatModel.TRAINING_TIME_ADVERSARY,
            primary=SUCCESS,
            metrics={
                SUCCESS: share(np.concatenate(taken)),
                ACCURACY: mean_over(right_after, rng),
                f"{ACCURACY}_change": mean_over(right_after - right_before, rng),
                "poison_fitted": share(np.concatenate(fitted)),
                "looks_like_base": share(_looks_like_base(frogs)),
                "distance_to_base": mean_over(frogs.collisions.moved, rng),
                "feature_distance_left": mean_over(left, rng),
            },
            baseline={
                SUCCESS: share(taken_before),
                ACCURACY: share(without.predict(judges[None])[0] == tests.labels),
            },
            spent=Spent(),
            seconds=time.perf_counter() - start,
            notes=(
                f"{len(clean) + 1} training records, {without.trainable} trainable weights, "
                f"{clean.shape[1]} features",
            ),
            artifact=frogs,
        )


def _looks_like_base(frogs: Frogs) -> Bools:
    """Whether the clean training record that is nearest in inputs is of the base's class."""
    known = frogs.training.inputs.reshape(len(frogs.training), -1)
    images = frogs.poison.inputs.reshape(len(frogs.poison), -1)
    nearest = [int(((known - image) ** 2).sum(axis=1).argmin()) for image in images]
    result: Bools = frogs.training.labels[nearest] == frogs.poison.labels
    return result
