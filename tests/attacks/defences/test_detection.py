"""Detectors: right against references, silent on clean records, and passed by who knows them."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from scipy.spatial.distance import cdist
from torch import nn

from attacks.core.records import Records
from attacks.core.wrappers import Budget, LabelsOnly
from attacks.defences.adversarial_training import ProjectedGradient
from attacks.defences.detection import (
    Detector,
    Flagging,
    InputFilter,
    Refusing,
    detection_figures,
)
from attacks.defences.detection_adaptive import AdaptiveEvasion, misclassified
from attacks.defences.detection_density import (
    DensityDetector,
    PrincipalComponents,
    PublicNetwork,
)
from attacks.defences.detection_squeezing import BitDepth, FeatureSqueezing, MedianSmoothing
from attacks.errors import (
    AbilityError,
    BudgetError,
    DataSplitError,
    RefusedError,
    TooFewRecordsError,
)
from attacks.evasion.gradient.gradients import in_hand
from attacks.oracles.plaintext import TorchOracle
from attacks.oracles.recipes import standard_recipe
from attacks.training.perturbed import Batch, moved_records
from attacks.training.recipe import train_twins
from he_infer import datasets

EPSILON = 0.2
SQUEEZERS = (BitDepth(bits=2), MedianSmoothing(size=2, image=(8, 8)))


@functools.cache
def parts() -> tuple[Records, Records, Records]:
    """What a detector is fitted on, what sets its threshold, and what judges it."""
    train, test = datasets.digits()
    inputs = train.flat_inputs().astype(np.float64)
    return (
        Records(inputs=inputs[:900], labels=train.labels[:900]),
        Records(inputs=inputs[900:], labels=train.labels[900:]),
        Records(inputs=test.flat_inputs().astype(np.float64), labels=test.labels),
    )


@functools.cache
def network() -> nn.Module:
    fit = parts()[0]
    twins = train_twins(standard_recipe("digits"), fit, np.ones((1, len(fit)), np.bool_), seeds=[0])
    return twins.polynomial.module(0)


def oracle() -> TorchOracle:
    return TorchOracle(network(), name="digits", input_shape=(64,), low=0.0, high=1.0)


@functools.cache
def calibrated(kind: str) -> InputFilter:
    fit, threshold, _ = parts()
    detector: Detector = (
        DensityDetector.fitted(fit) if kind == "density" else FeatureSqueezing(squeezers=SQUEEZERS)
    )
    return InputFilter.calibrated(detector, oracle(), threshold, false_alarms=0.05)


@functools.cache
def moved() -> tuple[np.ndarray, np.ndarray]:
    """All test records after PGD, and which of them are now wrong and were right before."""
    test = parts()[2]
    found = moved_records(
        network(), test, ProjectedGradient(epsilon=EPSILON, steps=20, step_share=0.1),
        low=0.0, high=1.0, seed=0,
    )  # fmt: skip
    labels = torch.as_tensor(test.labels)
    wrong = misclassified(network(), torch.as_tensor(found), labels)
    right = ~misclassified(network(), torch.as_tensor(test.inputs), labels)
    return found, (wrong & right).numpy()


def test_distances_against_scipy() -> None:
    fit, _, test = parts()
    detector = DensityDetector.fitted(fit, shrinkage=0.1)
    centers = np.stack([fit.inputs[fit.labels == c].mean(axis=0) for c in range(10)])
    within = fit.inputs - centers[fit.labels]
    covariance = within.T @ within / (len(fit) - 10)
    shrunk = 0.9 * covariance + 0.1 * np.trace(covariance) / 64 * np.eye(64)
    wanted = cdist(test.inputs, centers, "mahalanobis", VI=np.linalg.inv(shrunk)) ** 2
    np.testing.assert_allclose(
        detector.scores(oracle(), test.inputs), wanted.min(axis=1), rtol=1e-8
    )


def test_gaussian_records_score_like_chi_squared() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 4000)
    inputs = rng.normal(size=(4000, 6)) @ rng.normal(size=(6, 6)) + 100 * labels[:, None]
    detector = DensityDetector.fitted(Records(inputs=inputs, labels=labels), shrinkage=1e-6)
    scores = detector.scores(oracle(), inputs)
    assert stats.kstest(scores, stats.chi2(6).cdf).pvalue > 0.001


@pytest.mark.parametrize("size", [2, 3])
def test_medians_against_scipy(size: int) -> None:
    images = np.random.default_rng(0).uniform(size=(4, 7, 9))
    ours = MedianSmoothing(size=size, image=(7, 9))(torch.as_tensor(images.reshape(4, 63)))
    theirs = np.stack([ndimage.median_filter(image, size=size, mode="reflect") for image in images])
    np.testing.assert_array_equal(ours.numpy().reshape(4, 7, 9), theirs)


def test_bit_depth_has_so_many_levels_and_a_straight_gradient() -> None:
    x = torch.linspace(-1, 1, 1001, dtype=torch.float64).requires_grad_()
    squeezed = BitDepth(bits=2, low=-1.0, high=1.0)(x[:, None])
    np.testing.assert_allclose(
        np.unique(squeezed.detach().numpy().round(12)), [-1, -1 / 3, 1 / 3, 1]
    )
    assert float((squeezed[:, 0] - x).detach().abs().max()) <= 1 / 3 + 1e-12
    squeezed.sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None and torch.equal(x.grad, torch.ones_like(x))


@pytest.mark.parametrize("kind", ["density", "squeezing"])
def test_what_an_adversary_differentiates_is_the_score(kind: str) -> None:
    detector, test = calibrated(kind).detector, parts()[2]
    exact = detector.scores(oracle(), test.inputs[:50])
    model = detector.gradient_score(in_hand(network()))
    np.testing.assert_allclose(model(torch.as_tensor(test.inputs[:50])).detach(), exact, atol=1e-9)


def test_principal_components_are_those_of_the_covariance() -> None:
    fit = parts()[0]
    components = PrincipalComponents.fitted(fit, count=5)
    found = components(torch.as_tensor(fit.inputs)).numpy()
    wanted = np.linalg.eigvalsh(np.cov(fit.inputs.T))[::-1][:5]
    np.testing.assert_allclose(np.cov(found.T), np.diag(wanted), atol=1e-10)


def test_a_public_network_can_be_the_feature_map() -> None:
    fit, _, test = parts()
    torch.manual_seed(0)
    detector = DensityDetector.fitted(fit, features=PublicNetwork(nn.Linear(64, 8)))
    assert detector.scores(oracle(), test.inputs).shape == (len(test),)


@pytest.mark.parametrize("kind", ["density", "squeezing"])
def test_false_alarms_are_as_rare_as_they_were_set(kind: str) -> None:
    before, test = calibrated(kind), parts()[2]
    alarms = int(before.flags(oracle(), test.inputs).sum())
    # 5 % of 359, the threshold itself uncertain by 1 % (538 records): three deviations above.
    assert alarms <= stats.binom.ppf(0.999, len(test), 0.08)


def test_density_sees_moved_records_until_it_is_in_the_loss() -> None:
    found, wrong = moved()
    test, before = parts()[2], calibrated("density")
    figures = detection_figures(before, oracle(), clean=test.inputs, moved=found[wrong])
    assert figures["auc"].low > 0.95 and figures["tpr"].low > 0.9
    assert figures["fpr"].high < 0.15
    few = test.select(slice(0, 80))
    labels = torch.as_tensor(few.labels)
    batch = Batch(
        inputs=torch.as_tensor(few.inputs), labels=labels, low=0.0, high=1.0,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    adaptive = AdaptiveEvasion(epsilon=EPSILON, steps=60).moved(network(), before, batch)
    assert float((adaptive - torch.as_tensor(few.inputs)).abs().max()) <= EPSILON + 1e-12
    passed = (
        ~before.flags(oracle(), adaptive.numpy())
        & misclassified(network(), adaptive, labels).numpy()
    )
    assert passed.mean() > 0.5
    ignorant = wrong[:80] & ~before.flags(oracle(), found[:80])
    assert passed.sum() > ignorant.sum() + 20


def test_squeezing_is_passed_through_straight_gradients() -> None:
    few = parts()[2].select(slice(0, 60))
    labels = torch.as_tensor(few.labels)
    before = calibrated("squeezing")
    batch = Batch(
        inputs=torch.as_tensor(few.inputs), labels=labels, low=0.0, high=1.0,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    adaptive = AdaptiveEvasion(epsilon=EPSILON, steps=60).moved(network(), before, batch)
    wrong = misclassified(network(), adaptive, labels).numpy()
    assert (wrong & ~before.flags(oracle(), adaptive.numpy())).mean() > 0.5


def test_squeezing_counts_every_record_it_asks() -> None:
    target = oracle()
    detector = FeatureSqueezing(squeezers=SQUEEZERS)
    detector.scores(target, parts()[2].inputs[:20])
    assert target.ledger.spent.records == 20 * detector.records_per_score == 60
    with pytest.raises(AbilityError):
        detector.scores(LabelsOnly(oracle()), parts()[2].inputs[:20])


def test_a_refused_query_costs_nothing_and_names_its_records() -> None:
    found, wrong = moved()
    target = oracle()
    guarded = Refusing(target, calibrated("density"))
    seen = calibrated("density").flags(target, found)
    clean = ~calibrated("density").flags(target, parts()[2].inputs)
    mixed = np.concatenate([parts()[2].inputs[clean][:3], found[seen & wrong][:2]])
    with pytest.raises(RefusedError, match="2 of 5 records look moved") as caught:
        guarded.query(mixed)
    assert caught.value.flagged == (3, 4)
    assert target.ledger.spent.records == 0
    assert len(guarded.query(mixed[:3])) == 3 and guarded.ledger.spent.records == 3


def test_flags_do_not_change_answers_and_wrappers_compose() -> None:
    found, _ = moved()
    target = Flagging(Budget(oracle(), records=10), calibrated("density"))
    answer = target.query(found[:10])
    np.testing.assert_array_equal(answer.labels, oracle().query(found[:10]).labels)
    np.testing.assert_array_equal(target.flagged, calibrated("density").flags(oracle(), found[:10]))
    with pytest.raises(BudgetError):
        target.query(found[:1])


def test_a_detector_fitted_on_nothing_is_refused() -> None:
    fit = parts()[0]
    nothing = fit.select(slice(0, 0))
    with pytest.raises(DataSplitError, match="there are none"):
        DensityDetector.fitted(nothing)
    with pytest.raises(DataSplitError, match="there are none"):
        InputFilter.calibrated(calibrated("density").detector, oracle(), nothing, false_alarms=0.05)
    with pytest.raises(TooFewRecordsError):
        InputFilter.calibrated(
            calibrated("density").detector, oracle(), fit.select(slice(0, 20)), false_alarms=0.05
        )
    with pytest.raises(DataSplitError, match="two clean records of every class"):
        DensityDetector.fitted(fit.select(slice(0, 8)))
    with pytest.raises(DataSplitError, match="all alike"):
        DensityDetector.fitted(
            Records(inputs=np.ones((4, 3)), labels=np.array([0, 0, 1, 1], dtype=np.int64))
        )
    with pytest.raises(DataSplitError, match="give both"):
        detection_figures(calibrated("density"), oracle(), clean=fit.inputs, moved=fit.inputs[:0])


@pytest.mark.parametrize(
    "broken",
    [
        lambda: FeatureSqueezing(squeezers=()),
        lambda: BitDepth(bits=0),
        lambda: MedianSmoothing(size=9, image=(8, 8)),
        lambda: MedianSmoothing(size=2, image=(8, 8))(torch.zeros(2, 65)),
        lambda: PrincipalComponents.fitted(parts()[0], count=65),
        lambda: DensityDetector.fitted(parts()[0], shrinkage=0.0),
        lambda: AdaptiveEvasion(epsilon=0.1, weights=()),
        lambda: AdaptiveEvasion(epsilon=-0.1),
    ],
)
def test_nonsense_is_refused(broken: object) -> None:
    assert callable(broken)
    with pytest.raises(DataSplitError):
        broken()
