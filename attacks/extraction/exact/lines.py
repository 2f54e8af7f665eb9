"""Extraction of deeper networks of squares by restriction to lines.

On a line, a network of degree D is a polynomial of degree D in one variable: a few lines tell D,
and D+1 answers give an exact directional derivative of every logit. Gradients at a few points span
the rows of the first layer (Fornasier, Vybíral and Daubechies 2021), which leaves a polynomial in
as many variables as that layer has channels; regression gives it, and
:mod:`attacks.extraction.peeling` turns it into layers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from attacks.core.arrays import Floats
from attacks.core.intervals import exact
from attacks.core.oracle import LOGITS, Oracle, OracleInfo
from attacks.core.result import AttackResult
from attacks.errors import DataSplitError
from attacks.extraction.exact.peeling import PeeledNetwork, peel, refined_basis
from attacks.extraction.exact.polynomials import fit_polynomials, line_derivatives, term_count
from attacks.extraction.exact.quadratic_forms import Centering, without_mean
from attacks.extraction.outcome import ExtractionAttempt, check_curve, smaller_budgets
from attacks.extraction.setting import ExtractionData, StolenModel

_DEGREE_LINES = 4
_HELD_OUT = 32
# Records per unknown of the regression; fewer make it amplify noise.
_OVERSAMPLING = 1.2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Asker:
    oracle: Oracle
    centering: Centering

    def scores(self, z: Floats) -> Floats:
        """Of centred records (B, d) in [−1, 1]; centred over classes if there are no logits."""
        return without_mean(self.centering.ask(self.oracle, np.clip(z, -1, 1)), self.oracle.info)


@dataclass(frozen=True, slots=True, kw_only=True)
class LineExtraction:
    """Steal a network of squares of degree ``max_degree`` or less with ``queries`` records.

    What the search for the degree and the gradients leave of the budget goes into the regression.
    Needs logits or probabilities.
    """

    queries: int
    max_degree: int = 8
    curve_points: int = 3

    def __post_init__(self) -> None:
        check_curve(self.curve_points)
        if self.max_degree < 1:
            raise DataSplitError(
                f"line extraction takes a degree of 1 or more, got {self.max_degree}"
            )

    def minimum_queries(self, info: OracleInfo) -> int:
        """For the first two stages at degree 2 and a regression in one variable.

        What a target really needs depends on its degree and its channels; a budget in between
        gives a rougher model, and a note says what would do.
        """
        first = self._degree_cost() + self._gradient_cost(info, min(2, self.max_degree))
        return first + math.ceil(_OVERSAMPLING * term_count(1, 2)) + _HELD_OUT

    def run(self, oracle: Oracle, data: ExtractionData, rng: np.random.Generator) -> AttackResult:
        """Find the degree, the row space, the polynomial, the layers; ``artifact`` is a
        PeeledNetwork.

        Raises BudgetError below ``minimum_queries``, AbilityError if only labels come back.
        """
        info = oracle.info
        attempt = ExtractionAttempt.start("line-extraction", self, oracle, data, needs_scores=True)
        centering = Centering.of(info)
        asker = _Asker(oracle=oracle, centering=centering)
        degree, noise = self._degree(asker, info.features, rng)
        notes: list[str] = []
        spent = self._degree_cost()
        left = self.queries - spent - _HELD_OUT
        basis = np.eye(info.features)
        if self._gradient_cost(info, degree) + 2 * (info.features + 1) <= left:
            basis = self._row_space(asker, degree, noise, rng)
            left -= self._gradient_cost(info, degree)
        else:
            notes.append("too few queries to look for the row space of the first layer")
        rank = basis.shape[1]
        needed = math.ceil(_OVERSAMPLING * term_count(rank, degree))
        fitted = degree
        while fitted > 1 and _OVERSAMPLING * term_count(rank, fitted) > left:
            fitted -= 1
        if fitted < degree:
            notes.append(
                f"a polynomial of degree {degree} in {rank} variables needs {needed} queries, "
                f"{left} were left: degree {fitted} was fitted, and the result is not exact"
            )
        # Denser towards the ends, as polynomial regression wants its points.
        z = np.cos(rng.uniform(0, np.pi, (left + _HELD_OUT, info.features)))
        scores = asker.scores(z)
        seen, answers = z[:left], scores[:left]

        if rank < info.features and left > 2 * term_count(rank, fitted) / info.classes:
            # Gradients at a few points give the row space roughly; all answers give it well.
            basis = refined_basis(basis, seen, answers, fitted)

        def whole(count: int) -> tuple[PeeledNetwork, float]:
            head, residual = fit_polynomials(seen[:count] @ basis, answers[:count], fitted)
            return (
                PeeledNetwork(centering=centering, layers=(), basis=basis, head=head),
                residual,
            )

        def error(network: PeeledNetwork) -> float:
            return float(np.sqrt(np.mean((network.at(z[left:]) - scores[left:]) ** 2)))

        first, residual = whole(left)
        found = best = first
        errors = [error(first)]
        floor = 1e-10 * float(scores.std())
        while fitted == degree:
            peeled = peel(found, seen, answers, residual, rng)
            if peeled is None:
                break
            found = peeled
            errors.append(error(found))
            # Fewer unknowns usually mean less error; more means a layer was misread.
            if errors[-1] <= max(1.5 * min(errors), floor):
                best = found
        spread = float(scores[left:].std())
        notes.append(_summary(best, degree, rank, error(best) / spread, noise))
        stages: list[tuple[int, StolenModel]] = [
            (self.queries - left + count, whole(count)[0])
            for count in smaller_budgets(left, self.curve_points)
            if count > 1
        ]
        return attempt.finish(
            best,
            rng,
            stages=stages,
            up_to_constant=LOGITS not in info.answers,
            extra={
                "degree": exact(float(degree), count=_DEGREE_LINES),
                "rank": exact(float(rank), count=1),
                "layers_recovered": exact(float(len(best.layers)), count=1),
                "held_out_error": exact(error(best) / spread, count=_HELD_OUT),
            },
            notes=notes,
        )

    def _degree_cost(self) -> int:
        return _DEGREE_LINES * (2 * self.max_degree + 1)

    def _gradient_points(self, features: int, classes: int) -> int:
        return math.ceil(features / classes) + 1

    def _gradient_cost(self, info: OracleInfo, degree: int) -> int:
        return self._gradient_points(info.features, info.classes) * (info.features * degree + 1)

    def _degree(self, asker: _Asker, features: int, rng: np.random.Generator) -> tuple[int, float]:
        """The lowest degree that explains the answers on random diagonals as well as
        ``max_degree`` does, and the noise that is left."""
        count = 2 * self.max_degree + 1
        positions = np.cos(np.pi * (np.arange(count) + 0.5) / count)
        directions = rng.choice([-1.0, 1.0], (_DEGREE_LINES, features))
        z = positions[None, :, None] * directions[:, None, :]  # (lines, count, d)
        answers = asker.scores(z.reshape(-1, features)).reshape(_DEGREE_LINES, count, -1)
        flat = answers.transpose(1, 0, 2).reshape(count, -1)
        table = np.polynomial.chebyshev.chebvander(positions, self.max_degree)

        def misfit(degree: int) -> float:
            columns = table[:, : degree + 1]
            solution = np.linalg.lstsq(columns, flat, rcond=None)[0]
            rest = float(np.sum((flat - columns @ solution) ** 2))
            return math.sqrt(rest / ((count - degree - 1) * flat.shape[1]))

        noise = misfit(self.max_degree)
        allowed = max(1.5 * noise, 1e-11 * float(np.abs(flat).max()))
        for degree in range(1, self.max_degree):
            if misfit(degree) <= allowed:
                return degree, noise
        return self.max_degree, noise

    def _row_space(
        self, asker: _Asker, degree: int, noise: float, rng: np.random.Generator
    ) -> Floats:
        """Orthonormal (d, r): what the gradients at random points span."""
        info = asker.oracle.info
        d, points = info.features, self._gradient_points(info.features, info.classes)
        offsets = np.cos(np.pi * (np.arange(degree) + 0.5) / degree) if degree > 1 else np.ones(1)
        offsets = 0.5 * np.where(np.abs(offsets) < 1e-9, 1.0, offsets)
        positions = np.concatenate([[0.0], offsets])
        middles = rng.uniform(-0.5, 0.5, (points, d))
        moved = offsets[:, None] * np.eye(d)[:, None, :]  # (d, D, d)
        z = middles[:, None, None, :] + moved[None]
        here = asker.scores(np.concatenate([middles, z.reshape(-1, d)]))
        at_middles, at_lines = here[:points], here[points:].reshape(points, d, degree, -1)
        slopes = []
        for middle, lines in zip(at_middles, at_lines, strict=True):
            start = np.broadcast_to(middle, (d, 1, len(middle)))
            slopes.append(line_derivatives(np.concatenate([start, lines], axis=1), positions).T)
        stacked = np.concatenate(slopes)  # (points·classes, d)
        _, spectrum, rows = np.linalg.svd(stacked, full_matrices=False)
        weights = np.linalg.inv(np.vander(positions, increasing=True))[1]
        # The value at the middle is shared by all d lines: an error along the vector of ones.
        edge = noise * float(np.linalg.norm(weights)) * (d**0.5 + len(stacked) ** 0.5)
        edge += noise * abs(float(weights[0])) * (d * len(stacked)) ** 0.5
        rank = max(1, int(np.count_nonzero(spectrum > max(edge, 1e-9 * spectrum[0]))))
        basis: Floats = rows[:rank].T
        return basis


def _summary(best: PeeledNetwork, degree: int, rank: int, error: float, noise: float) -> str:
    widths = " and ".join(str(len(layer.weights)) for layer in best.layers)
    layers = f"layers of {widths} channels recovered" if best.layers else "no layer recovered"
    return (
        f"degree {degree}, {rank} directions matter, {layers}; held-out error {error:.2g} of the "
        f"answers' spread, noise about {noise:.2g}"
    )
