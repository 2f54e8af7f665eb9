"""Figures over several targets, and differences between twins of the same targets.

Targets are the independent units: records of one model share its training. Few targets are
honest only with Student's quantiles; a bootstrap of four models would be far too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from attacks.core.intervals import CONFIDENCE, Estimate, clopper_pearson, exact
from attacks.core.result import Curve
from attacks.membership.outcome import MembershipScores
from attacks.membership.pooling import figures

PROPORTION: Final = "Clopper-Pearson"
RESAMPLES: Final = 400


def over_targets(estimates: Sequence[Estimate]) -> Estimate:
    """The mean over targets with Student's interval; one target keeps its own.

    A proportion's interval is at least as wide as the exact one over all records together:
    targets that agree by chance, at 100 % say, would otherwise have an interval of no width.
    """
    if len(estimates) == 1:
        return estimates[0]
    values = [estimate.value for estimate in estimates]
    if len({estimate.method for estimate in estimates} - {"exact"}) == 0 and len(set(values)) == 1:
        return exact(values[0], count=len(values))
    mean, half = student(values)
    low, high, method = mean - half, mean + half, f"Student over {len(values)} targets"
    if all(estimate.method == PROPORTION for estimate in estimates):
        trials = sum(estimate.count for estimate in estimates)
        hits = sum(round(estimate.value * estimate.count) for estimate in estimates)
        pooled = clopper_pearson(hits, trials)
        low, high = max(0.0, min(low, pooled.low)), min(1.0, max(high, pooled.high))
        method = f"{method}, at least Clopper-Pearson"
    return Estimate(
        value=mean, low=min(low, mean), high=max(high, mean), method=method, count=len(values)
    )


def paired_difference(before: Sequence[Estimate], after: Sequence[Estimate]) -> Estimate:
    """after − before over the same targets in the same order.

    Student's interval of the paired differences. Where that has no width, or there is one
    target, Newcombe's hybrid interval (1998, method 10) of the two means: wider, since it cannot
    see that the records are the same.
    """
    differences = [b.value - a.value for a, b in zip(before, after, strict=True)]
    if len(differences) > 1:
        mean, half = student(differences)
        if half > 0:
            method = f"paired, Student over {len(differences)} targets"
            return _around(mean, half, half, method=method, count=len(differences))
    first, second = over_targets(before), over_targets(after)
    value = second.value - first.value
    below = math.hypot(second.value - second.low, first.high - first.value)
    above = math.hypot(second.high - second.value, first.value - first.low)
    method = "Newcombe's hybrid of two intervals"
    return _around(value, below, above, method=method, count=len(differences))


def _around(value: float, below: float, above: float, *, method: str, count: int) -> Estimate:
    low, high = value - below, value + above
    return Estimate(value=value, low=low, high=high, method=method, count=count)


def paired_auc(
    before: MembershipScores, after: MembershipScores, rng: np.random.Generator
) -> Estimate:
    """The difference of the AUCs of two twins of one target, after − before.

    Members and non-members are resampled, the same ones for both.
    """
    members, others = np.flatnonzero(before.is_member), np.flatnonzero(~before.is_member)

    def difference(rows: NDArray[np.int64]) -> float:
        truth = before.is_member[rows][None]
        first, second = (figures(twin.scores[rows][None], truth, ()) for twin in (before, after))
        return second["auc"] - first["auc"]

    value = difference(np.concatenate([members, others]))
    drawn = [
        difference(
            np.concatenate([rng.choice(members, len(members)), rng.choice(others, len(others))])
        )
        for _ in range(RESAMPLES)
    ]
    method = "paired bootstrap over the records of one target"
    return of_resamples(value, drawn, method=method, count=len(before.scores))


def of_resamples(
    value: float, drawn: Sequence[float] | NDArray[np.float64], *, method: str, count: int
) -> Estimate:
    """``value`` with the percentile interval of its resamples ``drawn`` (resamples,)."""
    tail = (1 - CONFIDENCE) / 2
    low, high = (float(bound) for bound in np.quantile(drawn, [tail, 1 - tail]))
    return Estimate(
        value=value, low=min(low, value), high=max(high, value), method=method, count=count
    )


def mean_curve(curves: Sequence[Curve]) -> Curve | None:
    """The mean of curves over the same x, with Student's band cut to [0, 1]; None without x."""
    first = curves[0]
    if len(curves) == 1:
        return first
    if any(curve.x != first.x for curve in curves):
        return None
    points = [student([curve.y[i] for curve in curves]) for i in range(len(first.x))]
    return Curve(
        x=first.x,
        y=tuple(mean for mean, _ in points),
        low=tuple(max(0.0, mean - half) for mean, half in points),
        high=tuple(min(1.0, mean + half) for mean, half in points),
        x_label=first.x_label,
        y_label=first.y_label,
    )


def student(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half width of Student's interval of two or more values."""
    mean, count = math.fsum(values) / len(values), len(values)
    if len(set(values)) == 1:
        return values[0], 0.0
    quantile = float(stats.t.ppf(0.5 + CONFIDENCE / 2, count - 1))
    return mean, quantile * float(np.std(values, ddof=1)) / math.sqrt(count)
