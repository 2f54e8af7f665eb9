"""Approximations by projection: least squares under one weight or another.

All of them minimise ∫ w(x)·(f(x) - p(x))² dx and differ in the weight w only:

    least_squares         1
    chebyshev             1 / sqrt(1 - u²)
    weighted_chebyshev    exp(-1 / (1e-5 + x²)) / sqrt(1 - u²)
    hermite               the normal density (on the whole line)
    derivative_based      exp(-1 / (1e-5 + x²)), applied to the derivative

Integrals are computed by Gauss-Legendre quadrature on panels that meet at zero, so that the
kink of ReLU costs no accuracy.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.polynomial import chebyshev as cheb
from numpy.polynomial import legendre

from he_infer.activations.approx.functions import DERIVATIVES, Array, Function
from he_infer.activations.approx.polynomial import (
    Interval,
    Polynomial,
    center_and_radius,
    chebyshev_nodes,
    check_request,
    dense_grid,
    evaluate,
    fitted,
    interpolation_coefficients,
)
from he_infer.errors import ApproximationError

_PANELS: Final = 24  # on each side of the kink
_NODES: Final = 24
_DIFFERENCE_STEP: Final = 6e-6  # cube root of the rounding unit, the best for a central difference


def cryptodl_weight(x: Array) -> Array:
    """CryptoDL's measure exp(-1 / (1e-5 + x²)): it ignores the neighbourhood of the kink at 0.

    x is in the function's own units. Source: Hesamifard, Takabi, Ghasemi, "CryptoDL: Deep
    Neural Networks over Encrypted Data", arXiv:1711.05189 (2017).
    """
    return np.exp(-1.0 / (1e-5 + np.square(x)))


def least_squares(function: Function, *, interval: Interval, degree: int) -> Polynomial:
    """Minimise the mean squared error over the interval, every point weighing the same.

    Raises ApproximationError for an empty interval, a bad degree or values that are not finite.
    Source: Legendre projection; Kim, Song, Wang, Xia, Jiang, "Secure Logistic Regression Based
    on Homomorphic Encryption", JMIR Medical Informatics 6(2), 2018 uses it for the sigmoid.
    """
    check_request(interval, degree)
    x, dx = _quadrature(interval, degree)
    return fitted(function, _project(evaluate(function, x), x, dx, interval, degree), interval)


def chebyshev(function: Function, *, interval: Interval, degree: int) -> Polynomial:
    """Truncate the Chebyshev series, which is within a factor ~log(degree) of the best.

    Coefficients are c_k = (2/π)·∫ f(cos θ)·cos kθ dθ (half of it for k = 0).
    Raises ApproximationError as least_squares does.
    Source: Trefethen, "Approximation Theory and Approximation Practice", theorem 3.1.
    """
    check_request(interval, degree)
    theta, x, dtheta = _angles(interval, degree)
    values = evaluate(function, x) * dtheta
    waves = np.cos(np.outer(np.arange(degree + 1), theta))
    coefficients = (2.0 / np.pi) * (waves @ values)
    coefficients[0] *= 0.5
    return fitted(function, coefficients, interval)


def weighted_chebyshev(
    function: Function,
    *,
    interval: Interval,
    degree: int,
    weight: Callable[[Array], Array] = cryptodl_weight,
) -> Polynomial:
    """Project under a modified Chebyshev measure: ``weight(x)`` / sqrt(1 - u²).

    The default weight is CryptoDL's, which turns this into its "modified Chebyshev" method.
    Raises ApproximationError as least_squares does, and for a weight that leaves the
    polynomial undetermined: negative, or zero nearly everywhere (CryptoDL's is, on intervals
    of radius below about 0.1; rescale the function or give another weight).
    Source: after Hesamifard, Takabi, Ghasemi, arXiv:1711.05189; that the two weights multiply
    is this module's reading of it.
    """
    check_request(interval, degree)
    _, x, dtheta = _angles(interval, degree)
    measure = evaluate(weight, x) * dtheta
    return fitted(function, _project(evaluate(function, x), x, measure, interval, degree), interval)


def derivative_based(
    function: Function,
    *,
    interval: Interval,
    degree: int,
    weight: Callable[[Array], Array] = cryptodl_weight,
    derivative: Function | None = None,
) -> Polynomial:
    """Approximate the derivative by weighted least squares and integrate the result.

    A network is trained through its activations' derivatives, so those are what CryptoDL fits.
    ``derivative`` defaults to the exact one of a named function and to central differences
    otherwise. The constant of integration, which the derivative leaves open, is chosen so
    that the largest error above equals the largest below.
    Raises ApproximationError as weighted_chebyshev does, and for a degree below 1.
    Source: Hesamifard, Takabi, Ghasemi, arXiv:1711.05189, "approximation based on derivative".
    """
    check_request(interval, degree, lowest=1)
    slope = derivative or DERIVATIVES.get(function) or _central_difference(function, interval)
    x, dx = _quadrature(interval, degree)
    measure = evaluate(weight, x) * dx
    slopes = _project(evaluate(slope, x), x, measure, interval, degree - 1)
    center, radius = center_and_radius(interval)
    integral = np.zeros(degree + 1)
    raw = cheb.chebint(slopes, scl=radius)
    integral[: raw.size] = raw
    grid = dense_grid(interval, 64 * degree + 1024)
    error = evaluate(function, grid) - cheb.chebval((grid - center) / radius, integral)
    integral[0] += 0.5 * (error.max() + error.min())
    return fitted(function, integral, interval)


def hermite(
    function: Function,
    *,
    interval: Interval,
    degree: int,
    mean: float | None = None,
    std: float | None = None,
) -> Polynomial:
    """Project under a normal density, the distribution of inputs after batch normalisation.

    ``mean`` and ``std`` default to the interval's centre and a quarter of its radius: a
    calibrated range is about four standard deviations to each side. The function is sampled
    up to 12 standard deviations out, so it must be defined there.
    Raises ApproximationError as least_squares does, and for a ``std`` that is not positive.
    Source: Park, Kim, Jung, Kim, Lee, "AESPA: Accuracy Preserving Low-degree Polynomial
    Activation for Fast Private Inference", arXiv:2201.06699 (HerPN); ReLU's first coefficients
    in the orthonormal basis are 1/sqrt(2π), 1/2, 1/sqrt(4π).
    """
    check_request(interval, degree)
    center, radius = center_and_radius(interval)
    mean = center if mean is None else mean
    std = 0.25 * radius if std is None else std
    if not (np.isfinite(mean) and np.isfinite(std) and std > 0.0):
        raise ApproximationError(f"expected a finite mean and a positive std, got {mean}, {std}")
    x, dx = _quadrature((mean - 12.0 * std, mean + 12.0 * std), degree)
    z = (x - mean) / std
    root = np.sqrt(dx * np.exp(-0.5 * z * z) / (std * np.sqrt(2.0 * np.pi)))
    # The functions carry sqrt(weight) along: the bare polynomials overflow that far out.
    expansion = _hermite_functions(z, root, degree) @ (evaluate(function, x) * root)
    # Their values at Chebyshev nodes carry the sum over to the Chebyshev basis.
    t = (center + radius * chebyshev_nodes(degree + 1) - mean) / std
    values = expansion @ _hermite_functions(t, np.ones_like(t), degree)
    return fitted(function, interpolation_coefficients(values), interval)


def _hermite_functions(z: Array, first: Array, degree: int) -> Array:
    """Orthonormal Hermite polynomials at ``z``, times ``first``; (degree + 1, points)."""
    rows = [first]
    for k in range(degree):
        previous = rows[k - 1] * np.sqrt(k) if k else 0.0
        rows.append((z * rows[k] - previous) / np.sqrt(k + 1.0))
    return np.stack(rows)


def _quadrature(interval: Interval, degree: int) -> tuple[Array, Array]:
    """Gauss-Legendre panels over the interval, meeting at zero: (nodes, weights)."""
    low, high = interval
    per_side = _PANELS + degree // 8
    kinks = [low, 0.0, high] if low < 0.0 < high else [low, high]
    edges = np.unique(np.concatenate([np.linspace(a, b, per_side + 1) for a, b in pairwise(kinks)]))
    t, w = legendre.leggauss(_NODES)
    half = 0.5 * np.diff(edges)[:, None]
    middle = 0.5 * (edges[:-1] + edges[1:])[:, None]
    return (middle + half * t).ravel(), (half * w).ravel()


def _angles(interval: Interval, degree: int) -> tuple[Array, Array, Array]:
    """Quadrature in θ with x = center + radius·cos θ: (angles, positions, weights)."""
    center, radius = center_and_radius(interval)
    split = float(np.arccos(np.clip(-center / radius, -1.0, 1.0)))
    # The split moves the kink at x = 0 to the zero of a shifted angle.
    shifted, dtheta = _quadrature((-split, np.pi - split), degree)
    theta = shifted + split
    return theta, center + radius * np.cos(theta), dtheta


def _project(values: Array, x: Array, measure: Array, interval: Interval, degree: int) -> Array:
    """Weighted least squares in the Chebyshev basis; ``measure`` = weight × quadrature weight."""
    if (measure < 0.0).any() or not measure.any():
        raise ApproximationError("the weight is negative or zero everywhere on the interval")
    center, radius = center_and_radius(interval)
    root = np.sqrt(measure / measure.max())
    design = cheb.chebvander((x - center) / radius, degree) * root[:, None]
    coefficients, _, rank, _ = np.linalg.lstsq(design, values * root, rcond=1e-11)
    if rank <= degree:
        raise ApproximationError(
            f"the weight leaves a degree {degree} polynomial undetermined on "
            f"[{interval[0]}, {interval[1]}]: lower the degree, widen the interval "
            "or give another weight"
        )
    return np.asarray(coefficients, dtype=np.float64)


def _central_difference(function: Function, interval: Interval) -> Function:
    low, high = interval
    step = _DIFFERENCE_STEP * 0.5 * (high - low)

    def slope(x: Array) -> Array:
        # Clamped, because the function need not exist outside the interval.
        left, right = np.maximum(x - step, low), np.minimum(x + step, high)
        rise = evaluate(function, right) - evaluate(function, left)
        return np.asarray(rise / (right - left), dtype=np.float64)

    return slope
