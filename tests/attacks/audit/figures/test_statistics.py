"""Figures over targets and paired differences: coverage where it can be counted."""

from __future__ import annotations

import numpy as np
import pytest

from attacks.audit.figures.statistics import (
    mean_curve,
    over_targets,
    paired_auc,
    paired_difference,
    student,
)
from attacks.core.intervals import Estimate, clopper_pearson, exact
from attacks.core.result import Curve
from attacks.membership.outcome import MembershipScores


def about(value: float) -> Estimate:
    return Estimate(value=value, low=value - 1, high=value + 1, method="Student", count=10)


def test_one_target_keeps_its_own_interval() -> None:
    alone = clopper_pearson(3, 10)
    assert over_targets([alone]) is alone


def test_counts_that_agree_stay_exact() -> None:
    assert over_targets([exact(5.0, count=1)] * 3).method == "exact"
    assert over_targets([exact(5.0, count=1), exact(6.0, count=1)]).low < 5.5


def test_targets_that_agree_still_have_the_interval_of_their_records() -> None:
    pooled = over_targets([clopper_pearson(50, 50)] * 2)
    assert pooled.value == pooled.high == 1.0
    assert pooled.low == pytest.approx(clopper_pearson(100, 100).low)
    assert "at least Clopper-Pearson" in pooled.method


def test_students_interval_covers_as_often_as_it_says() -> None:
    # 2000 draws of 4 targets; the count of hits is binomial(2000, 0.95), σ = 9.7: six σ below.
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(2000):
        found = over_targets([about(value) for value in rng.normal(0.3, 0.1, 4)])
        hits += found.low <= 0.3 <= found.high
    assert 1840 <= hits <= 1960


def test_pairing_takes_out_what_targets_share() -> None:
    rng = np.random.default_rng(1)
    common = rng.normal(0, 10, 5)
    before = [about(float(value)) for value in common]
    after = [about(float(value)) for value in common + rng.normal(1, 0.1, 5)]
    difference = paired_difference(before, after)
    assert 0.5 < difference.low < 1 < difference.high < 1.5
    assert difference.count == 5 and "paired" in difference.method


def test_a_difference_without_spread_is_not_certain() -> None:
    for targets in (1, 3):
        same = paired_difference(
            [clopper_pearson(50, 50)] * targets, [clopper_pearson(50, 50)] * targets
        )
        assert same.value == 0 and same.low < 0 < same.high
        apart = paired_difference(
            [clopper_pearson(40, 100)] * targets, [clopper_pearson(90, 100)] * targets
        )
        assert 0.3 < apart.low < 0.5 < apart.high < 0.7


def test_newcombes_published_example() -> None:
    # Newcombe 1998, table II: 56/70 − 48/80 = 0.2, method 10 (without continuity correction,
    # from Wilson's intervals): 0.0524 to 0.3339. From the wider exact ones it must contain that.
    found = paired_difference([clopper_pearson(48, 80)], [clopper_pearson(56, 70)])
    assert found.value == pytest.approx(0.2)
    assert found.low < 0.0524 and found.high > 0.3339
    assert found.low > 0.03 and found.high < 0.36


def scores(rng: np.random.Generator, shift: float) -> MembershipScores:
    is_member = np.arange(400) % 2 == 0
    return MembershipScores(scores=rng.normal(0, 1, 400) + shift * is_member, is_member=is_member)


def test_auc_differences_of_one_target() -> None:
    rng = np.random.default_rng(2)
    weak, strong = scores(rng, 0.0), scores(rng, 2.0)
    difference = paired_auc(weak, strong, rng)
    assert difference.low > 0.3
    nothing = paired_auc(strong, strong, rng)
    assert nothing.value == nothing.low == nothing.high == 0


def test_curves_are_averaged_only_over_the_same_queries() -> None:
    def curve(x: tuple[float, ...], y: tuple[float, ...]) -> Curve:
        return Curve(x=x, y=y, low=y, high=y, x_label="x", y_label="y")

    first, second = curve((1, 2), (0.5, 1.0)), curve((1, 2), (0.7, 1.0))
    found = mean_curve([first, second])
    assert found is not None and found.y == pytest.approx((0.6, 1.0))
    assert found.low[0] >= 0 and found.high == (1.0, 1.0)
    assert mean_curve([first]) is first
    assert mean_curve([first, curve((1, 3), (0, 1))]) is None


def test_students_half_width_by_hand() -> None:
    # Mean 2, s = 1, n = 3, t(0.975, 2) = 4.3027.
    mean, half = student([1.0, 2.0, 3.0])
    assert mean == 2.0 and half == pytest.approx(4.3027 / np.sqrt(3), rel=1e-4)
