"""Answers that a server has scaled and shifted, and what they still tell.

    y = r·f(x) + t·1 + noise          r, t: one for a record, unknown to the adversary

A shift disappears when scores are written in contrasts, which are coordinates orthogonal to
(1, …, 1). A factor leaves the ratios of the contrasts. Under both, C scores tell C − 2 numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from attacks.core.arrays import Floats
from attacks.errors import DataSplitError
from attacks.extraction.exact.quadratic_forms import quadratic_features

# Forms are known up to a factor, so where the range of all factors lies is known roughly.
SLACK = 1.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Concealment:
    """What the adversary assumes that the server did to each answer: ``scaled``, ``shifted``.

    ``spread``: factors lie in [1/spread, spread].
    """

    scaled: bool
    shifted: bool
    spread: float = 2.0

    def __post_init__(self) -> None:
        if not 1 < self.spread < float("inf"):
            raise DataSplitError(f"a spread is finite and above 1, got {self.spread}")

    def told(self, classes: int) -> int:
        """Numbers of an answer that are left; DataSplitError where none is."""
        left = classes - int(self.scaled) - int(self.shifted)
        if left < 1:
            raise DataSplitError(
                f"{classes} classes leave no ratio once scores are scaled and shifted: use an "
                "attack on labels"
            )
        return left

    def coordinates(self, scores: Floats) -> Floats:
        """(B, classes) → what no shift changes: contrasts (B, classes − 1), or the scores."""
        return scores @ contrasts(scores.shape[1]) if self.shifted else scores

    def scores(self, coordinates: Floats, classes: int) -> Floats:
        """Back again, with scores that sum to zero where they were shifted."""
        return coordinates @ contrasts(classes).T if self.shifted else coordinates

    def factors(self, predicted: Floats, seen: Floats) -> Floats:
        """(B, 1): what brings ``predicted`` nearest ``seen``, within the spread and some slack."""
        if not self.scaled:
            return np.ones((len(seen), 1))
        power = np.maximum(np.sum(predicted**2, axis=1, keepdims=True), np.finfo(np.float64).tiny)
        best = np.sum(predicted * seen, axis=1, keepdims=True) / power
        most = SLACK * self.spread
        return np.asarray(np.clip(best, 1 / most, most), dtype=np.float64)

    def misfit(self, predicted: Floats, seen: Floats) -> float:
        """Root mean square of ``seen`` − factor · ``predicted``, both (B, K) coordinates."""
        factors = self.factors(predicted, seen)
        return float(np.sqrt(np.mean((seen - factors * predicted) ** 2)))


def contrasts(classes: int) -> Floats:
    """(classes, classes − 1) orthonormal columns that sum to zero (Helmert)."""
    found = np.zeros((classes, classes - 1))
    for k in range(1, classes):
        found[:k, k - 1] = 1.0
        found[k, k - 1] = -k
        found[:, k - 1] /= np.sqrt(k * (k + 1))
    return found


def inverse_factors(z: Floats, seen: Floats) -> Floats:
    """(B, 1), up to one constant: what each row of ``seen`` has to be multiplied by to lie on
    quadratics of ``z``.

    With s the inverse factors, Φ the quadratic features and P the projection onto their span,
    every column must satisfy (I − P)(s ∘ y) = 0. Eliminating the quadratics leaves one matrix,

        M = (I − P) ∘ (Y Yᵀ),        sᵀ M s = Σ_k ‖(I − P)(s ∘ y_k)‖²,

    records by records instead of coefficients by coefficients, whose least eigenvector is s: total
    least squares, where noise adds nearly a multiple of the identity. Factors are positive, so the
    sign is known. ``z`` (B, d), ``seen`` (B, K); needs B ≥ K/(K − 1) · unknowns.
    """
    from scipy import linalg

    basis = np.linalg.qr(quadratic_features(z))[0]
    left = -(basis @ basis.T)
    left[np.diag_indices_from(left)] += 1.0
    matrix = left * (seen @ seen.T)
    vector = linalg.eigh(matrix, subset_by_index=[0, 0])[1][:, 0]
    vector *= np.sign(np.sum(vector))
    # One that came out negative is noise: it is no factor, so it counts for nothing.
    return np.asarray(np.maximum(vector, 0.0)[:, None])
