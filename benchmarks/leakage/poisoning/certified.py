"""Certified defences against poisoning: images that withstand it, and words that do not.

Steinhardt, Koh and Liang (2017) add 3 % of poison: MNIST's ones and sevens hardly notice, IMDB's
reviews go from 12 % to 23 % test error. The reviews are not shipped with this project; a made-up
language of two topics has their form (see attacks.poisoning.text), and IMDB itself is read from a
folder by attacks.poisoning.sets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np

from attacks.core.result import AttackResult
from attacks.poisoning.certified.binary import BinaryData, BinarySet
from attacks.poisoning.certified.certificate import DualAveraging
from attacks.poisoning.certified.domains import Anywhere, Box, Counts
from attacks.poisoning.certified.hinge import HingeLearner
from attacks.poisoning.certified.optimal import CertifiedPoisoning
from attacks.poisoning.certified.text import TwoTopics
from attacks.poisoning.setting import PoisonBudget
from benchmarks.leakage.setting import flat
from benchmarks.rows import Row
from he_infer.datasets import Dataset, mnist, mnist_test
from he_infer.errors import DataError

SOURCE: Final = "Steinhardt et al. 2017"
SHARES: Final = (0.005, 0.01, 0.02, 0.03)
DOCUMENTS: Final = (10_000, 5_000)  # training, test
_ONE, _SEVEN = 1, 7
# What "resilient" and "a large drop" are judged by, in test error; the published rise on IMDB,
# from 12 % to 23 %, is 0.11.
RESILIENT: Final = 0.03
LARGE: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """``schedule`` and ``learner`` for one kind of data; the radius squared is the paper's for
    MNIST, and fits the made-up language's smaller training set."""

    name: str
    learner: HingeLearner
    schedule: DualAveraging


MNIST: Final = Case(
    name="MNIST-1-7",
    learner=HingeLearner(radius=0.8**0.5),
    schedule=DualAveraging(rounds=400, step=1.0),
)
WORDS: Final = Case(
    name="two topics, 5,000 words",
    learner=HingeLearner(radius=2.0, tolerance=1e-3),
    schedule=DualAveraging(rounds=400, step=0.5),
)


def rows(*, seed: int = 0) -> list[Row]:
    """A sweep of the budget for either set, the largest budget judged, and three variants of it."""
    train, test, where = ones_and_sevens(seed)
    language = TwoTopics().draw(*DOCUMENTS, rng=np.random.default_rng(seed))
    words = BinaryData(train=language[0], test=language[1], domain=Counts())
    free = BinaryData(train=train, test=test, domain=Anywhere())
    pixels = BinaryData(train=train, test=test, domain=Box(low=0.0, high=1.0))
    on_images = sweep(MNIST, free, SHARES, seed=seed)
    on_words = sweep(WORDS, words, SHARES, seed=seed)
    most = SHARES[-1]
    return [
        judged(MNIST, on_images[most], "resilient: a small rise", resilient, where),
        judged(WORDS, on_words[most], "IMDB: 12 % to 23 % test error", drops, made_up()),
        swept(MNIST, on_images, where),
        swept(WORDS, on_words, made_up()),
        judged(
            MNIST,
            poison(MNIST, pixels, most, seed=seed),
            "resilient: a small rise",
            resilient,
            f"{where}; poison holds pixels in [0, 1] only",
            what=", pixels",
        ),
        judged(
            MNIST,
            poison(MNIST, free, most, seed=seed, clean_centroids=False),
            "attained ≤ certified",
            None,
            f"{where}; the filters' centroids are the poisoned records' own, and the certificate "
            "is for a wider set around the clean ones, not the paper's semidefinite program",
            what=", centroids that poison moves",
        ),
        judged(
            WORDS,
            poison(WORDS, words, most, seed=seed, filters_clean=True),
            "attained ≤ certified",
            None,
            f"{made_up()}; the filters also take clean outliers from the learner, which the paper "
            "does not do: the certificate is for the clean records that are left",
            what=", clean outliers removed too",
        ),
    ]


def ones_and_sevens(seed: int) -> tuple[BinarySet, BinarySet, str]:
    """Training and test images, and which; the embedded test images where MNIST is absent."""
    try:
        train, test = mnist()
        return _pair(train), _pair(test), "MNIST's 13,007 ones and sevens"
    except DataError:
        held = mnist_test()
        order = np.random.default_rng(seed).permutation(len(held))
        split = len(held) * 2 // 3
        return (
            _pair(held.select(order[:split])),
            _pair(held.select(order[split:])),
            "two thirds of the ones and sevens among MNIST's test images, the rest to test: the "
            "training images are absent",
        )


def made_up() -> str:
    topics = TwoTopics()
    return (
        f"{DOCUMENTS[0]:,} documents of a made-up language: {topics.vocabulary:,} words, "
        f"{topics.words:g} a document in the median, log-odds of {topics.strength:g} a word; "
        "poison is whole word counts; IMDB itself is not shipped, attacks.poisoning.sets reads it"
    )


def poison(
    case: Case,
    data: BinaryData,
    share: float,
    *,
    seed: int,
    filters_clean: bool = False,
    clean_centroids: bool = True,
) -> AttackResult:
    """One attack with this share of poison."""
    attack = CertifiedPoisoning(
        budget=PoisonBudget(fraction=share),
        filters_clean=filters_clean,
        clean_centroids=clean_centroids,
        schedule=case.schedule,
    )
    return attack.run(case.learner, data, np.random.default_rng(seed))


def sweep(
    case: Case, data: BinaryData, shares: Sequence[float], *, seed: int
) -> Mapping[float, AttackResult]:
    """The attack for every share of poison."""
    return MappingProxyType({share: poison(case, data, share, seed=seed) for share in shares})


def resilient(result: AttackResult) -> bool:
    """The test error rose by little, its interval's upper end included."""
    before = result.baseline["test_error"].value
    return result.metrics["test_error"].high - before <= RESILIENT


def drops(result: AttackResult) -> bool:
    """The test error rose by much, its interval's lower end included."""
    return result.metrics["test_error"].low - result.baseline["test_error"].value >= LARGE


def judged(
    case: Case,
    result: AttackResult,
    reference: str,
    bar: Callable[[AttackResult], bool] | None,
    reason: str,
    *,
    what: str = "",
) -> Row:
    """The row of one attack; it holds if no attack passed the certificate and the bar is met."""
    metrics, error = result.metrics, result.metrics["test_error"]
    within = bool(metrics["within_certificate"].value)
    return Row(
        f"{case.name}, {SHARES[-1]:.0%} poison{what}",
        SOURCE,
        reference=reference,
        ours=_figures(result),
        interval=[error.low, error.high],
        holds=within and (bar is None or bar(result)),
        reason=reason,
    )


def swept(case: Case, results: Mapping[float, AttackResult], reason: str) -> Row:
    """The row of a sweep; it holds if every run keeps within and more poison certifies less."""
    bounds = [result.metrics["certified_loss"].value for result in results.values()]
    slack = max(abs(result.metrics["slack"].value) for result in results.values())
    within = all(result.metrics["within_certificate"].value for result in results.values())
    return Row(
        f"{case.name}, attained beside certified",
        SOURCE,
        reference="attained ≤ certified on every run",
        ours={f"{share:.1%}": _figures(result) for share, result in results.items()},
        holds=within and bounds == sorted(bounds),
        reason=f"{reason}; the certified loss exceeds the attained total by at most {slack:.2g}",
    )


def _figures(result: AttackResult) -> dict[str, float]:
    metrics = result.metrics
    return {
        "error_before": result.baseline["test_error"].value,
        "error_after": metrics["test_error"].value,
        "clean_loss": metrics["clean_loss"].value,
        "total_loss": metrics["total_loss"].value,
        "certified_loss": metrics["certified_loss"].value,
    }


def _pair(images: Dataset) -> BinarySet:
    return BinarySet.of(flat(images), negative=_ONE, positive=_SEVEN)
