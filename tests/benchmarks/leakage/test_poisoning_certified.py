"""Rows on certified poisoning: their bars can fail, and a small run of each kind of data holds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from attacks.core.intervals import clopper_pearson, exact
from attacks.core.oracle import Spent
from attacks.core.result import AttackResult
from attacks.core.threat import ThreatModel
from attacks.poisoning.certified.binary import BinaryData
from attacks.poisoning.certified.certificate import DualAveraging
from attacks.poisoning.certified.domains import Anywhere, Counts
from attacks.poisoning.certified.text import TwoTopics
from benchmarks.leakage.poisoning import certified
from benchmarks.leakage.reference import GROUPS


@pytest.fixture(scope="module")
def images() -> BinaryData:
    with pytest.MonkeyPatch.context() as patch:
        # The embedded images, wherever the full set lies.
        patch.setenv("HE_INFER_DATA", "/nowhere")
        train, test, where = certified.ones_and_sevens(0)
    assert "training images are absent" in where and len(train) + len(test) == 2163
    return BinaryData(train=train, test=test, domain=Anywhere())


def test_ones_and_sevens_withstand_three_per_cent(images: BinaryData) -> None:
    result = certified.poison(certified.MNIST, images, 0.03, seed=0)
    bar = certified.resilient
    row = certified.judged(certified.MNIST, result, "resilient", bar, "embedded").to_json()
    assert result.metrics["within_certificate"].value == 1
    # Certificate and attack meet; the learner alone may stay its gap short of optimal.
    assert abs(result.metrics["slack"].value) <= 0.05 * result.metrics["certified_loss"].value
    assert row["ours"]["error_after"] - row["ours"]["error_before"] <= certified.RESILIENT


@pytest.mark.slow
def test_words_do_not() -> None:
    language = TwoTopics().draw(10_000, 5_000, rng=np.random.default_rng(0))
    data = BinaryData(train=language[0], test=language[1], domain=Counts())
    result = certified.poison(certified.WORDS, data, 0.03, seed=0)
    assert certified.drops(result) and not certified.resilient(result)
    assert result.metrics["within_certificate"].value == 1


def test_more_poison_on_the_same_images(images: BinaryData) -> None:
    quick = replace(certified.MNIST, schedule=DualAveraging(rounds=60))
    results = certified.sweep(quick, images, (0.01, 0.03), seed=0)
    row = certified.swept(quick, results, "embedded").to_json()
    assert row["holds"] is True and set(row["ours"]) == {"1.0%", "3.0%"}


def test_a_broken_certificate_fails_its_row(images: BinaryData) -> None:
    quick = replace(certified.MNIST, schedule=DualAveraging(rounds=5))
    result = certified.poison(quick, images, 0.01, seed=0)
    broken = replace(result, metrics={**result.metrics, "within_certificate": exact(0.0, count=1)})
    assert certified.judged(quick, result, "", None, "x").holds is True
    assert certified.judged(quick, broken, "", None, "x").holds is False
    assert certified.swept(quick, {0.01: broken}, "x").holds is False


def test_bars_count_the_interval() -> None:
    def with_errors(before: int, after: int) -> AttackResult:
        return AttackResult(
            attack="a",
            oracle="b",
            threat_model=ThreatModel("training-time adversary"),
            primary="test_error",
            metrics={"test_error": clopper_pearson(after, 2000)},
            baseline={"test_error": clopper_pearson(before, 2000)},
            spent=Spent(),
            seconds=0.0,
        )

    assert certified.resilient(with_errors(20, 54)) and not certified.drops(with_errors(20, 54))
    assert certified.drops(with_errors(240, 460)) and not certified.resilient(with_errors(240, 460))
    assert not certified.drops(with_errors(240, 345))  # 5.25 points, and the interval reaches lower


def test_the_group_is_listed() -> None:
    assert GROUPS["certified"] is certified.rows
