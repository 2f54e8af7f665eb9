"""Rows on defences against evasion: adversarial training and randomised smoothing.

The rows on full MNIST, on detectors and on training that leaks less are in files of their own.
``rows`` returns all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import nn

from attacks.core.intervals import Estimate, clopper_pearson
from attacks.core.oracle import Oracle
from attacks.core.records import Records
from attacks.defences.adversarial_training import ProjectedGradient, adversarial_training
from attacks.defences.smoothing import (
    ABSTAINED,
    MeanOverNoise,
    Smoothing,
    certified_accuracy,
    gaussian_training,
)
from attacks.evasion.gradient.pgd import perturb
from attacks.evasion.norms import L2
from attacks.oracles.recipes import standard_recipe
from attacks.oracles.twins import POLYNOMIAL, RELU, SIMULATED, Twins
from attacks.training.perturbed import RangeUse, range_use
from attacks.training.recipe import TrainedTwins, TwinRecipe
from benchmarks.leakage.defences import detection, full_mnist, training
from benchmarks.leakage.defences.robustness import STARTS, STEPS, accuracy, moved, starts
from benchmarks.leakage.setting import flat, trained
from benchmarks.rows import Row
from he_infer import datasets

EPSILON: Final = 0.1
FAR: Final = 0.4  # where a network that was not trained for it leaves its ranges
MEMBERS: Final = 1400

SIGMA: Final = 0.25
RADII: Final = (0.0, 0.25, 0.5)
CERTIFIED: Final = 100

_MADRY: Final = "Madry et al. 2018"
_COHEN: Final = "Cohen et al. 2019"


def rows() -> list[Row]:
    """All rows of the group; minutes on one core. The ones on MNIST need the full data set."""
    return [
        *adversarial_rows("digits", *digits()),
        *adversarial_rows("mnist", *mnist()),
        *full_mnist.rows(),
        *smoothing_rows(),
        *detection.rows(),
        *training.rows(),
    ]


def adversarial_rows(data: str, members: Records, test: Records) -> Iterator[Row]:
    """The audit's network on ``data`` at L∞ 0.1: robust accuracy before and after, three twins."""
    plain = standard_recipe(data)
    robust = adversarial_training(plain, against=ProjectedGradient(epsilon=EPSILON))
    before, after = (_attacked(recipe, members, test) for recipe in (plain, robust))
    for twin in (RELU, POLYNOMIAL, SIMULATED):
        (clean, attacked), (clean_after, attacked_after) = before[0][twin], after[0][twin]
        reason = (
            f"robust accuracy without the training {attacked}; clean accuracy {clean} before, "
            f"{clean_after} after; worst of {STARTS} PGD starts of {STEPS} steps on the network"
        )
        if twin != RELU:
            reason += (
                f"; attacked records outside the activations' ranges at {EPSILON:g} and {FAR:g}: "
                f"{_outside(before[1])} before, {_outside(after[1])} after"
            )
        yield Row(
            f"{data} {twin}: robust accuracy at Linf {EPSILON:g} after adversarial training",
            f"{_MADRY}, against the same network without it",
            reference=attacked.value,
            ours=attacked_after,
            # The gain is beyond chance, and a loss of clean accuracy is not.
            holds=attacked_after.low > attacked.high and clean_after.high >= clean.value,
            reason=reason,
        )


def digits() -> tuple[Records, Records]:
    """Members and test records, flat."""
    train, test = datasets.digits()
    return flat(train, MEMBERS), flat(test)


def mnist() -> tuple[Records, Records]:
    """Members and test records, flat, of the test images that ship with the package."""
    records = flat(datasets.mnist_test())
    return records.select(slice(0, MEMBERS)), records.select(slice(5000, 5400))


_Accuracies = dict[str, tuple[Estimate, Estimate]]


def _attacked(
    recipe: TwinRecipe, members: Records, test: Records
) -> tuple[_Accuracies, list[RangeUse]]:
    """Clean and robust accuracy by twin, and how attacked records use the ranges."""
    both = trained(recipe, members)
    relu, polynomial = both.relu.module(0), both.polynomial.module(0)
    # The plan's ranges come from what it will see: members, clean and attacked.
    seen = moved(polynomial, members, ProjectedGradient(epsilon=EPSILON), seed=9)
    found: _Accuracies = {}
    sample = np.concatenate([members.inputs, seen])
    with _twins(both, sample, records=len(test)) as twins:
        for twin in (RELU, POLYNOMIAL, SIMULATED):
            oracle = twins.oracle(twin)
            network = relu if twin == RELU else polynomial
            found[twin] = (
                accuracy(oracle, [test.inputs], test.labels),
                accuracy(oracle, starts(network, test, EPSILON), test.labels),
            )
    attacks = (ProjectedGradient(epsilon=epsilon, steps=STEPS) for epsilon in (EPSILON, FAR))
    use = [range_use(polynomial, moved(polynomial, test, each, seed=1)) for each in attacks]
    return found, use


def _twins(both: TrainedTwins, sample: NDArray[np.float64], *, records: int) -> Twins:
    return Twins(
        relu=both.relu.module(0),
        polynomial=both.polynomial.module(0),
        sample=sample,
        records=records,
        low=0.0,
        high=1.0,
        seed=0,
    )


def _outside(use: Sequence[RangeUse]) -> str:
    return " and ".join(f"{each.records.value:.1%}" for each in use)


def smoothing_rows() -> list[Row]:
    """digits at σ = 0.25 over the simulated service: the curve, its price, and attacks on it."""
    members, test = digits()
    few = test.select(slice(0, CERTIFIED))
    smoothing = Smoothing(sigma=SIGMA, copies=500, selection=50)
    noisy = trained(gaussian_training(standard_recipe("digits"), sigma=SIGMA), members)
    plain = trained(standard_recipe("digits"), members)
    with ExitStack() as opened:
        without_noise, with_noise = (
            opened.enter_context(_twins(both, members.inputs, records=4096))
            for both in (plain, noisy)
        )
        rng = np.random.default_rng(30)
        oracle = with_noise.oracle(SIMULATED)
        found = smoothing.certify(oracle, few.inputs, rng)
        spent = oracle.ledger.spent
        curve = certified_accuracy(found, few.labels, RADII)
        unprotected = smoothing.certify(without_noise.oracle(SIMULATED), few.inputs, rng)
        without = certified_accuracy(unprotected, few.labels, RADII)
        network, served = noisy.polynomial.module(0), with_noise.oracle(SIMULATED)
        flipped = _flips(smoothing, served, network, few, found.radii, found.labels)
    shown = ", ".join(f"{y:.2f} at {x:g}" for x, y in zip(curve.x, curve.y, strict=True))
    price = (
        f"{smoothing.records_per_certificate} records a certificate, {spent.requests} requests "
        f"for {CERTIFIED} of them"
    )
    at_radius, sure = curve.y[1], flipped.count
    return [
        Row(
            f"digits, simulated service: certified accuracy at L2 {RADII[1]:g}",
            f"{_COHEN}, against the same network without noise in training",
            reference=without.y[1],
            ours=at_radius,
            interval=[curve.low[1], curve.high[1]],
            holds=curve.low[1] > without.y[1],
            reason=f"certified accuracy {shown} at sigma {SIGMA:g}; {price}",
        ),
        Row(
            "digits, simulated service: certified answers that an attack in the radius flips",
            f"{_COHEN}, theorem 1",
            reference=2 * smoothing.alpha,
            ours=flipped,
            holds=flipped.value * sure <= stats.binom.ppf(0.999, sure, 2 * smoothing.alpha),
            reason=f"PGD on the mean over noise, in L2, with each record's own radius; certificate "
            f"and answer are wrong with probability {smoothing.alpha:g} each at most",
        ),
    ]


def _flips(
    smoothing: Smoothing,
    served: Oracle,
    network: nn.Module,
    records: Records,
    radii: NDArray[np.float64],
    labels: NDArray[np.int64],
) -> Estimate:
    """Of the certified answers, the share that another answer replaces."""
    sure = np.flatnonzero(radii > 0)
    generator = torch.Generator().manual_seed(0)
    mean = MeanOverNoise(
        network,
        sigma=smoothing.sigma,
        copies=32,
        shape=records.shape,
        low=0.0,
        high=1.0,
        generator=generator,
    ).double()
    attacked = [
        perturb(
            mean,
            torch.as_tensor(records.inputs[[i]]),
            torch.as_tensor(labels[[i]]),
            epsilon=float(radii[i]),
            norm=L2(),
            steps=20,
            step=0.2 * float(radii[i]),
            low=0.0,
            high=1.0,
            generator=generator,
        ).numpy()
        for i in sure
    ]
    answers = smoothing.predict(served, np.concatenate(attacked), np.random.default_rng(31))
    flipped = (answers != labels[sure]) & (answers != ABSTAINED)
    return clopper_pearson(int(flipped.sum()), len(sure))
