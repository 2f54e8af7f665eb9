"""Figures over several targets, and paired differences between twins.

Records of one model are not independent, and all models share one pool; so both models and
records are resampled, crosswise (Owen 2007, the pigeonhole bootstrap), which errs on the wide side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from attacks.core.intervals import CONFIDENCE, Estimate
from attacks.core.roc import FPRS, supported
from attacks.errors import DataSplitError, TooFewRecordsError
from attacks.membership.run import MembershipScores, fpr_name

RESAMPLES: Final = 400
_METHOD: Final = "bootstrap by model and record"

Floats = NDArray[np.float64]
Members = NDArray[np.bool_]


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
    value = figures(scores, members, fprs)
    drawn = [
        figures(*_resampled(scores, members, *indices), fprs)
        for indices in _indices(scores.shape, rng, resamples)
    ]
    return (
        {
            name: _estimate(value[name], [each[name] for each in drawn], len(scores))
            for name in value
        },
        notes,
    )


def paired_difference(
    first: Sequence[MembershipScores],
    second: Sequence[MembershipScores],
    metric: str,
    rng: np.random.Generator,
    *,
    resamples: int = RESAMPLES,
) -> Estimate:
    """``metric`` of ``second`` minus that of ``first``: same models, same records on both sides.

    Raises DataSplitError if memberships differ, since then it would compare training data.
    """
    a, members = _stacked(first)
    b, others = _stacked(second)
    if a.shape != b.shape or not (members == others).all():
        raise DataSplitError("only twins with the same members can be compared")
    fprs = [fpr for fpr in FPRS if fpr_name(fpr) == metric]
    if metric != "auc" and not fprs:
        raise DataSplitError(f"no membership figure is called {metric!r}")

    def difference(models: NDArray[np.int64], records: NDArray[np.int64]) -> float:
        one = figures(*_resampled(a, members, models, records), fprs)[metric]
        two = figures(*_resampled(b, members, models, records), fprs)[metric]
        return two - one

    value = figures(b, members, fprs)[metric] - figures(a, members, fprs)[metric]
    drawn = [difference(*indices) for indices in _indices(a.shape, rng, resamples)]
    return _estimate(value, drawn, len(a))


def figures(scores: Floats, members: Members, fprs: Sequence[float]) -> dict[str, float]:
    """AUC, the mean over models, and TPR at each FPR, pooled; (K, N) scores and memberships."""
    found = {"auc": float(np.mean([_auc(s, m) for s, m in zip(scores, members, strict=True)]))}
    inside, outside = scores[members], np.sort(scores[~members])
    for fpr in fprs:
        position = len(outside) - 1 - int(np.floor(fpr * len(outside) + 1e-9))
        threshold = outside[position] if position >= 0 else -np.inf
        found[fpr_name(fpr)] = float((inside > threshold).mean())
    return found


def _auc(scores: Floats, members: Members) -> float:
    """Mann-Whitney with ties counted half, by binary search in the sorted non-members."""
    inside, outside = scores[members], np.sort(scores[~members])
    if not len(inside) or not len(outside):
        return 0.5
    below = np.searchsorted(outside, inside, side="left")
    not_above = np.searchsorted(outside, inside, side="right")
    return float((below + not_above).mean() / (2 * len(outside)))


def _stacked(targets: Sequence[MembershipScores]) -> tuple[Floats, Members]:
    if len(targets) < 2:
        raise TooFewRecordsError("figures are pooled over at least 2 targets", needed=2)
    if len({len(target.scores) for target in targets}) != 1:
        raise DataSplitError("targets were asked about pools of different size")
    return (
        np.stack([target.scores for target in targets]),
        np.stack([target.is_member for target in targets]),
    )


def _indices(
    shape: tuple[int, ...], rng: np.random.Generator, resamples: int
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    models, records = shape
    return [
        (rng.integers(0, models, models), rng.integers(0, records, records))
        for _ in range(resamples)
    ]


def _resampled(
    scores: Floats, members: Members, models: NDArray[np.int64], records: NDArray[np.int64]
) -> tuple[Floats, Members]:
    grid = np.ix_(models, records)
    return scores[grid], members[grid]


def _estimate(value: float, drawn: Sequence[float], models: int) -> Estimate:
    tail = (1 - CONFIDENCE) / 2
    low, high = (float(q) for q in np.quantile(drawn, [tail, 1 - tail]))
    return Estimate(
        value=value, low=min(low, value), high=max(high, value), method=_METHOD, count=models
    )
