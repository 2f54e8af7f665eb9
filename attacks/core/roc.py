"""ROC figures for membership scores; a higher score means "more likely a member".

AUC                    DeLong's interval, no threshold at all
TPR at an FPR          refused where the non-members cannot tell that FPR from a larger one
rates at a threshold   Clopper-Pearson on both, the threshold having been set elsewhere
ε lower bound          from both rates
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from attacks.core.arrays import Floats
from attacks.core.intervals import CONFIDENCE, Estimate, clopper_pearson, exact
from attacks.core.result import Curve
from attacks.errors import AttackError, DataSplitError, TooFewRecordsError

FPRS: Final = (0.1, 0.01, 0.001)


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingPoint:
    """What ``score > threshold`` attains: TPR over the members, FPR over the non-members."""

    threshold: float
    tpr: Estimate
    fpr: Estimate


def records_needed(fpr: float, *, confidence: float = CONFIDENCE) -> int:
    """How many non-members can support a rate: with no false positive among them, the upper
    Clopper-Pearson bound is at most ``fpr``. 36, 368 and 3,688 at 10, 1 and 0.1 %."""
    if not 0 < fpr < 1:
        raise AttackError(f"a false positive rate lies between 0 and 1, got {fpr}")
    return math.ceil(math.log((1 - confidence) / 2) / math.log1p(-fpr))


def finest_fpr(non_members: int, *, confidence: float = CONFIDENCE) -> float:
    """The lowest false positive rate that so many non-members support."""
    if non_members < 1:
        raise TooFewRecordsError("a false positive rate needs at least one non-member", needed=1)
    return -math.expm1(math.log((1 - confidence) / 2) / non_members)


def require_records(fpr: float, non_members: int) -> None:
    """Raise TooFewRecordsError unless ``non_members`` support ``fpr``."""
    needed = records_needed(fpr)
    if non_members < needed:
        raise TooFewRecordsError(
            f"a false positive rate of {fpr:.3g} cannot be told from {finest_fpr(non_members):.2g} "
            f"with {non_members} non-members: at least {needed} are needed; take a larger pool or "
            "pool over models",
            needed=needed,
        )


def supported(fprs: Iterable[float], non_members: int) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """Split rates into those that ``non_members`` support, and a note for each of the others."""
    kept: list[float] = []
    notes: list[str] = []
    for fpr in fprs:
        try:
            require_records(fpr, non_members)
        except TooFewRecordsError as error:
            notes.append(f"no figure at {fpr:.3g} FPR: {error}")
        else:
            kept.append(fpr)
    return tuple(kept), tuple(notes)


def split(scores: Floats, is_member: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """The scores of members and of non-members; DataSplitError unless both exist and are finite."""
    if scores.ndim != 1 or scores.shape != is_member.shape:
        raise DataSplitError(
            f"scores of shape {scores.shape} do not fit memberships of shape {is_member.shape}"
        )
    if not np.isfinite(scores).all():
        raise DataSplitError("a membership score is not finite")
    if is_member.all() or not is_member.any():
        raise DataSplitError("a ROC needs both members and non-members")
    return scores[is_member], scores[~is_member]


def placements(members: Floats, others: Floats) -> tuple[Floats, Floats]:
    """DeLong's structural components, one per member and one per non-member.

    The share of non-members below each member, and of members above each non-member, ties
    counted half (DeLong, DeLong and Clarke-Pearson 1988; by ranks as Sun and Xu 2014). The mean
    of either is the AUC.
    """
    ranks = stats.rankdata(np.concatenate([members, others]))
    of_members = (ranks[: len(members)] - stats.rankdata(members)) / len(others)
    of_others = 1 - (ranks[len(members) :] - stats.rankdata(others)) / len(members)
    return of_members, of_others


def auc(
    scores: Floats, is_member: NDArray[np.bool_], *, confidence: float = CONFIDENCE
) -> Estimate:
    """Area under the ROC with DeLong's variance, the interval taken on the logit scale.

    ``scores``, ``is_member``: (N,). Where members and non-members are wholly apart DeLong's
    variance is 0; there the bound is that of a proportion without failures over the smaller side.
    """
    members, others = split(scores, is_member)
    of_members, of_others = placements(members, others)
    value = float(of_members.mean())
    smaller = min(len(members), len(others))
    if smaller < 2:
        raise TooFewRecordsError("an AUC needs 2 members and 2 non-members", needed=2)
    tail = (1 - confidence) / 2
    if value in (0.0, 1.0):
        slack = -math.expm1(math.log(tail) / smaller)
        low, high = (1 - slack, 1.0) if value == 1.0 else (0.0, slack)
    else:
        variance = of_members.var(ddof=1) / len(members) + of_others.var(ddof=1) / len(others)
        half = float(stats.norm.ppf(1 - tail)) * math.sqrt(variance) / (value * (1 - value))
        center = math.log(value / (1 - value))
        low, high = (1 / (1 + math.exp(-(center + side * half))) for side in (-1, 1))
    return Estimate(
        value=value,
        low=min(low, value),
        high=max(high, value),
        method="DeLong",
        count=len(scores),
        confidence=confidence,
    )


def rates_at(scores: Floats, is_member: NDArray[np.bool_], threshold: float) -> OperatingPoint:
    """TPR and FPR of ``score > threshold`` for a threshold that was set without these records."""
    members, others = split(scores, is_member)
    return OperatingPoint(
        threshold=threshold,
        tpr=clopper_pearson(int(np.count_nonzero(members > threshold)), len(members)),
        fpr=clopper_pearson(int(np.count_nonzero(others > threshold)), len(others)),
    )


def threshold_for(others: Floats, fpr: float) -> float:
    """The lowest threshold that at most a share ``fpr`` of these non-member scores exceed."""
    allowed = math.floor(fpr * len(others) + 1e-9)
    if allowed >= len(others):
        return -math.inf
    position = len(others) - 1 - allowed
    return float(np.partition(others, position)[position])


def tpr_at_fpr(scores: Floats, is_member: NDArray[np.bool_], fpr: float) -> OperatingPoint:
    """The point of the ROC with the highest FPR not above ``fpr``, as papers report it.

    The evaluator reads it off the target's own curve: it compares attacks, it is not what an
    adversary who sets a threshold beforehand attains (``rates_at``). Raises TooFewRecordsError
    where the non-members cannot support ``fpr``.
    """
    _, others = split(scores, is_member)
    require_records(fpr, len(others))
    return rates_at(scores, is_member, threshold_for(others, fpr))


def epsilon_lower_bound(
    true_positives: int,
    members: int,
    false_positives: int,
    non_members: int,
    *,
    delta: float = 0.0,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """The ε below which (ε, δ) differential privacy is refuted by these rates.

    max of log((TPR_low − δ) / FPR_high) and log((TNR_low − δ) / FNR_high), at least 0, from
    Clopper-Pearson bounds that hold jointly at ``confidence`` (Kairouz et al. 2015, theorem 2.1;
    Jagielski et al. 2020). Answers are taken as independent: for records of one model that is an
    approximation. The estimate is a bound, so it has no upper end of its own: low = high = value.
    """
    if not 0 <= delta < 1:
        raise AttackError(f"δ lies in [0, 1), got {delta}")
    tpr = clopper_pearson(true_positives, members, confidence=confidence)
    fpr = clopper_pearson(false_positives, non_members, confidence=confidence)
    pairs = ((tpr.low, fpr.high), (1 - fpr.high, 1 - tpr.low))
    bound = max(
        (math.log((rate - delta) / other) for rate, other in pairs if rate > delta and other > 0),
        default=0.0,
    )
    return replace(
        exact(max(0.0, bound), count=members + non_members, method="Clopper-Pearson lower bound"),
        confidence=confidence,
    )


def fpr_grid(non_members: int, *, points: int = 40) -> Floats:
    """FPRs from the lowest that is supported up to 1, evenly spaced on a log axis."""
    return np.geomspace(finest_fpr(non_members), 1.0, points)


def roc_curve(scores: Floats, is_member: NDArray[np.bool_], *, points: int = 40) -> Curve:
    """TPR against FPR for log-log axes, with a pointwise Clopper-Pearson band on the TPR.

    It starts at the lowest FPR that the non-members support; what lies left of it is noise.
    """
    _, others = split(scores, is_member)
    grid = fpr_grid(len(others), points=points)
    rates = [rates_at(scores, is_member, threshold_for(others, fpr)).tpr for fpr in grid]
    return Curve.of(grid, rates, x_label="false positive rate", y_label="true positive rate")
