"""ROC figures against definitions, closed forms and coverage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from attacks.core.roc import (
    auc,
    epsilon_lower_bound,
    fpr_grid,
    records_needed,
    roc_curve,
    threshold_for,
    tpr_at_fpr,
)
from attacks.errors import AttackError, DataSplitError, TooFewRecordsError


def drawn(rng: np.random.Generator, count: int, effect: float) -> tuple[np.ndarray, np.ndarray]:
    truth = rng.random(count) < 0.5
    return rng.normal(size=count) + effect * truth, truth


def test_the_published_bounds_for_no_false_positive() -> None:
    assert [records_needed(rate) for rate in (0.1, 0.01, 0.001)] == [36, 368, 3688]
    # 0 of 285, 900 and 5,000: 1.29 %, 0.41 % and 0.074 %.
    for count, bound in ((285, 0.0129), (900, 0.0041), (5000, 0.00074)):
        assert records_needed(bound * 1.01) <= count < records_needed(bound * 0.98)


def test_auc_is_that_of_scikit_learn_ties_included() -> None:
    rng = np.random.default_rng(0)
    scores, truth = drawn(rng, 500, 0.7)
    scores = scores.round(1)
    assert auc(scores, truth).value == pytest.approx(roc_auc_score(truth, scores))


def test_the_interval_of_the_auc_covers_it() -> None:
    rng = np.random.default_rng(1)
    true_value = stats.norm.cdf(0.7 / np.sqrt(2))
    covered = 0
    for _ in range(400):
        found = auc(*drawn(rng, 200, 0.7))
        covered += found.low <= true_value <= found.high
    # 400 draws at 95 %: below 360 has probability 1e-5.
    assert covered >= 360


@pytest.mark.parametrize("sign", [1, -1])
def test_perfect_separation_keeps_an_interval(sign: int) -> None:
    truth = np.arange(40) < 20
    found = auc(sign * truth.astype(float), truth)
    assert found.value in (0.0, 1.0) and found.high - found.low > 0.1


def test_rates_that_the_sample_cannot_support_are_refused() -> None:
    rng = np.random.default_rng(2)
    with pytest.raises(TooFewRecordsError, match="at least 3688 are needed") as caught:
        tpr_at_fpr(*drawn(rng, 1000, 1.0), 0.001)
    assert caught.value.needed == 3688


def test_the_attained_rate_never_exceeds_the_one_asked_for() -> None:
    rng = np.random.default_rng(3)
    for effect in (0.0, 1.0):
        point = tpr_at_fpr(*drawn(rng, 2000, effect), 0.01)
        assert point.fpr.value <= 0.01
        assert point.tpr.low <= point.tpr.value <= point.tpr.high


def test_threshold_with_all_allowed_is_minus_infinity() -> None:
    assert threshold_for(np.array([1.0, 2.0]), 1.0) == -np.inf


def test_epsilon_of_a_coin_is_zero_and_of_a_leak_is_not() -> None:
    assert epsilon_lower_bound(50, 1000, 50, 1000).value == 0.0
    leak = epsilon_lower_bound(300, 1000, 0, 1000)
    # TPR ≥ 27.2 %, FPR ≤ 0.37 % by Clopper and Pearson.
    assert leak.value == pytest.approx(np.log(0.2717 / 0.003682), abs=0.01)


def test_randomised_response_is_not_refuted_beyond_its_epsilon() -> None:
    rng = np.random.default_rng(4)
    epsilon = 1.0
    keep = np.exp(epsilon) / (1 + np.exp(epsilon))
    too_high = 0
    for _ in range(200):
        tp, fp = rng.binomial(500, keep), rng.binomial(500, 1 - keep)
        too_high += epsilon_lower_bound(tp, 500, fp, 500).value > epsilon
    # At most 5 % of 200; more than 22 has probability below 0.1 %.
    assert too_high <= 22


def test_the_curve_starts_where_the_sample_supports_it_and_rises() -> None:
    rng = np.random.default_rng(5)
    curve = roc_curve(*drawn(rng, 1000, 1.0))
    assert curve.x[-1] == pytest.approx(1.0) and curve.y[-1] == 1.0
    assert all(a <= b for a, b in zip(curve.y, curve.y[1:], strict=False))
    assert all(
        low <= y <= high for low, y, high in zip(curve.low, curve.y, curve.high, strict=True)
    )
    assert fpr_grid(500)[0] == pytest.approx(curve.x[0], rel=0.1)


@pytest.mark.parametrize(
    ("scores", "truth"),
    [
        (np.array([1.0, np.nan]), np.array([True, False])),
        (np.array([1.0, 2.0]), np.array([True, True])),
        (np.array([1.0, 2.0, 3.0]), np.array([True, False])),
    ],
)
def test_scores_that_make_no_curve_are_refused(scores: np.ndarray, truth: np.ndarray) -> None:
    with pytest.raises(DataSplitError):
        auc(scores, truth)


def test_rates_lie_between_zero_and_one() -> None:
    with pytest.raises(AttackError):
        records_needed(0.0)
