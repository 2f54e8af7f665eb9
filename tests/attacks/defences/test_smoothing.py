"""Smoothing: certificates against closed forms, and no attack inside the radius."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats

from attacks.core.oracle import LABELS, LOGITS, Answer, MeteredOracle, OracleInfo
from attacks.core.records import Records
from attacks.core.wrappers import Budget, LabelsOnly
from attacks.defences.smoothing import (
    ABSTAINED,
    Certificates,
    GaussianNoise,
    MeanOverNoise,
    Smoothing,
    certified_accuracy,
    gaussian_training,
)
from attacks.errors import BudgetError, DataSplitError, TooFewRecordsError
from attacks.evasion.gradient.pgd import perturb
from attacks.evasion.norms import L2
from attacks.oracles.plaintext import TorchOracle
from attacks.oracles.recipes import standard_recipe
from attacks.training.recipe import TrainedTwins, train_twins
from he_infer import datasets

WIDE = 1e6


class HalfSpace(MeteredOracle):
    """Class 1 where the first value is above 0; noise is never clipped in so wide a range."""

    def __init__(self, *, batch: int | None = None) -> None:
        super().__init__(
            OracleInfo(
                name="half space", kind="plaintext", input_shape=(3,), classes=2, low=-WIDE,
                high=WIDE, answers=frozenset({LOGITS, LABELS}), batch=batch,
            )
        )  # fmt: skip

    def _answer(self, records: NDArray[np.float64]) -> Answer:
        return Answer.of_logits(np.stack([-records[:, 0], records[:, 0]], axis=1))


@functools.cache
def trained() -> tuple[TrainedTwins, Records]:
    train, test = datasets.digits()
    pool = Records(inputs=train.flat_inputs()[:1000].astype(np.float64), labels=train.labels[:1000])
    recipe = gaussian_training(standard_recipe("digits"), sigma=0.25)
    twins = train_twins(recipe, pool, np.ones((1, 1000), np.bool_), seeds=[0])
    return twins, Records(inputs=test.flat_inputs().astype(np.float64), labels=test.labels)


def oracle() -> TorchOracle:
    model = trained()[0].polynomial.module(0)
    return TorchOracle(model, name="smooth", input_shape=(64,), low=0.0, high=1.0)


def test_the_radius_is_below_the_true_distance_and_close_to_it() -> None:
    # Of a half space, the smoothed class changes exactly at the border: the radius is the
    # distance (Cohen et al., section 3.2.1).
    distances = np.linspace(0.05, 1.0, 20)
    inputs = np.stack([distances, np.zeros(20), np.zeros(20)], axis=1)
    smoothing = Smoothing(sigma=0.5, copies=20_000, alpha=0.001)
    found = smoothing.certify(HalfSpace(), inputs, np.random.default_rng(0))
    certified = found.labels != ABSTAINED
    assert certified[2:].all() and (found.labels[certified] == 1).all()
    assert (found.radii <= distances).all()  # 20 bounds, each wrong once in 1,000
    # 3.1 standard errors of p, times sigma over the normal's density at two deviations.
    assert (distances[certified] - found.radii[certified]).max() < 0.06


def test_the_largest_radius_is_that_of_unanimous_votes() -> None:
    smoothing = Smoothing(sigma=1.0, copies=100_000, alpha=0.001)
    # The figure that Cohen et al. give: 99,999 of 100,000 … about 3.8 sigma at most.
    assert smoothing.radius(100_000) == pytest.approx(stats.norm.ppf(0.001 ** (1 / 100_000)))
    assert 3.8 < smoothing.radius(100_000) < 3.82
    assert smoothing.radius(50_000) == 0.0


def test_radii_against_the_binomial_tail() -> None:
    smoothing = Smoothing(sigma=1.0, copies=200, alpha=0.01)
    for votes in (130, 170, 199):
        lower = stats.norm.cdf(smoothing.radius(votes))
        # At the bound, so many votes or more come up with probability alpha.
        assert stats.binom.sf(votes - 1, 200, lower) == pytest.approx(0.01)


def test_wrong_predictions_are_as_rare_as_alpha_says() -> None:
    # At the border itself both classes are equally likely: any answer is an error.
    smoothing = Smoothing(sigma=1.0, copies=50, alpha=0.1)
    at_border = np.zeros((2000, 3))
    answered = smoothing.predict(HalfSpace(), at_border, np.random.default_rng(0)) != ABSTAINED
    # Exactly: P(|X − 25| ≥ 6) = 0.0649 … at most alpha, tested at four standard errors.
    counts = np.arange(51)
    tails = 2 * stats.binom.sf(np.maximum(counts, 50 - counts) - 1, 50, 0.5)
    true = float(stats.binom.pmf(counts, 50, 0.5)[tails <= 0.1].sum())
    assert true <= 0.1
    assert answered.mean() == pytest.approx(true, abs=4 * math.sqrt(true / 2000))


def test_every_copy_is_a_record_and_requests_are_full() -> None:
    target = HalfSpace(batch=64)
    smoothing = Smoothing(sigma=0.5, copies=90, selection=10)
    smoothing.certify(target, np.ones((5, 3)), np.random.default_rng(0))
    spent = target.ledger.spent
    assert spent.records == 5 * smoothing.records_per_certificate == 500
    assert spent.requests == math.ceil(5 * 10 / 64) + math.ceil(5 * 90 / 64)


def test_it_works_over_wrappers_and_needs_labels_only() -> None:
    target = Budget(LabelsOnly(HalfSpace()), records=120)
    smoothing = Smoothing(sigma=0.5, copies=60)
    labels = smoothing.predict(
        target, np.array([[2.0, 0, 0], [-2.0, 0, 0]]), np.random.default_rng(0)
    )
    assert labels.tolist() == [1, 0]
    with pytest.raises(BudgetError):
        smoothing.predict(target, np.ones((1, 3)), np.random.default_rng(0))


@pytest.mark.slow
def test_no_attack_inside_the_radius_flips_a_certified_answer() -> None:
    _, test = trained()
    few = test.select(slice(0, 60))
    smoothing = Smoothing(sigma=0.25, copies=500, selection=50, alpha=0.001)
    target = oracle()
    found = smoothing.certify(target, few.inputs, np.random.default_rng(1))
    sure = found.radii > 0.1
    assert sure.sum() >= 30
    network = MeanOverNoise(
        trained()[0].polynomial.module(0).double(), sigma=0.25, copies=32, shape=(64,), low=0.0,
        high=1.0, generator=torch.Generator().manual_seed(0),
    ).double()  # fmt: skip
    flipped = 0
    for record, label, radius in zip(
        few.inputs[sure], found.labels[sure], found.radii[sure], strict=True
    ):
        moved = perturb(
            network, torch.as_tensor(record[None]), torch.as_tensor([label]), epsilon=float(radius),
            norm=L2(), steps=20, step=0.2 * float(radius), low=0.0, high=1.0,
            generator=torch.Generator().manual_seed(1),
        )  # fmt: skip
        answer = smoothing.predict(target, moved.numpy(), np.random.default_rng(2))[0]
        flipped += answer not in (label, ABSTAINED)
    # Each certificate and each answer may be wrong once in 1,000: two among 60 happen once in 140.
    assert flipped <= stats.binom.ppf(0.999, 2 * int(sure.sum()), 0.001)
    # The same attack with five times the radius does flip answers: it is not a weak attack.
    strong = perturb(
        network, torch.as_tensor(few.inputs[sure]), torch.as_tensor(found.labels[sure]),
        epsilon=2.5, norm=L2(), steps=20, step=0.5, low=0.0, high=1.0,
        generator=torch.Generator().manual_seed(1),
    )  # fmt: skip
    answers = smoothing.predict(target, strong.numpy(), np.random.default_rng(3))
    assert ((answers != found.labels[sure]) & (answers != ABSTAINED)).mean() > 0.5


@pytest.mark.slow
def test_noise_in_training_is_what_certifies() -> None:
    _, test = trained()
    few = test.select(slice(0, 60))
    train, _ = datasets.digits()
    pool = Records(inputs=train.flat_inputs()[:1000].astype(np.float64), labels=train.labels[:1000])
    plain = train_twins(standard_recipe("digits"), pool, np.ones((1, 1000), np.bool_), seeds=[0])
    smoothing = Smoothing(sigma=0.25, copies=200)
    without = TorchOracle(
        plain.polynomial.module(0), name="plain", input_shape=(64,), low=0.0, high=1.0
    )
    curves = [
        certified_accuracy(
            smoothing.certify(target, few.inputs, np.random.default_rng(0)), few.labels, [0.0, 0.25]
        )
        for target in (without, oracle())
    ]
    assert curves[1].low[1] > curves[0].y[1]
    assert curves[1].y[0] >= curves[1].y[1]


def test_certified_accuracy_by_hand() -> None:
    found = Certificates(
        labels=np.array([1, 1, ABSTAINED, 0]), radii=np.array([0.5, 0.2, 0.0, 0.9]), alpha=0.1
    )
    curve = certified_accuracy(found, np.array([1, 1, 1, 1]), [0.0, 0.3, 0.6])
    assert curve.y == (0.5, 0.25, 0.0)
    assert all(
        low <= y <= high for low, y, high in zip(curve.low, curve.y, curve.high, strict=True)
    )
    with pytest.raises(DataSplitError, match="do not fit 4 certificates"):
        certified_accuracy(found, np.array([1]), [0.0])


def test_nonsense_is_refused() -> None:
    with pytest.raises(DataSplitError, match="positive sigma"):
        Smoothing(sigma=0.0)
    with pytest.raises(DataSplitError, match="positive sigma"):
        GaussianNoise(sigma=-1.0)
    with pytest.raises(TooFewRecordsError, match="take at least 11") as caught:
        Smoothing(sigma=0.5, copies=10)
    assert Smoothing(sigma=0.5, copies=caught.value.needed).radius(caught.value.needed) > 0
    with pytest.raises(DataSplitError, match="outside"):
        Smoothing(sigma=0.5).predict(oracle(), np.full((1, 64), 3.0), np.random.default_rng(0))
