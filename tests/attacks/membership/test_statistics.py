"""The likelihood-ratio core against definitions written out, record by record."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from attacks.errors import ShadowError
from attacks.membership.statistics import (
    gaussian_offline,
    gaussian_online,
    label_correlation,
    logit_confidence,
    relative_ratio,
    share_dominated,
    true_probability,
)


@given(st.lists(st.floats(-30, 30), min_size=2, max_size=5), st.integers(0, 1))
def test_confidence_is_the_logit_of_the_probability(row: list[float], label: int) -> None:
    logits, labels = np.array([row]), np.array([label])
    p = true_probability(logits, labels)[0]
    phi = logit_confidence(logits, labels)[0]
    if 1e-6 < p < 1 - 1e-6:
        assert phi == pytest.approx(math.log(p / (1 - p)), abs=1e-6)


def test_confidence_keeps_digits_where_the_probability_is_one() -> None:
    logits = np.array([[800.0, 0.0], [801.0, 0.0]])
    assert logit_confidence(logits, np.array([0, 0])).tolist() == [800.0, 801.0]


def example() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    target, shadows = rng.normal(size=7), rng.normal(size=(12, 7))
    mask = np.zeros((12, 7), dtype=bool)
    for record in range(7):
        mask[rng.permutation(12)[:6], record] = True
    return target, shadows, mask


def test_online_is_the_ratio_of_two_normal_densities() -> None:
    target, shadows, mask = example()
    found = gaussian_online(target, shadows, mask, fixed_variance=False)
    for record in range(7):
        inside, outside = shadows[mask[:, record], record], shadows[~mask[:, record], record]
        expected = stats.norm.logpdf(
            target[record], inside.mean(), inside.std(ddof=1)
        ) - stats.norm.logpdf(target[record], outside.mean(), outside.std(ddof=1))
        assert found[record] == pytest.approx(expected)


def test_a_fixed_variance_is_shared_by_all_records() -> None:
    target, shadows, mask = example()
    found = gaussian_offline(target, shadows, mask, fixed_variance=True)
    residuals = []
    means = []
    for record in range(7):
        outside = shadows[~mask[:, record], record]
        means.append(outside.mean())
        residuals.extend(outside - outside.mean())
    std = math.sqrt(np.square(residuals).sum() / (len(residuals) - 7))
    np.testing.assert_allclose(found, (target - np.array(means)) / std)


def test_rmia_counts_what_it_dominates() -> None:
    ratios, population = np.array([0.5, 2.0, 4.0]), np.array([0.1, 0.9, 1.9, 3.0])
    shares = share_dominated(ratios, population, gamma=2.0)
    # ratio / γ = 0.25, 1, 2 exceed 1, 2, 3 of the population.
    assert np.floor(shares * 5).tolist() == [1, 2, 3]


def test_rmia_ratios_written_out() -> None:
    target = np.array([0.8])
    shadows = np.array([[0.9], [0.7], [0.3], [0.1]])
    mask = np.array([[True], [True], [False], [False]])
    online = relative_ratio(target, shadows, mask, offline_a=None)
    assert online[0] == pytest.approx(0.8 / (0.5 * (0.8 + 0.2)))
    offline = relative_ratio(target, shadows, mask, offline_a=0.3)
    assert offline[0] == pytest.approx(0.8 / (0.5 * (1.3 * 0.2 + 0.7)))


@pytest.mark.parametrize("fixed_variance", [True, False])
def test_records_without_shadows_on_both_sides_are_refused(fixed_variance: bool) -> None:
    target, shadows, mask = example()
    mask[:, 2] = True
    with pytest.raises(ShadowError, match="1 records are not in and out of"):
        gaussian_online(target, shadows, mask, fixed_variance=fixed_variance)
    with pytest.raises(ShadowError, match="1 records are not out of"):
        gaussian_offline(target, shadows, mask, fixed_variance=fixed_variance)


def test_label_correlation_is_numpys_and_ignores_scale_and_shift() -> None:
    rng = np.random.default_rng(3)
    logits, labels = rng.normal(size=(4, 6, 5)), rng.integers(0, 5, 6)
    found = label_correlation(logits, labels)
    assert found.shape == (4, 6)
    for model in range(4):
        for record in range(6):
            indicator = np.eye(5)[labels[record]]
            expected = np.arctanh(np.corrcoef(logits[model, record], indicator)[0, 1])
            assert found[model, record] == pytest.approx(expected)
    blurred = logits * rng.uniform(0.5, 2, (4, 6, 1)) + rng.normal(size=(4, 6, 1))
    np.testing.assert_allclose(label_correlation(blurred, labels), found)
    assert np.isfinite(label_correlation(np.eye(5)[None, labels], labels)).all()
    assert np.isfinite(label_correlation(np.zeros((1, 6, 5)), labels)).all()
