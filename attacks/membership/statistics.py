"""The test statistics of LiRA and RMIA: one score per record, higher for members.

    φ = log p(y) − log(1 − p(y))                       confidence on a scale where it is near normal
    LiRA online    log N(φ; μ_in, σ_in) − log N(φ; μ_out, σ_out)
    LiRA offline   (φ − μ_out) / σ_out
    RMIA           share of population records z with  [p(x)/p̄(x)] / [p(z)/p̄(z)] ≥ γ

M shadows, N records: shadow confidences are (M, N), and so is which shadow was trained on which.
Sources: Carlini et al. 2022 (arXiv:2112.03570); Zarifzadeh, Liu, Shokri 2024 (arXiv:2312.03262).
"""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp

from attacks.core.arrays import Bools, Floats, Ints
from attacks.core.oracle import softmax
from attacks.errors import ShadowError

# Shadow models that agree to the last digit would divide by zero.
_LEAST_STD = 1e-6
# Two classes always correlate fully, and z would be infinite.
_CERTAIN = 1 - 1e-9


def logit_confidence(logits: Floats, labels: Ints) -> Floats:
    """φ of the true label, (…, N, classes) with labels (N,) → (…, N), exact for large logits."""
    own = of_label(logits, labels)
    others = np.array(logits, dtype=np.float64)
    np.put_along_axis(others, _columns(logits, labels), -np.inf, axis=-1)
    result: Floats = own - logsumexp(others, axis=-1)
    return result


def label_correlation(logits: Floats, labels: Ints) -> Floats:
    """Fisher's z of the correlation between logits and the true label's indicator.

    (…, N, classes) with labels (N,) → (…, N). A correlation does not change when logits are scaled
    or shifted, and its z = artanh is near normal (Fisher 1915). So it serves as confidence where a
    server scales and shifts every record's logits.
    """
    centred = logits - logits.mean(axis=-1, keepdims=True)
    own = of_label(centred, labels)
    classes = logits.shape[-1]
    length = np.linalg.norm(centred, axis=-1) * np.sqrt((classes - 1) / classes)
    correlation = own / np.maximum(length, np.finfo(np.float64).tiny)
    result: Floats = np.arctanh(np.clip(correlation, -_CERTAIN, _CERTAIN))
    return result


def true_probability(logits: Floats, labels: Ints) -> Floats:
    """Softmax probability of the true label, (…, N, classes) → (…, N)."""
    return of_label(softmax(logits), labels)


def gaussian_online(
    target: Floats, shadows: Floats, is_member: Bools, *, fixed_variance: bool
) -> Floats:
    """LiRA with shadows on both sides: (N,), (M, N), (M, N) → (N,).

    ``fixed_variance``: one σ_in and one σ_out for all records, which few shadows estimate better.
    Raises ShadowError unless every record is in, and out of, at least two shadows (one with a
    fixed variance).
    """
    _require(is_member, least=1 if fixed_variance else 2, both=True)
    mean_in, std_in = _moments(shadows, is_member, fixed_variance)
    mean_out, std_out = _moments(shadows, ~is_member, fixed_variance)
    result: Floats = _log_normal(target, mean_in, std_in) - _log_normal(target, mean_out, std_out)
    return result


def gaussian_offline(
    target: Floats, shadows: Floats, is_member: Bools, *, fixed_variance: bool
) -> Floats:
    """LiRA with shadows that never saw the record: how far above them the target is.

    Shapes and errors as for ``gaussian_online``; monotone in the paper's one-sided test.
    """
    _require(is_member, least=1 if fixed_variance else 2, both=False)
    mean_out, std_out = _moments(shadows, ~is_member, fixed_variance)
    result: Floats = (target - mean_out) / std_out
    return result


def relative_ratio(
    target: Floats,
    shadows: Floats,
    is_member: Bools,
    *,
    offline_a: float | None,
    references: int = 0,
) -> Floats:
    """p(x) / p̄(x) with probabilities (N,), (M, N), (M, N) → (N,).

    p̄ is the mean over in- and out-models; with ``offline_a`` only out-models are used and the
    in-side is interpolated as (1 + a)/2 · p_out + (1 − a)/2 (appendix B.2.2 of RMIA).
    ``references``: of each record's out-models only the first so many are used; 0 uses all.
    """
    outside = ~is_member
    if references:
        outside &= np.cumsum(outside, axis=0) <= references
    out = _masked_mean(shadows, outside)
    if offline_a is None:
        _require(is_member, least=1, both=True)
        typical = 0.5 * (out + _masked_mean(shadows, is_member))
    else:
        _require(is_member, least=1, both=False)
        typical = 0.5 * ((1 + offline_a) * out + (1 - offline_a))
    result: Floats = target / np.maximum(typical, np.finfo(np.float64).tiny)
    return result


def share_dominated(ratios: Floats, population: Floats, *, gamma: float) -> Floats:
    """For each ratio (N,) the share of the population's (P,) that it exceeds γ-fold.

    Shares come in steps of 1/P; within a step the larger ratio gets the larger score, so that
    a small population does not tie the most exposed records.
    """
    ordered = np.sort(population)
    counts = np.searchsorted(ordered, ratios / gamma, side="right")
    result: Floats = (counts + ratios / (1 + ratios)) / (len(ordered) + 1)
    return result


def of_label(values: Floats, labels: Ints) -> Floats:
    """The value of each record's label, (…, N, classes) with labels (N,) → (…, N)."""
    return np.take_along_axis(values, _columns(values, labels), axis=-1)[..., 0]


def _columns(logits: Floats, labels: Ints) -> Ints:
    """Labels broadcast to index the last axis: (…, N, 1)."""
    return np.broadcast_to(labels[:, None], (*logits.shape[:-1], 1))


def _masked_mean(values: Floats, mask: Bools) -> Floats:
    total: Floats = np.where(mask, values, 0.0).sum(axis=0)
    result: Floats = total / np.maximum(mask.sum(axis=0), 1)
    return result


def _moments(values: Floats, mask: Bools, fixed_variance: bool) -> tuple[Floats, Floats | float]:
    mean = _masked_mean(values, mask)
    squares = np.where(mask, (values - mean) ** 2, 0.0)
    if fixed_variance:
        # Each record's own mean costs a degree of freedom.
        freedom = max(int(mask.sum()) - values.shape[1], 1)
        return mean, max(float(np.sqrt(squares.sum() / freedom)), _LEAST_STD)
    counts = mask.sum(axis=0)
    return mean, np.maximum(np.sqrt(squares.sum(axis=0) / np.maximum(counts - 1, 1)), _LEAST_STD)


def _log_normal(x: Floats, mean: Floats, std: Floats | float) -> Floats:
    """Log density without its constant, which cancels in a ratio."""
    result: Floats = -0.5 * ((x - mean) / std) ** 2 - np.log(std)
    return result


def _require(is_member: Bools, *, least: int, both: bool) -> None:
    inside, outside = is_member.sum(axis=0), (~is_member).sum(axis=0)
    short = (outside < least) | ((inside < least) if both else False)
    if short.any():
        sides = "in and out of" if both else "out of"
        raise ShadowError(
            f"{int(np.count_nonzero(short))} records are not {sides} at least {least} shadow "
            "models: train more shadows"
        )
