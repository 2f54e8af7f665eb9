"""Poison Frogs in transfer learning: one poison, one retrained layer, one target.

    frozen extractor f ──► features of N clean records ───────────┐
    base b, target t ──collision──► one poison, labelled as b ────┴─► head ──► label of t?

N is smaller than the number of the head's weights, so the head can fit every record, the poison
among them, which is the paper's condition; with many more records it has to choose.
Source: Shafahi et al., arXiv:1804.00792, section 3.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from attacks.core.intervals import Estimate, bootstrap
from attacks.core.records import Records
from attacks.core.result import AttackResult
from attacks.defences.outliers import Centroids, radii
from attacks.errors import DataSplitError
from attacks.poisoning.frogs import Collisions, FeatureCollision, check_pairs
from attacks.poisoning.networks import Heads, HeadTraining, evaluate, train_heads
from attacks.poisoning.outcome import ACCURACY, SUCCESS, share
from attacks.poisoning.setting import PoisoningData, PoisoningReport

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

    def of(self, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
        """(B, *shape) → (B, features)."""
        return evaluate(self.module, inputs).reshape(len(inputs), -1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Frogs:
    """What the attack made. ``training``: the clean records, shared by all experiments. ``poison``,
    ``bases``, ``targets``, ``collisions``: one row an experiment; poison is labelled as its base.
    """

    training: Records
    poison: Records
    bases: Records
    targets: Records
    collisions: Collisions


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Spheres:
    """``centroids`` (C, F) and ``radii`` (C,) of every class in feature space, as an attacker who
    knows a sphere filter takes them from records of the same kind."""

    centroids: NDArray[np.float64]
    radii: NDArray[np.float64]

    @classmethod
    def of(cls, features: Records, *, removed: float, margin: float) -> Spheres:
        """Around the records' class means, through the quantile that leaves ``removed`` outside,
        shrunk to ``margin`` of it, since the defender's records are others."""
        centroids = Centroids.of(features.inputs, features.labels)
        away = centroids.distances(features.inputs, features.labels)
        found = radii(away, features.labels, removed)
        return cls(centroids=centroids.points, radii=margin * found)

    def nearest(self, aims: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """(B, F): the points nearest to ``aims`` inside the spheres of ``labels``."""
        center, radius = self.centroids[labels], self.radii[labels][:, None]
        away = aims - center
        length = np.linalg.norm(away, axis=1, keepdims=True)
        result: NDArray[np.float64] = center + away * np.minimum(
            1.0, radius / np.maximum(length, np.finfo(np.float64).tiny)
        )
        return result


@dataclass(frozen=True, slots=True, kw_only=True)
class OneShotTransfer:
    """``targets`` experiments over the same ``per_class`` clean records of every class.

    ``candidates``: bases that are tried for each target; the poison that comes nearest to it in
    features is used. One poison record goes into each training set. ``inside``: spheres that the
    poison's features have to stay in, for an attacker who knows of a filter; None for none.
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
        poison, bases, collisions = self._nearest(
            extractor, data.train.select(np.concatenate(offered)), targets, data
        )
        return Frogs(
            training=data.train.select(chosen),
            poison=poison,
            bases=bases,
            targets=targets,
            collisions=collisions,
        )

    def _nearest(
        self, extractor: FrozenFeatures, bases: Records, targets: Records, data: PoisoningData
    ) -> tuple[Records, Records, Collisions]:
        """Collide every candidate and keep the best for each target."""
        repeated = targets.select(np.repeat(np.arange(len(targets)), self.candidates))
        check_pairs(bases, repeated)
        aims = extractor.of(repeated.inputs)
        if self.inside is not None:
            aims = self.inside.nearest(aims, bases.labels)
        found = self.collision.towards(extractor, bases.inputs, aims, low=data.low, high=data.high)
        after = found.after.reshape(len(targets), self.candidates)
        rows = np.arange(len(targets)) * self.candidates + after.argmin(axis=1)
        kept = bases.select(rows)
        return (
            Records(inputs=found.inputs[rows], labels=kept.labels),
            kept,
            Collisions(
                inputs=found.inputs[rows],
                before=found.before[rows],
                after=found.after[rows],
                moved=found.moved[rows],
            ),
        )

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
        return judge_frogs(frogs, extractor, data, self.training, rng, start=start)


def judge_frogs(
    frogs: Frogs,
    extractor: FrozenFeatures,
    data: PoisoningData,
    training: HeadTraining,
    rng: np.random.Generator,
    *,
    start: float,
) -> AttackResult:
    """What heads trained on ``frogs`` answer; ``start``: when the attack began, for its time."""
    check_pairs(frogs.bases, frogs.targets)
    clean, poison = extractor.of(frogs.training.inputs), extractor.of(frogs.poison.inputs)
    aims = extractor.of(frogs.targets.inputs)
    tests = data.test.select(slice(0, _JUDGES))
    judges = extractor.of(tests.inputs)
    without = train_heads(
        clean[None], frogs.training.labels[None], classes=data.classes, training=training
    )
    right_before = float((without.predict(judges[None])[0] == tests.labels).mean())
    taken_before = without.predict(aims[None])[0] == frogs.poison.labels
    taken, fitted, right = [], [], []
    for at in range(0, len(poison), _AT_ONCE):
        mine = slice(at, at + _AT_ONCE)
        labels = frogs.poison.labels[mine]
        heads = _poisoned_heads(clean, frogs.training.labels, poison[mine], labels, data, training)
        taken.append(heads.predict(aims[mine, None])[:, 0] == labels)
        fitted.append(heads.predict(poison[mine, None])[:, 0] == labels)
        right.append((heads.predict(judges[None]) == tests.labels).mean(axis=1))
    right_after = np.concatenate(right)

    def mean_of(values: NDArray[np.float64]) -> Estimate:
        return bootstrap(
            lambda rows: float(values[rows].mean()), len(values), rng, method="bootstrap"
        )

    return PoisoningReport(
        attack="poison frogs, one shot",
        learner=f"a layer on {extractor.description}",
        primary=SUCCESS,
        metrics={
            SUCCESS: share(np.concatenate(taken)),
            ACCURACY: mean_of(right_after),
            f"{ACCURACY}_change": mean_of(right_after - right_before),
            "poison_fitted": share(np.concatenate(fitted)),
            "looks_like_base": share(_looks_like_base(frogs)),
            "distance_to_base": mean_of(frogs.collisions.moved),
            "feature_distance_left": mean_of(frogs.collisions.after / frogs.collisions.before),
        },
        baseline={
            SUCCESS: share(taken_before),
            ACCURACY: share(without.predict(judges[None])[0] == tests.labels),
        },
        seconds=time.perf_counter() - start,
        notes=(
            f"{len(clean) + 1} training records, {without.trainable} trainable weights, "
            f"{clean.shape[1]} features",
        ),
        artifact=frogs,
    ).result()


def _poisoned_heads(
    clean: NDArray[np.float64],
    labels: NDArray[np.int64],
    poison: NDArray[np.float64],
    poison_labels: NDArray[np.int64],
    data: PoisoningData,
    training: HeadTraining,
) -> Heads:
    """A head for each poison record, on the clean records and that one."""
    count = len(poison)
    features = np.concatenate([np.repeat(clean[None], count, axis=0), poison[:, None]], axis=1)
    wanted = np.concatenate(
        [np.repeat(labels[None], count, axis=0), poison_labels[:, None]], axis=1
    )
    return train_heads(features, wanted, classes=data.classes, training=training)


def _looks_like_base(frogs: Frogs) -> NDArray[np.bool_]:
    """Whether the clean training record that is nearest in inputs is of the base's class."""
    known = frogs.training.inputs.reshape(len(frogs.training), -1)
    images = frogs.poison.inputs.reshape(len(frogs.poison), -1)
    nearest = [int(((known - image) ** 2).sum(axis=1).argmin()) for image in images]
    result: NDArray[np.bool_] = frogs.training.labels[nearest] == frogs.poison.labels
    return result
