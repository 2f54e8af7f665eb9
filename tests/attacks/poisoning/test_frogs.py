"""Poison Frogs: collisions against their closed form, one shot that works, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attacks.core.records import Records
from attacks.errors import DataSplitError
from attacks.poisoning.filtering import filtered_frogs
from attacks.poisoning.frogs import FeatureCollision, watermarked
from attacks.poisoning.frogs_end_to_end import EndToEnd
from attacks.poisoning.frogs_transfer import FrozenFeatures, OneShotTransfer, Spheres
from attacks.poisoning.networks import HeadTraining, Network, NetworkLearner, train_heads
from attacks.poisoning.outcome import SUCCESS
from attacks.poisoning.setting import PoisoningData
from attacks.training.stack import TrainingConfig

CLASSES, INPUTS, FEATURES = 3, 40, 30


def records(count: int, seed: int) -> Records:
    rng = np.random.default_rng(seed)
    labels = (np.arange(count) % CLASSES).astype(np.int64)
    centers = np.random.default_rng(99).uniform(0.3, 0.7, (CLASSES, INPUTS))
    inputs = np.clip(centers[labels] + 0.1 * rng.normal(size=(count, INPUTS)), 0, 1)
    return Records(inputs=inputs, labels=labels)


def data() -> PoisoningData:
    return PoisoningData(
        train=records(150, 0), test=records(120, 1), low=0.0, high=1.0, classes=CLASSES
    )


def extractor() -> FrozenFeatures:
    generator = torch.Generator().manual_seed(0)
    layer = nn.Linear(INPUTS, FEATURES)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(FEATURES, INPUTS, generator=generator) / INPUTS**0.5)
    return FrozenFeatures(module=nn.Sequential(layer, nn.ReLU()), description="random features")


def test_a_collision_of_linear_features_is_the_ridge_solution() -> None:
    """For f(x) = Ax the objective is a quadratic, so its minimum is a linear system."""
    rng = np.random.default_rng(1)
    matrix = rng.normal(size=(5, 8))
    base, target = rng.uniform(0.4, 0.6, (2, 8))

    def features(x: Tensor) -> Tensor:
        return x @ torch.as_tensor(matrix.T)

    attack = FeatureCollision(similarity=3.0, steps=1500, rate=0.01)
    found = attack.craft(
        features,
        Records(inputs=base[None], labels=np.array([0])),
        Records(inputs=target[None], labels=np.array([1])),
        low=-10.0,
        high=10.0,
    )
    beta = 3.0 * (5 / 8) ** 2
    wanted = np.linalg.solve(
        matrix.T @ matrix + beta * np.eye(8), matrix.T @ matrix @ target + beta * base
    )
    assert np.allclose(found.inputs[0], wanted, atol=1e-5)
    assert found.moved[0] == pytest.approx(np.linalg.norm(wanted - base), abs=1e-5)
    assert found.after[0] == pytest.approx(np.linalg.norm(matrix @ (wanted - target)), abs=1e-5)
    assert found.before[0] == pytest.approx(np.linalg.norm(matrix @ (base - target)))


def test_poison_stays_inside_and_comes_nearer() -> None:
    given = data()
    bases = given.train.select(given.train.labels == 0)
    targets = given.test.select(given.test.labels == 1)
    count = min(len(bases), len(targets))
    found = FeatureCollision(similarity=0.1, steps=50).craft(
        extractor(),
        bases.select(slice(0, count)),
        targets.select(slice(0, count)),
        low=0.0,
        high=1.0,
    )
    assert found.inputs.min() >= 0 and found.inputs.max() <= 1
    assert (found.after < 0.7 * found.before).all()


def test_one_shot_changes_the_side_of_its_target() -> None:
    attack = OneShotTransfer(
        collision=FeatureCollision(similarity=0.01, steps=100),
        targets=40,
        per_class=8,
        candidates=2,
        training=HeadTraining(steps=300),
    )
    result = attack.run(extractor(), data(), np.random.default_rng(2))
    assert result.metrics[SUCCESS].low > 0.8 and result.baseline[SUCCESS].high < 0.2
    assert result.metrics["poison_fitted"].value == 1
    assert result.metrics["accuracy_change"].value > -0.15
    assert result.threat_model == "training-time adversary"
    frogs = result.artifact
    assert (frogs.poison.labels == frogs.bases.labels).all()
    assert (frogs.poison.labels != frogs.targets.labels).all()


class DropsTheLast:
    """A filter that finds the poison: it stands last."""

    def fit(self, given: Records) -> np.ndarray:
        return np.arange(len(given)) < len(given) - 1


class KeepsAll:
    def fit(self, given: Records) -> np.ndarray:
        return np.ones(len(given), dtype=np.bool_)


def test_filtered_frogs_are_what_a_filter_leaves() -> None:
    attack = OneShotTransfer(
        collision=FeatureCollision(similarity=0.01, steps=200),
        targets=12,
        per_class=5,
        training=HeadTraining(steps=300),
    )
    frogs = attack.craft(extractor(), data(), np.random.default_rng(3))
    blind, wise = (
        filtered_frogs(frogs, extractor(), each, attack.training, classes=CLASSES)
        for each in (KeepsAll(), DropsTheLast())
    )
    assert blind.metrics[SUCCESS].value > 0.8 and blind.metrics["poison_removed"].value == 0
    assert wise.metrics[SUCCESS].value < 0.2 and wise.metrics["poison_removed"].value == 1
    assert wise.metrics["clean_removed"].value == 0


def test_an_adversary_who_knows_the_spheres_stays_inside() -> None:
    given, features = data(), extractor()
    known = Records(inputs=features.of(given.train.inputs), labels=given.train.labels)
    spheres = Spheres.of(known, removed=0.2, margin=0.9)
    aims = features.of(given.test.inputs)
    labels = (given.test.labels + 1) % CLASSES
    moved = spheres.nearest(aims, labels)
    away = np.linalg.norm(moved - spheres.centroids[labels], axis=1)
    assert (away <= spheres.radii[labels] * (1 + 1e-9)).all()
    inside = np.linalg.norm(aims - spheres.centroids[labels], axis=1) <= spheres.radii[labels]
    assert np.allclose(moved[inside], aims[inside])


def test_from_scratch_one_poison_does_nothing() -> None:
    def network() -> nn.Module:
        return nn.Sequential(nn.Linear(INPUTS, 24), nn.ReLU(), nn.Linear(24, CLASSES))

    learner = NetworkLearner(
        architecture=network,
        config=TrainingConfig(epochs=12, batch=25, rate=0.02),
        description="a small network",
    )
    attack = EndToEnd(
        collision=FeatureCollision(similarity=0.1, steps=40),
        base_class=0,
        target_class=1,
        poisons=1,
        targets=6,
        among=0,
    )
    result = attack.run(learner, data(), np.random.default_rng(4))
    assert result.metrics[SUCCESS].value < 0.2
    assert abs(result.metrics["accuracy_change"].value) < 0.05
    assert len(result.artifact) == 6


def test_outliers_are_the_least_sure_that_are_right() -> None:
    torch.manual_seed(0)
    network = Network(nn.Sequential(nn.Linear(INPUTS, 8), nn.ReLU(), nn.Linear(8, CLASSES)))
    attack = EndToEnd(
        collision=FeatureCollision(steps=1), base_class=0, target_class=1, targets=1, among=2
    )
    test = data().test
    rows = attack._goals(network, test)
    logits = network.logits(test.inputs)
    assert (test.labels[rows] == 1).all() and (logits[rows].argmax(axis=1) == 1).all()
    assert len(rows) <= 2


def test_differentiable_features_are_the_networks() -> None:
    network = Network(nn.Sequential(nn.Linear(INPUTS, 8), nn.ReLU(), nn.Linear(8, CLASSES)))
    inputs = data().test.inputs
    found = network.embed(torch.as_tensor(inputs)).detach().numpy()
    assert np.allclose(found, network.features(inputs))


def test_heads_fit_their_own_records_only() -> None:
    rng = np.random.default_rng(5)
    features = rng.normal(size=(3, 20, 25))
    labels = rng.integers(0, 3, (3, 20))
    heads = train_heads(features, labels, classes=3, training=HeadTraining(steps=200))
    assert (heads.predict(features) == labels).all()  # fewer records than weights
    assert heads.trainable == 25 * 3 + 3
    alone = train_heads(features[:1], labels[:1], classes=3, training=HeadTraining(steps=200))
    assert np.allclose(alone.weight[0], heads.weight[0], atol=1e-3)
    with pytest.raises(DataSplitError, match="do not fit labels"):
        train_heads(features, labels[:, :5], classes=3, training=HeadTraining(steps=1))


def test_a_watermark_is_a_mixture() -> None:
    assert watermarked(np.zeros((1, 4)), np.ones((1, 4)), 0.3).tolist() == [[0.3] * 4]


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (lambda: FeatureCollision(opacity=1.0), "opacity"),
        (lambda: FeatureCollision(similarity=-1.0), "similarity"),
        (
            lambda: EndToEnd(collision=FeatureCollision(), base_class=2, target_class=2),
            "two different classes",
        ),
        (
            lambda: FeatureCollision().craft(
                extractor(), data().train, data().train, low=0.0, high=1.0
            ),
            "of their base's class already",
        ),
        (
            lambda: FeatureCollision().craft(
                extractor(), data().train, data().test, low=0.0, high=1.0
            ),
            "a target for each base",
        ),
        (
            lambda: OneShotTransfer(collision=FeatureCollision(), per_class=60).craft(
                extractor(), data(), np.random.default_rng(0)
            ),
            "fewer per class",
        ),
        (
            lambda: OneShotTransfer(collision=FeatureCollision(), targets=0),
            "at least",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(attempt: object, message: str) -> None:
    with pytest.raises(DataSplitError, match=message):
        attempt()  # type: ignore[operator]
