"""Exact extraction of a network with one layer of squares, in one request.

Every logit is one quadratic form of the input, so (d+1)(d+2)/2 answers determine all of them, and
the forms determine the weights up to scale, sign and order. The design decides how much noise the
answers may carry: random {−1, 0, 1} entries, mapped onto the interval that inputs must lie in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from attacks.core.arrays import Floats
from attacks.core.intervals import exact
from attacks.core.oracle import LOGITS, Oracle, OracleInfo
from attacks.core.result import AttackResult
from attacks.errors import AbilityError
from attacks.extraction.exact.quadratic_forms import (
    Centering,
    QuadraticForms,
    check_asking,
    fit_forms,
    fit_in_row_space,
    row_space,
    ternary_design,
    unknowns,
    without_mean,
)
from attacks.extraction.exact.square_layer import refine
from attacks.extraction.exact.weights import HiddenLayer, layer_of, recover_weights
from attacks.extraction.outcome import ExtractionAttempt, check_curve, smaller_budgets
from attacks.extraction.setting import ExtractionData, StolenModel

# A fit whose error on unseen queries is above this share of the answers' spread is no quadratic.
_QUADRATIC = 0.05
# Below this share of the spread, fits differ by rounding only.
_ROUNDING = 1e-10


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class QuadraticFits:
    """What one set of answers gave.

    ``forms``: least squares over all coefficients; ``projected``: within the row space that the
    forms share, or None; ``layer``: the weights, or None. ``rank``: of that row space. ``noise``:
    the answers' error as the residual shows it. ``held_out``: root mean square error of
    each fit on queries that no fit has seen, by name; ``spread``: of the answers there.
    """

    forms: QuadraticForms
    projected: QuadraticForms | None
    layer: HiddenLayer | None
    rank: int
    noise: float
    held_out: dict[str, float]
    spread: float

    @property
    def best(self) -> StolenModel:
        """The fit with fewest unknowns that errs no more on held-out queries than the others."""
        allowed = max(1.05 * min(self.held_out.values()), _ROUNDING * self.spread)
        fits = (("layer", self.layer), ("projected", self.projected))
        for name, fit in fits:
            if fit is not None and self.held_out[name] <= allowed:
                return fit
        return self.forms

    @property
    def is_quadratic(self) -> bool:
        return min(self.held_out.values()) <= _QUADRATIC * self.spread


@dataclass(frozen=True, slots=True, kw_only=True)
class QuadraticExtraction:
    """Steal a network with one layer of squares from at most ``queries`` records.

    ``held_out``: queries kept from the fits, to choose among them and to say honestly how well
    the best one predicts. ``records_per_request``: None sends all in one. ``curve_points``: how
    many smaller budgets the fidelity curve shows. Needs logits, or probabilities, from which the
    scores follow up to a constant per record.
    """

    queries: int = 3000
    held_out: int = 64
    records_per_request: int | None = None
    curve_points: int = 4

    def __post_init__(self) -> None:
        check_asking(self.held_out, self.records_per_request)
        check_curve(self.curve_points)

    def minimum_queries(self, info: OracleInfo) -> int:
        """One fifth more than there are unknowns, and the held-out ones."""
        return math.ceil(1.2 * unknowns(info.features)) + self.held_out

    def run(self, oracle: Oracle, data: ExtractionData, rng: np.random.Generator) -> AttackResult:
        """Query once, fit, and judge the best fit; ``artifact`` is a HiddenLayer if one was found.

        Raises BudgetError below ``minimum_queries``, AbilityError if only labels come back.
        """
        info = oracle.info
        attempt = ExtractionAttempt.start(
            "quadratic-extraction", self, oracle, data, needs_scores=True
        )
        z, scores = self.ask(oracle, rng)
        fits = self.steal(z, scores, Centering.of(info), rng)
        metrics = {
            "rank": exact(float(fits.rank), count=1),
            "noise": exact(fits.noise, count=len(z) - self.held_out),
            "held_out_error": exact(min(fits.held_out.values()) / fits.spread, count=self.held_out),
            "channels_recovered": exact(
                0.0 if fits.layer is None else float(len(fits.layer.weights)), count=1
            ),
        }
        return attempt.finish(
            fits.best,
            rng,
            # What a fit of all coefficients makes of half the queries, a quarter, …
            stages=[
                (count, fit_forms(z[:count], scores[:count], Centering.of(info)))
                for count in smaller_budgets(self.queries, self.curve_points)
                if count >= 2
            ],
            up_to_constant=LOGITS not in info.answers,
            extra=metrics,
            notes=_notes(fits),
        )

    def ask(self, oracle: Oracle, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Centred queries (queries, d) and their scores (queries, classes)."""
        info = oracle.info
        z = ternary_design(self.queries - self.held_out, self.held_out, info.features, rng)
        scores = Centering.of(info).ask(oracle, z, self.records_per_request)
        return z, without_mean(scores, info)

    def steal(
        self, z: Floats, scores: Floats, centering: Centering, rng: np.random.Generator
    ) -> QuadraticFits:
        """Fit centred queries ``z`` (B, d) with ``scores`` (B, classes); the last are held out."""
        seen, fresh = z[: -self.held_out], z[-self.held_out :]
        answers, fresh_answers = scores[: -self.held_out], scores[-self.held_out :]
        spare = len(seen) - unknowns(z.shape[1])
        spread = float(np.sqrt(np.mean((fresh_answers - fresh_answers.mean(axis=0)) ** 2)))

        def error(predicted: Floats) -> float:
            return float(np.sqrt(np.mean((predicted - fresh_answers) ** 2)))

        forms = fit_forms(seen, answers, centering)
        misfit = float(np.sum((answers - forms.at(seen)) ** 2))
        noise = math.sqrt(misfit / (max(spare, 1) * scores.shape[1]))
        held_out = {"forms": error(forms.at(fresh))}
        basis, _ = row_space(forms, noise=noise, spare=spare)
        projected: QuadraticForms | None = None
        layer: HiddenLayer | None = None
        if held_out["forms"] <= _QUADRATIC * spread or basis.shape[1] < z.shape[1]:
            projected = fit_in_row_space(seen, answers, basis, centering)
            held_out["projected"] = error(projected.at(fresh))
            try:
                start = recover_weights(projected, rng, rank=basis.shape[1])
            except AbilityError:  # one form only: the function is stolen, the weights are not
                start = None
            if start is not None:
                fit = refine(start.weights, seen, answers)
                candidate = layer_of(fit.rows, fit.outputs, fit.linear, fit.constants, centering)
                unmapped = fresh * centering.half_width + centering.center
                layer_error = error(candidate.scores(unmapped))
                # More channels than features, or channels that never came apart: no weights.
                if layer_error <= max(2 * held_out["projected"], _ROUNDING * spread):
                    layer, held_out["layer"] = candidate, layer_error
        return QuadraticFits(
            forms=forms,
            projected=projected,
            layer=layer,
            rank=basis.shape[1],
            noise=noise,
            held_out=held_out,
            spread=max(spread, float(np.finfo(np.float64).tiny)),
        )


def _notes(fits: QuadraticFits) -> tuple[str, ...]:
    error = min(fits.held_out.values())
    share = error / fits.spread
    if not fits.is_quadratic:
        return (
            f"the target is not a quadratic of its input: on held-out queries the best fit errs by "
            f"{error:.3g}, {share:.0%} of the answers' spread, so what was stolen is a rough "
            "imitation",
        )
    noise = f"answers carry noise of about {fits.noise:.2g}; held-out error {error:.2g}"
    if fits.layer is None:
        return (
            noise,
            "the function was stolen but not the weights: they follow only from two or more "
            "scores and at most as many channels as features",
        )
    return (noise, f"{len(fits.layer.weights)} channels recovered up to scale, sign and order")
