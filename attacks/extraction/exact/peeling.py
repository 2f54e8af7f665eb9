"""Recovers the layers of a network of squares, one after the other, from its polynomial.

With y = Wt + b and f = g(y∘y) every score is even in every yᵢ. So all gradients vanish together
where y = 0, and every Hessian there is Wᵀ diag(2∂g/∂sᵢ) W. Gauss-Newton finds the point, and
simultaneous diagonalisation finds W. What is left is g, a polynomial of half the degree in
s = y∘y. It has few unknowns, and its first layer is recovered in the same way.

Identifiability: Usevich et al. 2025; Hessians that span the first
layer: Fornasier, Vybíral and Daubechies 2021.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from attacks.core.arrays import Floats
from attacks.errors import AbilityError
from attacks.extraction.exact.polynomials import Polynomials, fit_polynomials
from attacks.extraction.exact.quadratic_forms import Centering, QuadraticForms
from attacks.extraction.exact.weights import recover_weights

_STARTS = 12
_NEWTON_STEPS = 60
_REFINEMENTS = 6
_UNIT = Centering(center=0.0, half_width=1.0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SquareLayer:
    """v → (``weights`` v + ``biases``)², weights (h, n), rows of unit length."""

    weights: Floats
    biases: Floats

    def at(self, values: Floats) -> Floats:
        """(B, n) → (B, h)."""
        result: Floats = (values @ self.weights.T + self.biases) ** 2
        return result


def refine_map(
    weights: Floats, biases: Floats, values: Floats, scores: Floats, degree: int, *, squared: bool
) -> tuple[Floats, Floats]:
    """Search W (h, n) and b (h,) of P(Wv + b), or of P((Wv + b)²), against the answers.

    ``values`` v (B, n), ``scores`` (B, classes). P is any polynomial of ``degree`` and follows by
    least squares: variable projection, Gauss-Newton, rows kept at unit length.
    """

    def fitted(rows: Floats, shift: Floats) -> tuple[Floats, Floats, Polynomials, Floats]:
        inner = values @ rows.T + shift
        outer = inner**2 if squared else inner
        head, _ = fit_polynomials(outer, scores, degree)
        return inner, outer, head, scores - head.at(outer)

    inner, outer, head, rest = fitted(weights, biases)
    extended = np.concatenate([values, np.ones((len(values), 1))], axis=1)
    for _ in range(_REFINEMENTS):
        slopes = head.gradients(outer)  # (B, classes, h)
        if squared:
            slopes = slopes * (2 * inner)[:, None, :]
        jacobian = np.einsum("bch,bn->bchn", slopes, extended).reshape(*rest.shape, -1)
        columns = np.linalg.qr(head.features(outer))[0]
        flat = jacobian.reshape(len(values), -1)
        flat = (flat - columns @ (columns.T @ flat)).reshape(rest.size, -1)
        step = np.linalg.lstsq(flat, rest.ravel(), rcond=1e-10)[0].reshape(len(weights), -1)
        before = float(np.sum(rest**2))
        for halving in range(5):
            rows = weights + step[:, :-1] / 2**halving
            lengths = np.linalg.norm(rows, axis=1)
            shift = (biases + step[:, -1] / 2**halving) / lengths
            trial = fitted(rows / lengths[:, None], shift)
            if float(np.sum(trial[3] ** 2)) < before:
                weights, biases = rows / lengths[:, None], shift
                inner, outer, head, rest = trial
                break
        if float(np.sum(rest**2)) > 0.999 * before:
            break
    return weights, biases


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PeeledNetwork:
    """A stolen model: layers of squares that were recovered, then polynomials of what is left.

    ``basis`` (n, r): the head sees ``values @ basis`` only. ``centering``: the first layer takes
    centred inputs.
    """

    centering: Centering
    layers: tuple[SquareLayer, ...]
    basis: Floats
    head: Polynomials

    def scores(self, inputs: Floats) -> Floats:
        """(B, *input_shape) → (B, classes)."""
        return self.at(self.centering.centered(inputs))

    def at(self, z: Floats) -> Floats:
        """Scores (B, classes) of centred inputs (B, d)."""
        return self.head.at(self.hidden(z) @ self.basis)

    def hidden(self, z: Floats) -> Floats:
        """What enters the head, before its basis: (B, d) → (B, n)."""
        values = z
        for layer in self.layers:
            values = layer.at(values)
        return values


def peel(
    network: PeeledNetwork, z: Floats, scores: Floats, residual: float, rng: np.random.Generator
) -> PeeledNetwork | None:
    """``network`` with one more layer recovered, refitted on centred ``z`` (B, d) with ``scores``.

    ``residual``: root mean square error of the head on its own records. None if there is no common
    critical point, one score only, more channels than the head has variables, or the smaller model
    does not explain the answers as well: then the layer stays hidden.
    """
    head = network.head
    if head.degree < 2:
        return None
    values = network.hidden(z) @ network.basis  # (B, r)
    point = _common_critical_point(head, values, residual, rng)
    if point is None:
        return None
    try:
        rows = recover_weights(_forms_at(head, point), rng, rank=len(point)).weights
    except (AbilityError, np.linalg.LinAlgError):
        return None
    if len(rows) < len(point):
        return None
    hidden = network.hidden(z)
    weights, biases = refine_map(
        rows @ network.basis.T, -rows @ point, hidden, scores, head.degree // 2, squared=True
    )
    layer = SquareLayer(weights=weights, biases=biases)
    layers = (*network.layers, layer)
    squares = layer.at(hidden)
    whole, misfit = fit_polynomials(squares, scores, head.degree // 2)
    spread = float(scores.std())
    if misfit > max(3 * residual, 1e-8 * spread):
        return None
    basis = _gradient_space(whole, squares, misfit / spread, rng)
    if basis.shape[1] < squares.shape[1]:
        basis = refined_basis(basis, squares, scores, head.degree // 2)
        whole, misfit = fit_polynomials(squares @ basis, scores, head.degree // 2)
    else:
        basis = np.eye(squares.shape[1])
    return PeeledNetwork(centering=network.centering, layers=layers, basis=basis, head=whole)


def refined_basis(basis: Floats, values: Floats, scores: Floats, degree: int) -> Floats:
    """Orthonormal (n, r) near ``basis`` on which the scores depend, from all answers at once."""
    rows, _ = refine_map(basis.T, np.zeros(basis.shape[1]), values, scores, degree, squared=False)
    result: Floats = np.linalg.qr(rows.T)[0]
    return result


def _forms_at(head: Polynomials, point: Floats) -> QuadraticForms:
    forms = head.hessian(point) / 2
    return QuadraticForms(
        forms=forms,
        linear=np.zeros(forms.shape[:2]),
        constants=np.zeros(len(forms)),
        centering=_UNIT,
    )


def _common_critical_point(
    head: Polynomials, values: Floats, residual: float, rng: np.random.Generator
) -> Floats | None:
    """Where all gradients vanish, (r,), or None; sought from the middle and random records."""
    starts = [values.mean(axis=0), *values[rng.integers(0, len(values), _STARTS - 1)]]
    scale = np.mean([np.linalg.norm(head.gradient(start)) for start in starts])
    spread = float(np.ptp(head.at(values), axis=0).max())
    allowed = max(1e-7, 100 * residual / spread) * scale
    best, best_norm = None, np.inf
    for start in starts:
        point, norm = _gauss_newton(head, start, reach=8 * float(np.abs(values).max()))
        if norm < best_norm:
            best, best_norm = point, norm
        if norm < 1e-3 * allowed:
            break
    return best if best_norm <= allowed else None


def _gauss_newton(head: Polynomials, start: Floats, *, reach: float) -> tuple[Floats, float]:
    """A point that makes the stacked gradients small, and their norm there."""
    point, slopes = start, head.gradient(start).ravel()
    for _ in range(_NEWTON_STEPS):
        jacobian = head.hessian(point).reshape(len(slopes), len(point))
        step = np.linalg.lstsq(jacobian, -slopes, rcond=None)[0]
        for halving in range(8):
            trial = point + step / 2**halving
            if np.abs(trial).max() > reach:
                continue
            trial_slopes = head.gradient(trial).ravel()
            if np.linalg.norm(trial_slopes) < np.linalg.norm(slopes):
                point, slopes = trial, trial_slopes
                break
        else:
            break
    return point, float(np.linalg.norm(slopes))


def _gradient_space(
    head: Polynomials, values: Floats, relative_noise: float, rng: np.random.Generator
) -> Floats:
    """Directions that the scores depend on, orthonormal (n, r), from gradients at records."""
    chosen = values[rng.integers(0, len(values), 4 * values.shape[1])]
    slopes = np.concatenate([head.gradient(point) for point in chosen])
    _, spectrum, rows = np.linalg.svd(slopes, full_matrices=False)
    floor = max(1e-7, 20 * relative_noise) * spectrum[0]
    rank = max(1, int(np.count_nonzero(spectrum > floor)))
    basis: Floats = rows[:rank].T
    return basis
