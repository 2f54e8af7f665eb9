"""A model whose every score is a quadratic form, and its least-squares fits.

With one layer of squares a logit is yₖ = zᵀAₖz + lₖ·z + cₖ with Aₖ = Wᵀdiag(aₖ)W: one query gives
an equation for every k at once, and all Aₖ share the rows of W. Three fits follow, each with fewer
unknowns than the one before and so with less of the answers' noise in it:

    every coefficient        (d+1)(d+2)/2 per score     fit_forms
    Aₖ = Q Sₖ Qᵀ             r(r+1)/2 + d + 1           fit_in_row_space
    Aₖ = Wᵀ diag(aₖ) W       h + d + 1, and h·d shared  attacks.extraction.square_layer
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import linalg

from attacks.core.arrays import Floats
from attacks.core.oracle import LOGITS, Oracle, OracleInfo
from attacks.errors import BudgetError, DataSplitError

# Random {−1, 0, 1} entries have variance 2/3, their squares 2/9, products of two of them 4/9:
# features divided by these deviations make the normal equations close to a multiple of one.
_LINEAR = (3 / 2) ** 0.5
_SQUARE = (9 / 2) ** 0.5
_PRODUCT = 3 / 2
_MEAN_SQUARE = 2 / 3
# Below this many unknowns a design may be singular by accident, and checking it costs nothing.
_CHECKED_UNKNOWNS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Centering:
    """Inputs in [low, high] as z = (x − center)/half_width in [−1, 1], flattened."""

    center: float
    half_width: float

    @classmethod
    def of(cls, info: OracleInfo) -> Centering:
        return cls(center=(info.low + info.high) / 2, half_width=(info.high - info.low) / 2)

    def inputs(self, z: Floats, info: OracleInfo) -> Floats:
        """z (B, d) → (B, *input_shape)."""
        return (self.center + self.half_width * z).reshape(-1, *info.input_shape)

    def ask(self, oracle: Oracle, z: Floats, records_per_request: int | None = None) -> Floats:
        """The oracle's scores (B, classes) for z (B, d), all in one request or in several."""
        inputs = self.inputs(z, oracle.info)
        size = records_per_request or len(inputs)
        parts = [oracle.query(inputs[at : at + size]) for at in range(0, len(inputs), size)]
        return np.concatenate([part.require_scores() for part in parts])

    def centered(self, inputs: Floats) -> Floats:
        """(B, *input_shape) → z (B, d)."""
        result: Floats = (inputs.reshape(len(inputs), -1) - self.center) / (self.half_width)
        return result


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class QuadraticForms:
    """Scores zᵀAₖz + lₖ·z + cₖ of centred inputs: a stolen model.

    ``forms`` (classes, d, d) symmetric, ``linear`` (classes, d), ``constants`` (classes,).
    """

    forms: Floats
    linear: Floats
    constants: Floats
    centering: Centering

    def scores(self, inputs: Floats) -> Floats:
        """(B, *input_shape) → (B, classes)."""
        return self.at(self.centering.centered(inputs))

    def at(self, z: Floats) -> Floats:
        """Scores (B, classes) of centred inputs (B, d)."""
        quadratic = np.stack([np.sum((z @ form) * z, axis=1) for form in self.forms], axis=1)
        result: Floats = quadratic + z @ self.linear.T + self.constants
        return result


def without_mean(scores: Floats, info: OracleInfo) -> Floats:
    """Logits as they are; log-probabilities, logits less one unknown per record, about zero."""
    return scores if LOGITS in info.answers else scores - scores.mean(axis=1, keepdims=True)


def check_asking(held_out: int, records_per_request: int | None) -> None:
    """Raise DataSplitError for too few held-out records, or requests that carry none."""
    if held_out < 8:
        raise DataSplitError(f"at least 8 queries are held out, got {held_out}")
    if records_per_request is not None and records_per_request < 1:
        raise DataSplitError(f"a request carries at least 1 record, got {records_per_request}")


def unknowns(features: int) -> int:
    """Coefficients of one quadratic form in ``features`` variables with its affine part."""
    return (features + 1) * (features + 2) // 2


def ternary_design(count: int, held_out: int, features: int, rng: np.random.Generator) -> Floats:
    """Random rows of {−1, 0, 1}, (count + held_out, features).

    The first ``count`` determine every quadratic; a small design is drawn again until it is well
    conditioned, which costs no query. Raises BudgetError if none is.
    """
    for _ in range(50):
        z = rng.integers(-1, 2, size=(count + held_out, features)).astype(np.float64)
        if unknowns(features) > _CHECKED_UNKNOWNS:
            return z
        if np.linalg.cond(quadratic_features(z[:count])) < 1e3:
            return z
    raise BudgetError(
        f"{count} records did not determine {unknowns(features)} coefficients in 50 random "
        "designs: allow more queries"
    )


def quadratic_features(z: Floats) -> Floats:
    """(B, d) → (B, (d+1)(d+2)/2): one, zᵢ, zᵢ², zᵢzⱼ, standardised under the ternary design."""
    rows, columns = np.triu_indices(z.shape[1], 1)
    result: Floats = np.concatenate(
        [
            np.ones((len(z), 1)),
            z * _LINEAR,
            (z * z - _MEAN_SQUARE) * _SQUARE,
            z[:, rows] * z[:, columns] * _PRODUCT,
        ],
        axis=1,
    )
    return result


def fit_forms(z: Floats, scores: Floats, centering: Centering) -> QuadraticForms:
    """All coefficients of all scores by least squares, one factorisation for every score.

    ``z`` (B, d), ``scores`` (B, classes). With fewer records than unknowns, the solution of least
    norm.
    """
    features = quadratic_features(z)
    count, total = features.shape
    if count <= total:
        solution = _least_norm(features, scores)
    else:
        try:
            factor = linalg.cho_factor(features.T @ features, lower=True)
            solution = linalg.cho_solve(factor, features.T @ scores)
        except linalg.LinAlgError:  # a design with too few distinct rows
            solution = np.linalg.lstsq(features, scores, rcond=None)[0].astype(np.float64)
    return unpack_forms(solution, z.shape[1], centering)


def _least_norm(features: Floats, scores: Floats) -> Floats:
    gram = features @ features.T
    # The ridge only matters where two records are the same.
    gram[np.diag_indices_from(gram)] += 1e-9 * np.trace(gram) / len(gram)
    result: Floats = features.T @ linalg.solve(gram, scores, assume_a="pos")
    return result


def unpack_forms(solution: Floats, d: int, centering: Centering) -> QuadraticForms:
    """Coefficients of ``quadratic_features`` (unknowns, classes) as forms in d variables."""
    classes = solution.shape[1]
    rows, columns = np.triu_indices(d, 1)
    squares = solution[1 + d : 1 + 2 * d].T * _SQUARE  # (classes, d)
    forms = np.zeros((classes, d, d))
    forms[:, rows, columns] = solution[1 + 2 * d :].T * (_PRODUCT / 2)
    forms += forms.transpose(0, 2, 1)
    forms[:, np.arange(d), np.arange(d)] = squares
    return QuadraticForms(
        forms=forms,
        linear=solution[1 : 1 + d].T * _LINEAR,
        constants=solution[0] - squares.sum(axis=1) * _MEAN_SQUARE,
        centering=centering,
    )


def row_space(forms: QuadraticForms, *, noise: float, spare: int) -> tuple[Floats, Floats]:
    """The rows that all forms share, (d, r), r read off the spectrum, and the spectrum (d,).

    ``noise``: standard deviation of the answers' errors; ``spare``: records beyond the unknowns.
    An off-diagonal coefficient then errs by about ¾·noise/√spare, and a d × d·classes matrix of
    such errors has no singular value beyond (√d + √(d·classes)) times that (Marchenko and Pastur
    1967); what is larger is signal.
    """
    classes, d, _ = forms.forms.shape
    stacked = forms.forms.transpose(1, 0, 2).reshape(d, classes * d)
    basis, spectrum, _ = np.linalg.svd(stacked, full_matrices=False)
    edge = 0.75 * noise / max(spare, 1) ** 0.5 * (d**0.5 + (d * classes) ** 0.5)
    floor = 1e3 * np.finfo(np.float64).eps * spectrum[0]
    rank = max(1, int(np.count_nonzero(spectrum > max(1.25 * edge, floor))))
    return basis[:, :rank], spectrum


def fit_in_row_space(
    z: Floats, scores: Floats, basis: Floats, centering: Centering
) -> QuadraticForms:
    """Least squares among the forms Aₖ = Q Sₖ Qᵀ with Q = ``basis`` (d, r); the rest stays free."""
    features = features_in_row_space(z, basis)
    solution = np.asarray(np.linalg.lstsq(features, scores, rcond=None)[0], dtype=np.float64)
    return forms_in_row_space(solution, basis, centering)


def features_in_row_space(z: Floats, basis: Floats) -> Floats:
    """1, z and the products of z's coordinates in ``basis`` (d, r): (B, 1 + d + r(r+1)/2)."""
    rows, columns = np.triu_indices(basis.shape[1])
    projected = z @ basis
    return np.concatenate(
        [np.ones((len(z), 1)), z, projected[:, rows] * projected[:, columns]], axis=1
    )


def forms_in_row_space(solution: Floats, basis: Floats, centering: Centering) -> QuadraticForms:
    """The forms whose coefficients of ``features_in_row_space`` are ``solution``."""
    d, rank = basis.shape
    rows, columns = np.triu_indices(rank)
    cores = np.zeros((solution.shape[1], rank, rank))
    cores[:, rows, columns] = solution[1 + d :].T / 2
    cores += cores.transpose(0, 2, 1)
    return QuadraticForms(
        forms=basis @ cores @ basis.T,
        linear=solution[1 : 1 + d].T,
        constants=solution[0],
        centering=centering,
    )
