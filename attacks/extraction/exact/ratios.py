"""Extraction of quadratic networks from answers that a server has scaled and shifted.

    y = r·f(x) + t  ──contrasts──►  r·g(x)  ──null vector──►  1/r of every record  ──►  g, up to one
                    (no t left)            (of the records)     least squares, weighted    factor

Scaling and shift hide two of the C numbers of a record from an adversary who knows of them. With C
classes and u = (d+1)(d+2)/2 unknowns a form, there are (C − 1)·u unknowns, and every record gives
C − 2 equations. Where answers also carry noise, the null vector is only a start. Factors and forms
are then fitted in turn: first among all quadratics, then among those that share a row space, whose
rank is read off the spectrum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import linalg

from attacks.core.arrays import Floats
from attacks.core.intervals import exact
from attacks.core.oracle import Oracle, OracleInfo
from attacks.core.result import AttackResult
from attacks.extraction.exact.concealed import Concealment, inverse_factors
from attacks.extraction.exact.quadratic_forms import (
    Centering,
    QuadraticForms,
    check_asking,
    features_in_row_space,
    fit_forms,
    forms_in_row_space,
    quadratic_features,
    row_space,
    ternary_design,
    unknowns,
    unpack_forms,
)
from attacks.extraction.outcome import ExtractionAttempt
from attacks.extraction.setting import ExtractionData

_START_RECORDS = 3000  # that find the factors; the matrix of the start is records squared
_ROUNDS = 4
_PART = 2048  # records whose features are in memory at once


@dataclass(frozen=True, slots=True, kw_only=True)
class RatioExtraction:
    """Steal a network with one layer of squares whose answers a server scales and shifts.

    ``concealment``: what the adversary supposes is done; ``held_out``: queries kept from the fits,
    to choose between them. ``records_per_request``: None sends all in one. Probabilities do as
    well as logits: what they lack is a shift.
    """

    queries: int
    concealment: Concealment = field(default_factory=lambda: Concealment(scaled=True, shifted=True))
    held_out: int = 64
    records_per_request: int | None = None

    def __post_init__(self) -> None:
        check_asking(self.held_out, self.records_per_request)

    def minimum_queries(self, info: OracleInfo) -> int:
        """A twentieth more than equations need, and the held-out ones.

        Raises DataSplitError for too few classes to have ratios.
        """
        return self._needed(info.features, info.classes) + self.held_out

    def _needed(self, features: int, classes: int) -> int:
        numbers, told = classes - int(self.concealment.shifted), self.concealment.told(classes)
        return math.ceil(1.05 * unknowns(features) * numbers / told)

    def run(self, oracle: Oracle, data: ExtractionData, rng: np.random.Generator) -> AttackResult:
        """Query once, fit, judge; ``artifact`` has scores up to one positive factor.

        Raises BudgetError below ``minimum_queries``, AbilityError if only labels come back.
        """
        info = oracle.info
        attempt = ExtractionAttempt.start("ratio-extraction", self, oracle, data, needs_scores=True)
        centering = Centering.of(info)
        z = ternary_design(self.queries - self.held_out, self.held_out, info.features, rng)
        scores = centering.ask(oracle, z, self.records_per_request)
        forms, rank, error = self.steal(z, scores, centering)
        return attempt.finish(
            forms,
            rng,
            has_logits=False,
            extra={
                "rank": exact(float(rank), count=1),
                "held_out_error": exact(error, count=self.held_out),
            },
        )

    def steal(
        self, z: Floats, scores: Floats, centering: Centering
    ) -> tuple[QuadraticForms, int, float]:
        """Centred queries (B, d) and scores (B, classes), the last held out → the forms, the rank
        of their row space, and their error on the held-out, relative to what is seen there."""
        concealment, classes = self.concealment, scores.shape[1]
        coordinates = concealment.coordinates(scores)
        seen, fresh = coordinates[: -self.held_out], coordinates[-self.held_out :]
        known, unknown = z[: -self.held_out], z[-self.held_out :]
        factors = np.ones((len(known), 1))
        if concealment.scaled:
            start = slice(0, max(_START_RECORDS, self._needed(z.shape[1], classes)))
            inverse = inverse_factors(known[start], seen[start])
            first = fit_forms(known[start], inverse * seen[start], centering)
            first = _in_reach(first, known, seen, concealment)
            factors = concealment.factors(first.at(known), seen)
        forms, factors = _alternate(known, seen, factors, centering, concealment, None)
        spare = max(len(known) - unknowns(z.shape[1]), 1)
        rest = seen - factors * forms.at(known)
        noise = float(np.sqrt(np.sum(rest**2) / (spare * seen.shape[1])))
        basis, _ = row_space(forms, noise=noise, spare=spare)
        best, rank = forms, basis.shape[1]
        error = concealment.misfit(forms.at(unknown), fresh)
        if rank < z.shape[1]:
            narrow, _ = _alternate(known, seen, factors, centering, concealment, basis)
            narrow_error = concealment.misfit(narrow.at(unknown), fresh)
            if narrow_error <= 1.05 * error:
                best, error = narrow, narrow_error
        stolen = replace(
            best,
            forms=np.tensordot(_back(concealment, classes), best.forms, axes=1),
            linear=_back(concealment, classes) @ best.linear,
            constants=_back(concealment, classes) @ best.constants,
        )
        spread = float(np.sqrt(np.mean(fresh**2)))
        return stolen, rank, error / spread


def _back(concealment: Concealment, classes: int) -> Floats:
    """(classes, K): from coordinates to scores."""
    width = classes - int(concealment.shifted)
    return concealment.scores(np.eye(width), classes).T


def _in_reach(
    forms: QuadraticForms, z: Floats, seen: Floats, concealment: Concealment
) -> QuadraticForms:
    """The same forms, times the one number that puts the factors in the middle of their range."""
    predicted = forms.at(z)
    power = np.maximum(np.sum(predicted**2, axis=1), np.finfo(np.float64).tiny)
    factors = np.sum(predicted * seen, axis=1) / power
    positive = factors[factors > 0]
    middle = float(np.exp(np.median(np.log(positive)))) if len(positive) else 1.0
    return replace(
        forms,
        forms=middle * forms.forms,
        linear=middle * forms.linear,
        constants=middle * forms.constants,
    )


def _alternate(
    z: Floats,
    seen: Floats,
    factors: Floats,
    centering: Centering,
    concealment: Concealment,
    basis: Floats | None,
) -> tuple[QuadraticForms, Floats]:
    """Forms given the factors by weighted least squares, factors given the forms, in turn."""
    forms = _fit(z, seen, factors, centering, basis)
    if not concealment.scaled:
        return forms, factors
    for _ in range(_ROUNDS):
        factors = concealment.factors(forms.at(z), seen)
        forms = _fit(z, seen, factors, centering, basis)
    return forms, factors


def _fit(
    z: Floats, seen: Floats, factors: Floats, centering: Centering, basis: Floats | None
) -> QuadraticForms:
    """The forms that minimise Σ‖seen − factor · f(z)‖²; with ``basis`` (d, r) Aₖ = Q Sₖ Qᵀ."""
    gram: Floats | None = None
    right: Floats | None = None
    for first in range(0, len(z), _PART):
        part = slice(first, first + _PART)
        features = _features(z[part], basis) * factors[part]
        product, target = features.T @ features, features.T @ seen[part]
        gram = product if gram is None else gram + product
        right = target if right is None else right + target
    assert gram is not None and right is not None
    # Only where answers determine less than all of it does the ridge matter.
    gram[np.diag_indices_from(gram)] += 1e-12 * np.trace(gram) / len(gram)
    solution = linalg.solve(gram, right, assume_a="pos")
    return _forms_of(solution, z.shape[1], centering, basis)


def _features(z: Floats, basis: Floats | None) -> Floats:
    """(B, d) → (B, unknowns): all quadratic features, or those of z in the row space."""
    if basis is None:
        return quadratic_features(z)
    return features_in_row_space(z, basis)


def _forms_of(
    solution: Floats, d: int, centering: Centering, basis: Floats | None
) -> QuadraticForms:
    if basis is None:
        return unpack_forms(solution, d, centering)
    return forms_in_row_space(solution, basis, centering)
