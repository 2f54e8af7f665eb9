"""Figures over several targets, and paired differences between twins.

Records of one model are not independent, and all models share one pool. So both models and records
are resampled, crosswise. This is the pigeonhole bootstrap (Owen 2007); its intervals err on the
wide side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from attacks.core.arrays import Bools, Floats, Ints
from attacks.core.intervals import CONFIDENCE, Estimate
from attacks.core.roc import FPRS, supported, threshold_for
from attacks.errors import DataSplitError, TooFewRecordsError
from attacks.membership.outcome import MembershipScores, fpr_name

RESAMPLES: Final = 400
_METHOD: Final = "bootstrap by model and record"

Grid = tuple[Ints, ...]  # of models and records, as numpy's ix_ makes it


def pooled(
    targets: Sequence[MembershipScores],
    rng: np.random.Generator,
    *,
    resamples: int = RESAMPLES,
) -> tuple[dict[str, Estimate], tuple[str, ...]]:
    """AUC (mean over models) and TPR at a pooled FPR, for two or more targets over one pool.

    Rates that all non-members together cannot support are left out; the second part of the
    result says which and why. Raises TooFewRecordsError for one target, DataSplitError if pools
    differ in size.
    """
    scores, members = _stacked(targets)
    fprs, notes = supported(FPRS, int((~members).sum()))
    found = _crosswise(
        lambda grid: figures(scores[grid], members[grid], fprs), scores.shape, rng, resamples
    )
    return found, notes


def paired_difference(
    first: Sequence[MembershipScores],
    second: Sequence[MembershipScores],
    metric: str,
    rng: np.random.Generator,
    *,
    resamples: int = RESAMPLES,
) -> Estimate:
    """``metric`` of ``second`` minus that of ``first``: same models, same records on both sides.

    Raises DataSplitError if memberships differ: the difference would be that of training data.
    """
    a, members = _stacked(first)
    b, others = _stacked(second)
    if a.shape != b.shape or not (members == others).all():
        raise DataSplitError("only twins with the same members can be compared")
    fprs = [fpr for fpr in FPRS if fpr_name(fpr) == metric]
    if metric != "auc" and not fprs:
        raise DataSplitError(f"no membership figure is called {metric!r}")

    def difference(grid: Grid) -> dict[str, float]:
        one, two = (figures(scores[grid], members[grid], fprs)[metric] for scores in (a, b))
        return {metric: two - one}

    return _crosswise(difference, a.shape, rng, resamples)[metric]


def figures(scores: Floats, members: Bools, fprs: Sequence[float]) -> dict[str, float]:
    """AUC, the mean over models, and TPR at each FPR, pooled; (K, N) scores and memberships."""
    found = {"auc": float(np.mean([_auc(s, m) for s, m in zip(scores, members, strict=True)]))}
    inside, outside = scores[members], scores[~members]
    for fpr in fprs:
        found[fpr_name(fpr)] = float((inside > threshold_for(outside, fpr)).mean())
    return found


def _auc(scores: Floats, members: Bools) -> float:
    """Mann-Whitney with ties counted half, by binary search in the sorted non-members."""
    inside, outside = scores[members], np.sort(scores[~members])
    if not len(inside) or not len(outside):
        return 0.5
    below = np.searchsorted(outside, inside, side="left")
    not_above = np.searchsorted(outside, inside, side="right")
    return float((below + not_above).mean() / (2 * len(outside)))


def _stacked(targets: Sequence[MembershipScores]) -> tuple[Floats, Bools]:
    if len(targets) < 2:
        raise TooFewRecordsError("figures are pooled over at least 2 targets", needed=2)
    if len({len(target.scores) for target in targets}) != 1:
        raise DataSplitError("targets were asked about pools of different size")
    return (
        np.stack([target.scores for target in targets]),
        np.stack([target.is_member for target in targets]),
    )


def _crosswise(
    statistic: Callable[[Grid], dict[str, float]],
    shape: tuple[int, ...],
    rng: np.random.Generator,
    resamples: int,
) -> dict[str, Estimate]:
    """Figures of (models, records), with intervals by resampling both."""
    values = statistic(np.ix_(*(np.arange(size) for size in shape)))
    drawn = [
        statistic(np.ix_(*(rng.integers(0, size, size) for size in shape)))
        for _ in range(resamples)
    ]
    tail = (1 - CONFIDENCE) / 2
    found = {}
    for name, value in values.items():
        low, high = (
            float(q) for q in np.quantile([each[name] for each in drawn], [tail, 1 - tail])
        )
        found[name] = Estimate(
            value=value, low=min(low, value), high=max(high, value), method=_METHOD, count=shape[0]
        )
    return found
